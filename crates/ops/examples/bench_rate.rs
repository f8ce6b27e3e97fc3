//! What a decision about rate limits costs in memory: in CPU time of this thread, which other work on the
//! machine disturbs least.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;

use modelyard_kernel::Clock;
use modelyard_ops::rate::{Decision, ENTRIES, Limiter, MemoryStore, OnFailure, RateLimiting, Who};

const DECISIONS: u32 = 1_000_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let two = RateLimiting::new(["1000000/minute", "1000000000/day"]);
    let cases = [
        ("one limit", RateLimiting::new(["1000000/minute"]), 1000),
        ("two limits", two.clone(), 1000),
        ("two limits and a quota", two.clone().quota("1000000000/month"), 1000),
        ("two limits, refused", RateLimiting::new(["1/day", "1/hour"]), 1000),
        ("two limits, memory full", two, 1_000_000),
    ];
    for (name, limits, callers) in cases {
        let clock = Clock::system();
        let store = Arc::new(MemoryStore::new(clock.clone(), ENTRIES));
        let limiter = Limiter::new(store, OnFailure::Open, clock);
        let limits = limits.read("bench").unwrap();
        let subjects: Vec<String> =
            (0..callers).map(|it| format!("key:01K6ZSNMW{it:017}")).collect();
        let mut refused = 0;
        // Once before, so that those who come are known.
        for rounds in [DECISIONS, DECISIONS] {
            let began = cpu_nanos();
            refused = 0;
            for subject in subjects.iter().cycle().take(rounds as usize) {
                let who = Who { subject: Some(subject), ..Who::default() };
                let decision = runtime.block_on(limiter.reserve(limits.of(None), &who, 1)).unwrap();
                refused += u32::from(matches!(black_box(decision), Decision::Refused(_)));
            }
            let each = (cpu_nanos() - began) / u64::from(rounds);
            println!("{name}: {each} ns of CPU each ({callers} callers, {refused} refused)");
        }
        black_box(refused);
    }
}

/// CPU time of this thread so far.
fn cpu_nanos() -> u64 {
    let text = fs_err::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
