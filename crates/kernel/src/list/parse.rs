//! From a query string to a [`ListQuery`].

use std::cell::OnceCell;

use serde_json::Value as JsonValue;
use url::form_urlencoded;

use super::{
    Direction, Field, FieldKind, Fields, Filter, ListQuery, Operator, Paging, Sort, cursor,
};
use crate::db::Value;
use crate::form::{Bounds, Query, Report, Violation, query_bool, query_enum, query_int, shorten};
use crate::{Failure, Time, Ulid};

/// Items of a cursor's page unless the client asks for another number.
const DEFAULT_LIMIT: i64 = 50;
/// The most items of one page of the contract's.
pub const MAX_SIZE: i64 = 100;
/// The most items of one cursor's page.
pub const MAX_LIMIT: i64 = 500;
/// The most conditions of one list: databases bound the size of an expression.
const MAX_FILTERS: usize = 50;
/// The longest list of one `[in]`.
const MAX_IN: usize = 100;
/// The longest text that is looked for within others, in characters: SQLite gives up on patterns of
/// more than 50,000 bytes.
const MAX_SOUGHT: usize = 1000;

const OPERATORS: [(&str, Operator); 8] = [
    ("eq", Operator::Eq),
    ("ne", Operator::Ne),
    ("gt", Operator::Gt),
    ("gte", Operator::Gte),
    ("lt", Operator::Lt),
    ("lte", Operator::Lte),
    ("in", Operator::In),
    ("contains", Operator::Contains),
];

#[derive(Default)]
struct Raw {
    page: Option<String>,
    size: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// What is wrong with a query: everything, and the failure that names the first.
#[derive(Default)]
struct Refusals {
    report: Report,
    first: OnceCell<Failure>,
}

impl Refusals {
    fn finish(self) -> Result<(), Failure> {
        match (self.report.finish(), self.first.into_inner()) {
            (Ok(()), _) => Ok(()),
            (Err(all), Some(first)) => Err(first.with_violations(all)),
            // What the contract's own parameters say is a violation of the contract's.
            (Err(all), None) => Err(Failure::violations(all)),
        }
    }
}

/// A parameter of the query.
struct Parameter<'a> {
    key: &'a str,
    text: &'a str,
    refusals: &'a Refusals,
}

impl Parameter<'_> {
    /// Reports what is wrong; the `None` is the caller's answer.
    fn refuse<T>(&self, code: &'static str, detail: String) -> Option<T> {
        self.refusals.report.push(|| {
            let loc = vec!["query".into(), shorten(self.key).into()];
            Violation::new(code, loc, detail.as_str(), &self.text.into(), None)
        });
        self.refusals.first.get_or_init(|| Failure::bad_request(code, detail));
        None
    }

    fn unknown<T>(&self, code: &'static str, what: &str, name: &str, valid: &[&str]) -> Option<T> {
        let (name, valid) = (shorten(name), list(valid));
        self.refuse(code, format!("there is no {what} `{name}`; the valid ones are {valid}"))
    }

    /// Checks a text that is looked for within others.
    fn bounded(&self, text: &str) -> Option<()> {
        if text.chars().nth(MAX_SOUGHT).is_none() {
            return Some(());
        }
        let key = self.key;
        let detail = format!("`{key}` looks for a text of at most {MAX_SOUGHT} characters");
        self.refuse("filter_invalid", detail)
    }
}

