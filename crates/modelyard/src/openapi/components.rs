//! What operations share: schemas, headers, parameters.

use modelyard_kernel::Result;
use modelyard_kernel::failure::Problem;
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::operation::Operation;
use super::{About, conditions, lists, problems};

/// A ULID in Crockford's alphabet, which clients may also send in lower case.
pub(super) const ULID: &str = "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$";

/// Adds what operations refer to.
pub(super) fn add(root: &mut Map<String, Value>, about: &About) -> Result<()> {
    let mut described = vec![(Problem::name().into_owned(), Problem::schema())];
    Problem::schemas(&mut described);
    for (name, schema) in described {
        add_to(root, "schemas", &name, serde_json::to_value(schema)?);
    }
    add_to(
        root,
        "schemas",
        "Ulid",
        json!({
            "type": "string",
            "pattern": ULID,
            "description": "An id, in the order of time.",
            "example": "01M7W2GJGNPH03KT3S3W4GRB46",
        }),
    );
    add_config(root, &about.config);
    add_to(
        root,
        "headers",
        "RequestId",
        json!({
            "description": "The request's id, which the log of the server knows.",
            "required": true,
            "schema": {"$ref": "#/components/schemas/Ulid"},
        }),
    );
    add_to(
        root,
        "headers",
        "ETag",
        json!({
            "description": "Names this state of what was asked for.",
            "schema": {"type": "string", "example": "\"01M7W2GJGNPH03KT3S3W4GRB46-1\""},
        }),
    );
    add_to(
        root,
        "headers",
        "Location",
        json!({
            "description": "Where the new one is.",
            "schema": {"type": "string", "format": "uri"},
        }),
    );
    for (name, parameter) in conditions::parameters().into_iter().chain(lists::parameters()) {
        add_to(root, "parameters", name, parameter);
    }
    for (name, response) in problems::responses() {
        add_to(root, "responses", name, response);
    }
    Ok(())
}

/// The schema of this service's configs, as what `data` of a new config is.
fn add_config(root: &mut Map<String, Value>, schema: &Value) {
    let mut schema = schema.clone();
    let name = "ConfigData";
    move_references(&mut schema, &format!("#/components/schemas/{name}/$defs/"));
    let defaults = example_of(&schema);
    add_to(root, "schemas", name, schema);
    let reference = json!({
        "$ref": format!("#/components/schemas/{name}"),
        "description": "Its values. What is left out gets its default.",
        "example": defaults,
    });
    let schemas = root.get_mut("components").and_then(|it| it.get_mut("schemas"));
    let config = schemas.and_then(|it| it.get_mut("ConfigIn"));
    if let Some(config) = config {
        config["example"]["data"] = defaults;
        config["properties"]["data"] = reference;
    }
}

/// Every property that has a default.
fn example_of(schema: &Value) -> Value {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let defaults =
        properties.filter_map(|(name, it)| Some((name.clone(), it.get("default")?.clone())));
    Value::Object(defaults.collect())
}

/// Makes references within a document right within a larger one.
fn move_references(value: &mut Value, to: &str) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("{to}{name}");
            }
            map.values_mut().for_each(|it| move_references(it, to));
        }
        Value::Array(items) => items.iter_mut().for_each(|it| move_references(it, to)),
        _ => {}
    }
}

/// Adds a component, unless there is one of this name.
pub(super) fn add_to(root: &mut Map<String, Value>, kind: &str, name: &str, it: Value) {
    let components = root.entry("components").or_insert_with(|| json!({})).as_object_mut();
    let Some(components) = components else { return };
    let of_kind = components.entry(kind).or_insert_with(|| json!({}));
    if let Some(of_kind) = of_kind.as_object_mut() {
        of_kind.entry(name).or_insert(it);
    }
}

/// Adds what the answers of lists refer to, by the names of their items' schemas.
pub(super) fn add_lists(root: &mut Map<String, Value>, items: &[String]) {
    for item in items {
        let whole = root["components"]["schemas"][item].clone();
        for (name, schema) in lists::schemas(item, &whole) {
            add_to(root, "schemas", &name, schema);
        }
    }
}

/// Adds a header that several answers have.
pub(super) fn add_header(response: &mut Map<String, Value>, name: &str, component: &str) {
    let headers = response.entry("headers").or_insert_with(|| json!({}));
    if let Some(headers) = headers.as_object_mut() {
        let reference = json!({"$ref": format!("#/components/headers/{component}")});
        headers.entry(name).or_insert(reference);
    }
}

/// Ids in a path are ULIDs.
pub(super) fn describe_ids(operation: &mut Operation<'_>) {
    for parameter in operation.own_parameters() {
        if parameter["in"] == "path" {
            parameter["schema"] = json!({"$ref": "#/components/schemas/Ulid"});
        }
    }
}

/// Content of any type is bytes.
pub(super) fn describe_content(operation: &mut Operation<'_>) {
    for content in operation.contents() {
        for (media, it) in content {
            match media.as_str() {
                "application/octet-stream" => {
                    it["schema"] = json!({"type": "string", "format": "binary"});
                }
                "*/*" => it["schema"] = json!({}),
                _ => {}
            }
        }
    }
}

/// Ids in bodies are ULIDs too.
pub(super) fn describe_properties(root: &mut Map<String, Value>) {
    let schemas = root.get_mut("components").and_then(|it| it.get_mut("schemas"));
    let Some(schemas) = schemas.and_then(Value::as_object_mut) else { return };
    for (name, schema) in schemas {
        if name != "ConfigData" {
            describe_schema(schema);
        }
    }
}

fn describe_schema(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
                for (name, property) in properties {
                    if (name == "id" || name.ends_with("_id")) && is_text(property) {
                        property["pattern"] = ULID.into();
                    }
                }
            }
            map.values_mut().for_each(describe_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(describe_schema),
        _ => {}
    }
}

fn is_text(property: &Value) -> bool {
    let kind = &property["type"];
    kind == "string" || kind.as_array().is_some_and(|it| it.iter().any(|it| it == "string"))
}
