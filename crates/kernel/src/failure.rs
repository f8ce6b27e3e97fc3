//! What can go wrong, in a form that knows no transport, and its one rendering to HTTP.

#![expect(single_use_lifetimes, reason = "in what `ToSchema` derives for `Problem`")]

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri, header};
use serde::Serialize;
use serde_json::Value;

use crate::Permission;
use crate::form::{Violation, Violations, shorten};

type BoxError = Box<dyn Error + Send + Sync>;

/// Eight kinds; a transport maps each to one status of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong in itself.
    Invalid,
    /// No credentials, or none that are accepted.
    Unauthenticated,
    /// The caller is known and may not.
    Denied,
    /// There is no such thing, or not for this caller.
    Missing,
    /// The request is right but the present state forbids it.
    Conflict,
    /// A limit is reached.
    Exhausted,
    /// Works again later, without a change to the request.
    Unavailable,
    /// A defect of ours.
    Internal,
}

/// A failed operation: a kind, a stable code for programs, a sentence for people that says what
/// to do next, and a source for the log.
#[derive(Debug)]
pub struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    code: Cow<'static, str>,
    detail: Cow<'static, str>,
    violations: Violations,
    constraint: Option<&'static str>,
    /// How long to wait before it may go well, where that is known.
    wait: Option<Duration>,
    source: Option<BoxError>,
}

impl Failure {
    /// A failure of the given kind. `code` is a stable `noun_state`.
    pub fn new(
        kind: Kind,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            code: code.into(),
            detail: detail.into(),
            violations: Violations::default(),
            constraint: None,
            wait: None,
            source: None,
        }))
    }

    /// A request that is wrong as a whole (400).
    pub fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Invalid, code, detail)
    }

    /// A body or query with violations, all of them listed (422).
    pub fn violations(violations: impl Into<Violations>) -> Self {
        Self::new(Kind::Invalid, "validation_failed", "Request validation failed")
            .with_violations(violations)
    }

    /// Lists everything that is wrong with the request, of which the code and the sentence name the
    /// first.
    #[must_use]
    pub fn with_violations(mut self, violations: impl Into<Violations>) -> Self {
        self.0.violations = violations.into();
        self
    }

    /// An id in a path that is none (400).
    pub fn invalid_ulid(text: &str) -> Self {
        let detail = format!("Invalid ULID format: {}", shorten(text));
        Self::new(Kind::Invalid, "invalid_ulid", detail)
    }

    /// There is no such thing. `code` is `noun_missing`.
    pub fn missing(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Missing, code, detail)
    }

    /// The present state forbids it (409).
    pub fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Conflict, code, detail)
    }

    /// A constraint of the contract: `unique`, `foreign_key`, `not_null`.
    #[must_use]
    pub fn with_constraint(mut self, constraint: &'static str) -> Self {
        self.0.constraint = Some(constraint);
        self
    }

    /// No credentials were presented, or they were not accepted.
    pub fn anonymous() -> Self {
        Self::new(Kind::Unauthenticated, "unauthenticated", "this needs credentials")
    }

    /// The caller lacks a permission.
    pub fn denied(permission: Permission) -> Self {
        let detail = format!("this needs the `{}` permission", permission.0);
        Self::new(Kind::Denied, "permission_denied", detail)
    }

    /// A defect of ours: the client hears nothing of `source`, the log everything.
    pub fn internal(source: impl Into<BoxError>) -> Self {
        Self::new(Kind::Internal, "internal", "something went wrong on our side").caused_by(source)
    }

    /// Says how long to wait before it may go well (`Retry-After`).
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.0.wait = Some(wait);
        self
    }

    /// Adds what the log should know.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Whether the change that failed may have happened all the same: the connection was lost, and
    /// nobody knows whether the commit arrived.
    pub fn is_uncertain(&self) -> bool {
        self.0.code == "commit_unknown"
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Its stable code.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The sentence for people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Everything that is wrong with the request, for whoever tells of it in other words than a problem
    /// document's.
    pub fn violated(&self) -> &[Violation] {
        &self.0.violations
    }

    /// Whether the operator should read of it: a defect, or something with a source that no client
    /// hears of. Whoever answers writes it down, and nobody below, so that one failure is one line.
    pub fn is_for_the_log(&self) -> bool {
        self.0.kind == Kind::Internal || self.0.source.is_some()
    }

    /// The status of this failure in HTTP.
    pub fn status(&self) -> StatusCode {
        rendering(self.0.kind, &self.0.code).0
    }

    /// The problem document (RFC 9457) in the contract's key order. `uri` is what was asked for,
    /// `origin` scheme and host, `trace_id` the request's id.
    pub fn problem(&self, uri: &Uri, origin: &str, trace_id: &str) -> Problem<'_> {
        let (status, slug, title) = rendering(self.0.kind, &self.0.code);
        Problem {
            kind: format!("urn:servicekit:error:{slug}"),
            title,
            status: status.as_u16(),
            detail: &self.0.detail,
            instance: instance(&self.0.code, uri, origin),
            trace_id: trace_id.to_owned(),
            code: &self.0.code,
            errors: &self.0.violations,
            more_errors: self.0.violations.has_more(),
            constraint: self.0.constraint,
        }
    }
}

