//! What was wrong, and where.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;

use serde::Serialize;
use serde_json::Value;

/// A report keeps this many violations; the rest would help nobody.
pub const MAX_VIOLATIONS: usize = 100;

/// An input is echoed as it came while its JSON has at most this many bytes.
const ECHO_BYTES: usize = 2048;

/// How much of a longer input is shown.
const PREVIEW_CHARS: usize = 200;

/// One step of the way from the request to the violation: an object's key or a list's index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Loc {
    Key(String),
    Index(usize),
}

impl From<&str> for Loc {
    fn from(key: &str) -> Self {
        Loc::Key(key.to_owned())
    }
}

impl From<usize> for Loc {
    fn from(index: usize) -> Self {
        Loc::Index(index)
    }
}

/// One thing wrong with a request, in the shape that it has on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Violation {
    /// Stable name of the rule that was broken, for example `missing` or `int_parsing`.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "missing")]
    pub kind: &'static str,
    /// Where, from the outside in; starts with `body` or `query`.
    #[schema(example = json!(["body", "name"]))]
    pub loc: Vec<Loc>,
    /// The rule as a sentence.
    #[schema(example = "Field required")]
    pub msg: String,
    /// What was found there. See [`Violation::new`] for long inputs.
    pub input: Value,
    /// The numbers and names that `msg` speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub ctx: Option<Value>,
}

impl Violation {
    /// A violation that shows `input`: whole when it is short, else its beginning as a string, so
    /// that no answer repeats megabytes.
    pub fn new(
        kind: &'static str,
        loc: Vec<Loc>,
        msg: impl Into<String>,
        input: &Value,
        ctx: Option<Value>,
    ) -> Self {
        Violation { kind, loc, msg: msg.into(), input: echo(input), ctx }
    }

    /// Something required is not there; `parent` is what it should have been in.
    pub fn missing(loc: Vec<Loc>, parent: &Value) -> Self {
        Violation::new("missing", loc, "Field required", parent, None)
    }
}

/// What was wrong with a request: everything, or the first of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Violations {
    kept: Vec<Violation>,
    #[serde(skip)]
    more: bool,
}

impl Violations {
    /// Whether there was more to complain of than there is in here.
    pub fn has_more(&self) -> bool {
        self.more
    }
}

impl From<Vec<Violation>> for Violations {
    fn from(kept: Vec<Violation>) -> Self {
        Violations { kept, more: false }
    }
}

impl Deref for Violations {
    type Target = [Violation];

    fn deref(&self) -> &[Violation] {
        &self.kept
    }
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = std::vec::IntoIter<Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.into_iter()
    }
}

/// Collects the violations of one request while it is read.
#[derive(Debug)]
pub struct Report {
    kept: RefCell<Vec<Violation>>,
    more: Cell<bool>,
    most: usize,
    /// What was wrong before the reading began.
    before: RefCell<Violations>,
}

impl Default for Report {
    fn default() -> Self {
        Report::at_most(MAX_VIOLATIONS)
    }
}

impl Report {
    pub fn new() -> Self {
        Report::default()
    }

    /// A report that keeps fewer violations than others.
    pub fn at_most(most: usize) -> Self {
        let most = most.min(MAX_VIOLATIONS);
        let (kept, more, before) = (RefCell::default(), Cell::default(), RefCell::default());
        Report { kept, more, most, before }
    }

    /// A report of what is read after some violations were found. They are listed last, unless the
    /// reader has complained of the same places.
    pub(crate) fn after(before: Violations) -> Self {
        Report { before: RefCell::new(before), ..Report::default() }
    }

    /// Gives the violations that were found before, in a place and what is in it, to another report;
    /// none when they are only the first of many.
    pub(crate) fn hand_over(&self, place: impl FnOnce() -> Vec<Loc>, other: &Report) {
        let mut before = self.before.borrow_mut();
        if before.is_empty() || before.more {
            return;
        }
        let place = place();
        let (theirs, ours) =
            std::mem::take(&mut before.kept).into_iter().partition(|it| it.loc.starts_with(&place));
        before.kept = ours;
        other.before.borrow_mut().kept.extend::<Vec<_>>(theirs);
    }

