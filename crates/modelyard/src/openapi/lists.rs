//! Lists: how they are filtered, sorted and paged, and what they answer then.

use modelyard_flow::{job, schedule};
use modelyard_kernel::list::{FieldKind, Fields, MAX_LIMIT, MAX_SIZE};
use modelyard_ops::audit;
use modelyard_run::{artifact, config, task};
use serde_json::{Value, json};

use super::components::ULID;
use super::operation::Operation;

/// What may be asked of the lists.
fn fields(id: &str) -> Option<&'static Fields> {
    match id {
        "list_audit_entries" => Some(&audit::http::FIELDS),
        "list_artifacts" => Some(&artifact::http::FIELDS),
        "list_configs" => Some(&config::http::FIELDS),
        "list_jobs" => Some(&job::FIELDS),
        "list_schedules" => Some(&schedule::FIELDS),
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

/// Describes the parameters and the answers of a list. Returns the name of its items' schema, from
/// which [`schemas`] makes those that the answers refer to.
pub(super) fn describe(operation: &mut Operation<'_>) -> Option<String> {
    let fields = fields(operation.id())?;
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
    let json = json?;
    let item = json.get("schema")?["items"]["$ref"].as_str()?.rsplit('/').next()?.to_owned();
    json.insert("schema".to_owned(), answers(&item));
    Some(item)
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

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn part_of(item: &str) -> String {
    format!("{item}Part")
}

fn page_of(item: &str) -> String {
    format!("{item}Page")
}

fn walk_of(item: &str) -> String {
    format!("{item}Walk")
}

fn items_of(item: &str) -> Value {
    json!({"type": "array", "items": {"anyOf": [reference(item), reference(&part_of(item))]}})
}

/// A list as a whole, as a page, and as a part of a walk through it.
fn answers(item: &str) -> Value {
    json!({
        "anyOf": [items_of(item), reference(&page_of(item)), reference(&walk_of(item))],
        "description": "A plain list; with `page` and `size` a page of it; with `limit` or \
                        `cursor` a part of it and the cursor of the next.",
    })
}

/// The schemas that the answers of a list refer to. `whole` is that of an item.
pub(super) fn schemas(item: &str, whole: &Value) -> [(String, Value); 3] {
    let items = items_of(item);
    let count = || json!({"type": "integer", "format": "int64", "minimum": 0});
    let page = json!({
        "type": "object",
        "description": "A page: what `page` and `size` ask for.",
        "required": ["items", "total", "page", "size", "pages"],
        "properties": {
            "items": items, "total": count(), "page": count(), "size": count(), "pages": count(),
        },
    });
    let walk = json!({
        "type": "object",
        "description": "Some items and where to go on: what `limit` and `cursor` ask for.",
        "required": ["items", "next"],
        "properties": {
            "items": items,
            "next": {"type": ["string", "null"], "description": "The next `cursor`; null at the end."},
        },
    });
    [(part_of(item), part(whole)), (page_of(item), page), (walk_of(item), walk)]
}

/// An item with only some of its keys, as `fields` asks for it.
fn part(whole: &Value) -> Value {
    let mut part = whole.clone();
    if let Some(part) = part.as_object_mut() {
        part.remove("required");
        part.insert("description".to_owned(), "The keys that `fields` names.".into());
    }
    part
}
