//! The runner of models written in Rust: two async functions, or a type that implements [`Model`].
//!
//! The code runs on threads of its own, so it may compute as long as it likes without the server
//! standing still. Its fitted model is stored as JSON in the workspace.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{
    ConfigFormat, Diagnostic, PredictInput, Predicted, Reporter, Run, RunError, RunJob, Runner,
    TrainInput, Trained, inputs, run_on_a_thread,
};
use crate::frame::Frame;

/// Where the fitted model is in the workspace.
pub const MODEL_FILE: &str = "model.json";

/// What a training function gets.
#[derive(Clone, Debug)]
pub struct TrainData {
    pub data: Frame,
    /// A `GeoJSON` feature collection.
    pub geo: Option<Value>,
    /// Triggered when nobody wants the result any more. Every `await` ends then by itself; code
    /// that computes for long between them should look from time to time.
    pub cancel: CancellationToken,
    /// Tells how far the function has come.
    pub report: Reporter,
    /// The job that this is for; `None` when a request is only checked.
    pub job: Option<RunJob>,
}

/// What a prediction function gets. `future` has the rows to predict for, without the target.
#[derive(Clone, Debug)]
pub struct PredictData {
    pub historic: Frame,
    pub future: Frame,
    /// A `GeoJSON` feature collection.
    pub geo: Option<Value>,
    /// As in [`TrainData`].
    pub cancel: CancellationToken,
    /// As in [`TrainData`].
    pub report: Reporter,
    /// As in [`TrainData`].
    pub job: Option<RunJob>,
}

/// A model in Rust. Write the methods as `async fn`; their futures need not be `Send`, because
/// each runs on one thread. Two functions are enough for most models, see [`functions`].
pub trait Model: Send + Sync + 'static {
    /// Made from the configuration of the request.
    type Config: DeserializeOwned + Send + 'static;
    /// What training finds out and prediction needs. It must survive JSON: no infinite numbers.
    type Fitted: Serialize + DeserializeOwned + Send + 'static;

    /// Called once at the start of the service.
    fn on_init(&self) -> impl Future<Output = Result<(), ModelError>> {
        async { Ok(()) }
    }

    /// Called once when the service stops.
    fn on_cleanup(&self) -> impl Future<Output = ()> {
        async {}
    }

    fn train(
        &self,
        config: Self::Config,
        data: TrainData,
    ) -> impl Future<Output = Result<Self::Fitted, ModelError>>;

    fn predict(
        &self,
        config: Self::Config,
        fitted: Self::Fitted,
        data: PredictData,
    ) -> impl Future<Output = Result<Frame, ModelError>>;

    fn validate_train(
        &self,
        _config: Self::Config,
        _data: TrainData,
    ) -> impl Future<Output = Result<Vec<Diagnostic>, ModelError>> {
        async { Ok(Vec::new()) }
    }

    fn validate_predict(
        &self,
        _config: Self::Config,
        _data: PredictData,
    ) -> impl Future<Output = Result<Vec<Diagnostic>, ModelError>> {
        async { Ok(Vec::new()) }
    }
}

/// A failure of a model's own code. Any error becomes one by `?`, named after its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelError {
    kind: String,
    message: String,
    causes: Option<String>,
    may_pass: bool,
}

impl ModelError {
    pub fn new(message: impl Into<String>) -> Self {
        Self::of("ModelError", message)
    }

