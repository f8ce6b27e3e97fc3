//! As in `run.rs`, what is fuzzed of `modelyard-flow`.

use super::{Cron, Time};

/// A cron expression and, in another line, its time zone.
pub fn cron(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (expression, zone) = text.split_once('\n').unwrap_or((&text, "Europe/Berlin"));
    match Cron::read(expression, zone.trim_end()) {
        Ok(cron) => {
            let mut after = Time::from_micros(1_790_000_000_123_456);
            for _ in 0..5 {
                let next = cron.next(after).expect("what is read fires");
                assert!(next > after);
                assert!(!cron.local(next).is_empty());
                after = next;
            }
        }
        Err(refused) => assert!(refused.to_string().len() < 1000),
    }
}
