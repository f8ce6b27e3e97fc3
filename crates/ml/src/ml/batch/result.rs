//! The end of a batch: what the chunks came to becomes one artifact.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::FutureExt;
use modelyard_kernel::background::compute_sized;
use modelyard_kernel::blobs::Stored;
use modelyard_kernel::{Failed, Failure, Time};
use modelyard_run::artifact::{ArtifactId, NewContent, WRITE};
use modelyard_run::frame::ColumnTypes;
use modelyard_run::publish::Publication;
use serde_json::json;

use super::chunk::{Failures, Unusable};
use super::model::{BATCH_PREDICTED, BATCH_TRAINED, KeptResult, Metadata, Outcome};
use super::sheet::Sheet;
use super::work::{Place, Running, Tally, Task, canceled};

/// Results that are forgotten in one transaction.
const FORGOTTEN: usize = 200;

impl Running<'_> {
    /// Puts the results together and ends the job. When nothing of the file could be used, the job has
    /// failed, and the artifact says why.
    pub(super) async fn publish(
        &self,
        id: ArtifactId,
        started: Time,
        failures: Failures,
    ) -> Result<(), Failed> {
        let tally = std::mem::take(&mut *self.tally.lock());
        let stored = self.assemble(&tally).await?;
        let failures = all_failures(failures, &tally);
        let metadata = self.metadata(&tally, failures, started);
        let failed = (metadata.status == "failed").then(|| nothing_done(&metadata));
        let (kind, parent) = match &self.task {
            Task::Predict(it) => (BATCH_PREDICTED, Some(it.training.id)),
            Task::Train => (BATCH_TRAINED, None),
        };
        let data = json!({
            "type": kind,
            "metadata": metadata,
            "content": null,
            "content_type": self.batch.options.output.media(),
            "content_size": stored.blob().size_bytes,
        });
        let draft = self.ml.draft(Some(id), parent, data, NewContent::Stored(stored)).await?;
        // One that failed may be tried again, with the same file.
        let file = failed.is_none().then(|| self.batch.hash.clone());
        let publication = Publication { drafts: vec![draft], link: None, failed };
        let permission = self.operation.permission();
        self.ml.0.publisher.publish(self.assignment, permission, publication).await?;
        self.forget(&tally, file).await;
        Ok(())
    }

    /// Writes the results one after the other, in the order of the file.
    async fn assemble(&self, tally: &Tally) -> Result<Stored, Failed> {
        let output = self.batch.options.output;
        let mut columns = ColumnTypes::of(columns(tally));
        for (_, outcome) in tally.chunks.values().filter(|_| output.has_types()) {
            let Some(json) = self.result(outcome).await? else { continue };
            let size = json.len();
            let learn = move || -> serde_json::Result<ColumnTypes> {
                columns.learn(&serde_json::from_slice(&json)?);
                Ok(columns)
            };
            columns = compute_sized(size, learn).await?.map_err(Failure::internal)?;
        }
        let mut sheet = Sheet::new(output, columns)?;
        let mut writer = self.ml.0.artifacts.blobs().writer();
        writer.write(sheet.header().into()).await?;
        for (_, outcome) in tally.chunks.values() {
            let Some(json) = self.result(outcome).await? else { continue };
            let size = json.len();
            let push = move || sheet.push(&json).map(|ready| (sheet, ready));
            let (same, ready) = compute_sized(size, push).await??;
            sheet = same;
            writer.write(ready.into()).await?;
        }
        writer.write(sheet.finish()?.into()).await?;
        Ok(writer.finish().await?)
    }

    /// What a chunk came to, a data frame as JSON.
    async fn result(&self, outcome: &Outcome) -> Result<Option<Bytes>, Failed> {
        if self.assignment.cancel.is_cancelled() {
            return Err(canceled());
        }
        Ok(match &outcome.result {
            Some(KeptResult::Small(json)) => Some(Bytes::from(json.clone())),
            Some(KeptResult::Large(hash)) => Some(self.read(hash).await?),
            None => None,
        })
    }

    async fn read(&self, hash: &str) -> Result<Bytes, Failed> {
        if self.stored(hash).await?.is_none() {
            // The next attempt does its chunk again.
            return Err(Failed::new("RuntimeError", "the result of a chunk is gone").transient());
        }
        let scope = self.assignment.caller.permit(WRITE)?;
        let mut conn = self.ml.0.db.conn().await.map_err(Failure::from)?;
        let blob = self.ml.0.artifacts.blobs().open(&mut conn, scope, hash).await?;
        drop(conn);
        Ok(blob.bytes(u64::MAX).await?)
    }

    /// The results are in the artifact now, and nobody needs the file. Should this be missed, they go
    /// some days later.
    async fn forget(&self, tally: &Tally, file: Option<String>) {
        let results = tally.chunks.values().filter_map(|it| match &it.1.result {
            Some(KeptResult::Large(hash)) => Some(hash.clone()),
            _ => None,
        });
        let hashes: Vec<String> = file.into_iter().chain(results).collect();
        for some in hashes.chunks(FORGOTTEN) {
            let Ok(scope) = self.assignment.caller.permit(WRITE).cloned() else { return };
            let (blobs, some) = (self.ml.0.artifacts.blobs().clone(), some.to_vec());
            let forgotten = self.ml.0.db.transaction(move |conn| {
                async move {
                    for hash in &some {
                        blobs.let_go(conn, &scope, hash).await?;
                    }
                    Ok(())
                }
                .boxed()
            });
            if let Err(failure) = forgotten.await {
                tracing::debug!(%failure, "the file or results of a batch stay for some days");
                return;
            }
        }
    }

    fn metadata(&self, tally: &Tally, failures: Failures, started: Time) -> Metadata {
        let outcomes = || tally.chunks.values().map(|it| &it.1);
        let count = |is: fn(&Outcome) -> bool| outcomes().filter(|it| is(it)).count() as u64;
        let completed = self.ml.0.clock.now();
        let seconds = completed.since(started).as_secs_f64();
        let (predicted, config_id) = match &self.task {
            Task::Predict(it) => (true, Some(it.training.config_id)),
            Task::Train => (false, None),
        };
        let done = tally.done_rows;
        Metadata {
            status: if done == 0 { "failed" } else { "success" },
            config_id,
            started_at: started.to_offset(),
            completed_at: completed.to_offset(),
            duration_seconds: (seconds * 100.0).round() / 100.0,
            rows: tally.rows,
            predicted_rows: predicted.then_some(done),
            historic_rows: predicted.then_some(tally.historic_rows),
            trained_rows: (!predicted).then_some(done),
            failed_rows: tally.failed_rows,
            chunks: tally.chunks.len() as u64,
            failed_chunks: count(|it| it.error.is_some()),
            retried_chunks: count(|it| it.attempts > 1),
            failures: failures.listed,
            omitted_rows: failures.omitted_rows,
        }
    }
}

