//! Reading TOML strictly: every unknown key and every wrong type is a problem with its key and
//! line, and all of a file's problems come at once.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Number, Value};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::suggest;

/// One thing that is wrong with a project's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key in dotted form, where one is to blame.
    pub key: Option<String>,
    /// Counted from one.
    pub line: Option<usize>,
    /// Names the key too, so that it can stand alone.
    pub message: String,
}

impl Problem {
    pub fn general(message: impl Into<String>) -> Problem {
        Problem { key: None, line: None, message: message.into() }
    }
}

/// A parsed document with the problems found in it so far.
#[derive(Debug)]
pub struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Document<'t> {
    pub fn parse(text: &'t str) -> Result<Document<'t>, Problem> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Document { text, root, problems: RefCell::default() }),
            Err(error) => Err(Problem {
                key: None,
                line: error.span().map(|span| line_at(text, span.start)),
                message: format!("not TOML: {}", error.message()),
            }),
        }
    }

    pub fn root(&self) -> Section<'_> {
        Section { document: self, path: String::new(), table: self.root.get_ref(), start: None }
    }

    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems
    }

    fn report(&self, key: String, offset: Option<usize>, message: String) {
        let line = offset.map(|offset| line_at(self.text, offset));
        self.problems.borrow_mut().push(Problem { key: Some(key), line, message });
    }
}

/// One table of a [`Document`].
#[derive(Clone, Debug)]
pub struct Section<'d> {
    document: &'d Document<'d>,
    path: String,
    table: &'d DeTable<'d>,
    start: Option<usize>,
}

impl<'d> Section<'d> {
    /// Reports each key that is not in `valid`.
    pub fn only(&self, valid: &[&str]) {
        for (key, offset, _) in self.entries() {
            if !valid.contains(&key) {
                let hint = suggest::hint(key, valid);
                let near = if hint.is_empty() {
                    format!(", valid here: {}", valid.join(", "))
                } else {
                    hint
                };
                let key = self.dotted(key);
                let message = format!("unknown key `{key}`{near}");
                self.document.report(key, Some(offset), message);
            }
        }
    }

    /// The keys in the order in which the file has them, with the offset and value of each.
    pub fn entries(&self) -> Vec<(&'d str, usize, &'d DeValue<'d>)> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), key.span().start, value.get_ref()))
            .collect();
        entries.sort_by_key(|(_, offset, _)| *offset);
        entries
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The table under `key`; one of another type is a problem.
    pub fn section(&self, key: &str) -> Option<Section<'d>> {
        let (offset, value) = self.value(key)?;
        self.as_section(key, offset, value)
    }

    /// Every key as a table, in the file's order.
    pub fn sections(&self) -> Vec<(&'d str, Section<'d>)> {
        self.entries()
            .into_iter()
            .filter_map(|(key, offset, value)| Some((key, self.as_section(key, offset, value)?)))
            .collect()
    }

