//! What is different between two JSON documents, beyond what differs from run to run: ids, times,
//! durations, the machine, the sizes of archives, and traces of calls.

use std::fmt;

use serde_json::{Map, Number, Value};

use super::bind::{Bindings, is_id};

/// One difference, and where it is: `/items/0/name` in a body, or a word such as `status`.
#[derive(Debug)]
pub struct Difference {
    pub place: String,
    pub kind: Kind,
    pub recorded: Value,
    pub ours: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// We have less.
    Lacks,
    /// We have more.
    Adds,
    /// We say something else.
    Changes,
}

impl Difference {
    pub fn change(place: &str, recorded: impl Into<Value>, ours: impl Into<Value>) -> Self {
        let (recorded, ours) = (recorded.into(), ours.into());
        Self { place: place.to_owned(), kind: Kind::Changes, recorded, ours }
    }

    pub fn lack(place: &str, recorded: impl Into<Value>) -> Self {
        let (recorded, ours) = (recorded.into(), Value::Null);
        Self { place: place.to_owned(), kind: Kind::Lacks, recorded, ours }
    }

    pub fn addition(place: &str, ours: impl Into<Value>) -> Self {
        let (recorded, ours) = (Value::Null, ours.into());
        Self { place: place.to_owned(), kind: Kind::Adds, recorded, ours }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, kind, recorded, ours } = self;
        match kind {
            Kind::Lacks => write!(f, "{place} is missing: {recorded}"),
            Kind::Adds => write!(f, "{place} is not in the recording: {ours}"),
            Kind::Changes => write!(f, "{place}\n      recorded {recorded}\n      ours     {ours}"),
        }
    }
}

/// Compares documents of one server.
#[derive(Debug)]
pub struct Comparison<'a> {
    pub bindings: &'a mut Bindings,
    /// How far numbers that are not whole may be from each other, in parts of themselves.
    pub tolerance: f64,
    pub found: Vec<Difference>,
}

impl Comparison<'_> {
    pub fn values(&mut self, place: &str, recorded: &Value, ours: &Value) {
        match (recorded, ours) {
            (Value::Object(a), Value::Object(b)) => self.objects(place, a, b),
            (Value::Array(a), Value::Array(b)) => self.arrays(place, a, b),
            (Value::String(a), Value::String(b)) if self.texts(place, a, b) => {}
            (Value::Number(a), Value::Number(b)) if self.numbers(place, a, b) => {}
            (Value::Null, Value::Null) => {}
            (Value::Bool(a), Value::Bool(b)) if a == b => {}
            _ => self.found.push(Difference::change(place, recorded.clone(), ours.clone())),
        }
    }

    fn objects(&mut self, place: &str, recorded: &Map<String, Value>, ours: &Map<String, Value>) {
        let common = |a: &Map<String, Value>, b: &Map<String, Value>| -> Vec<String> {
            a.keys().filter(|it| b.contains_key(*it)).cloned().collect()
        };
        let (theirs, mine) = (common(recorded, ours), common(ours, recorded));
        if theirs != mine {
            let place =
                format!("order of the keys of {}", if place.is_empty() { "/" } else { place });
            self.found.push(Difference::change(&place, theirs, mine));
        }
        let zip = recorded.get("content_type").is_some_and(|it| it == "application/zip");
        for (key, value) in recorded {
            let place = format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
            match ours.get(key) {
                None => self.found.push(Difference::lack(&place, value.clone())),
                Some(size) if zip && key == "content_size" && size.as_u64() > Some(0) => {}
                Some(ours) => self.values(&place, value, ours),
            }
        }
        for (key, value) in ours.iter().filter(|it| !recorded.contains_key(it.0)) {
            self.found.push(Difference::addition(&format!("{place}/{key}"), value.clone()));
        }
    }

    fn arrays(&mut self, place: &str, recorded: &[Value], ours: &[Value]) {
        let recorded: Vec<&Value> = recorded.iter().filter(|it| self.is_made(it)).collect();
        for (at, (recorded, ours)) in recorded.iter().zip(ours).enumerate() {
            self.values(&format!("{place}/{at}"), recorded, ours);
        }
        for (at, more) in recorded.iter().enumerate().skip(ours.len()) {
            self.found.push(Difference::lack(&format!("{place}/{at}"), (*more).clone()));
        }
        for (at, more) in ours.iter().enumerate().skip(recorded.len()) {
            self.found.push(Difference::addition(&format!("{place}/{at}"), more.clone()));
        }
    }

    /// Whether what was recorded exists on our server; what a deviation keeps from being made does
    /// not.
    pub fn is_made(&self, recorded: &Value) -> bool {
        let id = recorded.get("id").and_then(Value::as_str);
        id.is_none_or(|id| !self.bindings.names_absent(id))
    }

    fn texts(&mut self, place: &str, recorded: &str, ours: &str) -> bool {
        let key = place.rsplit('/').next().unwrap_or_default();
        match key {
            "trace_id" => is_id(ours),
            "hostname" | "platform" | "timezone" | "traceback" | "error_traceback" => {
                !ours.is_empty()
            }
            "_repr" if recorded.starts_with(r"b'PK\x03\x04") => {
                ours.starts_with(r"b'PK\x03\x04") && ours.len() == recorded.len()
            }
            _ if time_form(recorded).is_some() => time_form(recorded) == time_form(ours),
            _ => self.bindings.agree(recorded, ours) || self.close_texts(recorded, ours),
        }
    }

    /// Scripts print their numbers; see [`Comparison::tolerance`].
    fn close_texts(&mut self, recorded: &str, ours: &str) -> bool {
        let ((a, numbers), (b, others)) = (without_numbers(recorded), without_numbers(ours));
        let mut pairs = numbers.iter().zip(&others);
        self.tolerance > 0.0
            && numbers.len() == others.len()
            && pairs.all(|(a, b)| close(*a, *b, self.tolerance))
            && self.bindings.agree(&a, &b)
    }

    fn numbers(&self, place: &str, recorded: &Number, ours: &Number) -> bool {
        if recorded.is_f64() != ours.is_f64() {
            return false;
        }
        match (recorded.as_f64(), ours.as_f64()) {
            _ if recorded == ours => true,
            (_, Some(it)) if place.ends_with("/duration_seconds") => {
                it >= 0.0 && (it * 100.0 - (it * 100.0).round()).abs() < 1e-6
            }
            (Some(a), Some(b)) if recorded.is_f64() => close(a, b, self.tolerance),
            _ => false,
        }
    }
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

