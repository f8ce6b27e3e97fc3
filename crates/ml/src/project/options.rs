//! A config's fields, from the manifest's own notation or from the JSON Schema of an `MLproject`.

use modelyard_kernel::form::Bounds;
use modelyard_run::config::schema::{ConfigSchema, Field, FieldKind, Length, PREDICTION_PERIODS};
use serde_json::{Map, Number, Value, json};

use super::read::Section;

const TYPES: &[&str] = &[
    "integer",
    "number",
    "string",
    "boolean",
    "list[integer]",
    "list[number]",
    "list[string]",
    "list[boolean]",
];

const FIELD: &[&str] =
    &["type", "default", "required", "title", "description", "minimum", "maximum", "choices"];

/// What the translation of an `MLproject`'s option checks or shows; with more than these the schema
/// is kept as it is written.
const TRANSLATED: &[&str] = &[
    "type",
    "default",
    "title",
    "description",
    "enum",
    "items",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "examples",
    "$comment",
];

/// The items of a list have no bounds of their own.
const PLAIN_ITEM: &[&str] = &["type", "enum", "items", "title", "description"];

/// A schema with the fields that every config has. `horizon` is the default of
/// `prediction_periods`.
pub fn schema(title: &str, description: &str, horizon: u32) -> ConfigSchema {
    let periods = Field::new(PREDICTION_PERIODS, FieldKind::Integer)
        .with_default(horizon)
        .with_description("Number of periods to predict into the future.");
    ConfigSchema::new(title).with_description(description).with_field(periods)
}

/// A field of the manifest; nothing when a problem has been reported.
pub fn from_manifest(name: &str, section: &Section<'_>) -> Option<Field> {
    section.only(FIELD);
    let default = section.json("default");
    let choices = choices(section);
    let kind = match choices {
        Some(Choices::Wrong) => return None,
        Some(Choices::Of(values)) => {
            declared(section, values.first());
            FieldKind::Enum(values)
        }
        None => declared(section, None)?,
    };
    let mut field = Field::new(name, kind);
    field.description = section.string("description");
    if let Some(title) = section.string("title") {
        field.title = title;
    }
    field.bounds.ge = bound(section, "minimum", &field.kind);
    field.bounds.le = bound(section, "maximum", &field.kind);
    if let (Some(minimum), Some(maximum)) = (&field.bounds.ge, &field.bounds.le)
        && minimum.as_f64() > maximum.as_f64()
    {
        fail(section, "minimum", "is greater than its maximum");
    }
    field.default = default.and_then(|default| checked_default(section, &field, default));
    match section.boolean("required") {
        Some(true) if section.has("default") => {
            fail(section, "required", "is true, but the field has a default");
        }
        Some(false) if !section.has("default") => {
            field.nullable = true;
            field.default = Some(Value::Null);
        }
        _ => {}
    }
    Some(field)
}

enum Choices {
    Of(Vec<Value>),
    Wrong,
}

fn choices(section: &Section<'_>) -> Option<Choices> {
    if !section.has("choices") {
        return None;
    }
    let values = match section.json("choices") {
        Some(Value::Array(values)) => values,
        Some(_) => Vec::new(),
        None => return Some(Choices::Wrong),
    };
    if values.is_empty() || values.iter().any(|value| value.is_array() || value.is_object()) {
        fail(
            section,
            "choices",
            "must be a list of strings, numbers or booleans, with one at least",
        );
        return Some(Choices::Wrong);
    }
    Some(Choices::Of(values))
}

/// The field's type, which must be there unless there are choices to tell it.
fn declared(section: &Section<'_>, choice: Option<&Value>) -> Option<FieldKind> {
    if !section.has("type") {
        if choice.is_none() {
            section.missing("type");
        }
        return None;
    }
    let spelled = section.string("type")?;
    let inner = spelled.strip_prefix("list[").and_then(|inner| inner.strip_suffix(']'));
    let kind = scalar(inner.unwrap_or(&spelled)).map(|kind| match inner {
        Some(_) => FieldKind::List(Box::new(kind)),
        None => kind,
    });
    match (&kind, choice) {
        // The full answer to a misspelled type comes from the check of choices.
        (None, _) => {
            section.choice("type", TYPES);
        }
        (Some(kind), Some(choice)) if !fits(choice, kind) => {
            fail(section, "choices", &format!("are not of the field's type {}", name(kind)));
        }
        _ => {}
    }
    kind
}

fn bound(section: &Section<'_>, key: &str, kind: &FieldKind) -> Option<Number> {
    if section.has(key) && !matches!(kind, FieldKind::Integer | FieldKind::Number) {
        fail(section, key, &format!("is for numbers, and the field's type is {}", name(kind)));
        return None;
    }
    section.number(key)
}

