//! The job of a prediction.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use modelyard_kernel::background::compute_sized;
use modelyard_kernel::blobs::Stored;
use modelyard_kernel::{Assignment, Caller, Failed, Failure};
use modelyard_run::artifact::{self, ArtifactId, Content, Draft, Rendered};
use modelyard_run::config::{Config, ConfigId};
use modelyard_run::frame::Frame;
use modelyard_run::publish::Publication;
use modelyard_run::runner::{PredictInput, Predicted, Run, RunError};
use serde_json::{Map, Value};

use super::attempt::{Attempt, Fetched};
use super::collect::{Harvest, archive_content, frame_content};
use super::horizon::Horizon;
use super::model::{Metadata, PREDICTED, PREDICTION_FILES, PredictRequest, TRAINED};
use super::ran::Ran;
use super::{Ml, PREDICT, failure, gone, json_size, promised, read_input};

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
        let attempt = Attempt::new(self, &assignment)?;
        let done = self.predict_in_steps(&attempt, &mut assignment, id).await;
        attempt.clear(&assignment, done).await
    }

    async fn predict_in_steps(
        &self,
        attempt: &Arc<Attempt>,
        assignment: &mut Assignment,
        id: ArtifactId,
    ) -> Result<(), Failed> {
        let request: PredictRequest = read_input(assignment).await?;
        let parent = request.artifact_id;
        let harvest = match self.collected(&attempt.context, assignment).await? {
            Some(harvest) => harvest,
            None => {
                let (ran, run) = match attempt.ran(assignment).await? {
                    Some(done) => done,
                    None => self.run_prediction(attempt, assignment, request).await?,
                };
                let harvest = self.collect_run(attempt, assignment, ran, &run).await?;
                run.workspace.remove().await;
                harvest
            }
        };
        let Harvest { metadata, failed, archive, predictions } = harvest;
        let drafts = match predictions {
            None => vec![self.files(Some(id), parent, &metadata, archive).await?],
            // A prediction, and its files below it.
            Some(predictions) => {
                let kind = "application/vnd.chapkit.dataframe+json";
                let data = metadata.without_script().data(PREDICTED, kind, None);
                let content = frame_content(predictions)?;
                let prediction = self.draft(Some(id), Some(parent), data, content).await?;
                vec![prediction, self.files(None, id, &metadata, archive).await?]
            }
        };
        let publication = Publication { drafts, link: None, failed };
        Ok(self.0.publisher.publish(assignment, PREDICT, publication).await?)
    }

    /// Predicts in a workspace, which stays also when the script failed.
    async fn run_prediction(
        &self,
        attempt: &Arc<Attempt>,
        assignment: &Assignment,
        request: PredictRequest,
    ) -> Result<(Ran, Run), Failed> {
        let training = self.training(&assignment.caller, request.artifact_id).await?;
        let mut training = training.map_err(|it| refuse(&it, request.artifact_id))?;
        let config = training.config.take().ok_or_else(|| gone(training.config_id))?;
        let values = self.values(&config, request.periods, &request.future)?;

        let PredictRequest { historic, future, geo, .. } = request;
        let (historic, future) = (self.adapt(historic).await?, self.adapt(future).await?);
        let input = PredictInput { config: values, historic, future, geo };
        let run = self.begin(attempt, assignment).await?;

        let started = self.0.clock.now();
        let predicted = match self.unpack(&run, &training).await {
            Ok(()) => self.0.model.runner.predict(&run, input).await,
            Err(error) => Err(error),
        };
        let metadata = Metadata::new(training.config_id, started, self.0.clock.now());
        let ran = match predicted {
            Ok(Predicted { predictions, script }) => {
                let json = self.frame_json(predictions).await?;
                Ran::new(metadata.with_script(script.as_ref()), None, started, Some(json))
            }
            Err(error) => match failure(error, assignment) {
                Ok((output, failed)) => {
                    let metadata = metadata.failed().with_script(Some(&output));
                    Ran::new(metadata, Some(failed.error), started, None)
                }
                Err(failed) => {
                    run.workspace.remove().await;
                    return Err(failed);
                }
            },
        };
        attempt.note_run(&ran, &run).await?;
        Ok((ran, run))
    }

    async fn frame_json(&self, mut predictions: Frame) -> Result<Bytes, Failed> {
        let covariates = self.info().required_covariates.clone();
        let json = compute_sized(json_size(&predictions), move || {
            if predictions.schema.is_none() {
                predictions.schema = Some(predictions.infer_schema(&covariates));
            }
            serde_json::to_vec(&predictions)
        });
        Ok(json.await?.map_err(Failure::from)?.into())
    }

    /// The config that the model gets.
    pub(super) fn values(
        &self,
        config: &Config,
        periods: Option<i64>,
        future: &Frame,
    ) -> Result<Map<String, Value>, Failed> {
        let mut values = config.values();
        if let Some(it) = Horizon::resolve(periods, Some(future), &values) {
            if let Some(complaint) = it.complaint(self.info()) {
                return Err(Failed::new("ValueError", complaint));
            }
            it.put_into(&mut values);
        }
        Ok(values)
    }

    /// The workspace of a prediction.
    async fn files(
        &self,
        id: Option<ArtifactId>,
        parent: ArtifactId,
        metadata: &Metadata,
        archive: Arc<Stored>,
    ) -> Result<Draft, Failed> {
        let size = Some(archive.blob().size_bytes);
        let data = metadata.data(PREDICTION_FILES, "application/zip", size);
        Ok(self.draft(id, Some(parent), data, archive_content(archive)?).await?)
    }

    /// Puts the files of a training into a workspace.
    pub(super) async fn unpack(&self, run: &Run, training: &Training) -> Result<(), RunError> {
        let Some(Content::Blob(blob)) = &training.content else {
            return Err(RunError::Archive("the training artifact has no workspace".to_owned()));
        };
        let limits = self.0.model.archive_limits;
        match self.fetch(blob).await? {
            Fetched::Memory(archive) => {
                run.workspace.extract(archive, blob.size_bytes(), limits).await
            }
            Fetched::File(archive) => {
                run.workspace.extract(archive, blob.size_bytes(), limits).await
            }
        }
    }
}

pub(super) fn refuse(reason: &NotATraining, id: ArtifactId) -> Failed {
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