/// How a time is written, its digits aside: with or without an offset. Python leaves out a fraction
/// that is nothing.
fn time_form(text: &str) -> Option<&'static str> {
    let zeros: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    match zeros.as_str() {
        "0000-00-00T00:00:00" => Some("naive seconds"),
        "0000-00-00T00:00:00.000000Z" | "0000-00-00T00:00:00Z" => Some("microseconds, Z"),
        "0000-00-00T00:00:00.000000+00:00" | "0000-00-00T00:00:00+00:00" => {
            Some("microseconds, offset")
        }
        _ => None,
    }
}

/// Text with `#` for each of its numbers with a decimal point, and those.
fn without_numbers(text: &str) -> (String, Vec<f64>) {
    let (mut plain, mut numbers) = (String::new(), Vec::new());
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)) {
        let number = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        match number.parse::<f64>() {
            Ok(it) if number.contains('.') => {
                numbers.push(it);
                plain.push('#');
                plain.push_str(&word[number.len()..]);
            }
            _ => plain.push_str(word),
        }
    }
    (plain, numbers)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differences(recorded: Value, ours: Value) -> Vec<String> {
        let mut bindings = Bindings::default();
        let mut it = Comparison { bindings: &mut bindings, tolerance: 0.0, found: Vec::new() };
        it.values("", &recorded, &ours);
        it.found.iter().map(|it| it.place.clone()).collect()
    }

    #[test]
    fn what_differs_from_run_to_run_is_no_difference() {
        let then = json!({
            "id": "01M7W2GK1CC2HZY9FECP19MYJK", "at": "2026-11-20T08:52:32", "duration_seconds": 0.01,
            "content_type": "application/zip", "content_size": 12, "error_traceback": "Traceback",
        });
        let now = json!({
            "id": "01K72PWT05GEXK1S24AVKAZ9VE", "at": "2027-01-01T00:00:00", "duration_seconds": 0.29,
            "content_type": "application/zip", "content_size": 13, "error_traceback": "x",
        });
        assert!(differences(then.clone(), now.clone()).is_empty());
        let mut wrong = now;
        wrong["at"] = json!("2027-01-01T00:00:00Z");
        wrong["duration_seconds"] = json!(1.234);
        wrong["content_size"] = json!(0);
        assert_eq!(differences(then, wrong), ["/at", "/duration_seconds", "/content_size"]);
    }

    #[test]
    fn everything_else_is() {
        assert_eq!(differences(json!({"a": 1}), json!({"a": 1.0})), ["/a"]);
        assert_eq!(differences(json!({"a": null}), json!({})), ["/a"]);
        assert_eq!(differences(json!({}), json!({"a": null})), ["/a"]);
        assert_eq!(differences(json!([1, 2]), json!([2])), ["/0", "/1"]);
        assert_eq!(
            differences(json!({"a": 1, "b": 2}), json!({"b": 2, "a": 1})),
            ["order of the keys of /"]
        );
    }

    #[test]
    fn numbers_are_found_in_text() {
        let (text, numbers) = without_numbers("took [1.5, -0.25] for 3 rows.");
        assert_eq!(text, "took [#, #] for 3 rows.");
        assert_eq!(numbers, [1.5, -0.25]);
    }
}
