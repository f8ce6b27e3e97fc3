//! What a config is. No I/O in this file.

use modelyard_kernel::form::Node;
use modelyard_kernel::{Time, Ulid, clock, columns, entity_id};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::schema::ConfigSchema;

entity_id!(
    /// The id of a config.
    ConfigId
);

/// A config.
#[derive(Debug, Serialize, ToSchema)]
pub struct Config {
    /// Its id.
    #[schema(value_type = String, example = "01M7W2GJGNPH03KT3S3W4GRB46")]
    pub id: ConfigId,
    /// When it was made.
    #[serde(serialize_with = "clock::seconds")]
    #[schema(value_type = String, example = "2026-11-20T08:52:32")]
    pub created_at: Time,
    /// When it was last changed.
    #[serde(serialize_with = "clock::seconds")]
    #[schema(value_type = String, example = "2026-11-20T08:52:32")]
    pub updated_at: Time,
    /// Words to find it by.
    #[schema(value_type = Vec<String>)]
    pub tags: Box<RawValue>,
    /// What its users call it; several may have one name.
    pub name: String,
    /// Its values, with the defaults of the time when it was written.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
    /// How often it was changed.
    #[serde(skip)]
    pub revision: i64,
}

columns!(Config: id, created_at, updated_at, tags, name, data, revision);

impl Config {
    /// Its entity tag. The time is in it because an id may be used again once its entity is gone.
    pub fn etag(&self) -> String {
        format!("\"{}-{}-{}\"", self.id, self.created_at.micros(), self.revision)
    }

    /// Its values.
    pub fn values(&self) -> Map<String, Value> {
        serde_json::from_str(self.data.get()).unwrap_or_default()
    }
}

/// A config to be stored.
#[derive(Debug)]
pub struct NewConfig {
    /// Its id, when the client chose it.
    pub id: Option<ConfigId>,
    /// What its users call it.
    pub name: String,
    /// Words to find it by; `None`: not said.
    pub tags: Option<Vec<String>>,
    /// Its values, defaults filled in.
    pub data: Box<RawValue>,
}

impl NewConfig {
    /// Reads a request's body.
    pub fn read(node: Node<'_>, schema: &ConfigSchema) -> Option<Self> {
        let object = node.object()?;
        let id = match object.get("id").filter(|it| !it.is_null()) {
            Some(it) => it.ulid().and_then(|it| Ulid::read(&it)).map(|it| Some(ConfigId(it))),
            None => Some(None),
        };
        let tags = match object.get("tags") {
            Some(it) => it.tags().map(Some),
            None => Some(None),
        };
        let name = object.required("name").and_then(read_name);
        let data = object.required("data").and_then(|it| schema.read(it));
        // Written here, where it was read: a large one takes a while.
        let data = data.and_then(|it| to_raw_value(&it).ok());
        Some(Self { id: id?, tags: tags?, name: name?, data: data? })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that it fits `and_then`")]
fn read_name(node: Node<'_>) -> Option<String> {
    let name = node.string()?;
    if name.contains('\0') {
        // PostgreSQL's text holds none.
        node.fail_rule("A name has no zero characters");
        return None;
    }
    Some(name)
}
