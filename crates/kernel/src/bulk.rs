//! Several changes in one request: each with a result of its own, or all or nothing.
//!
//! `POST {collection}/$bulk`
//! ```json
//! {"atomic": true, "operations": [
//!     {"op": "create", "body": {"name": "a", "data": {}}},
//!     {"op": "update", "id": "01M7…", "body": {"name": "b", "data": {}}},
//!     {"op": "delete", "id": "01M7…"}]}
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::failure::Answered;
use crate::form::{Node, Report};
use crate::{Conn, Db, Failure, Kind, Result, Ulid};

/// The most operations of one request.
pub const MAX_OPERATIONS: usize = 1000;

/// How many violations one answer lists, of all operations that have a result of their own. Each has
/// one at least.
const MAX_VIOLATIONS: usize = 1000;

/// What a client wants done.
#[derive(Debug)]
pub struct Bulk<T> {
    /// All or nothing.
    pub atomic: bool,
    /// One after the other, in this order; or why one of them cannot be done.
    pub operations: Vec<Result<Operation<T>>>,
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

/// What an operation has done.
#[derive(Debug)]
pub enum Applied {
    /// There is a new item, which looks like this.
    Created(Box<RawValue>),
    /// The item looks like this now.
    Updated(Box<RawValue>),
    /// The item is gone.
    Deleted,
    /// Nothing, because another operation failed and it was to be all or nothing.
    NotTried,
}

impl Applied {
    /// An item was made.
    ///
    /// # Errors
    /// When it cannot be written as JSON: a defect of ours.
    pub fn created(item: &impl Serialize) -> Done {
        Ok(Self::Created(to_raw_value(item)?))
    }

    /// An item was replaced.
    ///
    /// # Errors
    /// When it cannot be written as JSON: a defect of ours.
    pub fn updated(item: &impl Serialize) -> Done {
        Ok(Self::Updated(to_raw_value(item)?))
    }
}

/// What came of one operation.
pub type Done = Result<Applied>;

/// What came of all of them.
#[derive(Debug)]
pub struct Changed {
    /// False when it was all or nothing, and it is nothing.
    pub applied: bool,
    /// One for each operation, in its order.
    pub results: Vec<Done>,
}

impl<T> Bulk<T> {
    /// Reads a request; `read` reads the body of a create or update.
    ///
    /// What is wrong with one operation is its own result, unless it is all or nothing.
    pub fn read(node: Node<'_>, read: impl Fn(Node<'_>) -> Option<T>) -> Option<Self> {
        let object = node.object()?;
        let atomic = object.get("atomic").map_or(Some(false), |it| it.bool());
        let list = object.required("operations")?;
        let items = list.items()?;
        if items.len() > MAX_OPERATIONS {
            list.fail("too_long", format!("At most {MAX_OPERATIONS} operations at a time"), None);
            return None;
        }
        let items = items.iter().enumerate().map(|(index, value)| list.item(index, value));
        let items: Vec<Node<'_>> = items.collect();
        let operations = match atomic {
            Some(false) => alone(&items, read),
            _ => together(&items, read)?,
        };
        Some(Self { atomic: atomic?, operations })
    }
}

/// Reads each operation with a report of its own.
fn alone<T>(items: &[Node<'_>], read: impl Fn(Node<'_>) -> Option<T>) -> Vec<Result<Operation<T>>> {
    let mut room = MAX_VIOLATIONS;
    let read_one = |item: &Node<'_>| {
        let report = Report::at_most(room.max(1));
        item.report().hand_over(|| item.loc(), &report);
        let found = operation(&item.reporting_to(&report), &read);
        report.finish().map_err(|violations| {
            room = room.saturating_sub(violations.len());
            Failure::violations(violations)
        })?;
        found.ok_or_else(|| Failure::internal("an operation was refused without a violation"))
    };
    items.iter().map(read_one).collect()
}

