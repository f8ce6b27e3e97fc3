//! Integers that are too long to be kept: parsed, they would come back as other numbers.

use std::ops::Range;

use serde_json::Value;

use super::violation::Violations;
use super::{Loc, Report, Violation, shorten};

/// The shortest integer that may be too long: `i64` ends in one of as many digits.
const DIGITS: usize = 19;

/// The integers of a JSON text that are no `i64` and no `u64`, outside of texts. Nothing is said of
/// a text that is no JSON.
pub fn long_integers(json: &[u8]) -> Violations {
    let report = Report::new();
    if has_many_digits(json) {
        Walk { json, inside: Vec::new() }.run(&report);
    }
    report.finish().err().unwrap_or_default()
}

/// Whether so many digits follow each other somewhere; looks at few of the bytes when not.
fn has_many_digits(json: &[u8]) -> bool {
    let mut begin = 0;
    while let Some(window) = json.get(begin..begin + DIGITS) {
        match window.iter().rposition(|byte| !byte.is_ascii_digit()) {
            Some(at) => begin += at + 1,
            None => return true,
        }
    }
    false
}

/// A list with the index of its item, or an object with its key, quoted.
enum Inside {
    List(usize),
    Object(Option<Range<usize>>),
}

struct Walk<'a> {
    json: &'a [u8],
    inside: Vec<Inside>,
}

impl Walk<'_> {
    fn run(&mut self, report: &Report) {
        let mut at = 0;
        while let Some(byte) = self.json.get(at) {
            let begin = at;
            at += 1;
            match byte {
                b'[' => self.inside.push(Inside::List(0)),
                b'{' => self.inside.push(Inside::Object(None)),
                b']' | b'}' => _ = self.inside.pop(),
                b',' => match self.inside.last_mut() {
                    Some(Inside::List(index)) => *index += 1,
                    Some(Inside::Object(key)) => *key = None,
                    None => {}
                },
                b'"' => {
                    at = self.end_of_text(at);
                    if let Some(Inside::Object(key @ None)) = self.inside.last_mut() {
                        *key = Some(begin..at);
                    }
                }
                b'-' | b'0'..=b'9' => {
                    let number =
                        |it: &u8| matches!(it, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                    at += self.json[at..].iter().take_while(|it| number(it)).count();
                    self.check(&self.json[begin..at], report);
                }
                _ => {}
            }
        }
    }

    fn end_of_text(&self, mut at: usize) -> usize {
        while let Some(byte) = self.json.get(at) {
            match byte {
                b'"' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.json.len()
    }

    fn check(&self, number: &[u8], report: &Report) {
        let digits = number.strip_prefix(b"-").unwrap_or(number);
        if digits.len() < DIGITS || !digits.iter().all(u8::is_ascii_digit) {
            return;
        }
        let text = String::from_utf8_lossy(number);
        if text.parse::<i64>().is_err() && text.parse::<u64>().is_err() {
            let msg = "Unable to parse input string as an integer, exceeded maximum size";
            let input = Value::from(shorten(&text));
            report.push(|| Violation::new("int_parsing_size", self.loc(), msg, &input, None));
        }
    }

    fn loc(&self) -> Vec<Loc> {
        let steps = self.inside.iter().map(|it| match it {
            Inside::List(index) => Loc::Index(*index),
            Inside::Object(key) => {
                let key = key.clone().and_then(|it| serde_json::from_slice(&self.json[it]).ok());
                Loc::Key(key.unwrap_or_default())
            }
        });
        std::iter::once("body".into()).chain(steps).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn found(json: &str) -> Vec<(Value, Value)> {
        let found = long_integers(json.as_bytes());
        found.into_iter().map(|it| (json!(it.loc), it.input)).collect()
    }

    #[test]
    fn integers_that_are_kept_are_nothing_to_say() {
        let kept = "[9223372036854775807, -9223372036854775808, 18446744073709551615,\
            12345678901234567890123.0, 1234567890123456789012e3, \"123456789012345678901234\",\
            0.12345678901234567890123456]";
        assert_eq!(found(kept), []);
        assert_eq!(
            serde_json::from_str::<Value>(kept).unwrap()[2].to_string(),
            u64::MAX.to_string()
        );
    }

    #[test]
    fn each_one_that_is_not_is_named_with_its_place() {
        let json = r#" {"a": {"\u0062": [0, {"x": 1}, [-9223372036854775809]], "c\"": "1"},
            "12345678901234567890": "12345678901234567890", "d": 18446744073709551616}"#;
        assert_eq!(
            found(json),
            [
                (json!(["body", "a", "b", 2, 0]), json!("-9223372036854775809")),
                (json!(["body", "d"]), json!("18446744073709551616")),
            ]
        );
        let digits = "7".repeat(1_000_000);
        assert_eq!(found(&digits), [(json!(["body"]), json!(digits[..64]))]);
        let many =
            long_integers(format!("[{}1]", format!("{},", &digits[..30]).repeat(200)).as_bytes());
        assert!(many.len() == 100 && many.has_more());
    }

    proptest! {
        #[test]
        fn any_text_is_walked(text in "[\\[\\]{}\",:\\\\0-9e.-]{0,60}", digits in "[0-9]{15,25}") {
            let _ = found(&format!("{text}{digits}{text}"));
            let _ = found(&text);
        }

        #[test]
        fn what_is_not_named_is_kept(number in "-?[1-9][0-9]{0,22}") {
            let parsed: Value = serde_json::from_str(&number).unwrap();
            let kept = parsed.to_string();
            prop_assert_eq!(found(&number).is_empty(), kept == number);
        }
    }
}
