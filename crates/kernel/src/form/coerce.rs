//! Text and numbers into numbers and booleans, with the leniency that clients rely on.

/// Why something is not an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotInt {
    Unparsable,
    Fraction,
    TooLarge,
}

/// An integer from text: surrounding space, a sign, leading zeros, `1_000` and `1.0` are fine.
pub(super) fn int_from_text(text: &str) -> Result<i64, NotInt> {
    let text = text.trim();
    let (integer, fraction) = text.split_once('.').map_or((text, None), |(i, f)| (i, Some(f)));
    if fraction.is_some_and(|f| f.is_empty() || f.bytes().any(|b| b != b'0')) {
        return Err(NotInt::Unparsable);
    }
    let digits = integer.strip_prefix(['+', '-']).unwrap_or(integer);
    if !well_grouped(digits) || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return Err(NotInt::Unparsable);
    }
    let mut value: i64 = 0;
    for digit in digits.bytes().filter(|b| *b != b'_').map(|b| i64::from(b - b'0')) {
        // Counting down, because the smallest integer has no positive counterpart.
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_sub(digit))
            .ok_or(NotInt::TooLarge)?;
    }
    if integer.starts_with('-') {
        return Ok(value);
    }
    value.checked_neg().ok_or(NotInt::TooLarge)
}

/// An integer from a float that is one.
pub(super) fn int_from_float(value: f64) -> Result<i64, NotInt> {
    if value.fract() != 0.0 {
        return Err(NotInt::Fraction);
    }
    // Two to the 63rd: the first float above the range.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if !(-BEYOND..BEYOND).contains(&value) {
        return Err(NotInt::TooLarge);
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and within range, see above")]
    Ok(value as i64)
}

/// A float from text: surrounding space and `1_000.5` are fine. May be infinite or not a number.
pub(super) fn float_from_text(text: &str) -> Option<f64> {
    let text = text.trim();
    if !text.contains('_') {
        return text.parse().ok();
    }
    if !well_grouped(text) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// A boolean from the words for it, in any case.
pub(super) fn bool_from_text(text: &str) -> Option<bool> {
    const TRUE: [&str; 6] = ["1", "on", "t", "true", "y", "yes"];
    const FALSE: [&str; 6] = ["0", "off", "f", "false", "n", "no"];
    let is_one_of = |words: [&str; 6]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_one_of(TRUE) {
        return Some(true);
    }
    is_one_of(FALSE).then_some(false)
}

/// Underscores only between digits.
fn well_grouped(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.iter().enumerate().all(|(at, byte)| {
            let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
            *byte != b'_' || (at > 0 && is_digit(at - 1) && is_digit(at + 1))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_read_from_text_as_leniently_as_clients_expect() {
        let read = [
            ("7", 7),
            (" 7 ", 7),
            ("+7", 7),
            ("-0", 0),
            ("007", 7),
            ("1_000", 1000),
            ("1.0", 1),
            ("1.00", 1),
            ("-1.0", -1),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, value) in read {
            assert_eq!(int_from_text(text), Ok(value), "{text}");
        }
        let unread =
            ["", " ", "abc", "1.5", "1e3", "0x10", "٣", "7.", ".0", "1__0", "_1", "1_", "+"];
        for text in unread {
            assert_eq!(int_from_text(text), Err(NotInt::Unparsable), "{text}");
        }
        assert_eq!(int_from_text("9223372036854775808"), Err(NotInt::TooLarge));
    }

    #[test]
    fn integers_are_read_from_whole_floats() {
        assert_eq!(int_from_float(1.0), Ok(1));
        assert_eq!(int_from_float(9e18), Ok(9_000_000_000_000_000_000));
        assert_eq!(int_from_float(1.5), Err(NotInt::Fraction));
        assert_eq!(int_from_float(1e300), Err(NotInt::TooLarge));
        assert_eq!(int_from_float(-9_223_372_036_854_775_808.0), Ok(i64::MIN));
        assert_eq!(int_from_float(9_223_372_036_854_775_808.0), Err(NotInt::TooLarge));
    }

    #[test]
    fn floats_are_read_from_text() {
        for (text, value) in [("1.5", 1.5), (" 1e3 ", 1000.0), ("1.", 1.0), ("1_0.5", 10.5)] {
            assert_eq!(float_from_text(text), Some(value), "{text}");
        }
        for text in ["", "abc", "0x1p3", "٣.٥", "1__0", "_1"] {
            assert_eq!(float_from_text(text), None, "{text}");
        }
        assert!(float_from_text("nan").is_some_and(f64::is_nan));
    }

    #[test]
    fn booleans_are_read_from_their_words() {
        for word in ["true", "TRUE", "yes", "on", "t", "y", "1"] {
            assert_eq!(bool_from_text(word), Some(true), "{word}");
        }
        for word in ["false", "No", "off", "f", "n", "0"] {
            assert_eq!(bool_from_text(word), Some(false), "{word}");
        }
        for word in ["", " true", "2", "ja"] {
            assert_eq!(bool_from_text(word), None, "{word}");
        }
    }

    proptest! {
        #[test]
        fn every_integer_is_read_back_from_its_text(value: i64) {
            prop_assert_eq!(int_from_text(&value.to_string()), Ok(value));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = (int_from_text(&text), float_from_text(&text), bool_from_text(&text));
        }
    }
}