impl ListQuery {
    /// Reads a query string against what `fields` allows. `own` are the contract's own parameters of
    /// the route, each with the field that it has to be equal to: words and truth values, which are
    /// read the way the contract reads them.
    ///
    /// # Errors
    /// 400 with the valid names for an unknown field, operator or sort key, named after the first;
    /// 422, as the contract has it, when only the contract's own parameters are wrong. Either lists
    /// everything that is.
    pub fn read(
        query: Option<&str>,
        fields: &'static Fields,
        own: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let mut it = Self::all(fields);
        let mut raw = Raw::default();
        let refusals = Refusals::default();
        let (mut filters, mut sorted) = (0, true);
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let parameter = Parameter { key: &key, text: &value, refusals: &refusals };
            match &*key {
                "page" => raw.page = Some(value.into_owned()),
                "size" => raw.size = Some(value.into_owned()),
                "limit" => raw.limit = Some(value.into_owned()),
                "cursor" => raw.cursor = Some(value.into_owned()),
                "sort" => match sort(&parameter, fields) {
                    Some(sort) => it.sort = sort,
                    None => sorted = false,
                },
                "fields" => it.only = only(&parameter, fields),
                "q" => it.search = search(&parameter),
                key if own.iter().any(|it| it.0 == key) => {}
                _ => {
                    filters += 1;
                    if filters <= MAX_FILTERS {
                        it.filters.extend(filter(&parameter, fields));
                    } else if filters == MAX_FILTERS + 1 {
                        let detail = format!("a list takes at most {MAX_FILTERS} filters");
                        parameter.refuse::<()>("filter_invalid", detail);
                    }
                }
            }
        }
        it.complete_sort();
        // A cursor belongs to an order, so nothing can be said of it without one.
        it.paging = paging(&raw, &it, &refusals, sorted).unwrap_or(Paging::All);
        let query = Query::parse(query);
        for (name, field) in own {
            it.filters.extend(equal(&refusals.report, fields, (name, query.get(name)), field));
        }
        refusals.finish()?;
        Ok(it)
    }

    /// The question without conditions.
    pub fn all(fields: &'static Fields) -> Self {
        let mut it = Self {
            fields,
            filters: Vec::new(),
            sort: vec![fields.default_sort],
            only: None,
            search: None,
            paging: Paging::All,
        };
        it.complete_sort();
        it
    }

    /// Whether the answer lists what is asked for (`?fields=`), or everything.
    pub fn wants(&self, key: &str) -> bool {
        self.only.as_ref().is_none_or(|it| it.contains(&key))
    }

    /// Ids decide between equals, so that every order is total.
    fn complete_sort(&mut self) {
        if !self.sort.iter().any(|(name, _)| *name == "id") {
            let direction = self.sort.last().map_or(Direction::Asc, |(_, it)| *it);
            self.sort.push(("id", direction));
        }
    }
}

fn paging(raw: &Raw, query: &ListQuery, refusals: &Refusals, sorted: bool) -> Option<Paging> {
    let bounded = |name: &str, raw: &Option<String>, max: Option<i64>| {
        let mut bounds = Bounds::none().at_least(1);
        if let Some(max) = max {
            bounds = bounds.at_most(max);
        }
        query_int(&refusals.report, name, raw.as_deref(), &bounds)
    };
    let page = bounded("page", &raw.page, None);
    let size = bounded("size", &raw.size, Some(MAX_SIZE));
    let limit = bounded("limit", &raw.limit, Some(MAX_LIMIT));

    if raw.cursor.is_some() || raw.limit.is_some() {
        let after = match raw.cursor.as_deref().filter(|it| !it.is_empty() && sorted) {
            Some(text) => Some(cursor::decode(text, query).or_else(|| {
                let parameter = Parameter { key: "cursor", text, refusals };
                let detail = "this cursor is not from a list in this order; take `next` of the previous answer, with the same `sort`";
                parameter.refuse("cursor_invalid", detail.to_owned())
            })?),
            None => None,
        };
        return Some(Paging::Cursor { after, limit: limit.unwrap_or(DEFAULT_LIMIT) });
    }
    Some(match (page, size) {
        (Some(page), Some(size)) => Paging::Page { page, size },
        _ => Paging::All,
    })
}

/// A parameter of the contract's own, which a field has to be equal to.
fn equal(
    report: &Report,
    fields: &'static Fields,
    (name, text): (&str, Option<&str>),
    field: &str,
) -> Option<Filter> {
    let index = fields.fields.iter().position(|it| it.name == field)?;
    let value = match fields.fields[index].kind {
        FieldKind::OneOf(words) => query_enum(report, name, text, words).map(Value::from),
        _ => query_bool(report, name, text).map(Value::from),
    };
    Some(Filter { field: index, operator: Operator::Eq, values: vec![value?] })
}

