//! From a query string to a [`ListQuery`].

use serde_json::Value as JsonValue;
use url::form_urlencoded;

use super::{
    Direction, Field, FieldKind, Fields, Filter, ListQuery, Operator, Paging, Sort, cursor,
};
use crate::db::Value;
use crate::form::{Bounds, Report, query_int, shorten};
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

impl ListQuery {
    /// Reads a query string against what `fields` allows. `own` are parameters that the route reads
    /// itself.
    ///
    /// # Errors
    /// 422 for pages out of bounds, as the contract has it; 400 with the valid names for an unknown
    /// field, operator or sort key.
    pub fn read(
        query: Option<&str>,
        fields: &'static Fields,
        own: &[&str],
    ) -> Result<Self, Failure> {
        let mut it = Self::all(fields);
        let mut raw = Raw::default();
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*key {
                "page" => raw.page = Some(value.into_owned()),
                "size" => raw.size = Some(value.into_owned()),
                "limit" => raw.limit = Some(value.into_owned()),
                "cursor" => raw.cursor = Some(value.into_owned()),
                "sort" => it.sort = sort(&value, fields)?,
                "fields" => it.only = only(&value, fields)?,
                "q" => it.search = search(&value)?,
                key if own.contains(&key) => {}
                key => {
                    it.filters.push(filter(key, &value, fields)?);
                    if it.filters.len() > MAX_FILTERS {
                        let detail = format!("a list takes at most {MAX_FILTERS} filters");
                        return Err(Failure::bad_request("filter_invalid", detail));
                    }
                }
            }
        }
        it.complete_sort();
        it.paging = paging(&raw, &it)?;
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

    /// Adds a condition of the route's own.
    ///
    /// # Panics
    /// Never on input: the field's name is written in the code, and a test calls it.
    #[must_use]
    pub fn with(mut self, field: &'static str, value: impl Into<Value>) -> Self {
        let field = self.fields.fields.iter().position(|it| it.name == field);
        let field = field.expect("the field is one of the entity's");
        self.filters.push(Filter { field, operator: Operator::Eq, values: vec![value.into()] });
        self
    }

