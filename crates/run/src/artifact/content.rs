//! Content on its way in and out: small JSON stays in its row, everything else is a blob.

use bytes::Bytes;
use modelyard_kernel::blobs::{BlobRead, Stored};
use modelyard_kernel::{Blobs, Conn, Failure, Result, Scope};

use super::model::{Artifact, ContentForm};
use super::store::{self, ContentRow};

/// JSON up to this many bytes stays in its row.
const INLINE: usize = 64 << 10;

/// Content to be stored.
#[derive(Debug)]
pub enum NewContent {
    /// JSON of a client.
    Json(Bytes),
    /// A data frame of ours, as JSON.
    Frame(Bytes),
    /// Bytes that are stored already.
    Stored(Stored),
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
