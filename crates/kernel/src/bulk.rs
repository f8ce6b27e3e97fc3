//! Several changes in one request: each with a result of its own, or all or nothing.
//!
//! `POST {collection}/$bulk`
//! ```json
//! {"atomic": true, "operations": [
//!     {"op": "create", "body": {"name": "a", "data": {}}},
//!     {"op": "update", "id": "01M7…", "body": {"name": "b", "data": {}}},
//!     {"op": "delete", "id": "01M7…"}]}
//! ```

use http::Uri;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::form::Node;
use crate::{Failure, Kind, Result, Ulid};

/// The most operations of one request.
pub const MAX_OPERATIONS: usize = 1000;

/// What came of one operation: its status and the item as JSON, or why it failed.
pub type Done = Result<(u16, Option<Box<RawValue>>)>;

/// What a client wants done.
#[derive(Debug)]
pub struct Bulk<T> {
    /// All or nothing.
    pub atomic: bool,
    /// One after the other, in this order.
    pub operations: Vec<Operation<T>>,
}

/// One change.
#[derive(Debug)]
pub enum Operation<T> {
    /// A new item.
    Create(T),
    /// An item replaced, as `PUT` does it.
    Update(Ulid, T),
    /// An item removed.
    Delete(Ulid),
}

impl<T> Bulk<T> {
    /// Reads a request; `read` reads the body of a create or update.
    pub fn read(node: Node<'_>, read: impl Fn(Node<'_>) -> Option<T>) -> Option<Self> {
        let object = node.object()?;
        let atomic = object.get("atomic").map_or(Some(false), |it| it.bool());
        let list = object.required("operations")?;
        let items = list.list()?;
        if items.len() > MAX_OPERATIONS {
            list.fail("too_long", format!("At most {MAX_OPERATIONS} operations at a time"), None);
            return None;
        }
        let operations: Vec<Option<Operation<T>>> =
            items.into_iter().map(|it| operation(it, &read)).collect();
        Some(Self { atomic: atomic?, operations: operations.into_iter().collect::<Option<_>>()? })
    }
}

fn operation<T>(node: Node<'_>, read: impl Fn(Node<'_>) -> Option<T>) -> Option<Operation<T>> {
    let object = node.object()?;
    let op = object.required("op").and_then(|it| it.one_of(&["create", "update", "delete"]))?;
    let id = || object.required("id").and_then(|it| it.ulid()).and_then(|it| Ulid::read(&it));
    let body = || object.required("body").and_then(&read);
    match op {
        "create" => body().map(Operation::Create),
        "update" => {
            let (id, body) = (id(), body());
            Some(Operation::Update(id?, body?))
        }
        _ => id().map(Operation::Delete),
    }
}

/// Several changes.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "documents what `Bulk::read` takes")]
pub struct BulkIn<T: utoipa::ToSchema> {
    /// All or nothing; false unless given.
    #[schema(default = false)]
    atomic: Option<bool>,
    /// Done one after the other, in this order.
    #[schema(max_items = 1000)]
    operations: Vec<OperationIn<T>>,
}

/// One change.
#[derive(Debug, utoipa::ToSchema)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum OperationIn<T: utoipa::ToSchema> {
    /// A new item.
    Create {
        /// As in a `POST` of its own.
        body: T,
    },
    /// An item replaced.
    Update {
        /// Which one.
        #[schema(example = "01M7W2GJGNPH03KT3S3W4GRB46")]
        id: String,
        /// As in a `PUT` of its own.
        body: T,
    },
    /// An item removed.
    Delete {
        /// Which one.
        #[schema(example = "01M7W2GJGNPH03KT3S3W4GRB46")]
        id: String,
    },
}

/// The answer to one operation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Outcome {
    /// The status that a request of its own would have had; 424 when another one's failure undid it.
    #[schema(value_type = i32, example = 201)]
    pub status: u16,
    /// The item as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub body: Option<Box<RawValue>>,
    /// The problem document, when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object, example = json!({
        "type": "urn:servicekit:error:not-found", "title": "Resource Not Found", "status": 404,
        "detail": "Entity with id 01M7W2GJGNPH03KT3S3W4GRB46 not found", "code": "config_missing",
    }))]
    pub error: Option<Value>,
}

/// The answer to a bulk request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Outcomes {
    /// False when it was all or nothing, and it is nothing.
    pub applied: bool,
    /// One for each operation, in its order.
    pub results: Vec<Outcome>,
}

impl Outcomes {
    /// From what each operation came to: a status and the item, or a failure.
    pub fn new(results: Vec<Done>, atomic: bool, uri: &Uri) -> Self {
        let undone = atomic && results.iter().any(Result::is_err);
        let outcome = |result: Done| match result {
            Ok(_) if undone => failed(
                424,
                &Failure::new(
                    Kind::Conflict,
                    "undone",
                    "another operation of this request failed, so this one was undone",
                ),
                uri,
            ),
            Ok((status, body)) => Outcome { status, body, error: None },
            Err(failure) => failed(failure.status().as_u16(), &failure, uri),
        };
        Self { applied: !undone, results: results.into_iter().map(outcome).collect() }
    }
}

fn failed(status: u16, failure: &Failure, uri: &Uri) -> Outcome {
    let mut error = Value::from(failure.problem(uri, "", ""));
    if let Some(error) = error.as_object_mut() {
        error.insert("status".to_owned(), status.into());
        error.remove("trace_id");
        error.remove("instance");
    }
    Outcome { status, body: None, error: Some(error) }
}
