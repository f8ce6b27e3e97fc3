//! The real program, killed by `SIGKILL` at random moments and at named places, frozen, and left
//! without its database: what it promised is kept.
//!
//! Each run has a seed of its own, which a failure shows; `CRASH_SEED` repeats its moments.
//! `CRASH_KILLS` says how many kills there are in all per database: `cargo xtask crash` asks for
//! hundreds.

#![expect(clippy::print_stdout, reason = "a run tells its seed and what it did")]

mod check;
mod frozen;
mod ledger;
mod load;
mod outage;
mod places;
mod random;
mod recovery;
mod scheduled;
mod site;
mod storm;
mod workers;
