//! A schema from a Rust type: doc comments become descriptions, `#[serde(default)]` defaults, and
//! `#[schemars(range(…))]` bounds.

use modelyard_kernel::form::Bounds;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{ConfigSchema, Field, FieldKind, Length};

const DEFS: &str = "#/$defs/";

impl ConfigSchema {
    /// The schema of a struct.
    ///
    /// ```
    /// use modelyard_run::config::schema::ConfigSchema;
    ///
    /// /// How the model looks back.
    /// #[derive(serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
    /// struct LagConfig {
    ///     /// Number of lags.
    ///     #[serde(default)]
    ///     #[schemars(range(min = 0, max = 24))]
    ///     n_lags: u32,
    /// }
    ///
    /// let schema = ConfigSchema::of::<LagConfig>();
    /// assert_eq!(schema.title, "LagConfig");
    /// assert_eq!(schema.fields[2].title, "N Lags");
    /// ```
    ///
    /// What is read by the schema can be deserialised as a `C`: a value that keeps the rules of the
    /// fields and is still no `C` is a violation. Configs may have keys that `C` does not know, so it
    /// must not `deny_unknown_fields`.
    pub fn of<C: JsonSchema + DeserializeOwned>() -> Self {
        let generator = SchemaSettings::draft2020_12().into_generator();
        let root = generator.into_root_schema_for::<C>().to_value();
        let mut schema = from_json(&root);
        schema.check = Some(check::<C>);
        schema
    }
}

fn check<C: DeserializeOwned>(data: &Map<String, Value>) -> Result<(), String> {
    C::deserialize(data).map(drop).map_err(|error| error.to_string())
}

fn from_json(root: &Value) -> ConfigSchema {
    let empty = Map::new();
    let object = |key: &str| root.get(key).and_then(Value::as_object).unwrap_or(&empty);
    let definitions = object("$defs");
    let required = root.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|it| it == name));
    let mut schema = ConfigSchema::new(text(root, "title").unwrap_or_default());
    schema.description = text(root, "description");
    for (name, property) in object("properties") {
        let mut field = field(name, property, definitions);
        if field.default.is_none() && !is_required(name) {
            match field.nullable {
                true => field.default = Some(Value::Null),
                false => field.optional = true,
            }
        }
        schema = schema.with_field(field);
    }
    schema.definitions = used_definitions(&schema.fields, definitions);
    schema
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn field(name: &str, property: &Value, definitions: &Map<String, Value>) -> Field {
    let (fragment, nullable) = without_null(bare(property));
    let mut field = Field::new(name, FieldKind::Any(Value::Null));
    field.nullable = nullable;
    field.default = property.get("default").cloned();
    field.description = text(property, "description");
    if let Some(title) = text(property, "title") {
        field.title = title;
    }
    field.kind = match simple_kind(&fragment, definitions) {
        Some(kind) => {
            field.bounds = bounds(&fragment);
            field.length = length(&fragment, &kind);
            kind
        }
        None => FieldKind::Any(Value::Object(fragment)),
    };
    field
}

/// The type alone, without what a [`Field`] says itself.
fn bare(property: &Value) -> Map<String, Value> {
    let mut fragment = property.as_object().cloned().unwrap_or_default();
    for key in ["default", "description", "title"] {
        fragment.remove(key);
    }
    fragment
}

/// Takes null out of the alternatives, and says whether it was among them.
fn without_null(mut fragment: Map<String, Value>) -> (Map<String, Value>, bool) {
    if let Some(Value::Array(types)) = fragment.get_mut("type")
        && types.len() == 2
        && types.contains(&Value::from("null"))
    {
        types.retain(|it| it != "null");
        let single = types.pop().unwrap_or_default();
        fragment.insert("type".to_owned(), single);
        if let Some(Value::Array(values)) = fragment.get_mut("enum") {
            values.retain(|value| !value.is_null());
        }
        return (fragment, true);
    }
    if let Some(Value::Array(either)) = fragment.get("anyOf")
        && let [Value::Object(one), Value::Object(null)] = either.as_slice()
        && null.get("type").is_some_and(|it| it == "null")
        && fragment.len() == 1
    {
        return (one.clone(), true);
    }
    (fragment, false)
}

