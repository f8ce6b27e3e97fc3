//! Reads bodies that hold secrets: no answer repeats what is in them.

use axum::extract::{FromRequest, Request};
use http::{HeaderMap, HeaderValue, header};
use modelyard_kernel::form::{Node, Report, Violation};
use modelyard_kernel::{Failure, JsonBody, Kind};
use serde_json::Value;

/// A JSON body with a password, a token or a code in it.
#[derive(Debug)]
pub(crate) struct SecretBody(JsonBody);

impl SecretBody {
    /// As [`JsonBody::read`], but violations do not show what was found.
    pub(crate) fn read<T>(&self, read: impl FnOnce(Node<'_>) -> Option<T>) -> Result<T, Failure> {
        self.0.read(|node| {
            let report = Report::new();
            let value = read(node.reporting_to(&report));
            match report.finish() {
                Ok(()) => value,
                Err(violations) => {
                    for it in violations {
                        node.report().push(|| Violation { input: Value::Null, ..it });
                    }
                    None
                }
            }
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for SecretBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        // Bodies of another type are shown in the answer that refuses them.
        if !is_json(request.headers()) {
            let detail = "the body is to be `application/json`";
            return Err(Failure::new(Kind::Invalid, "media_type_unsupported", detail));
        }
        JsonBody::from_request(request, state).await.map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let essence = value.and_then(|it| it.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// A text of at most `most` characters, none of which controls anything.
pub(crate) fn short_text(node: &Node<'_>, most: usize) -> Option<String> {
    let text = node.str()?.trim();
    if text.is_empty() || text.chars().count() > most || text.chars().any(char::is_control) {
        node.fail_rule(format!("it has 1 to {most} characters, all of which can be seen"));
        return None;
    }
    Some(text.to_owned())
}

/// Keeps an answer with a secret out of every cache.
pub(crate) const NO_STORE: (header::HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
