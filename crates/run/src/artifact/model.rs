//! What an artifact is. No I/O in this file.

use std::sync::Arc;

use modelyard_kernel::form::Node;
use modelyard_kernel::{Failure, Result, Time, Ulid, clock, columns, entity_id};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

entity_id!(
    /// The id of an artifact.
    ArtifactId
);

/// The deepest level of a tree.
pub const MAX_LEVEL: i64 = 64;

/// The key of an artifact's data that may be large, and is kept apart from the rest.
pub(super) const CONTENT: &str = "content";

/// An artifact without its content: what lists and trees show.
#[derive(Debug, Serialize, ToSchema)]
pub struct Artifact {
    /// Its id.
    #[schema(value_type = String, example = "01M7W2GK1CC2HZY9FECP19MYJJ")]
    pub id: ArtifactId,
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
    /// What it holds: any JSON.
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
    /// The artifact that it came of.
    #[schema(value_type = Option<String>)]
    pub parent_id: Option<ArtifactId>,
    /// How deep in its tree it is: 0 for a root.
    pub level: i64,
    /// How often it was changed.
    #[serde(skip)]
    pub revision: i64,
    /// Where in `data` the content belongs.
    #[serde(skip)]
    pub content_at: Option<i64>,
    /// How the content is kept.
    #[serde(skip)]
    pub content_form: Option<ContentForm>,
    /// The blob that holds it, unless it is small.
    #[serde(skip)]
    pub content_hash: Option<String>,
    /// Bytes of the content.
    #[serde(skip)]
    pub content_bytes: Option<i64>,
}

columns!(Artifact: id, created_at, updated_at, tags, data, parent_id, level, revision,
    content_at, content_form, content_hash, content_bytes);

/// What events say of an artifact: not what it holds.
#[derive(Serialize)]
pub(super) struct Told<'a> {
    id: ArtifactId,
    parent_id: Option<ArtifactId>,
    level: i64,
    tags: &'a RawValue,
    content_hash: Option<&'a str>,
    content_bytes: Option<i64>,
}

impl Artifact {
    /// What events say of it.
    pub(super) fn told(&self) -> Told<'_> {
        Told {
            id: self.id,
            parent_id: self.parent_id,
            level: self.level,
            tags: &self.tags,
            content_hash: self.content_hash.as_deref(),
            content_bytes: self.content_bytes,
        }
    }

    /// Its entity tag. The time is in it because an id may be used again once its entity is gone.
    pub fn etag(&self) -> String {
        format!("\"{}-{}-{}\"", self.id, self.created_at.micros(), self.revision)
    }

    /// `data` as an object without its content; empty when it is no object.
    pub fn fields(&self) -> Map<String, Value> {
        serde_json::from_str(self.data.get()).unwrap_or_default()
    }

    /// Whether `data` is an object.
    pub(super) fn has_fields(&self) -> bool {
        self.data.get().starts_with('{')
    }
}

/// How content is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentForm {
    /// JSON, as it was written.
    Json,
    /// A data frame, as JSON: downloads as CSV or records.
    Frame,
    /// Bytes of any kind.
    Bytes,
}

impl From<ContentForm> for modelyard_kernel::db::Value {
    fn from(it: ContentForm) -> Self {
        match it {
            ContentForm::Json => "json",
            ContentForm::Frame => "frame",
            ContentForm::Bytes => "bytes",
        }
        .into()
    }
}

impl modelyard_kernel::db::FromValue for ContentForm {
    fn from_value(value: modelyard_kernel::db::Value) -> Option<Self> {
        match String::from_value(value)?.as_str() {
            "json" => Some(ContentForm::Json),
            "frame" => Some(ContentForm::Frame),
            "bytes" => Some(ContentForm::Bytes),
            _ => None,
        }
    }
}

/// An artifact to be stored.
#[derive(Debug)]
pub struct NewArtifact {
    /// Its id, when it was promised beforehand.
    pub id: Option<ArtifactId>,
    /// Words to find it by.
    pub tags: Option<Vec<String>>,
    /// What it holds.
    pub data: Value,
    /// `None`: not said; `Some(None)`: a root.
    pub parent: Option<Option<ArtifactId>>,
}

