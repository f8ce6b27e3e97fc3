//! Taking JSON bodies apart: bounded before they are parsed, every violation in one answer.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::{HeaderValue, header};
use serde_json::Value;

use crate::background::compute;
use crate::form::{MAX_DEPTH, Node, Report, Size, Violations, is_json, long_integers, parse_body};
use crate::{Failure, Kind};

/// Bodies larger than this are parsed on a thread for it, so that nobody else's request waits; the
/// others are done sooner than a thread is found.
const LARGE: usize = 64 << 10;

/// The size in bytes that a request's body may have; the edge puts it into the request's extensions.
/// It bounds what is in a body, too.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(pub u64);

impl Default for BodyLimit {
    fn default() -> Self {
        BodyLimit(64 << 20)
    }
}

impl BodyLimit {
    /// No service is so small that it could not take as many values.
    const LEAST: usize = 1 << 16;

    /// How many values a JSON body may have. Parsed, one takes 200 bytes at most (lists of one
    /// number), and so a body takes up to six times the limit.
    fn values(self) -> usize {
        self.share(32)
    }

    /// How many values a body may have of which most are the cells of data frames. One takes 30
    /// bytes at most.
    fn cells(self) -> usize {
        self.share(4)
    }

    fn share(self, bytes: u64) -> usize {
        usize::try_from(self.0 / bytes).unwrap_or(usize::MAX).max(Self::LEAST)
    }
}

/// A request's JSON body, not yet looked at.
#[derive(Debug)]
pub struct JsonBody {
    value: Value,
    /// Which of its integers are other ones in `value`.
    changed: Violations,
}

impl JsonBody {
    /// Reads the body with `read`; whatever it reports is answered with 422.
    ///
    /// # Errors
    /// `validation_failed` with every violation.
    pub fn read<T>(&self, read: impl FnOnce(Node<'_>) -> Option<T>) -> Result<T, Failure> {
        let report = Report::after(self.changed.clone());
        let value = read(Node::body(&self.value, &report));
        report.finish().map_err(Failure::violations)?;
        value.ok_or_else(|| Failure::internal("a body was refused without a violation"))
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let body = LargeBody::from_request(request, state).await?;
        body.on_a_thread(LargeBody::parse).await
    }
}

/// A request's JSON body that may hold a lot. It is not parsed before it is read, because there are
/// shorter ways to data frames than over JSON values.
#[derive(Debug)]
pub struct LargeBody {
    content_type: Option<HeaderValue>,
    bytes: Bytes,
    limit: BodyLimit,
}

impl LargeBody {
    /// Reads the body with `direct`, which is given the bytes and how many values it may make of what
    /// is no data frame. Where that finds anything wrong, which it says as a sentence, `read` goes
    /// through the body once more and reports everything.
    ///
    /// # Errors
    /// `validation_failed` with every violation; `body_too_large` when there is too much in it, or
    /// too much for `read`.
    pub async fn read<T: Send + 'static>(
        self,
        direct: impl FnOnce(&[u8], usize) -> Result<T, String> + Send + 'static,
        read: impl FnOnce(Node<'_>) -> Option<T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.on_a_thread(move |body| {
            let problem = match body.size() {
                Some(size) if size.values > body.limit.cells() => {
                    return Err(too_much(body.limit.cells(), None));
                }
                Some(_) if !long_integers(&body.bytes).is_empty() => {
                    Some("an integer is too long".to_owned())
                }
                Some(size) if size.depth < MAX_DEPTH => {
                    match direct(&body.bytes, body.limit.values()) {
                        Ok(it) => return Ok(it),
                        Err(problem) => Some(problem),
                    }
                }
                _ => None,
            };
            body.parse_after(problem.as_deref())?.read(read)
        })
        .await
    }

    /// Reads the body with `read` alone, for what is no data frame. As [`JsonBody::read`], but whatever
    /// takes time is done, and dropped, on a thread for it when the body is large.
    ///
    /// # Errors
    /// `validation_failed` with every violation; `body_too_large` when there is too much in it.
    pub async fn read_values<T: Send + 'static>(
        self,
        read: impl FnOnce(Node<'_>) -> Option<T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.on_a_thread(move |body| body.parse()?.read(read)).await
    }

    /// The body as it came.
    pub fn raw(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Also drops the body there, which may take as long as to read it.
    async fn on_a_thread<T: Send + 'static>(
        self,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        if self.bytes.len() > LARGE { compute(move || work(&self)).await? } else { work(&self) }
    }

    fn content_type(&self) -> Option<&str> {
        self.content_type.as_ref()?.to_str().ok()
    }

    /// How much there is in it, if it claims to be JSON.
    fn size(&self) -> Option<Size> {
        self.content_type().is_some_and(is_json).then(|| Size::of(&self.bytes))
    }

    fn parse(&self) -> Result<JsonBody, Failure> {
        self.parse_after(None)
    }

    /// Parses the body, in which a `problem` was found before.
    fn parse_after(&self, problem: Option<&str>) -> Result<JsonBody, Failure> {
        let most = self.limit.values();
        // A value takes a byte at least.
        let may_be_too_much = self.bytes.len() > most;
        if may_be_too_much && self.size().is_some_and(|size| size.values > most) {
            return Err(too_much(most, problem));
        }
        let value = parse_body(self.content_type(), &self.bytes).map_err(Failure::violations)?;
        Ok(JsonBody { value, changed: long_integers(&self.bytes) })
    }
}

