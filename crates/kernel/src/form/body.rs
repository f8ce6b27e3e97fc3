//! From the bytes of a request to a JSON document, or to the violation that clients know.

use serde_json::{Value, json};

use super::{Loc, Violation};

/// Deepest nesting of lists and objects; the parser gives up at the same depth.
pub(crate) const MAX_DEPTH: usize = 128;

/// Parses the body of a request.
///
/// There is a violation when the body is empty, when its type is not JSON, and when it is not
/// well-formed; then the place names the character, counted from 0, and `ctx.error` what was wrong
/// there. `NaN` and `Infinity` are not JSON, numbers too large for a float neither. Of equal keys
/// the last one counts.
pub fn parse_body(content_type: Option<&str>, bytes: &[u8]) -> Result<Value, Vec<Violation>> {
    if bytes.is_empty() {
        return Err(vec![Violation::missing(body_loc(), &Value::Null)]);
    }
    if !content_type.is_some_and(is_json) {
        let text = Value::String(String::from_utf8_lossy(bytes).into_owned());
        let msg = "Input should be a valid dictionary or object to extract fields from";
        return Err(vec![Violation::new("model_attributes_type", body_loc(), msg, &text, None)]);
    }
    serde_json::from_slice(bytes).map_err(|error| vec![not_json(bytes, &error)])
}

fn body_loc() -> Vec<Loc> {
    vec![Loc::Key("body".to_owned())]
}

/// `application/json` and `application/*+json`, with or without parameters.
pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

fn not_json(bytes: &[u8], error: &serde_json::Error) -> Violation {
    let Fault { at, reason } = find_fault(bytes).unwrap_or_else(|| Fault {
        at: offset(bytes, error.line(), error.column()),
        reason: "Expecting value",
    });
    let mut loc = body_loc();
    loc.push(Loc::Index(String::from_utf8_lossy(&bytes[..at.min(bytes.len())]).chars().count()));
    let ctx = json!({"error": reason});
    Violation {
        kind: "json_invalid",
        loc,
        msg: "JSON decode error".to_owned(),
        input: json!({}),
        ctx: Some(ctx),
    }
}

/// The byte that a line and a column (both from 1) speak of.
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    before + column.saturating_sub(1)
}

/// What is wrong, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    at: usize,
    reason: &'static str,
}

fn fault<T>(at: usize, reason: &'static str) -> Result<T, Fault> {
    Err(Fault { at, reason })
}

/// Walks a refused document once more, to say what is wrong in the words of Python's `json`.
fn find_fault(bytes: &[u8]) -> Option<Fault> {
    if let Err(error) = std::str::from_utf8(bytes) {
        return Some(Fault { at: error.valid_up_to(), reason: "Invalid UTF-8" });
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        return Some(Fault { at: 0, reason: "Unexpected UTF-8 BOM" });
    }
    Scanner { bytes }.document().err()
}

/// Each step takes the index where it begins and gives the index after it.
struct Scanner<'a> {
    bytes: &'a [u8],
}

