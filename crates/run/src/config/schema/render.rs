//! A schema as JSON Schema, in the shape that clients know: keys in alphabetical order, except for
//! the properties, which keep theirs.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value, json};

use super::{ConfigSchema, Field, FieldKind, Length};

impl ConfigSchema {
    /// The JSON Schema of a config.
    pub fn json_schema(&self) -> Value {
        let properties: Map<String, Value> =
            self.fields.iter().map(|field| (field.name.clone(), property(field))).collect();
        let required: Vec<&str> = self
            .fields
            .iter()
            .filter(|field| field.is_required())
            .map(|field| field.name.as_str())
            .collect();
        let mut schema = Map::new();
        if !self.definitions.is_empty() {
            schema.insert("$defs".to_owned(), Value::Object(self.definitions.clone()));
        }
        schema.insert("additionalProperties".to_owned(), Value::Bool(true));
        insert_some(&mut schema, "description", self.description.clone());
        schema.insert("properties".to_owned(), Value::Object(properties));
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
        schema.insert("title".to_owned(), self.title.clone().into());
        schema.insert("type".to_owned(), "object".into());
        sorted(Value::Object(schema), "")
    }
}

fn property(field: &Field) -> Value {
    let mut fragment = kind(&field.kind);
    add_limits(&mut fragment, field);
    let is_named = fragment.contains_key("$ref") || fragment.contains_key("title");
    if field.nullable && field.kind != FieldKind::Any(json!({})) {
        let either = json!([fragment, {"type": "null"}]);
        fragment = Map::from_iter([("anyOf".to_owned(), either)]);
    }
    if !is_named {
        fragment.insert("title".to_owned(), field.title.clone().into());
    }
    insert_some(&mut fragment, "description", field.description.clone());
    let shown = field.default.clone().filter(|_| !field.from_factory);
    insert_some(&mut fragment, "default", shown);
    Value::Object(fragment)
}

fn kind(kind: &FieldKind) -> Map<String, Value> {
    let fragment = match kind {
        FieldKind::Integer => json!({"type": "integer"}),
        FieldKind::Number => json!({"type": "number"}),
        FieldKind::String => json!({"type": "string"}),
        FieldKind::Boolean => json!({"type": "boolean"}),
        FieldKind::List(item) => json!({"type": "array", "items": self::kind(item)}),
        FieldKind::Enum(values) => return enumeration(values),
        FieldKind::Any(fragment) => fragment.clone(),
    };
    match fragment {
        Value::Object(fragment) => fragment,
        // `true` as a JSON Schema: anything goes.
        _ => Map::new(),
    }
}

fn enumeration(values: &[Value]) -> Map<String, Value> {
    let mut fragment = Map::new();
    match values {
        [single] => fragment.insert("const".to_owned(), single.clone()),
        _ => fragment.insert("enum".to_owned(), Value::Array(values.to_vec())),
    };
    let mut types = values.iter().map(type_name);
    let first = types.next().flatten();
    if types.all(|other| other == first) {
        insert_some(&mut fragment, "type", first);
    }
    fragment
}

fn type_name(value: &Value) -> Option<&'static str> {
    match value {
        Value::Null => Some("null"),
        Value::Bool(_) => Some("boolean"),
        Value::Number(number) if number.is_f64() => Some("number"),
        Value::Number(_) => Some("integer"),
        Value::String(_) => Some("string"),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn add_limits(fragment: &mut Map<String, Value>, field: &Field) {
    let mut limit = |key: &str, bound: &Option<Number>| {
        insert_some(fragment, key, bound.clone().map(Value::Number));
    };
    limit("minimum", &field.bounds.ge);
    limit("exclusiveMinimum", &field.bounds.gt);
    limit("maximum", &field.bounds.le);
    limit("exclusiveMaximum", &field.bounds.lt);
    let Length { min, max } = field.length;
    let (shortest, longest) = match field.kind {
        FieldKind::List(_) => ("minItems", "maxItems"),
        _ => ("minLength", "maxLength"),
    };
    insert_some(fragment, shortest, min);
    insert_some(fragment, longest, max);
}

fn insert_some(map: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sorts keys at every depth. Properties and defaults keep the order of their author.
fn sorted(value: Value, parent: &str) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.into_iter().map(|(key, value)| {
                let value = sorted(value, &key);
                (key, value)
            });
            if matches!(parent, "properties" | "default") {
                return Value::Object(entries.collect());
            }
            let entries: BTreeMap<String, Value> = entries.collect();
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| sorted(item, parent)).collect())
        }
        scalar => scalar,
    }
}
