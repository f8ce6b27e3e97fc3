//! Content on its way in and out: small JSON stays in its row, everything else is a blob.

use bytes::Bytes;
use modelyard_kernel::background::{LARGE, compute};
use modelyard_kernel::blobs::{BlobRead, Stored};
use modelyard_kernel::db::Json;
use modelyard_kernel::{Blobs, Conn, Failure, Result, Scope};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::model::{Artifact, CONTENT, ContentForm};
use super::store::{self, ContentRow};

/// JSON up to this many bytes stays in its row.
const INLINE: usize = 64 << 10;

/// `data` taken apart and written: what lists show, and where in it the content is.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) data: Json<Box<RawValue>>,
    pub(super) content: Option<(i64, Bytes)>,
}

impl Parts {
    /// Writes, and drops, a large one on a thread for it.
    pub(super) async fn of(data: Value) -> Result<Self> {
        if fits(&data, &mut LARGE.clone()) {
            Self::write(data)
        } else {
            compute(|| Self::write(data)).await?
        }
    }

    fn write(mut data: Value) -> Result<Self> {
        let mut found = None;
        if let Value::Object(fields) = &mut data {
            let at = fields.keys().position(|it| it == CONTENT);
            let at = at.and_then(|it| i64::try_from(it).ok());
            found = at.zip(fields.shift_remove(CONTENT));
        }
        let content = match found {
            Some((at, content)) => Some((at, serde_json::to_vec(&content)?.into())),
            None => None,
        };
        Ok(Self { data: Json(to_raw_value(&data)?), content })
    }
}

/// Whether a value takes about as many bytes as are `left`, or fewer. Looks at no more of it.
fn fits(value: &Value, left: &mut usize) -> bool {
    let takes = |left: &mut usize, bytes: usize| {
        let rest = left.checked_sub(bytes);
        *left = rest.unwrap_or_default();
        rest.is_some()
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => takes(left, 4),
        Value::String(text) => takes(left, text.len() + 2),
        Value::Array(items) => takes(left, 2) && items.iter().all(|it| fits(it, left)),
        Value::Object(fields) => {
            let mut fields = fields.iter();
            takes(left, 2) && fields.all(|(key, it)| takes(left, key.len() + 3) && fits(it, left))
        }
    }
}

/// Content to be stored.
#[derive(Debug)]
pub enum NewContent {
    /// JSON of a client.
    Json(Bytes),
    /// A data frame of ours, as JSON.
    Frame(Bytes),
    /// Bytes that are stored already.
    Stored(Stored),
    /// A data frame of ours whose JSON is stored already.
    StoredFrame(Stored),
}

/// Content that is ready for its row.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    form: Option<ContentForm>,
    inline: Option<String>,
    stored: Option<Stored>,
    bytes: usize,
}

impl Prepared {
    /// Stores what is large; call before the transaction begins.
    pub(super) async fn new(blobs: &Blobs, content: Option<NewContent>) -> Result<Self> {
        let (form, json) = match content {
            None => return Ok(Self::default()),
            Some(NewContent::Stored(stored)) => {
                return Ok(Self {
                    form: Some(ContentForm::Bytes),
                    stored: Some(stored),
                    ..Self::default()
                });
            }
            Some(NewContent::StoredFrame(stored)) => {
                return Ok(Self {
                    form: Some(ContentForm::Frame),
                    stored: Some(stored),
                    ..Self::default()
                });
            }
            Some(NewContent::Json(json)) => (ContentForm::Json, json),
            Some(NewContent::Frame(json)) => (ContentForm::Frame, json),
        };
        let bytes = json.len();
        let mut it = Self { form: Some(form), bytes, ..Self::default() };
        if bytes <= INLINE {
            it.inline = Some(String::from_utf8(json.into()).map_err(Failure::internal)?);
        } else {
            it.stored = Some(blobs.put(json).await?);
        }
        Ok(it)
    }

    /// The columns of the row, whose transaction this is.
    pub(super) async fn row(
        &self,
        blobs: &Blobs,
        conn: &mut Conn,
        scope: &Scope,
        at: Option<i64>,
    ) -> Result<ContentRow> {
        let mut row = ContentRow { at, form: self.form, ..ContentRow::default() };
        if let Some(stored) = &self.stored {
            let blob = blobs.refer(conn, scope, stored).await?;
            row.bytes = i64::try_from(blob.size_bytes).ok();
            row.hash = Some(blob.hash);
        } else {
            row.bytes = i64::try_from(self.bytes).ok();
            row.inline.clone_from(&self.inline);
        }
        Ok(row)
    }

    /// Tidies up after the transaction.
    pub(super) async fn settle(self, committed: bool) {
        if let Some(stored) = self.stored {
            stored.settle(committed).await;
        }
    }
}

/// Content that is open for reading.
#[derive(Debug)]
pub enum Content {
    /// JSON in memory.
    Inline(Bytes),
    /// A blob.
    Blob(BlobRead),
}

impl Content {
    /// Opens the content of an artifact; `None` when it has none.
    pub(super) async fn open(
        blobs: &Blobs,
        conn: &mut Conn,
        scope: &Scope,
        artifact: &Artifact,
    ) -> Result<Option<Self>> {
        if let Some(hash) = &artifact.content_hash {
            return Ok(Some(Content::Blob(blobs.open(conn, scope, hash).await?)));
        }
        if artifact.content_form.is_none() {
            return Ok(None);
        }
        let inline = store::inline_content(conn, scope, artifact.id).await?;
        Ok(inline.map(|it| Content::Inline(it.into())))
    }

    /// All of it.
    ///
    /// # Errors
    /// When it is larger than `limit` or cannot be read.
    pub async fn bytes(&self, limit: u64) -> Result<Bytes> {
        match self {
            Content::Inline(it) => Ok(it.clone()),
            Content::Blob(it) => it.bytes(limit).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn content_is_taken_out_of_an_object_and_its_place_kept() {
        let parts = Parts::write(json!({"type": "t", "content": [1], "size": 3})).unwrap();
        assert_eq!(parts.data.0.get(), r#"{"type":"t","size":3}"#);
        assert_eq!(parts.content, Some((1, Bytes::from_static(b"[1]"))));
        assert!(Parts::write(json!([{"content": 1}])).unwrap().content.is_none());
    }

    #[tokio::test]
    async fn large_data_is_written_on_a_thread_for_it() {
        let small = json!({"content": vec![1; 100], "metadata": {"a": "b"}});
        assert!(Parts::of(small).now_or_never().is_some());
        for large in [
            json!({"content": vec![1; LARGE]}),
            json!({"metadata": "x".repeat(LARGE)}),
            json!(vec![json!({"a": []}); LARGE / 4]),
        ] {
            let written = serde_json::to_string(&large).unwrap();
            assert!(Parts::of(large.clone()).now_or_never().is_none());
            let parts = Parts::of(large).await.unwrap();
            let content = parts.content.map_or(0, |it| it.1.len());
            assert!(parts.data.0.get().len() + content > written.len() - 20);
        }
    }
}
