//! A value of the document together with its place and the report.

use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::coerce::{NotInt, bool_from_text, float_from_text, int_from_float, int_from_text};
use super::{Bounds, Loc, Report, Violation, choice, quote, tags};

/// A JSON value that knows where it is and where to report what is wrong with it.
///
/// Every reading method gives the value in the asked-for type, or reports a violation and gives
/// `None`. Cheap to clone: places share their beginnings.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    value: &'a Value,
    report: &'a Report,
    place: Place<'a>,
}

type Place<'a> = Option<Rc<Step<'a>>>;

#[derive(Debug)]
struct Step<'a> {
    before: Place<'a>,
    part: Part<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Node<'a> {
    /// The whole body of a request, at `["body"]`.
    pub fn body(value: &'a Value, report: &'a Report) -> Self {
        Node::at(&["body"], value, report)
    }

    /// A value at a place that is known beforehand, for example `["query", "page"]`.
    pub fn at(loc: &[&'a str], value: &'a Value, report: &'a Report) -> Self {
        let root = Node { value, report, place: None };
        loc.iter().fold(root, |node, key| node.tagged(key))
    }

    /// The value as it came.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// Where the violations go.
    pub fn report(&self) -> &'a Report {
        self.report
    }

    /// The same value, with another report to complain to.
    pub fn reporting_to<'b>(&self, report: &'b Report) -> Node<'b>
    where
        'a: 'b,
    {
        Node { value: self.value, report, place: self.place.clone() }
    }

    pub fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// Where this is, from the outside in.
    pub fn loc(&self) -> Vec<Loc> {
        let mut loc = Vec::new();
        let mut place = &self.place;
        while let Some(step) = place {
            loc.push(match step.part {
                Part::Key(key) => Loc::Key(key.to_owned()),
                Part::Index(index) => Loc::Index(index),
            });
            place = &step.before;
        }
        loc.reverse();
        loc
    }

    /// The same value, one step further: alternatives of a union name their tag in the place.
    pub fn tagged<'b>(&self, tag: &'b str) -> Node<'b>
    where
        'a: 'b,
    {
        self.step(Part::Key(tag), self.value)
    }

    /// A value inside this one, under a key.
    pub fn field<'b>(&self, key: &'b str, value: &'b Value) -> Node<'b>
    where
        'a: 'b,
    {
        self.step(Part::Key(key), value)
    }

    /// A value inside this one, by its index.
    pub fn item<'b>(&self, index: usize, value: &'b Value) -> Node<'b>
    where
        'a: 'b,
    {
        self.step(Part::Index(index), value)
    }

    fn step<'b>(&self, part: Part<'b>, value: &'b Value) -> Node<'b>
    where
        'a: 'b,
    {
        let before: Place<'b> = self.place.clone();
        Node { value, report: self.report, place: Some(Rc::new(Step { before, part })) }
    }

    /// Reports a violation of this value.
    pub fn fail(&self, kind: &'static str, msg: impl Into<String>, ctx: Option<Value>) {
        self.report.push(|| Violation::new(kind, self.loc(), msg, self.value, ctx));
    }

    /// Reports a violation of a rule of our own, as `value_error`.
    pub fn fail_rule(&self, msg: impl AsRef<str>) {
        let msg = format!("Value error, {}", msg.as_ref());
        self.fail("value_error", msg, Some(json!({"error": {}})));
    }

    /// A JSON object with fields known to us.
    pub fn object(&self) -> Option<Object<'a>> {
        if let Value::Object(map) = self.value {
            return Some(Object { node: self.clone(), map });
        }
        let msg = "Input should be a valid dictionary or object to extract fields from";
        self.fail("model_attributes_type", msg, None);
        None
    }

    /// A JSON object with keys of the client's choice.
    pub fn dict(&self) -> Option<Object<'a>> {
        if let Value::Object(map) = self.value {
            return Some(Object { node: self.clone(), map });
        }
        self.fail("dict_type", "Input should be a valid dictionary", None);
        None
    }

    /// The items of a list.
    pub fn list(&self) -> Option<Vec<Node<'a>>> {
        let items = self.items()?;
        Some(items.iter().enumerate().map(|(index, value)| self.item(index, value)).collect())
    }

    /// The items of a list as plain values: for long lists, whose items become nodes (see
    /// [`Node::item`]) only when there is something to report.
    pub fn items(&self) -> Option<&'a [Value]> {
        if let Value::Array(items) = self.value {
            return Some(items);
        }
        self.fail("list_type", "Input should be a valid list", None);
        None
    }

    pub fn string(&self) -> Option<String> {
        self.str().map(str::to_owned)
    }

    /// Like [`Node::string`], without a copy.
    pub fn str(&self) -> Option<&'a str> {
        if let Value::String(text) = self.value {
            return Some(text);
        }
        self.fail("string_type", "Input should be a valid string", None);
        None
    }

    /// An integer; whole floats, booleans and text like `"7"` are taken as one.
    pub fn int(&self) -> Option<i64> {
        let read = match self.value {
            Value::Bool(value) => Ok(i64::from(*value)),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Ok(value),
                (None, Some(value)) if number.is_f64() => int_from_float(value),
                _ => Err(NotInt::TooLarge),
            },
            Value::String(text) => int_from_text(text),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                self.fail("int_type", "Input should be a valid integer", None);
                return None;
            }
        };
        read.map_err(|reason| self.fail_int(reason)).ok()
    }

    fn fail_int(&self, reason: NotInt) {
        let (kind, msg) = match reason {
            NotInt::Unparsable => (
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer",
            ),
            NotInt::Fraction => (
                "int_from_float",
                "Input should be a valid integer, got a number with a fractional part",
            ),
            NotInt::TooLarge => (
                "int_parsing_size",
                "Unable to parse input string as an integer, exceeded maximum size",
            ),
        };
        self.fail(kind, msg, None);
    }

    /// An integer within bounds.
    pub fn int_within(&self, bounds: &Bounds) -> Option<i64> {
        self.int().filter(|value| bounds.allow_int(*value, self))
    }

    /// A finite number; booleans and text like `"1.5"` are taken as one.
    pub fn float(&self) -> Option<f64> {
        let read = match self.value {
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            Value::Number(number) => number.as_f64(),
            Value::String(text) => float_from_text(text),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                self.fail("float_type", "Input should be a valid number", None);
                return None;
            }
        };
        match read {
            Some(value) if value.is_finite() => Some(value),
            Some(_) => {
                self.fail("finite_number", "Input should be a finite number", None);
                None
            }
            None => {
                let msg = "Input should be a valid number, unable to parse string as a number";
                self.fail("float_parsing", msg, None);
                None
            }
        }
    }

    /// A finite number within bounds.
    pub fn float_within(&self, bounds: &Bounds) -> Option<f64> {
        self.float().filter(|value| bounds.allow_float(*value, self))
    }

    /// A boolean; 0, 1 and words like `"true"`, `"no"`, `"on"` are taken as one.
    pub fn bool(&self) -> Option<bool> {
        let read = match self.value {
            Value::Bool(value) => Some(*value),
            Value::Number(number) => match number.as_f64() {
                Some(0.0) => Some(false),
                Some(1.0) => Some(true),
                _ => None,
            },
            Value::String(text) => bool_from_text(text),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                self.fail("bool_type", "Input should be a valid boolean", None);
                return None;
            }
        };
        if read.is_none() {
            let msg = "Input should be a valid boolean, unable to interpret input";
            self.fail("bool_parsing", msg, None);
        }
        read
    }

    /// A ULID in any case, given back in upper case.
    pub fn ulid(&self) -> Option<String> {
        if let Some(id) = self.value.as_str().filter(|text| is_ulid(text)) {
            return Some(id.to_ascii_uppercase());
        }
        self.fail("ulid_format", "Unrecognized format", None);
        None
    }

    /// One of these texts.
    pub fn one_of<'s>(&self, choices: &[&'s str]) -> Option<&'s str> {
        self.choose("literal_error", choices)
    }

    /// Like [`Node::one_of`], where clients know the choices as an enumeration (`enum`).
    pub fn one_of_enum<'s>(&self, choices: &[&'s str]) -> Option<&'s str> {
        self.choose("enum", choices)
    }

    fn choose<'s>(&self, kind: &'static str, choices: &[&'s str]) -> Option<&'s str> {
        let chosen = choices.iter().find(|choice| self.value.as_str() == Some(choice));
        if chosen.is_none() {
            let quoted: Vec<String> = choices.iter().map(|choice| quote(choice)).collect();
            self.fail_choice(kind, &choice(&quoted));
        }
        chosen.copied()
    }

    /// Reports that this is none of `expected`, which is a phrase such as [`choice`] makes.
    pub fn fail_choice(&self, kind: &'static str, expected: &str) {
        let msg = format!("Input should be {expected}");
        self.fail(kind, msg, Some(json!({"expected": expected})));
    }

    /// A list of tags that keeps the rules of tags: letters, digits, `-` and `_`, no duplicates, at
    /// most 50 of at most 100 characters.
    pub fn tags(&self) -> Option<Vec<String>> {
        tags::read(self)
    }
}