fn search(parameter: &Parameter<'_>) -> Option<String> {
    let text = parameter.text;
    if text.contains('\0') {
        let detail = "`q` looks for a text without zero characters".to_owned();
        return parameter.refuse("filter_invalid", detail);
    }
    parameter.bounded(text)?;
    Some(text.trim().to_ascii_lowercase()).filter(|it| !it.is_empty())
}

/// The parts of a list with commas, each read by `read`; `None` when one of them is refused.
fn parts<'a, T>(text: &'a str, read: impl FnMut(&'a str) -> Option<T>) -> Option<Vec<T>> {
    let parts = text.split(',').map(str::trim).filter(|it| !it.is_empty());
    // All are read before it is asked whether all are good.
    let read: Vec<Option<T>> = parts.map(read).collect();
    read.into_iter().collect()
}

fn sort(parameter: &Parameter<'_>, fields: &'static Fields) -> Option<Vec<Sort>> {
    let sortable = || fields.fields.iter().filter(|it| it.sortable);
    let asked = parts(parameter.text, |part| {
        let (name, direction) = part.split_once(':').unwrap_or((part, "asc"));
        let field = sortable().find(|it| it.name == name).or_else(|| {
            let valid: Vec<&str> = sortable().map(|it| it.name).collect();
            parameter.unknown("sort_unknown", "sort key", name, &valid)
        });
        let direction = match direction {
            "asc" => Some(Direction::Asc),
            "desc" => Some(Direction::Desc),
            other => parameter.unknown("sort_unknown", "direction", other, &["asc", "desc"]),
        };
        Some((field?.name, direction?))
    })?;
    let mut sorts: Vec<Sort> = Vec::new();
    for sort in asked {
        if !sorts.iter().any(|it| it.0 == sort.0) {
            sorts.push(sort);
        }
    }
    if sorts.is_empty() {
        sorts.push(fields.default_sort);
    }
    Some(sorts)
}

/// No names at all ask for everything.
fn only(parameter: &Parameter<'_>, fields: &'static Fields) -> Option<Vec<&'static str>> {
    let keys = parts(parameter.text, |name| {
        let key = fields.keys.iter().copied().find(|it| *it == name);
        key.or_else(|| parameter.unknown("field_unknown", "field", name, fields.keys))
    })?;
    Some(keys).filter(|it| !it.is_empty())
}

fn filter(parameter: &Parameter<'_>, fields: &'static Fields) -> Option<Filter> {
    let Parameter { key, text, refusals: _ } = *parameter;
    let operated = key.strip_suffix(']').and_then(|it| it.split_once('['));
    let (name, operator) = operated.unwrap_or((key, "eq"));
    let Some(index) = fields.fields.iter().position(|it| it.name == name) else {
        let valid: Vec<&str> = fields.fields.iter().map(|it| it.name).collect();
        return parameter.unknown("filter_unknown", "filter", name, &valid);
    };
    let field = &fields.fields[index];
    let valid = operators(field.kind);
    let Some(operator) = valid.iter().find(|it| it.0 == operator).map(|it| it.1) else {
        let names: Vec<&str> = valid.iter().map(|it| it.0).collect();
        let what = format!("operator on `{name}`");
        return parameter.unknown("operator_unknown", &what, operator, &names);
    };
    let values = match operator {
        Operator::In => {
            let parts: Vec<&str> = text.split(',').map(str::trim).collect();
            if parts.len() > MAX_IN {
                let detail = format!("`{name}[in]` takes at most {MAX_IN} values");
                return parameter.refuse("filter_invalid", detail);
            }
            let values: Vec<_> = parts.into_iter().map(|it| values(parameter, field, it)).collect();
            values.into_iter().collect::<Option<Vec<_>>>()?.concat()
        }
        Operator::Contains => {
            parameter.bounded(text)?;
            vec![value(parameter, field, &text.to_ascii_lowercase())?]
        }
        _ => values(parameter, field, text)?,
    };
    Some(Filter { field: index, operator, values })
}