impl Scanner<'_> {
    fn peek(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn space(&self, mut at: usize) -> usize {
        while matches!(self.peek(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        at
    }

    fn document(&self) -> Result<(), Fault> {
        let end = self.value(self.space(0), 0)?;
        let end = self.space(end);
        if end < self.bytes.len() { fault(end, "Extra data") } else { Ok(()) }
    }

    fn value(&self, at: usize, depth: usize) -> Result<usize, Fault> {
        match self.peek(at) {
            Some(b'{' | b'[') if depth + 1 >= MAX_DEPTH => fault(at, "Nesting too deep"),
            Some(b'{') => self.object(at + 1, depth + 1),
            Some(b'[') => self.array(at + 1, depth + 1),
            Some(b'"') => self.string(at),
            Some(b'-' | b'0'..=b'9') => self.number(at),
            _ => self.word(at),
        }
    }

    fn word(&self, at: usize) -> Result<usize, Fault> {
        let rest = &self.bytes[at.min(self.bytes.len())..];
        if rest.starts_with(b"NaN") || rest.starts_with(b"Infinity") {
            return fault(at, "Out of range float values are not JSON compliant");
        }
        let words: [&[u8]; 3] = [b"true", b"false", b"null"];
        match words.iter().find(|word| rest.starts_with(word)) {
            Some(word) => Ok(at + word.len()),
            None => fault(at, "Expecting value"),
        }
    }

    fn object(&self, at: usize, depth: usize) -> Result<usize, Fault> {
        let mut at = self.space(at);
        if self.peek(at) == Some(b'}') {
            return Ok(at + 1);
        }
        loop {
            if self.peek(at) != Some(b'"') {
                return fault(at, "Expecting property name enclosed in double quotes");
            }
            at = self.space(self.string(at)?);
            if self.peek(at) != Some(b':') {
                return fault(at, "Expecting ':' delimiter");
            }
            at = self.value(self.space(at + 1), depth)?;
            at = match self.separator(at, b'}', "Illegal trailing comma before end of object")? {
                Next::Item(at) => at,
                Next::End(at) => return Ok(at),
            };
        }
    }

    fn array(&self, at: usize, depth: usize) -> Result<usize, Fault> {
        let mut at = self.space(at);
        if self.peek(at) == Some(b']') {
            return Ok(at + 1);
        }
        loop {
            at = self.value(at, depth)?;
            at = match self.separator(at, b']', "Illegal trailing comma before end of array")? {
                Next::Item(at) => at,
                Next::End(at) => return Ok(at),
            };
        }
    }

    fn separator(&self, at: usize, close: u8, trailing: &'static str) -> Result<Next, Fault> {
        let at = self.space(at);
        match self.peek(at) {
            Some(byte) if byte == close => Ok(Next::End(at + 1)),
            Some(b',') => {
                let next = self.space(at + 1);
                if self.peek(next) == Some(close) {
                    fault(at, trailing)
                } else {
                    Ok(Next::Item(next))
                }
            }
            _ => fault(at, "Expecting ',' delimiter"),
        }
    }

    fn string(&self, begin: usize) -> Result<usize, Fault> {
        let mut at = begin + 1;
        loop {
            at = match self.peek(at) {
                None => return fault(begin, "Unterminated string starting at"),
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') => self.escape(begin, at)?,
                Some(byte) if byte < 0x20 => return fault(at, "Invalid control character at"),
                Some(_) => at + 1,
            };
        }
    }

    fn escape(&self, begin: usize, at: usize) -> Result<usize, Fault> {
        match self.peek(at + 1) {
            None => fault(begin, "Unterminated string starting at"),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u') => self.unicode(at + 1),
            Some(_) => fault(at, "Invalid \\escape"),
        }
    }

    /// From the `u` of `\u1234`. Halves of surrogate pairs stand for no character.
    fn unicode(&self, at: usize) -> Result<usize, Fault> {
        let invalid = fault(at, "Invalid \\uXXXX escape");
        match self.code_unit(at) {
            Some(0xD800..=0xDBFF) => {
                let pair = self.peek(at + 5) == Some(b'\\') && self.peek(at + 6) == Some(b'u');
                match self.code_unit(at + 6) {
                    Some(0xDC00..=0xDFFF) if pair => Ok(at + 11),
                    None if pair => fault(at + 6, "Invalid \\uXXXX escape"),
                    _ => invalid,
                }
            }
            None | Some(0xDC00..=0xDFFF) => invalid,
            Some(_) => Ok(at + 5),
        }
    }

    /// The digits after a `u`, which something must follow.
    fn code_unit(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at + 1..at + 6)?.get(..4)?;
        digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
    }

    fn number(&self, begin: usize) -> Result<usize, Fault> {
        let mut at = begin + usize::from(self.peek(begin) == Some(b'-'));
        at = match self.peek(at) {
            Some(b'0') => at + 1,
            Some(b'1'..=b'9') => self.digits(at),
            Some(b'I') if self.bytes[at..].starts_with(b"Infinity") => {
                return fault(begin, "Out of range float values are not JSON compliant");
            }
            _ => return fault(begin, "Expecting value"),
        };
        if self.peek(at) == Some(b'.') && self.digits(at + 1) > at + 1 {
            at = self.digits(at + 1);
        }
        if matches!(self.peek(at), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.peek(at + 1), Some(b'+' | b'-')));
            let digits = at + 1 + sign;
            at = if self.digits(digits) > digits { self.digits(digits) } else { at };
        }
        let text = std::str::from_utf8(&self.bytes[begin..at]).unwrap_or_default();
        if text.parse::<f64>().is_ok_and(f64::is_infinite) {
            return fault(begin, "Out of range float values are not JSON compliant");
        }
        Ok(at)
    }

    fn digits(&self, mut at: usize) -> usize {
        while self.peek(at).is_some_and(|byte| byte.is_ascii_digit()) {
            at += 1;
        }
        at
    }
}

