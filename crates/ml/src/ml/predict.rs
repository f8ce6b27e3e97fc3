//! The job of a prediction.

use std::io::{self, Cursor};

use futures_util::{FutureExt, StreamExt};
use modelyard_kernel::background::{compute, compute_sized};
use modelyard_kernel::{Assignment, Caller, Failed, Failure};
use modelyard_run::artifact::{self, ArtifactId, Content, Draft, NewContent, Rendered};
use modelyard_run::config::{Config, ConfigId};
use modelyard_run::publish::Publication;
use modelyard_run::runner::{PredictInput, Predicted, Run, RunError};
use serde_json::{Map, Value};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::horizon::Horizon;
use super::model::{Metadata, PREDICTED, PREDICTION_FILES, PredictRequest, TRAINED};
use super::publish::frame_content;
use super::{Ml, PREDICT, gone, json_size, promised, read_input, script_failed};

/// An archive up to this size needs no file on its way from the store to the workspace.
const IN_MEMORY: u64 = 4 << 20;

/// A training that can be predicted with.
pub(super) struct Training {
    pub(super) id: ArtifactId,
    pub(super) content: Option<Content>,
    pub(super) config_id: ConfigId,
    /// `None` when it has been removed since.
    pub(super) config: Option<Config>,
}

/// Why an artifact cannot be predicted with.
pub(super) enum NotATraining {
    Missing,
    OtherKind,
    Failed(Option<i64>),
}

impl Training {
    fn of(found: Rendered) -> Result<Self, NotATraining> {
        let fields = found.artifact.fields();
        if fields.get("type").and_then(Value::as_str) != Some(TRAINED) {
            return Err(NotATraining::OtherKind);
        }
        let metadata = fields.get("metadata").and_then(Value::as_object);
        let text = |key| metadata.and_then(|it| it.get(key)).and_then(Value::as_str);
        if text("status") == Some("failed") {
            let code = metadata.and_then(|it| it.get("exit_code")).and_then(Value::as_i64);
            return Err(NotATraining::Failed(code));
        }
        let config = text("config_id").and_then(modelyard_kernel::Ulid::read).map(ConfigId);
        let config_id = config.ok_or(NotATraining::OtherKind)?;
        Ok(Self { id: found.artifact.id, content: found.content, config_id, config: None })
    }
}

impl Ml {
    /// The training of a prediction, with the config that it was trained with.
    pub(super) async fn training(
        &self,
        caller: &Caller,
        id: ArtifactId,
    ) -> Result<Result<Training, NotATraining>, Failure> {
        let scope = caller.permit(artifact::READ)?.clone();
        let (artifacts, configs) = (self.0.artifacts.clone(), self.0.configs.clone());
        let read = self.0.db.read(move |conn| {
            async move {
                let Some(found) = artifacts.get_in(conn, &scope, id).await? else {
                    return Ok(Err(NotATraining::Missing));
                };
                let mut training = match Training::of(found) {
                    Ok(training) => training,
                    Err(reason) => return Ok(Err(reason)),
                };
                training.config = configs.find_in(conn, &scope, training.config_id).await?;
                Ok(Ok(training))
            }
            .boxed()
        });
        read.await
    }

    pub(super) async fn do_predict(&self, mut assignment: Assignment) -> Result<(), Failed> {
        let id = promised(&assignment)?;
        let request: PredictRequest = read_input(&mut assignment).await?;
        let training = self.training(&assignment.caller, request.artifact_id).await?;
        let mut training = training.map_err(|it| refuse(&it, request.artifact_id))?;
        let config = training.config.take().ok_or_else(|| gone(training.config_id))?;
        let values = self.values(&config, &request)?;

        let PredictRequest { historic, future, geo, .. } = request;
        let (historic, future) = (self.adapt(historic).await?, self.adapt(future).await?);
        let input = PredictInput { config: values, historic, future, geo };
        let run = self.run("predict", assignment.cancel.clone()).await?;
        self.predict_in(run, &assignment, id, &training, input).await
    }