/// A sentence of a parser repeats what it has found, which may be long.
const SHOWN_CHARS: usize = 300;

fn too_much(most: usize, problem: Option<&str>) -> Failure {
    let detail = match problem {
        Some(problem) => format!(
            "something is wrong with the body, and it holds more than {most} JSON values, which \
             are too many to say all that is; the first is: {}",
            problem.chars().take(SHOWN_CHARS).collect::<String>()
        ),
        None => format!(
            "the body holds more than {most} JSON values; send less, or upload large content as a \
             stream"
        ),
    };
    Failure::new(Kind::Invalid, "body_too_large", detail)
}

impl<S: Send + Sync> FromRequest<S> for LargeBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let limit = request.extensions().get().copied().unwrap_or_default();
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
                Failure::new(
                    Kind::Invalid,
                    "body_too_large",
                    "the body is larger than this service takes; send less, or upload large content as a stream",
                )
            } else {
                Failure::bad_request("body_unreadable", "the body ended early, send it again")
            }
        })?;
        Ok(Self { content_type, bytes, limit })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    /// How much these tests let in; [`BodyLimit::LEAST`] values are let in at least.
    const LIMIT: BodyLimit = BodyLimit(8 << 20);

    async fn extract<T: FromRequest<(), Rejection = Failure>>(body: String) -> Result<T, Failure> {
        let mut request = Request::new(Body::from(body));
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        request.extensions_mut().insert(LIMIT);
        T::from_request(request, &()).await
    }

    fn list(length: usize) -> String {
        format!("[{}0]", "0,".repeat(length - 1))
    }

    #[tokio::test]
    async fn a_body_of_many_values_is_refused_before_it_is_parsed() {
        let most = LIMIT.values();
        assert!(extract::<JsonBody>(list(most - 2)).await.is_ok());
        for body in [list(most + 1), "[".repeat(most + 1), "{\"\":[".repeat(most / 4 + 1)] {
            let failure = extract::<JsonBody>(body).await.unwrap_err();
            assert_eq!((failure.status().as_u16(), failure.code()), (413, "body_too_large"));
            assert_eq!(
                failure.detail(),
                "the body holds more than 262144 JSON values; send less, or upload large content as a \
                 stream"
            );
        }
        // Commas in a text are no values.
        assert!(extract::<JsonBody>(format!("\"{}\"", ",".repeat(most + 1))).await.is_ok());
    }

    /// Takes any list directly, and finds a violation in every one that it must look at closely.
    async fn read(body: String, good: bool) -> Result<usize, Failure> {
        let direct = move |body: &[u8], most: usize| {
            assert_eq!(most, LIMIT.values());
            if good { Ok(body.len()) } else { Err("it is bad".to_owned()) }
        };
        let closely = |node: Node<'_>| {
            node.fail_rule("it is bad, and why");
            None
        };
        extract::<LargeBody>(body).await?.read(direct, closely).await
    }

    #[tokio::test]
    async fn what_is_read_directly_may_hold_more() {
        let (values, cells) = (LIMIT.values(), LIMIT.cells());
        assert_eq!(read(list(values + 1), true).await.unwrap(), 2 * values + 3);
        let failure = read(list(cells + 1), true).await.unwrap_err();
        assert_eq!((failure.status().as_u16(), failure.code()), (413, "body_too_large"));
    }

    #[tokio::test]
    async fn what_is_wrong_is_listed_where_it_is_little_and_named_where_it_is_much() {
        let failure = read(list(100), false).await.unwrap_err();
        assert_eq!((failure.status().as_u16(), failure.code()), (422, "validation_failed"));
        let failure = read(list(LIMIT.values() + 1), false).await.unwrap_err();
        assert_eq!(failure.status().as_u16(), 413);
        assert_eq!(
            failure.detail(),
            "something is wrong with the body, and it holds more than 262144 JSON values, which are \
             too many to say all that is; the first is: it is bad"
        );
    }

    #[tokio::test]
    async fn what_is_nested_too_deeply_is_not_read_directly() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(nested(127), true).await.is_ok());
        let failure = read(nested(128), true).await.unwrap_err();
        assert_eq!(failure.status().as_u16(), 422);
    }

    #[tokio::test]
    async fn large_values_are_read_on_a_thread_for_it() {
        let here = std::thread::current().id();
        for (length, elsewhere) in [(10, false), (LARGE + 1, true)] {
            let body: LargeBody = extract(format!("\"{}\"", "x".repeat(length))).await.unwrap();
            let read = |_: Node<'_>| Some(std::thread::current().id());
            assert_eq!(body.read_values(read).await.unwrap() != here, elsewhere, "{length}");
        }
        let body: LargeBody = extract("1".to_owned()).await.unwrap();
        let refused = body.read_values(|node| node.string()).await.unwrap_err();
        assert_eq!(refused.code(), "validation_failed");
    }
}