    /// `kind` is what clients see before the message, like `ValueError`.
    pub fn of(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), causes: None, may_pass: false }
    }

    /// The same failure, of which the code says that it may pass, such as that of a server which does
    /// not answer: the job is tried again after a pause, as often as its policy says.
    ///
    /// ```
    /// # use modelyard_run::runner::ModelError;
    /// # fn fetch() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # fn example() -> Result<String, ModelError> {
    /// fetch().map_err(|error| ModelError::from(error).transient())
    /// # }
    /// ```
    #[must_use]
    pub fn transient(self) -> Self {
        Self { may_pass: true, ..self }
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl<E: std::error::Error> From<E> for ModelError {
    fn from(error: E) -> Self {
        let chain = std::iter::successors(error.source(), |error| error.source());
        let causes: Vec<String> = chain.map(|cause| format!("caused by: {cause}")).collect();
        Self {
            kind: short_name(std::any::type_name::<E>()),
            message: error.to_string(),
            causes: (!causes.is_empty()).then(|| causes.join("\n")),
            may_pass: false,
        }
    }
}

impl From<ModelError> for RunError {
    fn from(error: ModelError) -> Self {
        let ModelError { kind, message, causes, may_pass } = error;
        let traceback = causes.map(|causes| format!("{kind}: {message}\n{causes}"));
        RunError::Model { kind, message, traceback, may_pass }
    }
}

/// `core::num::error::ParseIntError` is known by its last part, `serde_json::error::Error` by its
/// first as well.
fn short_name(full: &str) -> String {
    let path = full.split('<').next().unwrap_or(full).trim_start_matches('&');
    let last = path.rsplit("::").next().unwrap_or(path);
    match path.split("::").next() {
        Some(first) if last == "Error" => format!("{first}::{last}"),
        _ => last.to_owned(),
    }
}

/// Runs a [`Model`].
#[derive(Debug)]
pub struct ModelRunner<T> {
    model: Arc<T>,
}

/// Runs two functions. Made by [`functions`].
pub type FunctionRunner<C, M> = ModelRunner<Functions<C, M>>;

impl<T: Model> ModelRunner<T> {
    pub fn new(model: T) -> Self {
        Self { model: Arc::new(model) }
    }

    /// Runs code of the model on a thread of its own, until it ends or nobody waits any more.
    async fn execute<F, O>(
        &self,
        cancel: &CancellationToken,
        work: impl FnOnce(Arc<T>, CancellationToken) -> F + Send + 'static,
    ) -> Result<O, RunError>
    where
        F: Future<Output = Result<O, RunError>>,
        O: Send + 'static,
    {
        let model = Arc::clone(&self.model);
        run_on_a_thread(cancel, move |cancel| work(model, cancel)).await
    }
}

#[async_trait]
impl<T: Model> Runner for ModelRunner<T> {
    async fn on_init(&self) -> Result<(), RunError> {
        let cancel = CancellationToken::new();
        self.execute(&cancel, |model, _| async move { Ok(model.on_init().await?) }).await
    }

    async fn on_cleanup(&self) {
        let cancel = CancellationToken::new();
        let work = |model: Arc<T>, _| async move {
            model.on_cleanup().await;
            Ok(())
        };
        if let Err(error) = self.execute(&cancel, work).await {
            tracing::warn!(%error, "the model did not clean up");
        }
    }

    fn needs_directory(&self) -> bool {
        false
    }

    async fn train(&self, run: &Run, input: TrainInput) -> Result<Trained, RunError> {
        let (report, job) = (Reporter::new(run.watcher.clone()), run.job.clone());
        let trained = self.execute(&run.cancel, move |model, cancel| async move {
            let mut files = inputs::of_train(&input, ConfigFormat::Flat)?;
            let TrainInput { config, data, geo } = input;
            let fitted = model
                .train(read_config(config)?, TrainData { data, geo, cancel, report, job })
                .await?;
            files.push((MODEL_FILE, store(&fitted)?));
            Ok(files)
        });
        run.workspace.put(trained.await?).await?;
        Ok(Trained { script: None })
    }

    async fn predict(&self, run: &Run, input: PredictInput) -> Result<Predicted, RunError> {
        let fitted = run.workspace.get(MODEL_FILE).await?.ok_or_else(|| {
            let message = format!("the training artifact has no {MODEL_FILE}");
            RunError::model("FileNotFoundError", message)
        })?;
        let (report, job) = (Reporter::new(run.watcher.clone()), run.job.clone());
        let predicted = self.execute(&run.cancel, move |model, cancel| async move {
            let mut files = inputs::of_predict(&input, ConfigFormat::Flat)?;
            let fitted = load(&fitted)?;
            let PredictInput { config, historic, future, geo } = input;
            let data = PredictData { historic, future, geo, cancel, report, job };
            let predictions = model.predict(read_config(config)?, fitted, data).await?;
            files.push(("predictions.csv", predictions.to_csv().into()));
            Ok((predictions, files))
        });
        let (predictions, files) = predicted.await?;
        run.workspace.put(files).await?;
        Ok(Predicted { predictions, script: None })
    }

    async fn validate_train(
        &self,
        run: &Run,
        input: TrainInput,
    ) -> Result<Vec<Diagnostic>, RunError> {
        let (report, job) = (Reporter::new(run.watcher.clone()), run.job.clone());
        self.execute(&run.cancel, move |model, cancel| async move {
            let TrainInput { config, data, geo } = input;
            let config = read_config(config)?;
            Ok(model.validate_train(config, TrainData { data, geo, cancel, report, job }).await?)
        })
        .await
    }

    async fn validate_predict(
        &self,
        run: &Run,
        input: PredictInput,
    ) -> Result<Vec<Diagnostic>, RunError> {
        let (report, job) = (Reporter::new(run.watcher.clone()), run.job.clone());
        self.execute(&run.cancel, move |model, cancel| async move {
            let PredictInput { config, historic, future, geo } = input;
            let config = read_config(config)?;
            let data = PredictData { historic, future, geo, cancel, report, job };
            Ok(model.validate_predict(config, data).await?)
        })
        .await
    }
}

fn read_config<C: DeserializeOwned>(config: Map<String, Value>) -> Result<C, RunError> {
    serde_json::from_value(Value::Object(config)).map_err(|error| {
        RunError::model("ValueError", format!("the config does not fit the model: {error}"))
    })
}

/// The model as a file, which is loaded again: one that cannot be loaded should fail its training,
/// not every prediction. Infinite numbers, for one, are written as `null`.
fn store<M: Serialize + DeserializeOwned>(fitted: &M) -> Result<Bytes, RunError> {
    let bytes = Bytes::from(serde_json::to_vec(fitted).map_err(ModelError::from)?);
    load::<M>(&bytes)?;
    Ok(bytes)
}

fn load<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, RunError> {
    serde_json::from_slice(bytes).map_err(|error| {
        RunError::model("ValueError", format!("{MODEL_FILE} cannot be read back: {error}"))
    })
}

type Later<O> = Pin<Box<dyn Future<Output = Result<O, ModelError>>>>;
type Train<C, M> = Box<dyn Fn(C, TrainData) -> Later<M> + Send + Sync>;
type Predict<C, M> = Box<dyn Fn(C, M, PredictData) -> Later<Frame> + Send + Sync>;
type Validate<C, D> = Box<dyn Fn(C, D) -> Later<Vec<Diagnostic>> + Send + Sync>;

/// A [`Model`] made of functions.
pub struct Functions<C, M> {
    train: Train<C, M>,
    predict: Predict<C, M>,
    validate_train: Validate<C, TrainData>,
    validate_predict: Validate<C, PredictData>,
}

/// A runner of two async functions: one that fits a model, one that predicts with it.
///
/// `C` is made from the configuration of the request, `M` is what training finds out.
pub fn functions<C, M, T, TrainFuture, P, PredictFuture>(
    train: T,
    predict: P,
) -> FunctionRunner<C, M>
where
    C: DeserializeOwned + Send + 'static,
    M: Serialize + DeserializeOwned + Send + 'static,
    T: Fn(C, TrainData) -> TrainFuture + Send + Sync + 'static,
    TrainFuture: Future<Output = Result<M, ModelError>> + 'static,
    P: Fn(C, M, PredictData) -> PredictFuture + Send + Sync + 'static,
    PredictFuture: Future<Output = Result<Frame, ModelError>> + 'static,
{
    ModelRunner::new(Functions {
        train: Box::new(move |config, data| Box::pin(train(config, data))),
        predict: Box::new(move |config, fitted, data| Box::pin(predict(config, fitted, data))),
        validate_train: Box::new(|_, _| Box::pin(async { Ok(Vec::new()) })),
        validate_predict: Box::new(|_, _| Box::pin(async { Ok(Vec::new()) })),
    })
}

impl<C, M> FunctionRunner<C, M> {
    /// Adds checks of a training request.
    pub fn validate_train<V, F>(mut self, validate: V) -> Self
    where
        V: Fn(C, TrainData) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<Diagnostic>, ModelError>> + 'static,
    {
        self.functions().validate_train =
            Box::new(move |config, data| Box::pin(validate(config, data)));
        self
    }

    /// Adds checks of a prediction request.
    pub fn validate_predict<V, F>(mut self, validate: V) -> Self
    where
        V: Fn(C, PredictData) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<Diagnostic>, ModelError>> + 'static,
    {
        self.functions().validate_predict =
            Box::new(move |config, data| Box::pin(validate(config, data)));
        self
    }

    fn functions(&mut self) -> &mut Functions<C, M> {
        Arc::get_mut(&mut self.model).expect("only running shares the model, which borrows self")
    }
}

#[expect(clippy::future_not_send, reason = "each runs on one thread, as `Model` says")]
impl<C, M> Model for Functions<C, M>
where
    C: DeserializeOwned + Send + 'static,
    M: Serialize + DeserializeOwned + Send + 'static,
{
    type Config = C;
    type Fitted = M;

    fn train(&self, config: C, data: TrainData) -> impl Future<Output = Result<M, ModelError>> {
        (self.train)(config, data)
    }

    fn predict(
        &self,
        config: C,
        fitted: M,
        data: PredictData,
    ) -> impl Future<Output = Result<Frame, ModelError>> {
        (self.predict)(config, fitted, data)
    }

    fn validate_train(
        &self,
        config: C,
        data: TrainData,
    ) -> impl Future<Output = Result<Vec<Diagnostic>, ModelError>> {
        (self.validate_train)(config, data)
    }

    fn validate_predict(
        &self,
        config: C,
        data: PredictData,
    ) -> impl Future<Output = Result<Vec<Diagnostic>, ModelError>> {
        (self.validate_predict)(config, data)
    }
}

impl<C, M> fmt::Debug for Functions<C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions").finish_non_exhaustive()
    }
}