    /// Predicts in a workspace and publishes what came of it, also when the script failed.
    async fn predict_in(
        &self,
        run: Run,
        assignment: &Assignment,
        id: ArtifactId,
        training: &Training,
        input: PredictInput,
    ) -> Result<(), Failed> {
        let started = self.0.clock.now();
        let predicted = match self.unpack(&run, training).await {
            Ok(()) => self.0.model.runner.predict(&run, input).await,
            Err(error) => Err(error),
        };
        let metadata = Metadata::new(training.config_id, started, self.0.clock.now());
        let parent = training.id;
        let (drafts, failed) = match predicted {
            Ok(predicted) => {
                (self.results(assignment, run, id, parent, &metadata, predicted).await?, None)
            }
            Err(error) if error.output().is_some() && !assignment.cancel.is_cancelled() => {
                let metadata = metadata.failed().with_script(error.output());
                let files = self.files(assignment, run, Some(id), parent, &metadata).await?;
                (vec![files], Some(script_failed(&error, id.0)))
            }
            Err(error) => {
                run.workspace.remove().await;
                return Err(error.into());
            }
        };
        let publication = Publication { drafts, link: None, failed };
        Ok(self.0.publisher.publish(assignment, PREDICT, publication).await?)
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

    /// A prediction, and its files below it.
    async fn results(
        &self,
        assignment: &Assignment,
        run: Run,
        id: ArtifactId,
        training: ArtifactId,
        metadata: &Metadata,
        predicted: Predicted,
    ) -> Result<Vec<Draft>, Failed> {
        let Predicted { mut predictions, script } = predicted;
        let covariates = self.info().required_covariates.clone();
        let content = compute_sized(json_size(&predictions), move || {
            if predictions.schema.is_none() {
                predictions.schema = Some(predictions.infer_schema(&covariates));
            }
            frame_content(&predictions)
        });
        let content = content.await??;
        let data = metadata.data(PREDICTED, "application/vnd.chapkit.dataframe+json", None);
        let prediction = self.draft(Some(id), Some(training), data, content).await?;
        let metadata = metadata.clone().with_script(script.as_ref());
        Ok(vec![prediction, self.files(assignment, run, None, id, &metadata).await?])
    }

    /// The workspace of a prediction.
    async fn files(
        &self,
        assignment: &Assignment,
        run: Run,
        id: Option<ArtifactId>,
        parent: ArtifactId,
        metadata: &Metadata,
    ) -> Result<Draft, Failed> {
        let stored = self.archive(assignment, run).await?;
        let size = Some(stored.blob().size_bytes);
        let data = metadata.data(PREDICTION_FILES, "application/zip", size);
        Ok(self.draft(id, Some(parent), data, NewContent::Stored(stored)).await?)
    }

    /// Puts the files of a training into a workspace.
    pub(super) async fn unpack(&self, run: &Run, training: &Training) -> Result<(), RunError> {
        let Some(Content::Blob(blob)) = &training.content else {
            return Err(RunError::Archive("the training artifact has no workspace".to_owned()));
        };
        let io = |cause| RunError::Io { doing: "unpacking a training".to_owned(), cause };
        let limits = self.0.model.archive_limits;
        if blob.size_bytes() <= IN_MEMORY {
            let archive = blob.bytes(IN_MEMORY).await.map_err(|it| io(io::Error::other(it)))?;
            return run.workspace.extract(Cursor::new(archive), blob.size_bytes(), limits).await;
        }
        let root = self.0.model.work_root.clone();
        let file = compute(move || tempfile::tempfile_in(root)).await;
        let file = file.map_err(|it| io(io::Error::other(it)))?.map_err(io)?;
        let mut file = tokio::fs::File::from_std(file);
        let mut stream = std::pin::pin!(blob.stream(0..blob.size_bytes()));
        while let Some(bytes) = stream.next().await {
            file.write_all(&bytes.map_err(io)?).await.map_err(io)?;
        }
        file.rewind().await.map_err(io)?;
        run.workspace.extract(file.into_std().await, blob.size_bytes(), limits).await
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
