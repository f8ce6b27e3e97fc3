//! The file of a batch on its way in: stored and looked at while it comes, in constant memory.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt};
use modelyard_flow::job::Context;
use modelyard_kernel::background::{compute, compute_sized};
use modelyard_kernel::blobs::{Stored, failure_of};
use modelyard_kernel::{Assignment, Failed, Failure, failpoint};
use modelyard_run::artifact::{Content, ContentForm, MAX_UPLOAD, Rendered};
use serde_json::Value;

use super::KEPT;
use super::model::{Batch, CONFIG_COLUMN, Operation, Options, Shape, StoredFile};
use super::read::Look;
use super::split::{Broken, Format};
use crate::ml::Ml;

/// The largest text, within JSON, that is a file.
const MOST_TEXT: u64 = 64 << 20;
/// The step in which the file of a stored order is looked at.
const LOOKED: &str = "look";

/// Why a file was not taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The file is of no use.
    #[error("{}", .0.0)]
    Broken(Broken),
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<Broken> for Refusal {
    fn from(it: Broken) -> Self {
        Self::Broken(it)
    }
}

impl From<Refusal> for Failed {
    fn from(it: Refusal) -> Self {
        match it {
            Refusal::Broken(Broken(why)) => Failed::new("ValueError", why),
            Refusal::Failure(failure) => failure.into(),
        }
    }
}

impl Ml {
    /// Stores a file, and says what is to be done with it.
    pub(super) async fn take_in(
        &self,
        operation: Operation,
        mut options: Options,
        format: Format,
        mut file: impl Stream<Item = Result<Bytes, Failure>> + Unpin,
    ) -> Result<(Batch, Stored), Refusal> {
        if operation == Operation::Train && format == Format::Csv && options.group_by.is_none() {
            options.group_by = Some(CONFIG_COLUMN.to_owned());
        }
        let is_table = operation == Operation::Predict || options.group_by.is_some();
        let mut look = match is_table {
            true => Look::at_table(format, options.group_by.clone()),
            false => Look::at_items(format),
        };
        let mut writer = self.0.artifacts.blobs().writer();
        while let Some(bytes) = file.next().await {
            let bytes = bytes?;
            if writer.size_bytes() + bytes.len() as u64 > MAX_UPLOAD {
                let detail = format!("a file has at most {MAX_UPLOAD} bytes");
                return Err(Failure::bad_request("body_too_large", detail).into());
            }
            let piece = bytes.clone();
            let looked = compute_sized(piece.len(), move || {
                let looked = look.push(&piece);
                (look, looked)
            });
            let (same, looked) = looked.await?;
            looked?;
            look = same;
            writer.write(bytes).await?;
        }
        let shape = look.finish()?;
        let needs_config = operation == Operation::Train && options.config_id.is_none();
        if needs_config
            && let Shape::Table(layout) = &shape
            && layout.column(CONFIG_COLUMN).is_none()
        {
            let broken = "there is neither a column `config_id` nor a parameter `config_id`";
            return Err(Broken(broken.to_owned()).into());
        }
        let stored = writer.finish().await?;
        let (hash, size_bytes) = (stored.blob().hash.clone(), stored.blob().size_bytes);
        let batch = Batch { options, format, shape, hash, size_bytes };
        batch.check(operation)?;
        Ok((batch, stored))
    }

    /// Takes in the content of an artifact when its job begins, unless an earlier attempt has. From then
    /// on the artifact may change.
    pub(super) async fn take_stored(
        &self,
        context: &Context,
        assignment: &Assignment,
        operation: Operation,
        order: StoredFile,
    ) -> Result<Batch, Failed> {
        if let Some(batch) = context.done(LOOKED).await? {
            return Ok(batch);
        }
        let StoredFile { source_artifact_id: id, options } = order;
        self.check_batch(&assignment.caller, &options).await?;
        let found = self.0.artifacts.get(&assignment.caller, id).await?;
        let (format, file) = content(found, options.format).await?;
        let (batch, stored) = self.take_in(operation, options, format, file).await?;
        failpoint::reach("batch.stored");
        let (stored, blobs) = (Arc::new(stored), self.0.artifacts.blobs().clone());
        let (kept, until) = (Arc::clone(&stored), self.0.clock.now().after(KEPT));
        let keep = context.note_with(
            LOOKED,
            &batch,
            Arc::new(move |conn, scope| {
                let (blobs, kept) = (blobs.clone(), Arc::clone(&kept));
                async move { blobs.keep(conn, scope, &kept, until).await }.boxed()
            }),
        );
        keep.await?;
        if let Some(stored) = Arc::into_inner(stored) {
            stored.settle(true).await;
        }
        Ok(batch)
    }
}

type File = BoxStream<'static, Result<Bytes, Failure>>;

/// The content of an artifact as a file: bytes as they are, a text in JSON as what it says, and other
/// JSON as itself.
async fn content(found: Rendered, format: Option<Format>) -> Result<(Format, File), Failure> {
    let Rendered { artifact, content } = found;
    let fields = artifact.fields();
    let media = fields.get("content_type").and_then(Value::as_str);
    let format = format.or_else(|| media.and_then(Format::of));
    let missing = || Failure::bad_request("content_missing", "the artifact has no content");
    let content = content.ok_or_else(missing)?;
    let is_json = artifact.content_form != Some(ContentForm::Bytes);
    let unknown = || {
        let detail = "say by `format` what the artifact's content is written in";
        Failure::bad_request("format_unknown", detail)
    };
    if is_json && first_byte(&content).await? == Some(b'"') {
        let json = content.bytes(MOST_TEXT).await?;
        let text = compute(move || serde_json::from_slice::<String>(&json)).await??;
        let file = stream::iter([Ok(Bytes::from(text))]).boxed();
        return Ok((format.ok_or_else(unknown)?, file));
    }
    let format = if is_json { Format::Json } else { format.ok_or_else(unknown)? };
    Ok((format, whole(&content)))
}

async fn first_byte(content: &Content) -> Result<Option<u8>, Failure> {
    match content {
        Content::Inline(bytes) => Ok(bytes.first().copied()),
        Content::Blob(blob) => {
            let mut first = blob.stream(0..blob.size_bytes().min(1)).boxed();
            let bytes = first.next().await.transpose().map_err(failure_of)?;
            Ok(bytes.and_then(|it| it.first().copied()))
        }
    }
}

fn whole(content: &Content) -> File {
    match content {
        Content::Inline(bytes) => stream::iter([Ok(bytes.clone())]).boxed(),
        Content::Blob(blob) => {
            blob.stream(0..blob.size_bytes()).map(|it| it.map_err(failure_of)).boxed()
        }
    }
}
