//! `$validate`: what would be wrong with a request, found out before it costs a job.

use modelyard_kernel::{Caller, Failure, Result};
use modelyard_run::frame::Frame;
use modelyard_run::runner::{Diagnostic, PredictInput, RunError, TrainInput};
use tokio_util::sync::CancellationToken;

use super::horizon::{Horizon, mismatch};
use super::model::{PredictRequest, TrainRequest, ValidateRequest, Validation, error, has_errors};
use super::predict::{NotATraining, Training};
use super::{Ml, READ};

impl Ml {
    /// Looks at a request without running it.
    ///
    /// # Errors
    /// When the model's own check fails.
    pub async fn validate(&self, caller: &Caller, request: ValidateRequest) -> Result<Validation> {
        caller.permit(READ)?;
        let _place = self.0.validating.acquire().await.map_err(Failure::internal)?;
        let diagnostics = match request {
            ValidateRequest::Train(it) => self.validate_train(caller, it).await?,
            ValidateRequest::Predict(it) => self.validate_predict(caller, it).await?,
        };
        Ok(Validation::of(diagnostics))
    }

    async fn validate_train(&self, caller: &Caller, it: TrainRequest) -> Result<Vec<Diagnostic>> {
        let Some(config) = self.0.configs.find(caller, it.config_id).await? else {
            let message = format!("Config {} not found", it.config_id);
            return Ok(vec![error("config_not_found", message, "config_id")]);
        };
        let mut values = config.values();
        let horizon = Horizon::resolve(it.periods, None, &values);
        let mut found: Vec<Diagnostic> =
            horizon.and_then(|it| it.diagnose(self.info())).into_iter().collect();
        found.extend(empty(&it.data, "data_empty", "Training data is empty", "data"));
        if has_errors(&found) {
            return Ok(found);
        }
        if let Some(horizon) = horizon {
            horizon.put_into(&mut values);
        }
        let data = self.adapt(it.data).await?;
        let run = self.run("validate", CancellationToken::new()).await.map_err(broken)?;
        let input = TrainInput { config: values, data, geo: it.geo };
        let more = self.0.model.runner.validate_train(&run, input).await;
        run.workspace.remove().await;
        found.extend(more.map_err(broken)?);
        Ok(found)
    }

    async fn validate_predict(
        &self,
        caller: &Caller,
        it: PredictRequest,
    ) -> Result<Vec<Diagnostic>> {
        let mut training = match self.training(caller, it.artifact_id).await? {
            Ok(training) => training,
            Err(reason) => return Ok(vec![refuse(&reason, &it)]),
        };
        let Some(config) = training.config.take() else {
            let message = format!("Config {} not found", training.config_id);
            return Ok(vec![error("config_not_found", message, "artifact_id")]);
        };
        let mut values = config.values();
        let horizon = Horizon::resolve(it.periods, Some(&it.future), &values);
        let mut found: Vec<Diagnostic> =
            horizon.and_then(|it| it.diagnose(self.info())).into_iter().collect();
        found.extend(mismatch(it.periods, &it.future));
        found.extend(empty(&it.historic, "historic_empty", "Historic data is empty", "historic"));
        found.extend(empty(&it.future, "future_empty", "Future data is empty", "future"));
        if has_errors(&found) {
            return Ok(found);
        }
        if let Some(horizon) = horizon {
            horizon.put_into(&mut values);
        }
        let PredictRequest { historic, future, geo, .. } = it;
        let (historic, future) = (self.adapt(historic).await?, self.adapt(future).await?);
        let input = PredictInput { config: values, historic, future, geo };
        found.extend(self.ask(&training, input).await?);
        Ok(found)
    }

    async fn ask(&self, training: &Training, input: PredictInput) -> Result<Vec<Diagnostic>> {
        let run = self.run("validate", CancellationToken::new()).await.map_err(broken)?;
        let runner = &self.0.model.runner;
        let unpacked = match runner.unpacks_to_validate() {
            true => self.unpack(&run, training).await,
            false => Ok(()),
        };
        let found = match unpacked {
            Ok(()) => runner.validate_predict(&run, input).await.map_err(broken),
            Err(RunError::Archive(_)) => {
                let id = training.id;
                let message = format!("The workspace of training artifact {id} is damaged");
                Ok(vec![error("training_workspace_corrupted", message, "artifact_id")])
            }
            Err(error) => Err(broken(error)),
        };
        run.workspace.remove().await;
        found
    }
}

fn empty(frame: &Frame, code: &str, message: &str, field: &str) -> Option<Diagnostic> {
    frame.is_empty().then(|| error(code, message.to_owned(), field))
}

fn refuse(reason: &NotATraining, it: &PredictRequest) -> Diagnostic {
    let id = it.artifact_id;
    let (code, message) = match reason {
        NotATraining::Missing => {
            ("training_artifact_not_found", format!("Training artifact {id} not found"))
        }
        NotATraining::OtherKind => {
            ("invalid_training_artifact", format!("Artifact {id} is not a training artifact"))
        }
        NotATraining::Failed(code) => {
            let code = code.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
            (
                "training_artifact_failed",
                format!(
                    "Training artifact {id} failed training (exit_code={code}); cannot predict with it"
                ),
            )
        }
    };
    error(code, message, "artifact_id")
}

/// The model's own check broke.
fn broken(error: RunError) -> Failure {
    let kind = match &error {
        RunError::Model { kind, .. } => kind.clone(),
        _ => "RuntimeError".to_owned(),
    };
    Failure::new(
        modelyard_kernel::Kind::Internal,
        "validation_broken",
        format!("Validation failed: {kind}"),
    )
    .caused_by(error)
}