fn checked_default(section: &Section<'_>, field: &Field, default: Value) -> Option<Value> {
    let outside = |bound: &Option<Number>, above: bool| {
        let (Some(bound), Some(default)) =
            (bound.as_ref().and_then(Number::as_f64), default.as_f64())
        else {
            return false;
        };
        if above { default > bound } else { default < bound }
    };
    let complaint = match &field.kind {
        FieldKind::Enum(values) if !values.contains(&default) => {
            "is not one of the field's choices".to_owned()
        }
        kind if !fits(&default, kind) => format!("is not of the field's type {}", name(kind)),
        _ if outside(&field.bounds.ge, false) => "is less than the field's minimum".to_owned(),
        _ if outside(&field.bounds.le, true) => "is greater than the field's maximum".to_owned(),
        _ => return Some(coerce(&default, &field.kind)),
    };
    fail(section, "default", &complaint);
    None
}

fn fail(section: &Section<'_>, key: &str, complaint: &str) {
    section.fail(key, format!("`{}` {complaint}", section.dotted(key)));
}

/// An option of an `MLproject`: a JSON Schema property, or only its default. What cannot be used
/// becomes a note.
pub fn from_json_schema(name: &str, body: &Value, notes: &mut Vec<String>) -> Field {
    let shorthand = Map::from_iter([("default".to_owned(), body.clone())]);
    let body = body.as_object().unwrap_or(&shorthand);
    let (effective, null_branch) = without_null_branch(body);
    let (kind, null_type) = kind(&effective);
    let mut field = Field::new(name, kind);
    field.nullable = null_branch || null_type || body.get("default") == Some(&Value::Null);
    if let Some(title) = text(body, "title") {
        field.title = title;
    }
    field.description = text(body, "description");
    let length = |min: &str, max: &str| {
        let limit = |key: &str| effective.get(key).and_then(Value::as_u64);
        Length { min: limit(min), max: limit(max) }
    };
    match field.kind {
        FieldKind::Integer | FieldKind::Number => field.bounds = bounds(&effective),
        FieldKind::String => field.length = length("minLength", "maxLength"),
        FieldKind::List(_) => field.length = length("minItems", "maxItems"),
        FieldKind::Boolean | FieldKind::Enum(_) | FieldKind::Any(_) => {}
    }
    field.default = body.get("default").map(|default| {
        let coerced = coerce(default, &field.kind);
        if !coerced.is_null() && !fits(&coerced, &field.kind) {
            let kind = self::name(&field.kind);
            notes.push(format!(
                "the default of user_options.{name}, {coerced}, is not of its type {kind}; configs \
                 must set it"
            ));
        }
        coerced
    });
    field
}

/// `anyOf` of one schema and null is that schema, nullable; the keywords around it hold as well.
fn without_null_branch(body: &Map<String, Value>) -> (Map<String, Value>, bool) {
    let Some((key, Value::Array(branches))) =
        ["anyOf", "oneOf"].iter().find_map(|key| body.get_key_value(*key))
    else {
        return (body.clone(), false);
    };
    let is_null = |branch: &&Value| branch.get("type").and_then(Value::as_str) == Some("null");
    let (nulls, others): (Vec<&Value>, Vec<&Value>) = branches.iter().partition(is_null);
    match others.as_slice() {
        [Value::Object(only)] => {
            let mut merged = body.clone();
            merged.remove(key);
            merged.extend(only.clone());
            (merged, !nulls.is_empty())
        }
        _ => (body.clone(), !nulls.is_empty()),
    }
}

/// The kind that a property's values have, and whether null is among its types.
fn kind(body: &Map<String, Value>) -> (FieldKind, bool) {
    let as_written = || {
        let told_apart = ["title", "description", "default"];
        let mut fragment = body.clone();
        fragment.retain(|key, _| !told_apart.contains(&key.as_str()));
        canonical_types(&mut fragment);
        FieldKind::Any(Value::Object(fragment))
    };
    if body.keys().any(|key| !TRANSLATED.contains(&key.as_str())) {
        return (as_written(), false);
    }
    let types = types(body);
    let nullable = types.contains(&"null");
    let types: Vec<&str> = types.into_iter().filter(|name| *name != "null").collect();
    if let Some(Value::Array(values)) = body.get("enum")
        && !values.is_empty()
        && !values.iter().any(|value| value.is_array() || value.is_object())
    {
        let (nulls, values): (Vec<Value>, Vec<Value>) =
            values.iter().cloned().partition(Value::is_null);
        let kind = if values.is_empty() { as_written() } else { FieldKind::Enum(values) };
        return (kind, nullable || !nulls.is_empty());
    }
    let kind = match types.as_slice() {
        ["array"] => match body.get("items") {
            None => FieldKind::List(Box::new(FieldKind::Any(json!({})))),
            Some(Value::Object(items))
                if items.keys().all(|key| PLAIN_ITEM.contains(&key.as_str())) =>
            {
                match kind(items) {
                    (item, false) => FieldKind::List(Box::new(item)),
                    (_, true) => as_written(),
                }
            }
            Some(_) => as_written(),
        },
        [only] => scalar(only).unwrap_or_else(as_written),
        [] if !nullable => inferred(body.get("default")),
        _ => as_written(),
    };
    (kind, nullable)
}

