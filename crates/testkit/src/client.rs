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
        let TestStream { status, headers, mut body, .. } = self.open().await;
        let bytes = (&mut body).collect().await.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = match bytes.len() {
            0 => Value::Null,
            _ => serde_json::from_slice(&bytes).unwrap_or_else(|_| text()),
        };
        TestResponse { status, headers, body, bytes }
    }

    /// Sends it and gives the answer as soon as its headers are there.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn open(self) -> TestStream {
        let Self { client, method, path, headers, body } = self;
        let mut request = Request::builder().method(method).uri(format!("{}{path}", client.base));
        *request.headers_mut().unwrap() = headers;
        let request = request.body(Full::new(body)).unwrap();
        let shown = format!("{} {}", request.method(), request.uri());
        let answer = client.client.request(request).await;
        let answer = answer.unwrap_or_else(|error| panic!("{shown}: {error:?}"));
        let (parts, body) = answer.into_parts();
        TestStream { status: parts.status, headers: parts.headers, body, pending: Vec::new() }
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
        loop {
            match self.body.frame().await?.unwrap().into_data() {
                Ok(bytes) => return Some(bytes),
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
                    return Some(data.join("\n"));
                }
                continue;
            }
            let more = self.next_bytes().await?;
            self.pending.extend_from_slice(&more);
        }
    }
}
