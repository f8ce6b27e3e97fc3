//! Durations and sizes as people write them in a manifest: `"30m"`, `"2GiB"`.

use std::time::Duration;

/// What a duration may look like, for error messages.
pub const DURATION: &str = "a duration such as \"90s\", \"30m\" or \"2h\"";
/// What a size may look like, for error messages.
pub const SIZE: &str = "a size such as \"64MiB\", \"2GiB\" or \"500MB\"";

/// Reads a whole number and one unit out of `ms`, `s`, `m`, `h`, `d`. Zero is no duration.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Reads a whole number and one unit out of `B`, `kB`/`KB`, `MB`, `GB`, `TB` (powers of 1000) and
/// `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024), in bytes. Zero is no size.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    Some((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        assert_eq!(duration("30m"), Some(Duration::from_secs(1800)));
        assert_eq!(duration(" 2 h "), Some(Duration::from_secs(7200)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for bad in
            ["", "30", "m", "0s", "-1s", "1.5h", "1h30m", "30 minutes", "99999999999999999999d"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn reads_sizes() {
        assert_eq!(size("2GiB"), Some(2 << 30));
        assert_eq!(size("500 MB"), Some(500_000_000));
        for bad in ["", "64", "MiB", "0B", "64mib", "18446744073709551615TiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