    /// Keeps the violation that `violation` makes, unless there are enough already.
    pub fn push(&self, violation: impl FnOnce() -> Violation) {
        if self.len() < self.most {
            let violation = violation();
            self.kept.borrow_mut().push(violation);
        } else {
            self.more.set(true);
        }
    }

    /// How many violations there are so far, at most [`MAX_VIOLATIONS`].
    pub fn len(&self) -> usize {
        self.kept.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when something was not kept any more, so a long loop may stop.
    pub fn is_full(&self) -> bool {
        self.more.get()
    }

    /// Ends the reading: the violations in the order of discovery, if there are any.
    pub fn finish(self) -> Result<(), Violations> {
        let before = self.before.take();
        for violation in before.kept {
            let known = self.kept.borrow().iter().any(|it| it.loc == violation.loc);
            if !known {
                self.push(|| violation);
            }
        }
        let more = self.more.get() || before.more;
        let found = Violations { kept: self.kept.into_inner(), more };
        if found.is_empty() && !found.more { Ok(()) } else { Err(found) }
    }
}

fn echo(input: &Value) -> Value {
    match input {
        Value::Null | Value::Bool(_) | Value::Number(_) => input.clone(),
        Value::String(text) if text.len() <= ECHO_BYTES => input.clone(),
        Value::String(text) => Value::String(beginning(text)),
        Value::Array(_) | Value::Object(_) => {
            let mut written = Beginning::default();
            match serde_json::to_writer(&mut written, input) {
                Ok(()) => input.clone(),
                Err(_) => Value::String(beginning(&String::from_utf8_lossy(&written.bytes))),
            }
        }
    }
}

fn beginning(text: &str) -> String {
    let mut shown: String = text.chars().take(PREVIEW_CHARS).collect();
    shown.push('…');
    shown
}

/// Takes in [`ECHO_BYTES`] and then refuses, which ends the serialisation of a long value early.
#[derive(Default)]
struct Beginning {
    bytes: Vec<u8>,
}

impl io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = ECHO_BYTES - self.bytes.len();
        if bytes.len() > room {
            self.bytes.extend_from_slice(&bytes[..room]);
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn any(input: &Value) -> Violation {
        Violation::new("value_error", vec!["body".into(), 3.into()], "m", input, None)
    }

    #[test]
    fn a_violation_has_its_wire_shape() {
        let mut violation = any(&json!(7));
        let written = serde_json::to_string(&violation).unwrap();
        assert_eq!(written, r#"{"type":"value_error","loc":["body",3],"msg":"m","input":7}"#);
        violation.ctx = Some(json!({"error": {}}));
        let written = serde_json::to_string(&violation).unwrap();
        assert!(written.ends_with(r#","input":7,"ctx":{"error":{}}}"#), "{written}");
    }

    #[test]
    fn short_inputs_are_echoed_whole_and_long_ones_by_their_beginning() {
        let short = json!({"columns": ["a"], "data": [[1, null]]});
        assert_eq!(any(&short).input, short);

        let long = json!(vec!["é"; 100_000]);
        let Value::String(shown) = any(&long).input else { panic!("a preview is a string") };
        assert!(shown.starts_with(r#"["é","é","#) && shown.ends_with('…'), "{shown}");
        assert_eq!(shown.chars().count(), PREVIEW_CHARS + 1);

        let text = json!("é".repeat(100_000));
        let Value::String(shown) = any(&text).input else { panic!("a preview is a string") };
        assert_eq!(shown.chars().count(), PREVIEW_CHARS + 1);
    }

    #[test]
    fn a_report_keeps_the_first_hundred() {
        let report = Report::new();
        assert!(report.is_empty());
        for index in 0..250 {
            report.push(|| any(&json!(index)));
        }
        assert!(report.is_full());
        let kept = report.finish().unwrap_err();
        assert_eq!(kept.len(), MAX_VIOLATIONS);
        assert_eq!(kept[0].input, 0);
        assert!(kept.has_more());
    }

    #[test]
    fn a_report_of_just_a_hundred_says_that_it_is_all() {
        let report = Report::new();
        for index in 0..MAX_VIOLATIONS {
            report.push(|| any(&json!(index)));
        }
        assert!(!report.is_full());
        assert!(!report.finish().unwrap_err().has_more());
    }

    #[test]
    fn a_clean_report_ends_well() {
        assert_eq!(Report::new().finish(), Ok(()));
    }
}