/// Reads all operations before it gives up, so that everything is reported.
fn together<T>(
    items: &[Node<'_>],
    read: impl Fn(Node<'_>) -> Option<T>,
) -> Option<Vec<Result<Operation<T>>>> {
    let read: Vec<Option<Operation<T>>> = items.iter().map(|it| operation(it, &read)).collect();
    read.into_iter().map(|it| it.map(Ok)).collect()
}

fn operation<T>(node: &Node<'_>, read: impl Fn(Node<'_>) -> Option<T>) -> Option<Operation<T>> {
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

impl<T: Send + 'static> Bulk<T> {
    /// Does every operation with `step`: each in a transaction of its own, or all in one, which the
    /// first failure undoes. As in [`Db::transaction`], a step waits for nothing but its statements.
    ///
    /// # Errors
    /// When it is all or nothing, and the transaction does not begin or cannot be committed. What
    /// single operations come to is in the answer.
    pub async fn apply<S>(self, db: &Db, step: S) -> Result<Changed>
    where
        S: for<'c> Fn(&'c mut Conn, Operation<T>) -> BoxFuture<'c, Done> + Clone + Send + 'static,
    {
        let Self { atomic, operations } = self;
        if atomic {
            return apply_together(operations, db, step).await;
        }
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            results.push(match operation {
                Ok(operation) => {
                    let step = step.clone();
                    db.transaction(move |conn| step(conn, operation)).await
                }
                Err(refused) => Err(refused),
            });
        }
        Ok(Changed { applied: true, results })
    }
}

async fn apply_together<T: Send + 'static>(
    operations: Vec<Result<Operation<T>>>,
    db: &Db,
    step: impl for<'c> Fn(&'c mut Conn, Operation<T>) -> BoxFuture<'c, Done> + Send + 'static,
) -> Result<Changed> {
    let count = operations.len();
    if operations.iter().any(Result::is_err) {
        let results = operations.into_iter().map(|it| it.map(|_| Applied::NotTried));
        return Ok(Changed { applied: false, results: results.collect() });
    }
    let at = Arc::new(AtomicUsize::new(count));
    let reached = Arc::clone(&at);
    let work = db.transaction(move |conn| {
        async move {
            let mut results = Vec::with_capacity(count);
            for (index, operation) in operations.into_iter().flatten().enumerate() {
                reached.store(index, Ordering::Relaxed);
                results.push(Ok(step(conn, operation).await?));
            }
            reached.store(count, Ordering::Relaxed);
            Ok(results)
        }
        .boxed()
    });
    let failure = match work.await {
        Ok(results) => return Ok(Changed { applied: true, results }),
        Err(failure) => failure,
    };
    let mut results: Vec<Done> = Vec::with_capacity(count);
    results.resize_with(count, || Ok(Applied::NotTried));
    // Where no operation has failed, the transaction has.
    match results.get_mut(at.load(Ordering::Relaxed)) {
        Some(failed) => *failed = Err(failure),
        None => return Err(failure),
    }
    Ok(Changed { applied: false, results })
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
    /// The status that a request of its own would have had, 422 included; 424 when another one's
    /// failure undid it.
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
    #[serde(skip)]
    #[schema(ignore)]
    failures: Vec<Failure>,
}

impl Outcomes {
    /// The answer to a request that was sent to `uri`.
    pub fn new(changed: Changed, uri: &Uri) -> Self {
        let Changed { applied, results } = changed;
        let mut failures = Vec::new();
        let results = results.into_iter().map(|done| match done {
            Ok(Applied::Created(item)) => well(StatusCode::CREATED, Some(item)),
            Ok(Applied::Updated(item)) => well(StatusCode::OK, Some(item)),
            Ok(Applied::Deleted) => well(StatusCode::NO_CONTENT, None),
            Ok(Applied::NotTried) => failed(StatusCode::FAILED_DEPENDENCY, &not_tried(), uri),
            Err(failure) => {
                let outcome = failed(failure.status(), &failure, uri);
                failures.push(failure);
                outcome
            }
        });
        Self { applied, results: results.collect(), failures }
    }
}

impl IntoResponse for Outcomes {
    fn into_response(self) -> Response {
        let Self { applied, results, failures } = self;
        let answer = Self { applied, results, failures: Vec::new() };
        (axum::Extension(Answered(failures.into())), axum::Json(answer)).into_response()
    }
}

fn not_tried() -> Failure {
    let detail = "another operation of this request failed, so this one was undone";
    Failure::new(Kind::Conflict, "undone", detail)
}

fn well(status: StatusCode, body: Option<Box<RawValue>>) -> Outcome {
    Outcome { status: status.as_u16(), body, error: None }
}

fn failed(status: StatusCode, failure: &Failure, uri: &Uri) -> Outcome {
    let status = status.as_u16();
    let mut error = Value::from(failure.problem(uri, "", ""));
    if let Some(error) = error.as_object_mut() {
        error.insert("status".to_owned(), status.into());
        error.remove("trace_id");
        error.remove("instance");
    }
    Outcome { status, body: None, error: Some(error) }
}
