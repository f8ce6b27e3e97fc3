//! The job of a prediction.

use std::io::{Seek, SeekFrom, Write};

use futures_util::StreamExt;
use modelyard_kernel::background::compute;
use modelyard_kernel::{Assignment, Caller, Done, Failed, Failure};
use modelyard_run::artifact::{Artifact, ArtifactId, Content, NewContent};
use modelyard_run::config::{Config, ConfigId};
use modelyard_run::runner::{PredictInput, Predicted, Run, RunError};
use serde_json::{Map, Value};

use super::horizon::Horizon;
use super::model::{Metadata, PREDICTED, PREDICTION_FILES, PredictRequest, TRAINED};
use super::publish::frame_content;
use super::{Ml, failed, leave, promised, read_input, script_failed};

/// An archive up to this size needs no file on its way from the store to the workspace.
const IN_MEMORY: usize = 4 << 20;

/// A training that can be predicted with.
pub(super) struct Training {
    pub(super) artifact: Artifact,
    pub(super) content: Option<Content>,
    pub(super) config: ConfigId,
}

/// Why an artifact cannot be predicted with.
pub(super) enum NotATraining {
    Missing,
    OtherKind,
    Failed(Option<i64>),
}

impl Ml {
    /// The training artifact of a prediction.
    pub(super) async fn training(
        &self,
        caller: &Caller,
        id: ArtifactId,
    ) -> Result<Result<Training, NotATraining>, Failure> {
        if self.0.artifacts.find(caller, id).await?.is_none() {
            return Ok(Err(NotATraining::Missing));
        }
        let found = self.0.artifacts.get(caller, id).await?;
        let fields = found.artifact.fields();
        if fields.get("type").and_then(Value::as_str) != Some(TRAINED) {
            return Ok(Err(NotATraining::OtherKind));
        }
        let metadata = fields.get("metadata").and_then(Value::as_object);
        let text = |key| metadata.and_then(|it| it.get(key)).and_then(Value::as_str);
        if text("status") == Some("failed") {
            let code = metadata.and_then(|it| it.get("exit_code")).and_then(Value::as_i64);
            return Ok(Err(NotATraining::Failed(code)));
        }
        let config = text("config_id").and_then(modelyard_kernel::Ulid::read).map(ConfigId);
        let Some(config) = config else { return Ok(Err(NotATraining::OtherKind)) };
        Ok(Ok(Training { artifact: found.artifact, content: found.content, config }))
    }

    pub(super) async fn do_predict(&self, mut assignment: Assignment) -> Result<Done, Failed> {
        let id = promised(&assignment)?;
        let done = Done { artifact: Some(id.0) };
        if self.is_published(&assignment).await? {
            return Ok(done);
        }
        let request: PredictRequest = read_input(&mut assignment).await?;
        let training = self.training(&assignment.caller, request.artifact_id).await?;
        let training = training.map_err(|it| refuse(&it, request.artifact_id))?;
        let config = self.config(&assignment.caller, training.config).await?;
        let values = self.values(&config, &request)?;

        let PredictRequest { historic, future, geo, .. } = request;
        let (historic, future) = (self.adapt(historic).await?, self.adapt(future).await?);
        let input = PredictInput { config: values, historic, future, geo };
        let run = self.run("predict", assignment.cancel.clone()).map_err(failed)?;
        let predicted = self.predict_in(&run, &assignment, id, &training, input).await;
        leave(run).await;
        predicted.map(|()| done)
    }

    /// Predicts in a workspace and publishes what came of it, also when the script failed.
    async fn predict_in(
        &self,
        run: &Run,
        assignment: &Assignment,
        id: ArtifactId,
        training: &Training,
        input: PredictInput,
    ) -> Result<(), Failed> {
        self.unpack(run, training).await?;
        let started = self.0.clock.now();
        let predicted = self.0.model.runner.predict(run, input).await;
        let metadata = Metadata::new(training.config, started, self.0.clock.now());
        let parent = training.artifact.id;
        match predicted {
            Ok(predicted) => self.keep(assignment, run, id, parent, &metadata, predicted).await,
            Err(error) if error.output().is_some() && !assignment.cancel.is_cancelled() => {
                let metadata = metadata.failed().with_script(error.output());
                let stored = self.archive(run).await?;
                let size = Some(stored.blob().size_bytes);
                let data = metadata.data(PREDICTION_FILES, "application/zip", size);
                let content = NewContent::Stored(stored);
                let draft = self.draft(Some(id), Some(parent), data, content).await?;
                self.publish(assignment, vec![draft], None).await?;
                Err(script_failed(&error, id.0))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn values(
        &self,
        config: &Config,
        request: &PredictRequest,
    ) -> Result<Map<String, Value>, Failed> {
        let mut values = config.values();
        if let Some(it) = Horizon::resolve(request.periods, Some(&request.future), &values) {
            if let Some(complaint) = it.complaint(self.info()) {
                return Err(Failed::new("ValueError", complaint));
            }
            it.put_into(&mut values);
        }
        Ok(values)
    }

    /// Publishes a prediction, and its files below it.
    async fn keep(
        &self,
        assignment: &Assignment,
        run: &Run,
        id: ArtifactId,
        training: ArtifactId,
        metadata: &Metadata,
        predicted: Predicted,
    ) -> Result<(), Failed> {
        let Predicted { mut predictions, script } = predicted;
        let covariates = self.info().required_covariates.clone();
        let content = compute(move || {
            if predictions.schema.is_none() {
                predictions.schema = Some(predictions.infer_schema(&covariates));
            }
            frame_content(&predictions)
        });
        let content = content.await??;
        let data = metadata.data(PREDICTED, "application/vnd.chapkit.dataframe+json", None);
        let prediction = self.draft(Some(id), Some(training), data, content).await?;

        let stored = self.archive(run).await?;
        let metadata = metadata.clone().with_script(script.as_ref());
        let size = Some(stored.blob().size_bytes);
        let data = metadata.data(PREDICTION_FILES, "application/zip", size);
        let files = self.draft(None, Some(id), data, NewContent::Stored(stored)).await?;
        self.publish(assignment, vec![prediction, files], None).await
    }

    /// Puts the files of a training into a workspace.
    pub(super) async fn unpack(&self, run: &Run, training: &Training) -> Result<(), Failed> {
        let Some(Content::Blob(blob)) = &training.content else {
            return Err(Failed::new("ValueError", "the training artifact has no workspace"));
        };
        let io = |cause| failed(RunError::Io { doing: "unpacking a training".to_owned(), cause });
        let mut file = tempfile::spooled_tempfile_in(IN_MEMORY, &self.0.model.work_root);
        let mut stream = std::pin::pin!(blob.stream(0..blob.size_bytes()));
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(io)?;
            // One megabyte to the page cache at a time: not worth a thread of its own.
            file.write_all(&bytes).map_err(io)?;
        }
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        run.workspace.extract(file, self.0.model.archive_limits).await.map_err(failed)
    }
}

fn refuse(reason: &NotATraining, id: ArtifactId) -> Failed {
    let message = match reason {
        NotATraining::Missing => format!("Training artifact {id} not found"),
        NotATraining::OtherKind => format!("Artifact {id} is not a training artifact"),
        NotATraining::Failed(code) => format!(
            "Cannot predict using failed training artifact {id}. Training script exited with code {}.",
            code.map_or_else(|| "unknown".to_owned(), |it| it.to_string())
        ),
    };
    Failed::new("ValueError", message)
}
