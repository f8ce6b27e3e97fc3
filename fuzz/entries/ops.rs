//! As in `run.rs`, what is fuzzed of `modelyard-ops`.

use super::Policy;

/// A limit: what is read says the same again, and takes one request when nothing is used.
pub fn rate(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<Policy>() {
        Ok(policy) => {
            assert_eq!(policy.to_string(), text);
            assert_eq!(policy.to_string().parse::<Policy>().as_ref(), Ok(&policy));
            let now = 1_790_000_000_123_456;
            let empty = policy.at(None, now);
            assert!(policy.allows(empty, 1));
            let used = policy.take(empty, 1);
            let (before, after) =
                (policy.standing(empty, now, 1), policy.standing(used, now, u64::MAX));
            assert_eq!(before.remaining, after.remaining + 1);
            assert_eq!(after.retry, None);
            let later = now + i64::try_from(after.reset.as_micros()).expect("it is soon");
            assert_eq!(policy.at(Some(used), later).used, 0);
        }
        Err(refused) => assert!(refused.to_string().len() < 1000),
    }
}
