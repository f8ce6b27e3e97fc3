//! `cargo xtask bench`: how much the service costs, beside what it replaces.
//!
//! Machines are noisy, so the first figure is the server's own CPU time per request, which other
//! work on the machine disturbs least.

mod auth;
mod contestant;
mod jobs;
mod load;
mod measure;
mod payload;
mod process;
mod rate;
mod report;
mod serve;

use anyhow::{Result, bail};

pub fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["serve", rest @ ..] => serve::run(rest),
        ["jobs", rest @ ..] => jobs::run(rest),
        ["auth", rest @ ..] => auth::run(rest),
        ["rate"] => rate::run(),
        other => bail!(
            "there is no benchmark `{}`; there are `serve`, `jobs`, `auth` and `rate`",
            other.join(" ")
        ),
    }
}