    fn as_section(&self, key: &str, offset: usize, value: &'d DeValue<'d>) -> Option<Section<'d>> {
        match value {
            DeValue::Table(table) => Some(Section {
                document: self.document,
                path: self.dotted(key),
                table,
                start: Some(offset),
            }),
            other => self.wrong_type(key, offset, "a table", other),
        }
    }

    pub fn string(&self, key: &str) -> Option<String> {
        self.typed(key, "a string", |value| match value {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => None,
        })
    }

    /// A string that must be there and not blank.
    pub fn required_string(&self, key: &str) -> Option<String> {
        if !self.has(key) {
            self.missing(key);
            return None;
        }
        let text = self.string(key)?;
        if text.trim().is_empty() {
            self.fail(key, format!("`{}` is empty", self.dotted(key)));
            return None;
        }
        Some(text)
    }

    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.typed(key, "true or false", |value| match value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        })
    }

    pub fn whole(&self, key: &str) -> Option<u32> {
        self.typed(key, "a whole number from 0 to 4294967295", |value| match value {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        })
    }

    pub fn number(&self, key: &str) -> Option<Number> {
        self.typed(key, "a finite number", |value| match json(value)? {
            Value::Number(number) => Some(number),
            _ => None,
        })
    }

    pub fn strings(&self, key: &str) -> Option<Vec<String>> {
        self.typed(key, "a list of strings", |value| {
            let DeValue::Array(items) = value else { return None };
            let text = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
                DeValue::String(text) => Some(text.clone().into_owned()),
                _ => None,
            };
            items.iter().map(text).collect()
        })
    }

    /// Any value that JSON can say; dates and `nan` are problems.
    pub fn json(&self, key: &str) -> Option<Value> {
        self.typed(key, "a string, finite number, boolean, list or table", json)
    }

    /// A string that parses: `expected` says into what, the parser's own error why not.
    pub fn parsed<T: FromStr<Err: Display>>(&self, key: &str) -> Option<T> {
        let text = self.string(key)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(key, format!("`{}`: {error}", self.dotted(key)));
                None
            }
        }
    }

    /// A string that must be one of `valid`.
    pub fn choice(&self, key: &str, valid: &[&str]) -> Option<String> {
        let text = self.string(key)?;
        if valid.contains(&text.as_str()) {
            return Some(text);
        }
        let hint = suggest::hint(&text, valid);
        let key_path = self.dotted(key);
        self.fail(key, format!("`{key_path}` is `{text}`, not one of {}{hint}", valid.join(", ")));
        None
    }

    /// A string in a notation of its own, such as a duration.
    pub fn notation<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        self.typed(key, expected, |value| match value {
            DeValue::String(text) => read(text),
            _ => None,
        })
    }

    /// Reports that a key which must be there is not.
    pub fn missing(&self, key: &str) {
        let key = self.dotted(key);
        let message = format!("`{key}` is missing");
        self.document.report(key, self.start, message);
    }

    /// Reports a problem with `key`; the message should name it.
    pub fn fail(&self, key: &str, message: String) {
        let offset = self.value(key).map(|(offset, _)| offset).or(self.start);
        self.document.report(self.dotted(key), offset, message);
    }

    /// The key as seen from the top of the file.
    pub fn dotted(&self, key: &str) -> String {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let key = if !key.is_empty() && key.chars().all(bare) {
            Cow::Borrowed(key)
        } else {
            Cow::Owned(format!("{key:?}"))
        };
        if self.path.is_empty() { key.into_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value(&self, key: &str) -> Option<(usize, &'d DeValue<'d>)> {
        let (key, value) = self.table.get_key_value(key)?;
        Some((key.span().start, value.get_ref()))
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        let (offset, value) = self.value(key)?;
        let read = read(value);
        if read.is_none() {
            self.wrong_type::<()>(key, offset, expected, value);
        }
        read
    }

    fn wrong_type<T>(
        &self,
        key: &str,
        offset: usize,
        expected: &str,
        found: &DeValue<'_>,
    ) -> Option<T> {
        let key = self.dotted(key);
        let message = format!("`{key}` must be {expected}, found {}", describe(found));
        self.document.report(key, Some(offset), message);
        None
    }
}

/// The line, counted from one, on which a dotted key stands in a TOML text; none when it is not
/// there. A text with mistakes is searched as far as it can be read.
pub fn locate(text: &str, dotted_key: &str) -> Option<usize> {
    let (root, _) = DeTable::parse_recoverable(text);
    let mut table = root.get_ref();
    let mut keys = dotted_key.split('.').peekable();
    loop {
        let key = keys.next()?;
        let (name, value) = table.get_key_value(key)?;
        if keys.peek().is_none() {
            return Some(line_at(text, name.span().start));
        }
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return None,
        }
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn json(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::String(text.clone().into_owned())),
        DeValue::Integer(number) => {
            let whole = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(Value::from(whole))
        }
        DeValue::Float(number) => {
            Number::from_f64(number.as_str().parse().ok()?).map(Value::Number)
        }
        DeValue::Boolean(flag) => Some(Value::Bool(*flag)),
        DeValue::Datetime(_) => None,
        DeValue::Array(items) => items
            .iter()
            .map(|item| json(item.get_ref()))
            .collect::<Option<Vec<_>>>()
            .map(Value::Array),
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.span().start);
            let entry = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                Some((key.get_ref().clone().into_owned(), json(value.get_ref())?))
            };
            entries.into_iter().map(entry).collect::<Option<Map<_, _>>>().map(Value::Object)
        }
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() <= 40 => format!("the string {text:?}"),
        DeValue::String(_) => "a long string".to_owned(),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the float {number}"),
        DeValue::Boolean(flag) => format!("the boolean {flag}"),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
