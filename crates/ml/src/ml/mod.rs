//! Training and prediction: a request becomes a job, the job runs the model in a workspace, and
//! what came of it becomes artifacts.

mod geo;
mod horizon;
pub mod http;
mod model;
mod predict;
mod publish;
mod train;
mod validate;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use modelyard_flow::job::{JobId, Jobs, NewJob};
use modelyard_kernel::background::{compute, compute_sized};
use modelyard_kernel::part::Counter;
use modelyard_kernel::{
    Assignment, Caller, Clock, Db, Failed, Failure, Part, Permission, Policy, Result, Ulid, Work,
};
use modelyard_run::artifact::{ArtifactId, Artifacts};
use modelyard_run::config::{Config, ConfigId, Configs};
use modelyard_run::frame::Frame;
use modelyard_run::publish::Publisher;
use modelyard_run::runner::{ArchiveLimits, Run, RunError, Runner, Workspace};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use model::{PredictRequest, Submitted, TrainRequest, ValidateRequest, Validation, hierarchy};

use crate::info::ServiceInfo;
use crate::project::Adapters;

/// May train.
pub const TRAIN: Permission = Permission("ml:train");
/// May predict.
pub const PREDICT: Permission = Permission("ml:predict");
/// May validate, and take sample data.
pub const READ: Permission = Permission("ml:read");

const TRAIN_JOB: &str = "ml.train";
const PREDICT_JOB: &str = "ml.predict";

/// The model of one service. Cheap to clone.
#[derive(Clone)]
pub struct Ml(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    jobs: Jobs,
    configs: Configs,
    artifacts: Artifacts,
    publisher: Publisher,
    model: Model,
    /// Places for validations: they run the model's code while their clients wait, so no queue of
    /// jobs bounds them.
    validating: Semaphore,
    trainings: Counter,
    predictions: Counter,
}

/// What is served.
pub struct Model {
    /// How it describes itself.
    pub info: ServiceInfo,
    /// Trains and predicts.
    pub runner: Arc<dyn Runner>,
    /// Columns that it wants under other names.
    pub adapters: Adapters,
    /// Where runs have their workspaces.
    pub work_root: PathBuf,
    /// How large a workspace may become.
    pub archive_limits: ArchiveLimits,
}

impl fmt::Debug for Ml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ml").field(&self.0.model.info.id).finish()
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Model").field(&self.info.id).finish()
    }
}