impl FieldKind {
    /// How fields of this type may be compared, as it is written in a query.
    pub fn operators(self) -> impl Iterator<Item = &'static str> {
        operators(self).into_iter().map(|it| it.0)
    }
}

fn operators(kind: FieldKind) -> Vec<(&'static str, Operator)> {
    let allowed: &[Operator] = match kind {
        FieldKind::Text => &[
            Operator::Eq,
            Operator::Ne,
            Operator::Gt,
            Operator::Gte,
            Operator::Lt,
            Operator::Lte,
            Operator::In,
            Operator::Contains,
        ],
        FieldKind::Id | FieldKind::Int | FieldKind::Time => &[
            Operator::Eq,
            Operator::Ne,
            Operator::Gt,
            Operator::Gte,
            Operator::Lt,
            Operator::Lte,
            Operator::In,
        ],
        FieldKind::Bool => &[Operator::Eq, Operator::Ne],
        FieldKind::OneOf(_) => &[Operator::Eq, Operator::Ne, Operator::In],
        FieldKind::Tags => &[Operator::Eq, Operator::Ne, Operator::In],
    };
    OPERATORS.into_iter().filter(|it| allowed.contains(&it.1)).collect()
}

/// What a field is compared with: one value, or the first instant of a time and the first after it.
fn values(parameter: &Parameter<'_>, field: &Field, text: &str) -> Option<Vec<Value>> {
    Some(match value(parameter, field, text)? {
        Value::Time(from) => {
            let until = Time::from_micros(from.micros().saturating_add(precision(text)));
            vec![from.into(), until.into()]
        }
        value => vec![value],
    })
}

/// How long the time is that a text means, in microseconds: a date is a day, and entities show
/// their times to the second.
fn precision(text: &str) -> i64 {
    const SECOND: i64 = 1_000_000;
    match (text.split_once('.'), text.contains([':', 'T', 't', ' '])) {
        (Some((_, fraction)), _) => {
            let digits = fraction.bytes().take(6).take_while(u8::is_ascii_digit);
            digits.fold(SECOND, |it, _| it / 10)
        }
        (None, true) => SECOND,
        (None, false) => 24 * 3600 * SECOND,
    }
}

fn value(parameter: &Parameter<'_>, field: &Field, text: &str) -> Option<Value> {
    let invalid = |expected: &str| {
        let (name, found) = (field.name, shorten(text));
        let detail = format!("`{name}` is compared with {expected}, not `{found}`");
        parameter.refuse("filter_invalid", detail)
    };
    match field.kind {
        // PostgreSQL has no zero character in text.
        FieldKind::Text | FieldKind::Tags if text.contains('\0') => {
            invalid("a text without zero characters")
        }
        FieldKind::Text | FieldKind::Tags => Some(Value::Text(text.to_owned())),
        FieldKind::Id => Ulid::read(text).map(Value::from).or_else(|| invalid("a ULID")),
        FieldKind::Int => text.parse().ok().map(Value::Int).or_else(|| invalid("a whole number")),
        FieldKind::Bool => match text {
            "true" | "1" => Some(Value::Bool(true)),
            "false" | "0" => Some(Value::Bool(false)),
            _ => invalid("`true` or `false`"),
        },
        FieldKind::Time => {
            let time = text.parse().ok().map(Value::Time);
            time.or_else(|| invalid("a time such as `2026-11-20T08:52:32Z`"))
        }
        FieldKind::OneOf(words) if words.contains(&text) => Some(Value::Text(text.to_owned())),
        FieldKind::OneOf(words) => invalid(&format!("one of {}", list(words))),
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ")
}

/// The values of a cursor in JSON.
pub(super) fn to_json(value: &Value) -> JsonValue {
    match value {
        Value::Null | Value::Bytes(_) => JsonValue::Null,
        Value::Int(it) => (*it).into(),
        Value::Real(it) => (*it).into(),
        Value::Text(it) => it.clone().into(),
        Value::Bool(it) => (*it).into(),
        Value::Time(it) => it.to_string().into(),
    }
}
