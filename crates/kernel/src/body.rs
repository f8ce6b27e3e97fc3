//! Taking JSON bodies apart: bounded before they are parsed, every violation in one answer.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::header;
use serde_json::Value;

use crate::Failure;
use crate::background::compute;
use crate::form::{Node, Report, parse_body};

/// Bodies larger than this are parsed on a thread for it, so that nobody else's request waits; the
/// others are done sooner than a thread is found.
const LARGE: usize = 64 << 10;

/// A request's JSON body, not yet looked at.
#[derive(Debug)]
pub struct JsonBody {
    value: Value,
    is_large: bool,
}

impl JsonBody {
    /// Reads the body with `read`; whatever it reports is answered with 422.
    ///
    /// # Errors
    /// `validation_failed` with every violation.
    pub fn read<T>(&self, read: impl FnOnce(Node<'_>) -> Option<T>) -> Result<T, Failure> {
        let report = Report::new();
        let value = read(Node::body(&self.value, &report));
        report.finish().map_err(Failure::violations)?;
        value.ok_or_else(|| Failure::internal("a body was refused without a violation"))
    }

    /// As [`JsonBody::read`], for bodies that may be large.
    ///
    /// # Errors
    /// `validation_failed` with every violation.
    pub async fn read_large<T: Send + 'static>(
        self,
        read: impl FnOnce(Node<'_>) -> Option<T> + Send + 'static,
    ) -> Result<T, Failure> {
        if self.is_large { compute(move || self.read(read)).await? } else { self.read(read) }
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
                Failure::new(
                    crate::Kind::Invalid,
                    "body_too_large",
                    "the body is larger than this service takes; send less, or stream large content to `/api/v1/artifacts/$upload`",
                )
            } else {
                Failure::bad_request("body_unreadable", "the body ended early, send it again")
            }
        })?;
        let is_large = bytes.len() > LARGE;
        let parse = move || {
            let content_type = content_type.as_ref().and_then(|it| it.to_str().ok());
            parse_body(content_type, &bytes).map_err(Failure::violations)
        };
        let value = if is_large { compute(parse).await?? } else { parse()? };
        Ok(Self { value, is_large })
    }
}