impl Ml {
    /// A service's model.
    pub fn new(
        db: Db,
        clock: Clock,
        jobs: Jobs,
        configs: Configs,
        artifacts: Artifacts,
        publisher: Publisher,
        model: Model,
    ) -> Self {
        let trainings = Counter::new("ml_train_jobs_total", "Trainings that were asked for.");
        let predictions = Counter::new("ml_predict_jobs_total", "Predictions that were asked for.");
        let places = std::thread::available_parallelism().map_or(2, |it| it.get().max(2));
        let validating = Semaphore::new(places);
        Self(Arc::new(Inner {
            db,
            clock,
            jobs,
            configs,
            artifacts,
            publisher,
            model,
            validating,
            trainings,
            predictions,
        }))
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        let (training, prediction) = (self.clone(), self.clone());
        let train = move |it: Assignment| -> futures_util::future::BoxFuture<'static, _> {
            let ml = training.clone();
            Box::pin(async move { ml.do_train(it).await })
        };
        let predict = move |it: Assignment| -> futures_util::future::BoxFuture<'static, _> {
            let ml = prediction.clone();
            Box::pin(async move { ml.do_predict(it).await })
        };
        let policy = Policy::default();
        Part {
            name: "ml",
            routes: http::routes(self.clone()),
            work: vec![
                Work { kind: TRAIN_JOB, queue: "train", policy, run: Arc::new(train) },
                Work { kind: PREDICT_JOB, queue: "predict", policy, run: Arc::new(predict) },
            ],
            counters: vec![self.0.trainings.clone(), self.0.predictions.clone()],
            ..Part::default()
        }
    }

    /// How the model describes itself.
    pub fn info(&self) -> &ServiceInfo {
        &self.0.model.info
    }

    /// The runner's hook at start.
    ///
    /// # Errors
    /// Those of the model.
    pub async fn start(&self) -> Result<(), RunError> {
        self.0.model.runner.on_init().await
    }

    /// The runner's hook at the end.
    pub async fn stop(&self) {
        self.0.model.runner.on_cleanup().await;
    }

    /// Asks for a training.
    ///
    /// # Errors
    /// `queue_full` when too many jobs wait.
    pub async fn train(&self, caller: &Caller, request: TrainRequest) -> Result<Submitted> {
        let scope = caller.permit(TRAIN)?;
        let size = json_size(&request.data);
        let submitted = self.submit(scope, TRAIN_JOB, "Training", size, request).await?;
        self.0.trainings.increment();
        Ok(submitted)
    }

    /// Asks for a prediction.
    ///
    /// # Errors
    /// `queue_full` when too many jobs wait.
    pub async fn predict(&self, caller: &Caller, request: PredictRequest) -> Result<Submitted> {
        let scope = caller.permit(PREDICT)?;
        let size = json_size(&request.historic) + json_size(&request.future);
        let submitted = self.submit(scope, PREDICT_JOB, "Prediction", size, request).await?;
        self.0.predictions.increment();
        Ok(submitted)
    }

    async fn submit(
        &self,
        scope: &modelyard_kernel::Scope,
        kind: &'static str,
        word: &str,
        size: usize,
        request: impl Serialize + Send + 'static,
    ) -> Result<Submitted> {
        let inner = &self.0;
        let artifact_id = ArtifactId::new(&inner.clock);
        let id = JobId::new(&inner.clock);
        let input = compute_sized(size, move || serde_json::to_vec(&request)).await??;
        let new = NewJob { id, kind, input, artifact: Some(artifact_id.0) };
        inner.jobs.submit(&mut inner.db.conn().await?, scope, new).await?;
        inner.jobs.wake();
        let message = format!("{word} job submitted. Job ID: {id}");
        Ok(Submitted { job_id: id.0, artifact_id, message })
    }

    /// A workspace for one run.
    async fn run(&self, stage: &'static str, cancel: CancellationToken) -> Result<Run, RunError> {
        let Model { runner, work_root, .. } = &self.0.model;
        if runner.needs_directory() {
            return Run::begin(work_root, stage, cancel).await;
        }
        Ok(Run { workspace: Workspace::in_memory(work_root), cancel })
    }

    /// A frame with the columns that the model wants under other names.
    async fn adapt(&self, mut frame: Frame) -> Result<Frame> {
        if self.0.model.adapters.is_empty() {
            return Ok(frame);
        }
        let adapters = self.0.model.adapters.clone();
        compute(move || {
            adapters.apply(&mut frame);
            frame
        })
        .await
    }

    async fn config(&self, caller: &Caller, id: ConfigId) -> Result<Config, Failed> {
        let found = self.0.configs.find(caller, id).await?;
        found.ok_or_else(|| gone(id))
    }
}

/// A config was removed between the request and its job.
fn gone(id: ConfigId) -> Failed {
    Failed::new("ValueError", format!("Config {id} not found"))
}

/// About how many bytes of JSON a frame is.
fn json_size(frame: &Frame) -> usize {
    frame.rows() * frame.columns.len() * 10
}

/// What a job was asked to do.
async fn read_input<T: DeserializeOwned + Send + 'static>(
    assignment: &mut Assignment,
) -> Result<T, Failed> {
    let input = std::mem::take(&mut assignment.input);
    let read = compute_sized(input.len(), move || serde_json::from_slice(&input));
    Ok(read.await?.map_err(Failure::internal)?)
}

/// The id that a job promised for its result.
fn promised(assignment: &Assignment) -> Result<ArtifactId, Failed> {
    let missing = || Failed::new("RuntimeError", "the job has no id for its result");
    assignment.artifact.map(ArtifactId).ok_or_else(missing)
}

/// The error of a script, with where its output is.
fn script_failed(error: &RunError, artifact: Ulid) -> Failed {
    let tail = error.output().and_then(|it| it.stderr_tail());
    let tail = tail.map(|it| format!("; stderr tail: {it}")).unwrap_or_default();
    Failed::new(
        "chapkit.ml.runner.ModelRunFailedError",
        format!(
            "{error}; diagnostic artifact {artifact} holds the workspace, stdout and stderr{tail}"
        ),
    )
}