impl NewArtifact {
    /// Reads a request's body.
    pub fn read(node: Node<'_>) -> Option<Self> {
        let object = node.object()?;
        let id = match object.get("id").filter(|it| !it.is_null()) {
            Some(it) => it.ulid().and_then(|it| Ulid::read(&it)).map(|it| Some(ArtifactId(it))),
            None => Some(None),
        };
        let tags = match object.get("tags") {
            Some(it) => it.tags().map(Some),
            None => Some(None),
        };
        let data = object.required("data").map(|it| it.value().clone());
        let parent = match object.get("parent_id") {
            Some(it) if it.is_null() => Some(Some(None)),
            Some(it) => {
                it.ulid().and_then(|it| Ulid::read(&it)).map(|it| Some(Some(ArtifactId(it))))
            }
            None => Some(None),
        };
        Some(Self { id: id?, tags: tags?, data: data?, parent: parent? })
    }
}

/// Names for the levels of a service's trees.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// What the whole is called.
    pub name: Arc<str>,
    /// Level and label.
    pub labels: Arc<[(i64, String)]>,
}

impl Hierarchy {
    /// Labels for levels 0, 1, …
    pub fn new(name: &str, labels: &[&str]) -> Self {
        let labels = (0_i64..).zip(labels).map(|(level, label)| (level, (*label).to_owned()));
        Self { name: name.into(), labels: labels.collect() }
    }

    /// The label of a level; `level_3` when it has none.
    pub fn label(&self, level: i64) -> String {
        let found = self.labels.iter().find(|it| it.0 == level);
        found.map_or_else(|| format!("level_{level}"), |it| it.1.clone())
    }
}

/// An artifact in its tree.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArtifactNode {
    /// The artifact, without its content.
    #[serde(flatten)]
    pub artifact: Artifact,
    /// What its level is called.
    pub level_label: String,
    /// What the whole tree is called.
    #[schema(value_type = String)]
    pub hierarchy: String,
    /// What came of it; null when that was not asked for.
    #[schema(no_recursion)]
    pub children: Option<Vec<ArtifactNode>>,
}

impl ArtifactNode {
    /// An artifact without its children.
    pub(super) fn alone(artifact: Artifact, hierarchy: &Hierarchy) -> Self {
        let level_label = hierarchy.label(artifact.level);
        Self { artifact, level_label, hierarchy: hierarchy.name.to_string(), children: None }
    }

    /// A tree from its members, in any order; `None` when `root` is not among them.
    pub(super) fn tree(
        root: ArtifactId,
        members: Vec<Artifact>,
        hierarchy: &Hierarchy,
    ) -> Option<Self> {
        let mut nodes: Vec<Self> =
            members.into_iter().map(|it| Self::alone(it, hierarchy)).collect();
        // Deepest first, so that every node is complete before it joins its parent.
        nodes.sort_by_key(|it| (std::cmp::Reverse(it.artifact.level), it.artifact.id));
        let mut waiting: std::collections::HashMap<ArtifactId, Vec<Self>> = Default::default();
        for mut node in nodes {
            let id = node.artifact.id;
            node.children = Some(waiting.remove(&id).unwrap_or_default());
            if id == root {
                return Some(node);
            }
            if let Some(parent) = node.artifact.parent_id {
                waiting.entry(parent).or_default().push(node);
            }
        }
        None
    }
}

/// The level below `parent`, or that of a root.
pub(super) fn level_below(parent: Option<i64>) -> Result<i64> {
    let level = parent.map_or(0, |it| it + 1);
    if level > MAX_LEVEL {
        return Err(Failure::bad_request(
            "artifact_too_deep",
            format!("Artifact hierarchy is limited to {MAX_LEVEL} levels"),
        ));
    }
    Ok(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_without_a_label_are_numbered() {
        let hierarchy = Hierarchy::new("h", &["train", "predict"]);
        assert_eq!(hierarchy.label(1), "predict");
        assert_eq!(hierarchy.label(2), "level_2");
    }

    #[test]
    fn trees_end_at_the_deepest_level() {
        assert_eq!(level_below(None).unwrap(), 0);
        assert_eq!(level_below(Some(63)).unwrap(), 64);
        assert_eq!(level_below(Some(64)).unwrap_err().code(), "artifact_too_deep");
    }
}
