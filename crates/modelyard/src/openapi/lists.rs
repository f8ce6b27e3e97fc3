//! Lists: how they are filtered, sorted and paged, and what they answer then.

use modelyard_flow::job;
use modelyard_kernel::list::{FieldKind, Fields, MAX_LIMIT, MAX_SIZE};
use modelyard_run::{artifact, config, task};
use serde_json::{Map, Value, json};

use super::components::ULID;
use super::operation::Operation;

/// Marks a schema that is still to be made from another one, by its name.
pub(super) const PART_OF: &str = "part of";

/// What may be asked of the lists.
fn fields(id: &str) -> Option<&'static Fields> {
    match id {
        "list_artifacts" => Some(&artifact::http::FIELDS),
        "list_configs" => Some(&config::http::FIELDS),
        "list_jobs" => Some(&job::FIELDS),
        "list_tasks" => Some(&task::http::FIELDS),
        _ => None,
    }
}

/// Parameters of every list.
pub(super) fn parameters() -> [(&'static str, Value); 5] {
    let parameter = |name: &str, description: String, schema: Value| json!({"name": name, "in": "query", "description": description, "schema": schema});
    [
        ("Page", parameter(
            "page",
            "The page, from 1. Pages are given when `size` is given as well.".to_owned(),
            json!({"type": "integer", "minimum": 1}),
        )),
        ("Size", parameter(
            "size",
            "Items of a page.".to_owned(),
            json!({"type": "integer", "minimum": 1, "maximum": MAX_SIZE}),
        )),
        ("Limit", parameter(
            "limit",
            "Items of one answer, for walking through the list with `cursor`: no item is passed \
             over or met twice, whatever is added meanwhile.".to_owned(),
            json!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
        )),
        ("Cursor", parameter(
            "cursor",
            "`next` of the answer before, asked with the same `sort`.".to_owned(),
            json!({"type": "string"}),
        )),
        ("Search", parameter(
            "q",
            "A text to look for, in any case of its letters, in names and tags.".to_owned(),
            json!({"type": "string"}),
        )),
    ]
}

/// Describes the parameters and the answers of a list.
pub(super) fn describe(operation: &mut Operation<'_>, schemas: &mut Map<String, Value>) {
    let Some(fields) = fields(operation.id()) else { return };
    let own: Vec<String> = operation.names("query").map(ToOwned::to_owned).collect();
    for field in fields.fields.iter().filter(|it| !own.iter().any(|own| own == it.name)) {
        operation.parameters().push(filter(field.name, field.kind));
    }
    operation.parameters().push(sort(fields));
    operation.parameters().push(sparse(fields));
    for shared in ["Search", "Page", "Size", "Limit", "Cursor"] {
        operation.add_shared(shared);
    }
    let content = operation.response("200").and_then(|it| it.get_mut("content"));
    let json = content.and_then(|it| it.get_mut("application/json")).and_then(Value::as_object_mut);
    let Some(json) = json else { return };
    let item = json.get("schema").and_then(|it| it["items"]["$ref"].as_str());
    let Some(item) = item.and_then(|it| it.rsplit('/').next()).map(ToOwned::to_owned) else {
        return;
    };
    json.insert("schema".to_owned(), answers(&item, schemas));
}

fn filter(name: &str, kind: FieldKind) -> Value {
    let schema = match kind {
        FieldKind::Id => json!({"type": "string", "pattern": ULID}),
        FieldKind::Int => json!({"type": "integer", "format": "int64"}),
        FieldKind::Bool => json!({"type": "boolean"}),
        FieldKind::OneOf(words) => json!({"type": "string", "enum": words}),
        FieldKind::Text | FieldKind::Tags | FieldKind::Time => json!({"type": "string"}),
    };
    let more: Vec<String> = kind
        .operators()
        .filter(|it| *it != "eq")
        .map(|operator| format!("`{name}[{operator}]`"))
        .collect();
    let description = format!("Only items with this `{name}`. Also as {}.", more.join(", "));
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

fn sort(fields: &Fields) -> Value {
    let names: Vec<&str> =
        fields.fields.iter().filter(|it| it.sortable).map(|it| it.name).collect();
    json!({
        "name": "sort",
        "in": "query",
        "description": format!(
            "Keys to sort by, with commas between and perhaps a direction behind each, such as \
             `{}:desc,id`. The keys are {}.",
            names.last().unwrap_or(&"id"),
            quoted(&names)
        ),
        "schema": {"type": "string"},
    })
}

fn sparse(fields: &Fields) -> Value {
    json!({
        "name": "fields",
        "in": "query",
        "description": format!(
            "Only these keys of each item, with commas between. There are {}.",
            quoted(fields.keys)
        ),
        "schema": {"type": "string"},
    })
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ")
}

/// A list as a whole, as a page, and as a part of a walk through it.
fn answers(item: &str, schemas: &mut Map<String, Value>) -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let (part, page, walk) = (format!("{item}Part"), format!("{item}Page"), format!("{item}Walk"));
    let items = json!({"type": "array", "items": {"anyOf": [reference(item), reference(&part)]}});
    let count = || json!({"type": "integer", "format": "int64", "minimum": 0});
    let whole = json!({
        "anyOf": [items, reference(&page), reference(&walk)],
        "description": "A plain list; with `page` and `size` a page of it; with `limit` or \
                        `cursor` a part of it and the cursor of the next.",
    });
    schemas.insert(part, json!({ PART_OF: item }));
    schemas.insert(page, json!({
        "type": "object",
        "description": "A page: what `page` and `size` ask for.",
        "required": ["items", "total", "page", "size", "pages"],
        "properties": {
            "items": items, "total": count(), "page": count(), "size": count(), "pages": count(),
        },
    }));
    schemas.insert(walk, json!({
        "type": "object",
        "description": "Some items and where to go on: what `limit` and `cursor` ask for.",
        "required": ["items", "next"],
        "properties": {
            "items": items,
            "next": {"type": ["string", "null"], "description": "The next `cursor`; null at the end."},
        },
    }));
    whole
}

/// An item with only some of its keys, as `fields` asks for it.
pub(super) fn part(whole: &Value) -> Value {
    let mut part = whole.clone();
    if let Some(part) = part.as_object_mut() {
        part.remove("required");
        part.insert("description".to_owned(), "The keys that `fields` names.".into());
    }
    part
}
