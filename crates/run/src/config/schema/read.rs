//! What clients send as a config: checked, coerced, completed.

use modelyard_kernel::form::{Node, Violation, choice, quote};
use serde_json::{Map, Number, Value, json};

use super::{ConfigSchema, Field, FieldKind, Length};

/// Some clients put the options of the model under this key.
const NESTED: &str = "user_option_values";

impl ConfigSchema {
    /// Reads a config: the fields in the order of the schema, with defaults filled in, and after
    /// them every other key in the client's order.
    ///
    /// Keys under `user_option_values` count as if they stood beside it, where they do not already.
    #[expect(clippy::needless_pass_by_value, reason = "so that it fits `and_then`")]
    pub fn read(&self, node: Node<'_>) -> Option<Map<String, Value>> {
        let sent = Sent::new(node.object()?.map());
        let mut data = Map::new();
        let mut is_good = true;
        for field in &self.fields {
            match (sent.get(&field.name), &field.default) {
                (Some(value), _) => match field.read(&node.field(&field.name, value)) {
                    Some(value) => _ = data.insert(field.name.clone(), value),
                    None => is_good = false,
                },
                (None, Some(default)) => _ = data.insert(field.name.clone(), default.clone()),
                (None, None) if field.optional => {}
                (None, None) => {
                    fail_missing(&node, &field.name, &sent);
                    is_good = false;
                }
            }
        }
        let extras = sent.entries().filter(|(key, _)| self.field(key).is_none());
        data.extend(extras.map(|(key, value)| (key.to_owned(), value.clone())));
        (is_good && self.keeps_type(&data, &node)).then_some(data)
    }

    fn keeps_type(&self, data: &Map<String, Value>, node: &Node<'_>) -> bool {
        let Some(check) = self.check else { return true };
        check(data).map_err(|reason| node.fail_rule(reason)).is_ok()
    }
}

fn fail_missing(node: &Node<'_>, name: &str, sent: &Sent<'_>) {
    node.report().push(|| {
        let parent: Map<String, Value> =
            sent.entries().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        Violation::missing(node.tagged(name).loc(), &Value::Object(parent))
    });
}

/// The keys of a config, with nested ones lifted up.
struct Sent<'a> {
    flat: &'a Map<String, Value>,
    nested: Option<&'a Map<String, Value>>,
}

impl<'a> Sent<'a> {
    fn new(flat: &'a Map<String, Value>) -> Self {
        Sent { flat, nested: flat.get(NESTED).and_then(Value::as_object) }
    }

    fn is_flat(&self, key: &str) -> bool {
        self.flat.contains_key(key) && (self.nested.is_none() || key != NESTED)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        if self.is_flat(key) { self.flat.get(key) } else { self.nested?.get(key) }
    }

    fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let flat = self.flat.iter().filter(|(key, _)| self.is_flat(key));
        let nested = self.nested.into_iter().flatten().filter(|(key, _)| !self.is_flat(key));
        flat.chain(nested).map(|(key, value)| (key.as_str(), value))
    }
}

impl Field {
    /// Reads one value. `None` when it does not fit, which the report then says.
    pub(crate) fn read(&self, node: &Node<'_>) -> Option<Value> {
        if self.nullable && node.is_null() {
            return Some(Value::Null);
        }
        match &self.kind {
            FieldKind::Integer => node.int_within(&self.bounds).map(Value::from),
            FieldKind::Number => node.float_within(&self.bounds).map(Value::from),
            FieldKind::String => {
                let text = node.str()?;
                self.length.allows_text(text, node).then(|| text.into())
            }
            FieldKind::List(_) => {
                let list = read_kind(&self.kind, node)?;
                let count = list.as_array().map_or(0, Vec::len);
                self.length.allows_items(count, node).then_some(list)
            }
            kind => read_kind(kind, node),
        }
    }
}

fn read_kind(kind: &FieldKind, node: &Node<'_>) -> Option<Value> {
    match kind {
        FieldKind::Integer => node.int().map(Value::from),
        FieldKind::Number => node.float().map(Value::from),
        FieldKind::String => node.str().map(Value::from),
        FieldKind::Boolean => node.bool().map(Value::from),
        FieldKind::Enum(values) => read_one_of(values, node),
        FieldKind::List(item) => read_list(item, node),
        FieldKind::Any(_) => Some(node.value().clone()),
    }
}

fn read_list(kind: &FieldKind, node: &Node<'_>) -> Option<Value> {
    let items = node.list()?;
    let read: Vec<Value> = items.iter().filter_map(|item| read_kind(kind, item)).collect();
    (read.len() == items.len()).then_some(Value::Array(read))
}

fn read_one_of(values: &[Value], node: &Node<'_>) -> Option<Value> {
    let found = values.iter().find(|value| is_same(value, node.value()));
    if found.is_none() {
        let shown: Vec<String> = values.iter().map(shown).collect();
        node.fail_choice("literal_error", &choice(&shown));
    }
    found.cloned()
}

/// Equal, where 1 and 1.0 are.
fn is_same(one: &Value, other: &Value) -> bool {
    let number = |value: &Value| value.as_number().and_then(Number::as_f64);
    one == other || number(one).is_some_and(|one| number(other) == Some(one))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

impl Length {
    fn allows_text(self, text: &str, node: &Node<'_>) -> bool {
        let count = text.chars().count() as u64;
        if let Some(min) = self.min.filter(|min| count < *min) {
            let msg = format!("String should have at least {min} {}", plural(min, "character"));
            node.fail("string_too_short", msg, Some(json!({"min_length": min})));
            return false;
        }
        if let Some(max) = self.max.filter(|max| count > *max) {
            let msg = format!("String should have at most {max} {}", plural(max, "character"));
            node.fail("string_too_long", msg, Some(json!({"max_length": max})));
            return false;
        }
        true
    }

    fn allows_items(self, count: usize, node: &Node<'_>) -> bool {
        let fail = |kind, most_or_least: &str, key: &str, limit: u64| {
            let items = plural(limit, "item");
            let msg = format!(
                "List should have at {most_or_least} {limit} {items} after validation, not {count}"
            );
            let ctx = json!({"field_type": "List", key: limit, "actual_length": count});
            node.fail(kind, msg, Some(ctx));
            false
        };
        if let Some(min) = self.min.filter(|min| (count as u64) < *min) {
            return fail("too_short", "least", "min_length", min);
        }
        if let Some(max) = self.max.filter(|max| (count as u64) > *max) {
            return fail("too_long", "most", "max_length", max);
        }
        true
    }
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}
