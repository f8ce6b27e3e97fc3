//! A client over a real port, with connections that are kept.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Speaks JSON to a server; cheap to clone.
#[derive(Clone, Debug)]
pub struct TestClient {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    headers: HeaderMap,
}

impl TestClient {
    /// Speaks to `base`, such as `http://127.0.0.1:9090`; paths of requests are put behind it.
    pub fn new(base: impl Into<String>) -> Self {
        let base = base.into().trim_end_matches('/').to_owned();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, base, headers: HeaderMap::new() }
    }

    /// Sends a header with every request.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    /// Where it speaks to.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends GET.
    pub async fn get(&self, path: &str) -> TestResponse {
        self.request(Method::GET, path).send().await
    }

    /// Sends POST with JSON.
    pub async fn post(&self, path: &str, body: &Value) -> TestResponse {
        self.request(Method::POST, path).json(body).send().await
    }

    /// Sends PUT with JSON.
    pub async fn put(&self, path: &str, body: &Value) -> TestResponse {
        self.request(Method::PUT, path).json(body).send().await
    }

    /// Sends PATCH with JSON.
    pub async fn patch(&self, path: &str, body: &Value) -> TestResponse {
        self.request(Method::PATCH, path).json(body).send().await
    }

    /// Sends DELETE.
    pub async fn delete(&self, path: &str) -> TestResponse {
        self.request(Method::DELETE, path).send().await
    }

    /// Any other request.
    pub fn request(&self, method: Method, path: &str) -> TestRequest<'_> {
        TestRequest {
            client: self,
            method,
            path: path.to_owned(),
            headers: self.headers.clone(),
            body: Bytes::new(),
        }
    }
}

/// A request that is being put together.
#[derive(Debug)]
pub struct TestRequest<'a> {
    client: &'a TestClient,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl TestRequest<'_> {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).unwrap();
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// A body of JSON.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// A body of bytes.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Panics
    /// When the server cannot be reached or breaks off.
    pub async fn send(self) -> TestResponse {
        self.try_send().await.unwrap_or_else(|broken| panic!("{broken:?}"))
    }

    /// Sends it and reads the whole answer, of a server that may be killed at any moment.
    ///
    /// # Errors
    /// When the server cannot be reached or breaks off: nobody knows then whether it did it.
    pub async fn try_send(self) -> Result<TestResponse, Broken> {
        let shown = self.shown();
        let TestStream { status, headers, mut body, .. } = self.try_open().await?;
        let collected = (&mut body).collect().await;
        let bytes = collected.map_err(|cause| Broken::new(shown, cause))?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = match bytes.len() {
            0 => Value::Null,
            _ => serde_json::from_slice(&bytes).unwrap_or_else(|_| text()),
        };
        Ok(TestResponse { status, headers, body, bytes })
    }

    /// Sends it and gives the answer as soon as its headers are there.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn open(self) -> TestStream {
        self.try_open().await.unwrap_or_else(|broken| panic!("{broken:?}"))
    }

    /// As [`TestRequest::open`], of a server that may be killed at any moment.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn try_open(self) -> Result<TestStream, Broken> {
        let shown = self.shown();
        let Self { client, method, path, headers, body } = self;
        let mut request = Request::builder().method(method).uri(format!("{}{path}", client.base));
        *request.headers_mut().unwrap() = headers;
        let request = request.body(Full::new(body)).unwrap();
        let answer = client.client.request(request).await;
        let (parts, body) = answer.map_err(|cause| Broken::new(shown, cause))?.into_parts();
        Ok(TestStream { status: parts.status, headers: parts.headers, body, pending: Vec::new() })
    }

    fn shown(&self) -> String {
        format!("{} {}{}", self.method, self.client.base, self.path)
    }
}

/// The server could not be reached, or broke off.
#[derive(Debug)]
pub struct Broken {
    /// What was asked.
    pub request: String,
    /// What the connection said.
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

impl Broken {
    fn new(
        request: impl Into<String>,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { request: request.into(), cause: Box::new(cause) }
    }
}

/// What came back; snapshot it whole, so that a test shows status and body together.
#[derive(Clone, Debug, Serialize)]
pub struct TestResponse {
    /// The status.
    #[serde(serialize_with = "as_number")]
    pub status: StatusCode,
    /// The headers.
    #[serde(skip)]
    pub headers: HeaderMap,
    /// The body as JSON: null when it is empty, a string when it is no JSON.
    pub body: Value,
    /// The body as it came.
    #[serde(skip)]
    pub bytes: Bytes,
}

impl TestResponse {
    /// A header's text; none when it is absent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|it| it.to_str().ok())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The answer itself, when its status is `status`.
    ///
    /// # Panics
    /// When it is another; the message has the whole answer.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }
}

fn as_number<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

/// An answer whose body is still coming, such as server-sent events. Dropping it hangs up.
pub struct TestStream {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    pending: Vec<u8>,
}

impl fmt::Debug for TestStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestStream").field("status", &self.status).finish_non_exhaustive()
    }
}

impl TestStream {
    /// The next bytes; none at the end.
    ///
    /// # Panics
    /// When the server breaks off.
    pub async fn next_bytes(&mut self) -> Option<Bytes> {
        self.try_next_bytes().await.unwrap_or_else(|broken| panic!("{broken:?}"))
    }

    async fn try_next_bytes(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            match frame.map_err(|cause| Broken::new("what follows", cause))?.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(_trailers) => {}
            }
        }
    }

    /// The text of the next server-sent event, without `data: `; none at the end. Comments are
    /// passed over.
    ///
    /// # Panics
    /// When the server breaks off, or sends something else.
    pub async fn next_event(&mut self) -> Option<String> {
        self.try_next_event().await.unwrap_or_else(|broken| panic!("{broken:?}"))
    }

    /// As [`TestStream::next_event`], of a server that may be killed at any moment.
    ///
    /// # Errors
    /// When the server breaks off.
    ///
    /// # Panics
    /// When it sends something else than events.
    pub async fn try_next_event(&mut self) -> Result<Option<String>, Broken> {
        let content_type = self.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
        assert!(content_type.is_some_and(|it| it.starts_with("text/event-stream")), "{self:?}");
        loop {
            if let Some(end) = self.pending.windows(2).position(|it| it == b"\n\n") {
                let event: Vec<u8> = self.pending.drain(..end + 2).collect();
                let event = String::from_utf8(event).unwrap();
                let data: Vec<&str> = event
                    .lines()
                    .filter_map(|it| it.strip_prefix("data:"))
                    .map(str::trim)
                    .collect();
                if !data.is_empty() {
                    return Ok(Some(data.join("\n")));
                }
                continue;
            }
            let Some(more) = self.try_next_bytes().await? else { return Ok(None) };
            self.pending.extend_from_slice(&more);
        }
    }
}