/// A problem about one entity names its path; every other one the whole address.
fn instance(code: &str, uri: &Uri, origin: &str) -> String {
    let path = uri.path();
    if code == "invalid_ulid" || code.ends_with("_missing") || code == "unauthenticated" {
        let path = path.replace("%24", "$");
        let end = path.rfind("/$").filter(|_| code != "unauthenticated").unwrap_or(path.len());
        return path.get(..end).unwrap_or_default().to_owned();
    }
    format!("{origin}{}", uri.path_and_query().map_or(path, |it| it.as_str()))
}

/// Status, type and title: the one place where failures become HTTP.
fn rendering(kind: Kind, code: &str) -> (StatusCode, &'static str, &'static str) {
    match (kind, code) {
        (_, "validation_failed") => {
            (StatusCode::UNPROCESSABLE_ENTITY, "validation-failed", "Validation Error")
        }
        (_, "invalid_ulid") => (StatusCode::BAD_REQUEST, "invalid-ulid", "Invalid ULID Format"),
        (_, "body_too_large") => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Content Too Large"),
        (_, "address_too_long") => (StatusCode::URI_TOO_LONG, "uri-too-long", "URI Too Long"),
        (_, "headers_too_large") => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers-too-large",
            "Request Header Fields Too Large",
        ),
        (_, "media_type_unsupported") => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "Unsupported Media Type")
        }
        (_, "idempotency_key_reused") => {
            (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "Idempotency Key Reused")
        }
        (_, "range_unsatisfiable") => {
            (StatusCode::RANGE_NOT_SATISFIABLE, "range", "Range Not Satisfiable")
        }
        (_, "precondition_failed") => {
            (StatusCode::PRECONDITION_FAILED, "precondition-failed", "Precondition Failed")
        }
        (_, "method_not_allowed") => {
            (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method Not Allowed")
        }
        (_, "not_implemented") => {
            (StatusCode::NOT_IMPLEMENTED, "not-implemented", "Not Implemented")
        }
        (_, "storage_full") => {
            (StatusCode::INSUFFICIENT_STORAGE, "storage-full", "Insufficient Storage")
        }
        (_, "request_timeout") => (StatusCode::REQUEST_TIMEOUT, "timeout", "Request Timeout"),
        (Kind::Invalid, _) => (StatusCode::BAD_REQUEST, "bad-request", "Bad Request"),
        (Kind::Unauthenticated, _) => (StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized"),
        (Kind::Denied, _) => (StatusCode::FORBIDDEN, "forbidden", "Forbidden"),
        (Kind::Missing, _) => (StatusCode::NOT_FOUND, "not-found", "Resource Not Found"),
        (Kind::Conflict, _) => (StatusCode::CONFLICT, "conflict", "Resource Conflict"),
        (Kind::Exhausted, _) => {
            (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too Many Requests")
        }
        (Kind::Unavailable, _) => {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Service Unavailable")
        }
        (Kind::Internal, _) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal Server Error")
        }
    }
}