fn is_ulid(text: &str) -> bool {
    text.len() == 26
        && matches!(text.as_bytes()[0], b'0'..=b'7')
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                && !matches!(byte.to_ascii_uppercase(), b'I' | b'L' | b'O' | b'U')
        })
}

/// A JSON object whose fields are read by name. Fields nobody asks for are ignored.
#[derive(Debug, Clone)]
pub struct Object<'a> {
    node: Node<'a>,
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The object as a node, for rules that concern it as a whole.
    pub fn node(&self) -> &Node<'a> {
        &self.node
    }

    /// The fields as they came.
    pub fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// A field that must be there, though it may be null; reported as `missing` otherwise.
    pub fn required<'b>(&self, name: &'b str) -> Option<Node<'b>>
    where
        'a: 'b,
    {
        let found = self.get(name);
        if found.is_none() {
            self.node.report.push(|| {
                let loc = self.node.tagged(name).loc();
                Violation::missing(loc, self.node.value)
            });
        }
        found
    }

    /// A field that may be absent; null counts as present.
    pub fn get<'b>(&self, name: &'b str) -> Option<Node<'b>>
    where
        'a: 'b,
    {
        self.map.get(name).map(|value| self.node.field(name, value))
    }

    /// A field that may be absent or null, which mean the same.
    pub fn optional<'b>(&self, name: &'b str) -> Option<Node<'b>>
    where
        'a: 'b,
    {
        self.get(name).filter(|node| !node.is_null())
    }

    /// Every field, in the client's order.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        self.map.iter().map(|(key, value)| (key.as_str(), self.node.field(key, value)))
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
