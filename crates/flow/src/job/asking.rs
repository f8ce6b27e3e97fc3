//! How a client wants a job to be done: the same for every request that asks for one.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::FromRequestParts;
use http::HeaderValue;
use http::request::Parts;
use modelyard_kernel::background::compute_sized;
use modelyard_kernel::clock::NotATime;
use modelyard_kernel::form::{Bounds, Query, Report, query_int};
use modelyard_kernel::{Failure, Result};
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use super::{RequestKey, Wishes};

/// How a client wants a job to be done.
///
/// The header `Idempotency-Key` is that of the IETF draft
/// *draft-ietf-httpapi-idempotency-key-header*, see [`AskingHeaders`]; the rest are query parameters,
/// see [`AskingParams`].
#[derive(Clone, Debug)]
pub struct Asking {
    name: Option<String>,
    wishes: Wishes,
}

/// The header of every operation that asks for a job.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents what `Asking` takes")]
pub struct AskingHeaders {
    /// The client's name for this request: sent again, it asks for no second job.
    #[param(rename = "Idempotency-Key", required = false, max_length = 200)]
    idempotency_key: Option<String>,
}

/// The parameters of every operation that asks for a job, beside the header.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents what `Asking` takes")]
pub struct AskingParams {
    /// What the job is called.
    #[param(required = false, max_length = 200)]
    label: Option<String>,
    /// The queue to wait in, one of the service's; that of its kind unless given.
    #[param(required = false)]
    queue: Option<String>,
    /// Those with a higher one go first; from -100 to 100, 0 unless given.
    #[param(required = false)]
    priority: Option<i64>,
    /// Not to be begun before.
    #[param(required = false)]
    run_at: Option<String>,
    /// How long all of it may take.
    #[param(required = false)]
    deadline_seconds: Option<i64>,
    /// Attempts in all when they fail for a reason that may pass; from 1 to 100.
    #[param(required = false)]
    max_attempts: Option<i64>,
}

impl Asking {
    /// What is wished for a request that asks for `what`, and how in its `body`. Large bodies are
    /// looked at on a thread for it.
    ///
    /// # Errors
    /// None but defects of ours.
    pub async fn wishes(self, what: &str, body: Bytes) -> Result<Wishes> {
        let Self { name, mut wishes } = self;
        let Some(name) = name else { return Ok(wishes) };
        let what = what.to_owned();
        let hash = compute_sized(body.len(), move || {
            let mut hasher = Sha256::new();
            hasher.update(what.as_bytes());
            hasher.update([0]);
            hasher.update(&body);
            hasher.finalize().iter().map(|it| format!("{it:02x}")).collect()
        });
        wishes.request = Some(RequestKey { name, fingerprint: hash.await? });
        Ok(wishes)
    }
}

impl<S: Sync> FromRequestParts<S> for Asking {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let name = parts.headers.get("idempotency-key").map(read_name).transpose()?;
        let query = Query::parse(parts.uri.query());
        let report = Report::new();
        let number = |name, bounds: Bounds| query_int(&report, name, query.get(name), &bounds);
        let priority = number("priority", Bounds::none().at_least(-100).at_most(100));
        let longest = i64::try_from(MAX_AHEAD).unwrap_or(i64::MAX);
        let deadline = number("deadline_seconds", Bounds::none().at_least(1).at_most(longest));
        let max_attempts = number("max_attempts", Bounds::none().at_least(1).at_most(100));
        report.finish().map_err(Failure::violations)?;
        let label = query.get("label").map(|it| it.chars().take(MAX_LABEL + 1).collect::<String>());
        if let Some(label) = &label
            && (label.chars().count() > MAX_LABEL || label.contains(char::is_control))
        {
            let detail = format!("a label is one line of at most {MAX_LABEL} characters");
            return Err(Failure::bad_request("label_invalid", detail));
        }
        let run_at = query.get("run_at").map(str::parse).transpose();
        let run_at = run_at
            .map_err(|error: NotATime| Failure::bad_request("time_invalid", error.to_string()))?;
        let queue = query.get("queue").map(|it| read_queue(it.to_owned())).transpose()?;
        let seconds = deadline.and_then(|it| u64::try_from(it).ok());
        let wishes = Wishes {
            request: None,
            label,
            queue,
            priority,
            run_at,
            deadline: seconds.map(Duration::from_secs),
            max_attempts,
        };
        Ok(Self { name, wishes })
    }
}

/// How far ahead a job may be asked for, and how long it may take, in seconds.
pub(super) const MAX_AHEAD: u64 = 366 * 24 * 60 * 60;

/// Characters of a label.
const MAX_LABEL: usize = 200;

fn read_name(value: &HeaderValue) -> Result<String> {
    let text = value.to_str().ok().map(|it| it.trim().trim_matches('"'));
    let fits = |it: &&str| {
        (1..=MAX_NAME).contains(&it.len()) && it.bytes().all(|it| it.is_ascii_graphic())
    };
    text.filter(fits).map(ToOwned::to_owned).ok_or_else(|| {
        Failure::bad_request(
            "idempotency_key_invalid",
            format!(
                "an Idempotency-Key has 1 to {MAX_NAME} letters, digits or signs, without spaces"
            ),
        )
    })
}

/// Characters of an `Idempotency-Key`.
const MAX_NAME: usize = 200;

pub(super) fn read_queue(name: String) -> Result<String> {
    let fits = (1..=100).contains(&name.len())
        && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it));
    if fits {
        return Ok(name);
    }
    Err(Failure::bad_request(
        "queue_invalid",
        "the name of a queue has 1 to 100 letters, digits, `-`, `_` and `.`",
    ))
}
