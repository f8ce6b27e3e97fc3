//! Training and prediction: a request becomes a job, the job runs the model in a workspace, and
//! what came of it becomes artifacts.

mod attempt;
mod batch;
mod collect;
mod geo;
mod horizon;
pub mod http;
mod model;
mod predict;
mod publish;
mod ran;
mod train;
mod validate;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use modelyard_flow::job::{JobId, Jobs, NewJob, Wishes};
use modelyard_kernel::background::{compute, compute_sized};
use modelyard_kernel::form::{Node, Report};
use modelyard_kernel::part::Counter;
use modelyard_kernel::{
    Assignment, Caller, Clock, Db, Failed, Failure, Launch, Launcher, Part, Permission, Policy,
    Result, Scope, Ulid, Verdict, Work,
};
use modelyard_run::artifact::{ArtifactId, Artifacts};
use modelyard_run::config::{Config, ConfigId, Configs};
use modelyard_run::frame::{Frame, Frames};
use modelyard_run::publish::Publisher;
use modelyard_run::runner::{ArchiveLimits, Run, RunError, Runner, ScriptOutput, Workspace};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use model::{PredictRequest, Submitted, TrainRequest, ValidateRequest, Validation, hierarchy};

use batch::{Operation, StoredFile};

use crate::info::ServiceInfo;
use crate::project::Adapters;