/// The body of every answer that is not a success (RFC 9457).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Problem<'a> {
    /// What kind of problem this is.
    #[serde(rename = "type")]
    #[schema(example = "urn:servicekit:error:not-found")]
    kind: String,
    /// The kind in words.
    #[schema(value_type = String, example = "Resource Not Found")]
    title: &'static str,
    /// The HTTP status.
    #[schema(value_type = i32, example = 404)]
    status: u16,
    /// What happened, and what to do next.
    #[schema(value_type = String, example = "Entity with id 01M7W2GJGNPH03KT3S3W4GRB46 not found")]
    detail: &'a str,
    /// What was asked for.
    #[schema(example = "/api/v1/configs/01M7W2GJGNPH03KT3S3W4GRB46")]
    instance: String,
    /// The request's id, as in `x-request-id`.
    #[schema(example = "01M7W2VW60C9EPCRR0MMA50P56")]
    trace_id: String,
    /// A stable name for programs.
    #[schema(value_type = String, example = "config_missing")]
    code: &'a str,
    /// Every violation of the request.
    #[serde(skip_serializing_if = "<[Violation]>::is_empty")]
    #[schema(value_type = Vec<Violation>, required = false)]
    errors: &'a [Violation],
    /// True when there are more violations than `errors` lists, which are at most 100.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    more_errors: bool,
    /// The constraint that the request would break.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    constraint: Option<&'static str>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|it| &**it as &(dyn Error + 'static))
    }
}

/// A failure on its way out. The outermost layer, which knows the request, writes the body; until
/// then the failure travels in the response's extensions.
#[derive(Clone, Debug)]
pub struct Unrendered(pub std::sync::Arc<Failure>);

/// Failures that an answer has told of among other things, on their way out with it: the outermost
/// layer, which knows the request, writes down what the operator should read of them.
#[derive(Clone, Debug)]
pub struct Answered(pub std::sync::Arc<[Failure]>);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        if self.0.kind == Kind::Exhausted || self.0.kind == Kind::Unavailable {
            // Rounded up: whoever comes at the time that it was told does not come too early.
            let wait = self.0.wait.unwrap_or_default().as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(wait).unwrap_or(u64::MAX);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(Unrendered(std::sync::Arc::new(self)));
        response
    }
}

/// What goes into a problem's JSON beyond the contract is never a secret: see [`Failure::internal`].
impl From<serde_json::Error> for Failure {
    fn from(it: serde_json::Error) -> Self {
        Self::internal(it)
    }
}

impl From<Problem<'_>> for Value {
    fn from(it: Problem<'_>) -> Self {
        serde_json::to_value(it).unwrap_or(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_about_an_entity_names_its_path_without_the_operation() {
        let uri: Uri = "/api/v1/artifacts/bad/$tree?x=1".parse().unwrap();
        let failure = Failure::invalid_ulid("bad");
        let problem = Value::from(failure.problem(&uri, "http://host", "T"));
        assert_eq!(problem["instance"], "/api/v1/artifacts/bad");
        assert_eq!(problem["status"], 400);
    }

    #[test]
    fn a_defect_of_ours_says_nothing_of_its_source() {
        let uri: Uri = "/api/v1/configs?page=1".parse().unwrap();
        let failure = Failure::internal("SELECT secret FROM /etc/passwd");
        let text = Value::from(failure.problem(&uri, "http://host", "T")).to_string();
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("http://host/api/v1/configs?page=1"));
    }
}