    /// Whether the client asked for the contract's pages.
    pub fn is_paged(&self) -> bool {
        matches!(self.paging, Paging::Page { .. })
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

fn paging(raw: &Raw, query: &ListQuery) -> Result<Paging, Failure> {
    let report = Report::new();
    let bounded = |name: &str, raw: &Option<String>, max: Option<i64>| {
        let mut bounds = Bounds::none().at_least(1);
        if let Some(max) = max {
            bounds = bounds.at_most(max);
        }
        query_int(&report, name, raw.as_deref(), &bounds)
    };
    let page = bounded("page", &raw.page, None);
    let size = bounded("size", &raw.size, Some(MAX_SIZE));
    let limit = bounded("limit", &raw.limit, Some(MAX_LIMIT));
    report.finish().map_err(Failure::violations)?;

    if raw.cursor.is_some() || raw.limit.is_some() {
        let after = match raw.cursor.as_deref().filter(|it| !it.is_empty()) {
            Some(text) => Some(cursor::decode(text, query).ok_or_else(|| {
                Failure::bad_request(
                    "cursor_invalid",
                    "this cursor is not from a list in this order; take `next` of the previous answer, with the same `sort`",
                )
            })?),
            None => None,
        };
        return Ok(Paging::Cursor { after, limit: limit.unwrap_or(DEFAULT_LIMIT) });
    }
    Ok(match (page, size) {
        (Some(page), Some(size)) => Paging::Page { page, size },
        _ => Paging::All,
    })
}

fn search(text: &str) -> Result<Option<String>, Failure> {
    if text.contains('\0') {
        let detail = "`q` looks for a text without zero characters";
        return Err(Failure::bad_request("filter_invalid", detail));
    }
    bounded("q", text)?;
    Ok(Some(text.trim().to_ascii_lowercase()).filter(|it| !it.is_empty()))
}

/// Checks a text that is looked for within others.
fn bounded(parameter: &str, text: &str) -> Result<(), Failure> {
    if text.chars().nth(MAX_SOUGHT).is_none() {
        return Ok(());
    }
    let detail = format!("`{parameter}` looks for a text of at most {MAX_SOUGHT} characters");
    Err(Failure::bad_request("filter_invalid", detail))
}

fn sort(text: &str, fields: &'static Fields) -> Result<Vec<Sort>, Failure> {
    let mut sorts: Vec<Sort> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (name, direction) = part.split_once(':').unwrap_or((part, "asc"));
        let sortable = || fields.fields.iter().filter(|it| it.sortable);
        let Some(field) = sortable().find(|it| it.name == name) else {
            let valid: Vec<&str> = sortable().map(|it| it.name).collect();
            return Err(unknown("sort_unknown", "sort key", name, &valid));
        };
        let direction = match direction {
            "asc" => Direction::Asc,
            "desc" => Direction::Desc,
            other => return Err(unknown("sort_unknown", "direction", other, &["asc", "desc"])),
        };
        if !sorts.iter().any(|it| it.0 == field.name) {
            sorts.push((field.name, direction));
        }
    }
    if sorts.is_empty() {
        sorts.push(fields.default_sort);
    }
    Ok(sorts)
}

/// No names at all ask for everything.
fn only(text: &str, fields: &'static Fields) -> Result<Option<Vec<&'static str>>, Failure> {
    let names = text.split(',').map(str::trim).filter(|it| !it.is_empty());
    let keys = names.map(|name| {
        let key = fields.keys.iter().copied().find(|it| *it == name);
        key.ok_or_else(|| unknown("field_unknown", "field", name, fields.keys))
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    Ok(Some(keys).filter(|it| !it.is_empty()))
}

fn filter(key: &str, text: &str, fields: &'static Fields) -> Result<Filter, Failure> {
    let operated = key.strip_suffix(']').and_then(|it| it.split_once('['));
    let (name, operator) = operated.unwrap_or((key, "eq"));
    let Some(index) = fields.fields.iter().position(|it| it.name == name) else {
        let valid: Vec<&str> = fields.fields.iter().map(|it| it.name).collect();
        return Err(unknown("filter_unknown", "filter", name, &valid));
    };
    let field = &fields.fields[index];
    let valid = operators(field.kind);
    let Some(operator) = valid.iter().find(|it| it.0 == operator).map(|it| it.1) else {
        let names: Vec<&str> = valid.iter().map(|it| it.0).collect();
        return Err(unknown(
            "operator_unknown",
            &format!("operator on `{name}`"),
            operator,
            &names,
        ));
    };
    let values = match operator {
        Operator::In => {
            let parts: Vec<&str> = text.split(',').map(str::trim).collect();
            if parts.len() > MAX_IN {
                return Err(Failure::bad_request(
                    "filter_invalid",
                    format!("`{name}[in]` takes at most {MAX_IN} values"),
                ));
            }
            parts.into_iter().map(|it| values(field, it)).collect::<Result<Vec<_>, _>>()?.concat()
        }
        Operator::Contains => {
            bounded(key, text)?;
            vec![value(field, &text.to_ascii_lowercase())?]
        }
        _ => values(field, text)?,
    };
    Ok(Filter { field: index, operator, values })
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
fn values(field: &Field, text: &str) -> Result<Vec<Value>, Failure> {
    Ok(match value(field, text)? {
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

fn value(field: &Field, text: &str) -> Result<Value, Failure> {
    let invalid = |expected: &str| {
        Failure::bad_request(
            "filter_invalid",
            format!("`{}` is compared with {expected}, not `{}`", field.name, shorten(text)),
        )
    };
    match field.kind {
        // PostgreSQL has no zero character in text.
        FieldKind::Text | FieldKind::Tags if text.contains('\0') => {
            Err(invalid("a text without zero characters"))
        }
        FieldKind::Text | FieldKind::Tags => Ok(Value::Text(text.to_owned())),
        FieldKind::Id => Ulid::read(text).map(Value::from).ok_or_else(|| invalid("a ULID")),
        FieldKind::Int => {
            text.parse::<i64>().map(Value::Int).map_err(|_| invalid("a whole number"))
        }
        FieldKind::Bool => match text {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err(invalid("`true` or `false`")),
        },
        FieldKind::Time => text
            .parse::<Time>()
            .map(Value::Time)
            .map_err(|_| invalid("a time such as `2026-11-20T08:52:32Z`")),
        FieldKind::OneOf(words) => {
            if words.contains(&text) {
                Ok(Value::Text(text.to_owned()))
            } else {
                Err(invalid(&format!("one of {}", list(words))))
            }
        }
    }
}

fn unknown(code: &'static str, what: &str, name: &str, valid: &[&str]) -> Failure {
    Failure::bad_request(
        code,
        format!("there is no {what} `{}`; the valid ones are {}", shorten(name), list(valid)),
    )
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
