//! Artifacts with their content as JSON, streamed: a large content is never in memory whole.

use std::io;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use http::header;
use modelyard_kernel::blobs::{BlobRead, failure_of};
use modelyard_kernel::{Result, Time, clock};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::content::Content;
use super::model::{Artifact, ArtifactId, CONTENT, ContentForm};

/// How many bytes of binary content are shown.
const SHOWN: u64 = 200;

/// An artifact and its open content.
#[derive(Debug)]
pub struct Rendered {
    /// The artifact.
    pub artifact: Artifact,
    /// Its content, when it has some.
    pub content: Option<Content>,
}

enum Piece {
    Text(Bytes),
    Blob(BlobRead),
}

impl Rendered {
    /// The JSON of the artifact, in pieces.
    async fn pieces(self) -> Result<Vec<Piece>> {
        let Self { artifact, content } = self;
        let Some(content) = content else {
            return Ok(vec![Piece::Text(serde_json::to_vec(&artifact)?.into())]);
        };
        let content = match (artifact.content_form, content) {
            (Some(ContentForm::Bytes), content) => Piece::Text(shown(&content).await?),
            (_, Content::Inline(json)) => Piece::Text(json),
            (_, Content::Blob(blob)) => Piece::Blob(blob),
        };
        let (before, after) = around(&artifact)?;
        Ok(vec![Piece::Text(before.into()), content, Piece::Text(after.into())])
    }

    /// The answer to a request for one artifact.
    ///
    /// # Errors
    /// When the content cannot be read.
    pub async fn into_response(self) -> Result<Response> {
        let etag = self.artifact.etag();
        let mut response = respond(self.pieces().await?);
        if let Ok(etag) = etag.parse() {
            response.headers_mut().insert(header::ETAG, etag);
        }
        Ok(response)
    }

    /// The answer to a request for several.
    ///
    /// # Errors
    /// When a content cannot be read.
    pub async fn list_response(list: Vec<Self>) -> Result<Response> {
        let mut pieces = vec![Piece::Text(Bytes::from_static(b"["))];
        for (index, it) in list.into_iter().enumerate() {
            if index > 0 {
                pieces.push(Piece::Text(Bytes::from_static(b",")));
            }
            pieces.extend(it.pieces().await?);
        }
        pieces.push(Piece::Text(Bytes::from_static(b"]")));
        Ok(respond(pieces))
    }
}

fn respond(pieces: Vec<Piece>) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    if pieces.iter().all(|it| matches!(it, Piece::Text(_))) {
        let mut whole = Vec::new();
        for piece in pieces {
            if let Piece::Text(text) = piece {
                whole.extend_from_slice(&text);
            }
        }
        return (json, Body::from(whole)).into_response();
    }
    let stream = stream::iter(pieces)
        .map(|piece| -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
            Ok(match piece {
                Piece::Text(text) => stream::iter([Ok(text)]).boxed(),
                Piece::Blob(blob) => blob.stream(0..blob.size_bytes()).boxed(),
            })
        })
        .try_flatten();
    (json, Body::from_stream(stream)).into_response()
}

/// The artifact's JSON before and after its content.
fn around(artifact: &Artifact) -> Result<(Vec<u8>, Vec<u8>)> {
    let at = usize::try_from(artifact.content_at.unwrap_or(0)).unwrap_or(0);
    let (mut before, mut after) = (b"{".to_vec(), Vec::new());
    let fields = artifact.fields();
    for (index, (key, value)) in fields.iter().enumerate() {
        let side = if index < at { &mut before } else { &mut after };
        if index < at {
            if index > 0 {
                side.push(b',');
            }
        } else {
            side.push(b',');
        }
        serde_json::to_writer(&mut *side, key)?;
        side.push(b':');
        serde_json::to_writer(&mut *side, value)?;
    }
    if at.min(fields.len()) > 0 {
        before.push(b',');
    }
    before.extend_from_slice(format!("\"{CONTENT}\":").as_bytes());
    after.push(b'}');

    let Artifact { id, created_at, updated_at, tags, data: _, parent_id, level, .. } = artifact;
    let (id, created_at, updated_at, parent_id) = (*id, *created_at, *updated_at, *parent_id);
    let mut start = serde_json::to_vec(&Head { id, created_at, updated_at, tags })?;
    start.pop();
    start.extend_from_slice(b",\"data\":");
    start.append(&mut before);
    after.push(b',');
    after.extend_from_slice(&serde_json::to_vec(&Tail { parent_id, level: *level })?[1..]);
    Ok((start, after))
}