/// The columns of all results, in the order in which they first come.
fn columns(tally: &Tally) -> Vec<String> {
    let mut seen = HashSet::new();
    let all = tally.chunks.values().flat_map(|it| &it.1.columns);
    all.filter(|it| seen.insert(it.as_str())).cloned().collect()
}

/// The rows that could not be used and the chunks that failed, in the order of the file.
fn all_failures(unusable: Failures, tally: &Tally) -> Failures {
    let chunks = tally.chunks.values().filter_map(|(place, outcome)| {
        let Place { first_row, last_row, .. } = *place;
        outcome.error.clone().map(|error| Unusable { first_row, last_row, error })
    });
    let omitted = unusable.omitted_rows;
    let mut all: Vec<Unusable> = chunks.chain(unusable.listed).collect();
    all.sort_by_key(|it| it.first_row);
    let mut failures = Failures::default();
    for Unusable { first_row, last_row, error } in all {
        failures.add(first_row, last_row, error);
    }
    failures.omitted_rows += omitted;
    failures
}

fn nothing_done(metadata: &Metadata) -> Failed {
    match metadata.failures.first() {
        Some(first) => Failed::new(
            "RuntimeError",
            format!(
                "none of the {} rows could be used; row {}: {}",
                metadata.rows, first.first_row, first.error
            ),
        ),
        None => Failed::new("ValueError", "no row of the file is to be predicted for"),
    }
}
