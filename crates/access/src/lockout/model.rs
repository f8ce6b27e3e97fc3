//! How long somebody waits, and where failures are counted. No I/O in this file.

use std::net::IpAddr;
use std::time::Duration;

use ring::digest::{SHA256, digest};

/// Failures of an account at an address before it waits there.
const ACCOUNT_FAILURES: i64 = 5;
/// Failures of an address before it waits.
const ADDRESS_FAILURES: i64 = 20;
const LONGEST_LOCK: Duration = Duration::from_secs(15 * 60);

/// How long an account waits at an address after so many failures there: a second after the fifth, twice as
/// long after each further one, and a quarter of an hour at most.
pub(crate) fn account_lock(failures: i64) -> Option<Duration> {
    lock(failures - ACCOUNT_FAILURES)
}

/// The same for an address, after the twentieth.
pub(crate) fn address_lock(failures: i64) -> Option<Duration> {
    lock(failures - ADDRESS_FAILURES)
}

/// Failures are forgotten when there were no others for so long.
pub(crate) const FORGOTTEN: Duration = LONGEST_LOCK;

fn lock(beyond: i64) -> Option<Duration> {
    let doublings = u32::try_from(beyond.min(20)).ok()?;
    Some(Duration::from_secs(1 << doublings).min(LONGEST_LOCK))
}

/// The address as failures are counted: of IPv6 the network, since a household has many.
pub(crate) fn place(address: Option<IpAddr>) -> String {
    match address.map(|it| it.to_canonical()) {
        Some(IpAddr::V4(it)) => it.to_string(),
        Some(IpAddr::V6(it)) => {
            let [a, b, c, d, ..] = it.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        None => "unknown".to_owned(),
    }
}

/// What stands for an e-mail address where anybody may write any.
pub(super) fn account(email: &str) -> String {
    let bytes = digest(&SHA256, email.as_bytes());
    bytes.as_ref().iter().map(|it| format!("{it:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_double_up_to_a_quarter_of_an_hour() {
        let seconds = |it: Option<Duration>| it.map(|it| it.as_secs());
        for (failures, expected) in
            [(0, None), (4, None), (5, Some(1)), (6, Some(2)), (14, Some(512)), (15, Some(900))]
        {
            assert_eq!(seconds(account_lock(failures)), expected, "{failures}");
        }
        assert_eq!(seconds(account_lock(i64::MAX)), Some(900));
        assert_eq!(seconds(address_lock(19)), None);
        assert_eq!(seconds(address_lock(20)), Some(1));
    }

    #[test]
    fn addresses_are_counted_by_network() {
        for (text, counted) in [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(place(Some(text.parse().unwrap())), counted);
        }
        assert_eq!(place(None), "unknown");
    }
}
