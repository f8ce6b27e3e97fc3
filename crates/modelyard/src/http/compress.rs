//! Compression of answers that are worth it, for clients that say they can read it.

use std::io;

use async_compression::Level;
use async_compression::tokio::bufread::GzipEncoder;
use axum::body::Body;
use axum::response::Response;
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Body as _;
use tokio_util::io::{ReaderStream, StreamReader};

/// Less is not worth the client's time.
const WORTHWHILE_BYTES: u64 = 1024;

/// Whether the client reads gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    values.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(',')).any(|offer| {
        let (coding, weight) = offer.split_once(';').unwrap_or((offer, ""));
        let refused = weight.trim().strip_prefix("q=").and_then(|it| it.trim().parse::<f32>().ok());
        coding.trim().eq_ignore_ascii_case("gzip") && refused.is_none_or(|q| q > 0.0)
    })
}

/// Compresses the answer if it is worth it; says that it might have where the client did not ask.
pub(super) fn compress(response: Response, accepted: bool) -> Response {
    if !worthwhile(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if !accepted {
        return Response::from_parts(parts, body);
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    weaken(&mut parts.headers);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let plain = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let packed =
        ReaderStream::with_capacity(GzipEncoder::with_quality(plain, Level::Fastest), 16 * 1024);
    Response::from_parts(parts, Body::from_stream(packed))
}

/// A strong tag promises the very bytes, which are others now.
fn weaken(headers: &mut HeaderMap) {
    let tag = headers.get(header::ETAG).and_then(|it| it.to_str().ok());
    let weak = tag.filter(|it| !it.starts_with("W/")).map(|it| format!("W/{it}"));
    if let Some(Ok(weak)) = weak.map(HeaderValue::try_from) {
        headers.insert(header::ETAG, weak);
    }
}

fn worthwhile(response: &Response) -> bool {
    let size = response.body().size_hint();
    if size.exact().is_some_and(|it| it < WORTHWHILE_BYTES) {
        return false;
    }
    let headers = response.headers();
    let header = |name| headers.get(name).and_then(|it: &HeaderValue| it.to_str().ok());
    response.status() != StatusCode::PARTIAL_CONTENT
        && !headers.contains_key(header::CONTENT_ENCODING)
        // Ranges are of the bytes as they are stored.
        && !headers.contains_key(header::ACCEPT_RANGES)
        && header(header::CONTENT_TYPE).is_some_and(is_text)
}

fn is_text(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    // Events would wait in the encoder.
    (kind.starts_with("text/") && kind != "text/event-stream")
        || kind.ends_with("json")
        || kind.ends_with("javascript")
        || kind.ends_with("xml")
        || kind.ends_with("yaml")
}
