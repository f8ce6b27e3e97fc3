//! Putting answers together: JSON with an entity tag, conditions, places of new things, streams of
//! events.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Serialize;

use crate::Failure;
use crate::form::{Bounds, Query, Report, query_float};

/// Conditions of a request: `If-Match`, `If-None-Match`.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
}

impl Conditions {
    /// Those of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        // Tags that cannot be read are not left out: whoever sends one makes a condition, which no
        // tag of ours meets.
        let text = |name| {
            let lines = headers.get_all(name).iter();
            lines
                .map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned())
                .reduce(|all, line| all + "," + &line)
        };
        Self { if_match: text(header::IF_MATCH), if_none_match: text(header::IF_NONE_MATCH) }
    }

    /// Whether the client already has what `etag` names.
    pub fn is_fresh(&self, etag: &str) -> bool {
        self.if_none_match.as_deref().is_some_and(|it| names(it, etag))
    }

    /// Whether a change to what `etag` names may go ahead.
    ///
    /// # Errors
    /// `precondition_failed` when it is not what the client saw, or what the client ruled out.
    pub fn allow_change(&self, etag: &str) -> Result<(), Failure> {
        if self.if_match.as_deref().is_some_and(|it| !names(it, etag)) {
            return Err(Failure::conflict(
                "precondition_failed",
                "this was changed since you read it; read it again and repeat your change",
            ));
        }
        if self.is_fresh(etag) {
            return Err(Failure::conflict(
                "precondition_failed",
                "this is what `If-None-Match` says that it must not be",
            ));
        }
        Ok(())
    }
}

/// Weak comparison: a compressed answer has the same meaning.
fn names(list: &str, etag: &str) -> bool {
    let plain = |it: &str| it.trim().trim_start_matches("W/").to_owned();
    list.split(',').any(|it| it.trim() == "*" || plain(it) == plain(etag))
}

/// JSON that was written already, with the tag of its content; 304 when the client has it.
pub fn json_bytes(conditions: &Conditions, bytes: Vec<u8>) -> Response {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    tagged(conditions, &format!("W/\"{:016x}\"", hasher.finish()), bytes)
}

/// A JSON document that is part of the program.
pub fn document(conditions: &Conditions, text: &'static str) -> Response {
    // In the source it has lines to be read in; no answer has.
    let compact = serde_json::from_str(text).map(|it: serde_json::Value| it.to_string());
    json_bytes(conditions, compact.unwrap_or_else(|_| text.to_owned()).into_bytes())
}

/// An entity and its tag; 304 when the client has it.
///
/// # Errors
/// When it cannot be written as JSON: a defect of ours.
pub fn entity(
    conditions: &Conditions,
    etag: &str,
    it: &impl Serialize,
) -> Result<Response, Failure> {
    Ok(tagged(conditions, etag, serde_json::to_vec(it)?))
}

fn tagged(conditions: &Conditions, etag: &str, bytes: Vec<u8>) -> Response {
    let fresh = conditions.is_fresh(etag);
    let mut response = if fresh {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], Body::from(bytes)).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// 201 with the new entity, its tag and its place.
///
/// # Errors
/// When it cannot be written as JSON: a defect of ours.
pub fn created(
    place: &Place,
    id: &impl std::fmt::Display,
    etag: &str,
    it: &impl Serialize,
) -> Result<Response, Failure> {
    let mut response = tagged(&Conditions::default(), etag, serde_json::to_vec(it)?);
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(location) = HeaderValue::from_str(&place.of(id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// 204.
pub fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The address of a collection as the client sees it.
#[derive(Clone, Debug)]
pub struct Place(String);

impl Place {
    /// From the request that was sent to the collection.
    pub fn new(headers: &HeaderMap, uri: &Uri) -> Self {
        let path = uri.path();
        let end = path.find("/$").or_else(|| path.find("/%24")).unwrap_or(path.len());
        Self(format!("{}{}", origin(headers), path.get(..end).unwrap_or_default()))
    }

    /// The address of one of its items.
    pub fn of(&self, id: &impl std::fmt::Display) -> String {
        format!("{}/{id}", self.0)
    }
}

/// Scheme and host as a request has them. Where a proxy is in between, the operator says in a setting
/// what clients see, and the outermost layer, which answers, puts that in their place.
pub fn origin(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|it| it.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}")
}

/// An answer of server-sent events, with the headers that keep proxies from holding them back.
pub fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL.as_str(), "no-cache"),
        (header::CONNECTION.as_str(), "keep-alive"),
        ("x-accel-buffering", "no"),
    ];
    (headers, body).into_response()
}

/// Reads `?poll_interval=`: above 0 and at most 60 seconds. No stream looks more often than every
/// 20 ms, whatever it asks for.
///
/// # Errors
/// 422 when it is no such number.
pub fn poll_interval(raw: Option<&str>, default: f64) -> Result<Duration, Failure> {
    let report = Report::new();
    let params = Query::parse(raw);
    let bounds = Bounds::none().above(0.0).up_to(60.0);
    let seconds = query_float(&report, "poll_interval", params.get("poll_interval"), &bounds);
    report.finish().map_err(Failure::violations)?;
    Ok(Duration::from_secs_f64(seconds.unwrap_or(default).max(0.02)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(lines: &[(http::HeaderName, &[u8])]) -> Conditions {
        let lines = lines.iter().map(|(name, value)| {
            (name.clone(), HeaderValue::from_bytes(value).expect("a value that can be sent"))
        });
        Conditions::of(&lines.collect())
    }

    #[test]
    fn a_condition_that_cannot_be_read_names_nothing() {
        let unreadable = conditions(&[(header::IF_MATCH, b"\"\xff\"")]);
        assert_eq!(unreadable.allow_change("\"a-1\"").unwrap_err().code(), "precondition_failed");
        let unreadable = conditions(&[(header::IF_NONE_MATCH, b"\"\xff\"")]);
        assert!(!unreadable.is_fresh("\"a-1\""));
        assert!(unreadable.allow_change("\"a-1\"").is_ok());
    }

    #[test]
    fn a_condition_may_be_on_several_lines() {
        let lines: [(_, &[u8]); 2] =
            [(header::IF_MATCH, b"\"\xff\", \"a-1\""), (header::IF_MATCH, b"\"a-2\"")];
        let several = conditions(&lines);
        for (tag, allowed) in [("\"a-1\"", true), ("\"a-2\"", true), ("\"a-3\"", false)] {
            assert_eq!(several.allow_change(tag).is_ok(), allowed, "{tag}");
        }
        assert!(conditions(&[]).allow_change("\"a-1\"").is_ok());
    }
}