/// What an [`Artifact`] has before its data.
#[derive(Serialize)]
struct Head<'a> {
    id: ArtifactId,
    #[serde(serialize_with = "clock::seconds")]
    created_at: Time,
    #[serde(serialize_with = "clock::seconds")]
    updated_at: Time,
    tags: &'a RawValue,
}

/// What an [`Artifact`] has after its data.
#[derive(Serialize)]
struct Tail {
    parent_id: Option<ArtifactId>,
    level: i64,
}

/// What stands for binary content in JSON, in the contract's form.
async fn shown(content: &Content) -> Result<Bytes> {
    let mut head = Vec::new();
    match content {
        Content::Inline(bytes) => head.extend_from_slice(bytes),
        Content::Blob(blob) => {
            let mut stream = std::pin::pin!(blob.stream(0..SHOWN));
            while let Some(bytes) = stream.next().await {
                head.extend_from_slice(&bytes.map_err(failure_of)?);
            }
        }
    }
    let mut text = python_bytes(&head);
    if text.len() > 200 {
        text.truncate(200);
        text.push_str("...");
    }
    let value: Value = json!({
        "_type": "bytes",
        "_module": "builtins",
        "_repr": text,
        "_serialization_error": "Value is not JSON-serializable.",
    });
    Ok(serde_json::to_vec(&value)?.into())
}

/// Bytes as Python prints them.
fn python_bytes(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("b'");
    for byte in bytes {
        let _infallible = match byte {
            b'\\' => text.write_str("\\\\"),
            b'\'' => text.write_str("\\'"),
            b'\n' => text.write_str("\\n"),
            b'\r' => text.write_str("\\r"),
            b'\t' => text.write_str("\\t"),
            0x20..=0x7e => text.write_char(char::from(*byte)),
            other => write!(text, "\\x{other:02x}"),
        };
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use modelyard_kernel::Clock;
    use serde_json::value::to_raw_value;

    use super::*;

    #[test]
    fn an_artifact_in_pieces_is_what_it_is_in_one() {
        let clock = Clock::system();
        for parent_id in [None, Some(ArtifactId(clock.ulid()))] {
            let of = |data: Value, content_at| Artifact {
                id: ArtifactId(clock.ulid()),
                created_at: clock.now(),
                updated_at: clock.now(),
                tags: to_raw_value(&json!(["\"data\":{\"a\":1}"])).unwrap(),
                data: to_raw_value(&data).unwrap(),
                parent_id,
                level: 3,
                revision: 1,
                content_at,
                content_form: None,
                content_hash: None,
                content_bytes: None,
            };
            for (data, at) in [
                (json!({"content": 0}), 0),
                (json!({"content": 0, "a": 1}), 0),
                (json!({"a": 1, "content": 0, "b": 2}), 1),
                (json!({"a": 1, "content": 0}), 1),
            ] {
                let whole = of(data.clone(), None);
                let mut fields = data.clone();
                fields.as_object_mut().unwrap().shift_remove("content");
                let parted = Artifact {
                    id: whole.id,
                    created_at: whole.created_at,
                    updated_at: whole.updated_at,
                    ..of(fields, Some(at))
                };
                let (before, after) = around(&parted).unwrap();
                let joined = [&before[..], b"0", &after].concat();
                assert_eq!(
                    String::from_utf8(joined).unwrap(),
                    serde_json::to_string(&whole).unwrap()
                );
            }
        }
    }

    #[test]
    fn bytes_are_shown_as_python_shows_them() {
        assert_eq!(python_bytes(b"PK\x03\x04'\\\n"), r"b'PK\x03\x04\'\\\n'");
    }
}
