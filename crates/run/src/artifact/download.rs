//! `$download`: content as a file, whole or in ranges.

use std::ops::Range;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use modelyard_kernel::background::compute;
use modelyard_kernel::blobs::{BlobRead, failure_of};
use modelyard_kernel::reply::Conditions;
use modelyard_kernel::{Failure, Kind, Result};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::content::Content;
use super::model::ContentForm;
use super::render::Rendered;
use crate::frame::{Frame, FrameSchema, write_python_json, write_records};

/// JSON content is turned into other forms in memory, so it has a limit; binary content has none.
const MAX_CONVERTED: u64 = 512 << 20;

/// How many of them are made at a time; the others wait.
pub(super) const PLACES: usize = 4;

/// Answers with the content of an artifact.
pub(super) async fn respond(
    it: Rendered,
    headers: &HeaderMap,
    converting: &Semaphore,
) -> Result<Response> {
    let Rendered { artifact, content } = it;
    if !artifact.has_fields() {
        return Err(Failure::bad_request(
            "content_missing",
            "Artifact has no downloadable content",
        ));
    }
    let fields = artifact.fields();
    let media = fields.get("content_type").and_then(Value::as_str);
    let media = media.unwrap_or("application/octet-stream").to_owned();
    let content = content.ok_or_else(no_content)?;
    let mut response = match (artifact.content_form, content) {
        (Some(ContentForm::Bytes), Content::Blob(blob)) => binary(&blob, headers).await?,
        (Some(ContentForm::Bytes), Content::Inline(bytes)) => Body::from(bytes).into_response(),
        (form, content) => {
            let _place = converting.acquire().await.map_err(Failure::internal)?;
            let json = content.bytes(MAX_CONVERTED).await?;
            let media = media.clone();
            // Large frames take a while to write.
            let convert = move || convert(form, &json, &media);
            let bytes = compute(convert).await??;
            Body::from(bytes).into_response()
        }
    };
    let kind = if media.starts_with("text/") && !media.contains("charset") {
        format!("{media}; charset=utf-8")
    } else {
        media.clone()
    };
    let name = format!("attachment; filename=artifact_{}.{}", artifact.id, extension(&media));
    let to = response.headers_mut();
    to.insert(
        header::CONTENT_TYPE,
        // A client chose the type; what cannot be a header is what it is: bytes.
        HeaderValue::from_str(&kind)
            .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream")),
    );
    to.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_str(&name).map_err(Failure::internal)?,
    );
    to.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn no_content() -> Failure {
    Failure::missing("content_missing", "Artifact has no content")
}

fn extension(media: &str) -> &'static str {
    match media.split(';').next().unwrap_or_default().trim() {
        "application/zip" => "zip",
        "text/csv" => "csv",
        "application/x-ndjson" => "ndjson",
        "application/vnd.apache.parquet" => "parquet",
        "application/json" | "application/vnd.chapkit.dataframe+json" => "json",
        "image/png" => "png",
        _ => "bin",
    }
}

fn convert(form: Option<ContentForm>, json: &[u8], media: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(json.len());
    if form == Some(ContentForm::Frame)
        && let Ok(frame) = serde_json::from_slice::<Frame>(json)
    {
        if media == "text/csv" {
            return Ok(frame.to_csv());
        }
        frame.write_records(&mut out).map_err(Failure::internal)?;
        return Ok(out);
    }
    if media == "application/vnd.chapkit.dataframe+json"
        && let Ok(Table { columns, data, .. }) = serde_json::from_slice(json)
    {
        write_records(&columns, &data, &mut out).map_err(Failure::internal)?;
        return Ok(out);
    }
    let value: Value = serde_json::from_slice(json)?;
    let kind = match &value {
        Value::Null => return Err(no_content()),
        Value::Object(_) => {
            write_python_json(&value, &mut out).map_err(Failure::internal)?;
            return Ok(out);
        }
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Bool(_) => "bool",
        Value::Number(it) if it.is_f64() => "float",
        Value::Number(_) => "int",
    };
    Err(Failure::bad_request(
        "content_not_a_file",
        format!("Cannot serialize content of type {kind}"),
    ))
}