/// The declared types in their standard spelling. Unknown ones count as strings, as with chapkit.
fn types(body: &Map<String, Value>) -> Vec<&'static str> {
    match body.get("type") {
        None => Vec::new(),
        Some(Value::Array(names)) => names.iter().map(standard).collect(),
        Some(name) => vec![standard(name)],
    }
}

fn standard(name: &Value) -> &'static str {
    match name.as_str().map(str::to_lowercase).as_deref() {
        Some("integer" | "int") => "integer",
        Some("number" | "float") => "number",
        Some("boolean" | "bool") => "boolean",
        Some("array") => "array",
        Some("object") => "object",
        Some("null") | None => "null",
        Some(_) => "string",
    }
}

fn canonical_types(fragment: &mut Map<String, Value>) {
    match fragment.get_mut("type") {
        Some(Value::Array(names)) => {
            for name in names {
                *name = standard(name).into();
            }
        }
        Some(name) => *name = standard(name).into(),
        None => {}
    }
}

fn scalar(spelled: &str) -> Option<FieldKind> {
    match spelled {
        "integer" | "int" => Some(FieldKind::Integer),
        "number" | "float" => Some(FieldKind::Number),
        "string" | "str" | "path" => Some(FieldKind::String),
        "boolean" | "bool" => Some(FieldKind::Boolean),
        _ => None,
    }
}

/// Nothing declared: the default shows what is meant, and without one it is a string.
fn inferred(default: Option<&Value>) -> FieldKind {
    match default {
        Some(Value::Bool(_)) => FieldKind::Boolean,
        Some(Value::Number(number)) if number.is_f64() => FieldKind::Number,
        Some(Value::Number(_)) => FieldKind::Integer,
        Some(Value::Array(_) | Value::Object(_)) => FieldKind::Any(json!({})),
        Some(Value::String(_) | Value::Null) | None => FieldKind::String,
    }
}

/// An older spelling of an exclusive bound is `true` beside the inclusive one.
fn bounds(body: &Map<String, Value>) -> Bounds {
    let number = |key: &str| body.get(key).and_then(Value::as_number).cloned();
    let split = |inclusive: &str, exclusive: &str| match body.get(exclusive) {
        Some(Value::Bool(true)) => (None, number(inclusive)),
        _ => (number(inclusive), number(exclusive)),
    };
    let (ge, gt) = split("minimum", "exclusiveMinimum");
    let (le, lt) = split("maximum", "exclusiveMaximum");
    Bounds { ge, gt, le, lt }
}

/// A default in the type it was meant to have: `"7"` for an integer, `5` for a string.
fn coerce(default: &Value, kind: &FieldKind) -> Value {
    let coerced = match (kind, default) {
        (FieldKind::Integer, Value::String(text)) => {
            text.trim().parse::<i64>().ok().map(Value::from)
        }
        (FieldKind::Number, Value::String(text)) => {
            text.trim().parse().ok().and_then(Number::from_f64).map(Value::Number)
        }
        (FieldKind::Integer, Value::Number(number)) => whole(number).map(Value::from),
        (FieldKind::Number, Value::Number(number)) => {
            number.as_f64().and_then(Number::from_f64).map(Value::Number)
        }
        (FieldKind::String, Value::Number(_) | Value::Bool(_)) => {
            Some(Value::from(default.to_string()))
        }
        (FieldKind::Boolean, Value::String(text)) => match text.trim().to_lowercase().as_str() {
            "true" | "1" | "yes" => Some(Value::Bool(true)),
            "false" | "0" | "no" => Some(Value::Bool(false)),
            _ => None,
        },
        _ => None,
    };
    coerced.unwrap_or_else(|| default.clone())
}

fn fits(value: &Value, kind: &FieldKind) -> bool {
    match kind {
        FieldKind::Integer => value.as_number().is_some_and(|number| whole(number).is_some()),
        FieldKind::Number => value.is_number(),
        FieldKind::String => value.is_string(),
        FieldKind::Boolean => value.is_boolean(),
        FieldKind::Enum(values) => values.contains(value),
        FieldKind::List(inner) => {
            value.as_array().is_some_and(|items| items.iter().all(|item| fits(item, inner)))
        }
        FieldKind::Any(_) => true,
    }
}

fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        // Beyond this a float has no units place, and a config has no use for it.
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15)?;
        format!("{float:.0}").parse().ok()
    })
}

fn name(kind: &FieldKind) -> String {
    match kind {
        FieldKind::Integer => "integer".to_owned(),
        FieldKind::Number => "number".to_owned(),
        FieldKind::String => "string".to_owned(),
        FieldKind::Boolean => "boolean".to_owned(),
        FieldKind::Enum(_) => "choice".to_owned(),
        FieldKind::List(inner) => format!("list[{}]", name(inner)),
        FieldKind::Any(_) => "any".to_owned(),
    }
}

fn text(body: &Map<String, Value>, key: &str) -> Option<String> {
    let text = body.get(key)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