enum Next {
    Item(usize),
    End(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const JSON: Option<&str> = Some("application/json");

    fn fault_of(text: &str) -> (usize, String) {
        let violations = parse_body(JSON, text.as_bytes()).unwrap_err();
        assert_eq!(violations.len(), 1);
        let violation = &violations[0];
        assert_eq!((violation.kind, violation.msg.as_str()), ("json_invalid", "JSON decode error"));
        assert_eq!(violation.input, json!({}));
        let [Loc::Key(body), Loc::Index(at)] = violation.loc.as_slice() else { panic!("a place") };
        assert_eq!(body, "body");
        let reason = violation.ctx.as_ref().unwrap()["error"].as_str().unwrap().to_owned();
        (*at, reason)
    }

    #[test]
    fn what_is_no_json_is_explained_in_the_words_of_python() {
        let value = "Expecting value";
        let name = "Expecting property name enclosed in double quotes";
        let comma = "Expecting ',' delimiter";
        let colon = "Expecting ':' delimiter";
        let extra = "Extra data";
        let open = "Unterminated string starting at";
        let control = "Invalid control character at";
        let escape = "Invalid \\escape";
        let unicode = "Invalid \\uXXXX escape";
        let array = "Illegal trailing comma before end of array";
        let object = "Illegal trailing comma before end of object";
        // Recorded from Python 3.13.
        let recorded = [
            ("{not json", 1, name),
            ("{", 1, name),
            ("[1,]", 2, array),
            ("{\"a\":1,}", 6, object),
            ("[1, ]", 2, array),
            ("[1 2]", 3, comma),
            ("{\"a\" 1}", 5, colon),
            ("{\"a\":}", 5, value),
            ("{\"a\":1 \"b\":2}", 7, comma),
            ("\"abc", 0, open),
            ("\"a\nb\"", 2, control),
            ("\"a\\qb\"", 2, escape),
            ("\"\\u12\"", 2, unicode),
            ("\"\\u12G4\"", 2, unicode),
            ("[", 1, value),
            ("nul", 0, value),
            ("-", 0, value),
            ("-a", 0, value),
            ("01", 1, extra),
            ("1.", 1, extra),
            ("1.e5", 1, extra),
            ("1e", 1, extra),
            ("+1", 0, value),
            ("{} x", 3, extra),
            ("1 2", 2, extra),
            ("{\"a\":\"x\ty\"}", 7, control),
            ("{1:2}", 1, name),
            ("{\"a\":1,,}", 7, name),
            ("[,1]", 1, value),
            ("{'a':1}", 1, name),
            (" ", 1, value),
            ("\n\t", 2, value),
            ("[1,2", 4, comma),
            ("{\"a\":[1,2}", 9, comma),
            ("{\"a\":1", 6, comma),
            ("{\"é\":x}", 5, value),
            ("\"\\u", 2, unicode),
            ("\"\\u00e9", 2, unicode),
            ("\"abc\\", 0, open),
            ("{\"a", 1, open),
            ("[1}", 2, comma),
            ("// c", 0, value),
            ("[1,\n 2,\n x]", 9, value),
            ("\"\0\"", 1, control),
            ("-01", 2, extra),
            ("1.5.2", 3, extra),
            ("{\"a\":1}}", 7, extra),
            ("{,}", 1, name),
            ("\"\\ud800\\u12\"", 8, unicode),
            ("\"\\u+123\"", 2, unicode),
            ("1E+", 1, extra),
        ];
        for (text, at, reason) in recorded {
            assert_eq!(fault_of(text), (at, reason.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn what_python_takes_for_json_but_is_none_is_refused() {
        let range = "Out of range float values are not JSON compliant";
        for (text, at) in [("[NaN]", 1), ("[1, -Infinity]", 4), ("Infinity", 0), ("[1e999]", 1)] {
            assert_eq!(fault_of(text), (at, range.to_owned()), "{text}");
        }
        assert_eq!(fault_of("\"\\ud800\""), (2, "Invalid \\uXXXX escape".to_owned()));
        assert_eq!(fault_of("\u{feff}{}"), (0, "Unexpected UTF-8 BOM".to_owned()));
        let violations = parse_body(JSON, b"[\"\xff\"]").unwrap_err();
        assert_eq!(violations[0].ctx, Some(json!({"error": "Invalid UTF-8"})));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse_body(JSON, nested(127).as_bytes()).is_ok());
        assert_eq!(fault_of(&nested(128)), (127, "Nesting too deep".to_owned()));
        assert_eq!(fault_of(&"[".repeat(1_000_000)), (127, "Nesting too deep".to_owned()));
    }

    #[test]
    fn an_empty_body_is_missing() {
        for content_type in [None, JSON] {
            let violations = parse_body(content_type, b"").unwrap_err();
            let expected = json!([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": null}]);
            assert_eq!(serde_json::to_value(violations).unwrap(), expected);
        }
    }

    #[test]
    fn a_body_of_another_type_is_a_text() {
        for content_type in [None, Some("text/plain"), Some("text/json"), Some("application/xml")] {
            let violations = parse_body(content_type, br#"{"name":"x","data":{}}"#).unwrap_err();
            let expected = json!([{"type": "model_attributes_type", "loc": ["body"],
                "msg": "Input should be a valid dictionary or object to extract fields from",
                "input": "{\"name\":\"x\",\"data\":{}}"}]);
            assert_eq!(serde_json::to_value(violations).unwrap(), expected);
        }
    }

    #[test]
    fn json_has_several_content_types() {
        let types = ["application/json", "Application/JSON; charset=utf-8", "application/geo+json"];
        for content_type in types {
            assert_eq!(parse_body(Some(content_type), b"{}"), Ok(json!({})), "{content_type}");
        }
    }

    #[test]
    fn large_integers_survive_and_the_last_key_counts() {
        let body = br#"{"a": 1, "n": 12345678901234567890, "a": -9223372036854775808}"#;
        let parsed = parse_body(JSON, body).unwrap();
        assert_eq!(parsed["n"].as_u64(), Some(12_345_678_901_234_567_890));
        assert_eq!(parsed["a"].as_i64(), Some(i64::MIN));
        assert_eq!(
            parse_body(JSON, b"123456789012345678901234").unwrap(),
            json!(1.234_567_890_123_456_8e23)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_document_or_a_fault(bytes: Vec<u8>) {
            let _ = parse_body(JSON, &bytes);
        }

        #[test]
        fn a_refused_document_has_a_fault_of_ours(
            text in r#"[\[\]{}:,"\\ \n\t0-9eE+.tfnulrasdN-]{0,40}"#,
        ) {
            if serde_json::from_str::<Value>(&text).is_err() {
                let fault = find_fault(text.as_bytes());
                prop_assert!(fault.is_some(), "{text:?}");
                prop_assert!(fault.is_some_and(|fault| fault.at <= text.len()));
            } else {
                prop_assert_eq!(find_fault(text.as_bytes()), None);
            }
        }
    }
}