/// A frame that a client stored. Nobody has looked at it, so its cells may be anything.
#[derive(Deserialize)]
struct Table {
    columns: Vec<String>,
    data: Vec<Vec<Value>>,
    #[expect(dead_code, reason = "with a wrong one it is no frame")]
    schema: Option<FrameSchema>,
}

/// Streams a blob: all of it, or the one range that is asked for.
async fn binary(blob: &BlobRead, headers: &HeaderMap) -> Result<Response> {
    let etag = format!("\"{}\"", blob.hash());
    let size = blob.size_bytes();
    if Conditions::of(headers).is_fresh(&etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let if_range = headers.get(header::IF_RANGE).and_then(|it| it.to_str().ok());
    let asked = headers.get(header::RANGE).and_then(|it| it.to_str().ok());
    let range = match asked.filter(|_| if_range.is_none_or(|it| it == etag)) {
        Some(text) => match read_range(text, size) {
            Ok(range) => range,
            Err(failure) => return Ok(unsatisfiable(failure, size)),
        },
        None => None,
    };
    let (status, part) = match range {
        Some(range) => (StatusCode::PARTIAL_CONTENT, range),
        None => (StatusCode::OK, 0..size),
    };
    let length = part.end - part.start;
    // Damage at the beginning is still an answer; later it can only cut the answer off.
    let mut rest = Box::pin(blob.stream(part.clone()));
    let first = rest.next().await.transpose().map_err(failure_of)?;
    let body = Body::from_stream(stream::iter(first.map(Ok)).chain(rest));
    let mut response = (status, body).into_response();
    let to = response.headers_mut();
    to.insert(header::CONTENT_LENGTH, length.into());
    to.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(etag) = etag.parse() {
        to.insert(header::ETAG, etag);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1));
        to.insert(header::CONTENT_RANGE, HeaderValue::from_str(&text).map_err(Failure::internal)?);
    }
    Ok(response)
}

/// A refusal that says how many bytes there are, for clients that did not know.
fn unsatisfiable(failure: Failure, size: u64) -> Response {
    let mut response = failure.into_response();
    if let Ok(text) = HeaderValue::try_from(format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, text);
    }
    response
}

/// Reads `bytes=a-b`, `bytes=a-` and `bytes=-n` (RFC 9110 §14.1). What is no such range, or more
/// than one, is answered with the whole, as the RFC allows.
pub fn read_range(text: &str, size: u64) -> Result<Option<Range<u64>>> {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|it| it.split_once('-')) else {
        return Ok(None);
    };
    let (first, last) = (first.trim(), last.trim());
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(last)) if first.is_empty() => size.saturating_sub(last)..size,
        _ => return Ok(None),
    };
    if range.start >= range.end {
        return Err(Failure::new(
            Kind::Invalid,
            "range_unsatisfiable",
            format!("the content has {size} bytes, ask for a range within"),
        ));
    }
    Ok(Some(range))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        assert_eq!(read_range("bytes=0-3", 10).unwrap(), Some(0..4));
        assert_eq!(read_range("bytes=8-", 10).unwrap(), Some(8..10));
        assert_eq!(read_range("bytes=-3", 10).unwrap(), Some(7..10));
        assert_eq!(read_range("bytes=5-100", 10).unwrap(), Some(5..10));
        assert_eq!(read_range("items=0-3", 10).unwrap(), None);
        assert_eq!(read_range("bytes=0-1,3-4", 10).unwrap(), None);
        assert_eq!(read_range("bytes=10-", 10).unwrap_err().code(), "range_unsatisfiable");
    }

    proptest! {
        #[test]
        fn a_range_is_always_within_the_content(text in ".{0,30}", size in 0_u64..1000) {
            if let Ok(Some(range)) = read_range(&format!("bytes={text}"), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