/// The kind, if the fragment says nothing that a [`Field`] could not.
fn simple_kind(
    fragment: &Map<String, Value>,
    definitions: &Map<String, Value>,
) -> Option<FieldKind> {
    if let Some(definition) = referred(fragment, definitions) {
        return enumeration(definition.as_object()?).map(FieldKind::Enum);
    }
    if let Some(values) = enumeration(fragment) {
        return Some(FieldKind::Enum(values));
    }
    const BOUNDS: [&str; 5] =
        ["format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
    let (kind, known): (_, &[&str]) = match fragment.get("type")?.as_str()? {
        "integer" => (FieldKind::Integer, &BOUNDS),
        "number" => (FieldKind::Number, &BOUNDS),
        "string" => (FieldKind::String, &["minLength", "maxLength"]),
        "boolean" => (FieldKind::Boolean, &[]),
        "array" => {
            let item = fragment.get("items")?.as_object()?;
            let kind = simple_item(item, definitions)?;
            (FieldKind::List(Box::new(kind)), &["items", "minItems", "maxItems"])
        }
        _ => return None,
    };
    let is_known = |key: &String| key == "type" || known.contains(&key.as_str());
    fragment.keys().all(is_known).then_some(kind)
}

/// The kind of a list's items, which have no limits of their own.
fn simple_item(item: &Map<String, Value>, definitions: &Map<String, Value>) -> Option<FieldKind> {
    let kind = simple_kind(item, definitions)?;
    let is_free = bounds(item) == Bounds::none() && length(item, &kind) == Length::default();
    is_free.then_some(kind)
}

fn referred<'a>(
    fragment: &Map<String, Value>,
    definitions: &'a Map<String, Value>,
) -> Option<&'a Value> {
    let name = fragment.get("$ref")?.as_str()?.strip_prefix(DEFS)?;
    definitions.get(name)
}

/// The values of `enum`, of `const`, or of variants that are each a `const`.
fn enumeration(fragment: &Map<String, Value>) -> Option<Vec<Value>> {
    if let Some(Value::Array(values)) = fragment.get("enum") {
        return Some(values.clone());
    }
    if let Some(value) = fragment.get("const") {
        return Some(vec![value.clone()]);
    }
    let variants = fragment.get("oneOf")?.as_array()?;
    let values = variants.iter().map(|variant| enumeration(variant.as_object()?));
    values.collect::<Option<Vec<_>>>().map(|values| values.into_iter().flatten().collect())
}

fn bounds(fragment: &Map<String, Value>) -> Bounds {
    let bound = |key: &str| fragment.get(key).and_then(Value::as_number).cloned();
    Bounds {
        ge: bound("minimum"),
        gt: bound("exclusiveMinimum"),
        le: bound("maximum"),
        lt: bound("exclusiveMaximum"),
    }
}

fn length(fragment: &Map<String, Value>, kind: &FieldKind) -> Length {
    let limit = |key: &str| fragment.get(key).and_then(Value::as_u64);
    match kind {
        FieldKind::List(_) => Length { min: limit("minItems"), max: limit("maxItems") },
        _ => Length { min: limit("minLength"), max: limit("maxLength") },
    }
}

/// The definitions that the fields refer to, and those that these refer to; each with a title.
fn used_definitions(fields: &[Field], definitions: &Map<String, Value>) -> Map<String, Value> {
    let mut used = Map::new();
    let mut open: Vec<&Value> = Vec::new();
    open.extend(fields.iter().filter_map(|field| match &field.kind {
        FieldKind::Any(fragment) => Some(fragment),
        _ => None,
    }));
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(map) => {
                open.extend(map.values());
                let Some(definition) = referred(map, definitions) else { continue };
                let name = map["$ref"].as_str().unwrap_or_default().trim_start_matches(DEFS);
                if !used.contains_key(name) {
                    used.insert(name.to_owned(), titled(definition, name));
                    open.push(definition);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    used
}

fn titled(definition: &Value, name: &str) -> Value {
    let mut definition = definition.clone();
    if let Value::Object(map) = &mut definition {
        map.entry("title").or_insert_with(|| name.into());
    }
    definition
}