/// What `fuzz/` calls.
#[doc(hidden)]
pub mod strangers {
    pub use super::batch::{Chunk, Content, Format, Look, Reader, Shape, Sizes};
}

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
    /// Places for chunks of all batches: each is a run, of which clients may ask for many at a time.
    chunks: Semaphore,
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
        let (validating, chunks) = (Semaphore::new(places), Semaphore::new(places));
        Self(Arc::new(Inner {
            db,
            clock,
            jobs,
            configs,
            artifacts,
            publisher,
            model,
            validating,
            chunks,
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
        let batch = |operation: Operation| {
            let ml = self.clone();
            let run = move |it: Assignment| -> futures_util::future::BoxFuture<'static, _> {
                let ml = ml.clone();
                Box::pin(async move { ml.do_batch(operation, it).await })
            };
            Work {
                kind: operation.kind(),
                queue: "batch",
                permission: operation.permission(),
                policy: Policy::default(),
                run: Arc::new(run),
            }
        };
        let work = |kind, queue, permission, run| Work {
            kind,
            queue,
            permission,
            policy: Policy::default(),
            run,
        };
        Part {
            name: "ml",
            routes: http::routes(self.clone()),
            launchers: vec![
                self.launcher(TRAIN_JOB, TRAIN, http::read_train),
                self.launcher(PREDICT_JOB, PREDICT, http::read_predict),
                self.launcher(batch::PREDICT_JOB, PREDICT, |it, _| {
                    StoredFile::read(it, Operation::Predict)
                }),
                self.launcher(batch::TRAIN_JOB, TRAIN, |it, _| {
                    StoredFile::read(it, Operation::Train)
                }),
            ],
            work: vec![
                work(TRAIN_JOB, "train", TRAIN, Arc::new(train)),
                work(PREDICT_JOB, "predict", PREDICT, Arc::new(predict)),
                batch(Operation::Predict),
                batch(Operation::Train),
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
    pub async fn train(
        &self,
        caller: &Caller,
        request: TrainRequest,
        wishes: Wishes,
    ) -> Result<Submitted> {
        let scope = caller.permit(TRAIN)?;
        let size = json_size(&request.data);
        let owner = caller.subject();
        let asked = Asked { scope, owner, kind: TRAIN_JOB, word: "Training", wishes };
        let submitted = self.submit(asked, size, request).await?;
        self.0.trainings.increment();
        Ok(submitted)
    }

    /// Asks for a prediction.
    ///
    /// # Errors
    /// `queue_full` when too many jobs wait.
    pub async fn predict(
        &self,
        caller: &Caller,
        request: PredictRequest,
        wishes: Wishes,
    ) -> Result<Submitted> {
        let scope = caller.permit(PREDICT)?;
        let size = json_size(&request.historic) + json_size(&request.future);
        let owner = caller.subject();
        let asked = Asked { scope, owner, kind: PREDICT_JOB, word: "Prediction", wishes };
        let submitted = self.submit(asked, size, request).await?;
        self.0.predictions.increment();
        Ok(submitted)
    }

    /// How a schedule trains or predicts: its input is the body of `$train` or `$predict`, or names the
    /// file of a batch.
    fn launcher<T: Serialize + 'static>(
        &self,
        kind: &'static str,
        permission: Permission,
        read: fn(&Node<'_>, &mut Frames) -> Option<T>,
    ) -> Launcher {
        let it = self.clone();
        Launcher {
            kind,
            permission,
            check: Arc::new(move |input| read_launch(input, read).map(drop)),
            launch: Arc::new(move |conn, scope, launch| {
                let it = it.clone();
                async move {
                    let Launch { input, unique, owner, wishes } = launch;
                    let input = serde_json::to_vec(&read_launch(&input, read)?)?;
                    let artifact = Some(ArtifactId::new(&it.0.clock).0);
                    let new = NewJob {
                        artifact,
                        owner: Some(owner),
                        unique,
                        wishes,
                        ..NewJob::new(JobId::new(&it.0.clock), kind, input)
                    };
                    Ok(it.0.jobs.submit(conn, scope, new).await?.job.0)
                }
                .boxed()
            }),
        }
    }

    async fn submit(
        &self,
        asked: Asked<'_>,
        size: usize,
        request: impl Serialize + Send + 'static,
    ) -> Result<Submitted> {
        let inner = &self.0;
        let Asked { scope, owner, kind, word, wishes } = asked;
        let artifact_id = ArtifactId::new(&inner.clock);
        let id = JobId::new(&inner.clock);
        let input = compute_sized(size, move || serde_json::to_vec(&request)).await??;
        let new = NewJob {
            artifact: Some(artifact_id.0),
            owner: Some(owner.to_owned()),
            wishes,
            ..NewJob::new(id, kind, input)
        };
        let submitted = inner.jobs.add(scope, new).await?;
        let (id, artifact) = (submitted.job, submitted.artifact.map(ArtifactId));
        let message = format!("{word} job submitted. Job ID: {id}");
        Ok(Submitted { job_id: id.0, artifact_id: artifact.unwrap_or(artifact_id), message })
    }

    /// A workspace for one run.
    async fn run(&self, stage: &'static str, cancel: CancellationToken) -> Result<Run, RunError> {
        let Model { runner, work_root, .. } = &self.0.model;
        if runner.needs_directory() {
            return Run::begin(work_root, stage, cancel).await;
        }
        Ok(Run::new(Workspace::in_memory(work_root), cancel))
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

/// Reads what was written down in a schedule.
fn read_launch<T>(input: &Value, read: fn(&Node<'_>, &mut Frames) -> Option<T>) -> Result<T> {
    let report = Report::new();
    let request =
        read(&Node::at(&["body", "target", "input"], input, &report), &mut Frames::default());
    report.finish().map_err(Failure::violations)?;
    request.ok_or_else(|| Failure::internal("an input was refused without a violation"))
}

/// Who asks for what kind of job.
struct Asked<'a> {
    scope: &'a Scope,
    owner: &'a str,
    kind: &'static str,
    word: &'static str,
    wishes: Wishes,
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

/// What a script printed before it failed, and the failure that the job ends with. `Err` when
/// there is nothing to look at, or when the job is tried again.
fn failure(error: RunError, assignment: &Assignment) -> Result<(ScriptOutput, Failed), Failed> {
    let output = error.output().cloned();
    let Some(output) = output.filter(|_| !assignment.cancel.is_cancelled()) else {
        return Err(error.into());
    };
    let artifact = promised(assignment)?;
    let told = script_failed(&error, artifact.0);
    let failed = Failed::from(error);
    if failed.verdict == Verdict::Transient && !assignment.is_last {
        return Err(failed);
    }
    Ok((output, told))
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
