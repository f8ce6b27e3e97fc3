//! A model as a service: what it is, what it may be configured with, what runs it.
//!
//! ```no_run
//! use modelyard::{Frame, ModelError, PredictData, Service, ServiceInfo, TrainData, functions};
//! # #[derive(serde::Deserialize, schemars::JsonSchema)] struct MyConfig {}
//! # async fn train(_: MyConfig, _: TrainData) -> Result<f64, ModelError> { Ok(1.0) }
//! # async fn predict(_: MyConfig, _: f64, it: PredictData) -> Result<Frame, ModelError> { Ok(it.future) }
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! Service::builder(ServiceInfo::new("my-model", "My model"))
//!     .config::<MyConfig>()
//!     .runner(functions(train, predict))
//!     .serve()
//!     .await?;
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use modelyard_access::role::{Rules, UnknownPermission};
use modelyard_kernel::HealthCheck;
use modelyard_kernel::part::Checked;
use modelyard_ml::info::{InfoError, ServiceInfo};
use modelyard_ml::ml;
use modelyard_ml::project::{Adapters, Project};
use modelyard_ops::rate::RateLimiting;
use modelyard_run::artifact::{Access, Hierarchy};
use modelyard_run::config::schema::ConfigSchema;
use modelyard_run::runner::{Limits, ModelError, Runner, ShellRunner, TemplateError};
use modelyard_run::task::{ShellTasks, TaskContext, TaskFunctions};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::http::{RateError, check_rates};
use crate::server::{self, ServeError};
use crate::settings::flags::Flags;
use crate::settings::{Options, Settings};

/// A service that is ready to be served.
pub struct Service {
    pub(crate) info: ServiceInfo,
    pub(crate) info_fields: Map<String, Value>,
    pub(crate) config: ConfigSchema,
    pub(crate) runner: Option<Arc<dyn Runner>>,
    pub(crate) adapters: Adapters,
    pub(crate) hierarchy: Hierarchy,
    pub(crate) configs: Access,
    pub(crate) artifacts: Access,
    pub(crate) tasks: Access,
    pub(crate) functions: TaskFunctions,
    pub(crate) shell_tasks: ShellTasks,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) limits: Limits,
    pub(crate) metrics: bool,
    pub(crate) checks: Vec<HealthCheck>,
    pub(crate) api_keys: Vec<String>,
    pub(crate) rules: Rules,
    pub(crate) rate_limiting: RateLimiting,
    /// What the operator should read at start.
    pub(crate) notes: Vec<String>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.info.id).finish()
    }
}

/// A service cannot be what it is described to be.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A command has a placeholder that there is not.
    #[error(transparent)]
    Command(#[from] TemplateError),
    /// The description contradicts itself.
    #[error(transparent)]
    Info(#[from] InfoError),
    /// A rule of [`ServiceBuilder::with_permissions`] is about a permission that there is not.
    #[error("`with_permissions`: {0}")]
    Permission(#[from] UnknownPermission),
    /// Its limits are none.
    #[error(transparent)]
    Rates(#[from] RateError),
}

impl Service {
    /// Begins to describe a service.
    pub fn builder(info: ServiceInfo) -> ServiceBuilder {
        let title = info.display_name.clone();
        let hierarchy = ml::hierarchy(&info.id.as_str().replace('-', "_"));
        let service = Service {
            info,
            info_fields: Map::new(),
            config: ConfigSchema::new(title),
            runner: None,
            adapters: Adapters::default(),
            hierarchy,
            configs: Access::Full,
            artifacts: Access::Full,
            tasks: Access::Full,
            functions: TaskFunctions::new(),
            shell_tasks: ShellTasks::Refused,
            directory: None,
            environment: BTreeMap::new(),
            limits: Limits::default(),
            metrics: true,
            checks: Vec::new(),
            api_keys: Vec::new(),
            rules: Rules::default(),
            rate_limiting: RateLimiting::default(),
            notes: Vec::new(),
        };
        ServiceBuilder { service, settings: Vec::new() }
    }

    /// The service that a directory describes.
    ///
    /// # Errors
    /// When one of its commands cannot be used.
    pub fn from_project(project: Project) -> Result<Self, ServiceError> {
        let Project { root, file: _, info, config, shell, hierarchy, adapters, notes } = project;
        let limits = shell.limits.clone();
        let environment = shell.environment.clone();
        let runner = ShellRunner::new(shell)?;
        let mut service = Self::builder(info)
            .config_schema(config)
            .runner(runner)
            .with_hierarchy(ml::hierarchy(&hierarchy))
            .build()?;
        service.adapters = adapters;
        service.directory = Some(root);
        service.limits = limits;
        service.environment = environment;
        service.notes = notes;
        Ok(service)
    }

    /// Whether it has anything to do after an answer.
    pub(crate) fn does_jobs(&self) -> bool {
        self.runner.is_some()
            || !self.functions.is_empty()
            || self.shell_tasks == ShellTasks::Allowed
    }

    /// How it describes itself.
    pub fn info(&self) -> &ServiceInfo {
        &self.info
    }
}

/// Describes a service, piece by piece.
#[derive(Debug)]
#[must_use]
pub struct ServiceBuilder {
    service: Service,
    /// Keys and values, in the order in which they were given.
    settings: Vec<(String, String)>,
}

impl ServiceBuilder {
    /// What its configs hold: the fields of `C`. Every config has the reserved fields
    /// `prediction_periods` and `additional_continuous_covariates` as well.
    pub fn config<C: DeserializeOwned + JsonSchema>(self) -> Self {
        self.config_schema(ConfigSchema::of::<C>())
    }

    /// What its configs hold, described by hand.
    pub fn config_schema(mut self, schema: ConfigSchema) -> Self {
        self.service.config = schema;
        self
    }

    /// What trains and predicts: two functions ([`functions`](crate::functions)), a
    /// [`Model`](crate::Model), or commands. Without a runner the service holds configs and
    /// artifacts only.
    pub fn runner(mut self, runner: impl Runner) -> Self {
        self.service.runner = Some(Arc::new(runner));
        self
    }

    /// What the levels of its artifacts are called.
    pub fn with_hierarchy(mut self, hierarchy: Hierarchy) -> Self {
        self.service.hierarchy = hierarchy;
        self
    }

    /// What clients may do with its configs, beside reading. Those that there are came with a backup,
    /// or before they were closed.
    pub fn with_configs(mut self, access: Access) -> Self {
        self.service.configs = access;
        self
    }

    /// What clients may do with its tasks, beside reading and executing them.
    pub fn with_tasks(mut self, access: Access) -> Self {
        self.service.tasks = access;
        self
    }

    /// What clients may do with its artifacts, beside reading.
    pub fn with_artifacts(mut self, access: Access) -> Self {
        self.service.artifacts = access;
        self
    }

    /// Asks `check` whenever somebody asks for the service's health, at most once a second.
    pub fn with_health_check<F>(
        mut self,
        name: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Checked> + Send + 'static,
    {
        self.service.checks.push(HealthCheck { name, ask: Arc::new(move || check().boxed()) });
        self
    }

    /// Adds a function that tasks can run by its name. It gets the task's parameters as whatever
    /// `P` reads them as, whose schema clients are shown.
    pub fn with_task<P, R, F>(
        mut self,
        name: &str,
        function: impl Fn(P) -> F + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned + JsonSchema + 'static,
        R: Serialize + 'static,
        F: Future<Output = Result<R, ModelError>> + 'static,
    {
        self.service.functions = self.service.functions.with(name, function);
        self
    }

    /// Adds a function that also gets the job that it is for, and can tell how far it is.
    pub fn with_task_context<P, R, F>(
        mut self,
        name: &str,
        function: impl Fn(P, TaskContext) -> F + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned + JsonSchema + 'static,
        R: Serialize + 'static,
        F: Future<Output = Result<R, ModelError>> + 'static,
    {
        self.service.functions = self.service.functions.with_context(name, function);
        self
    }

    /// Lets clients store shell commands as tasks and run them: whoever may write tasks may then run
    /// anything that the server's user may.
    pub fn with_shell_tasks(mut self) -> Self {
        self.service.shell_tasks = ShellTasks::Allowed;
        self
    }

    /// Asks every client for one of these keys, in the header `X-API-Key`, beside those of the
    /// settings. They may do everything in this service, and nothing to users, keys and roles, which
    /// belong to the whole deployment.
    pub fn with_auth(mut self, keys: impl IntoIterator<Item = String>) -> Self {
        self.service.api_keys.extend(keys);
        self
    }

    /// Which roles have a permission for this service, whatever the roles themselves say; `admin` is
    /// `tenant-admin`. Those that inherit from one of the roles have it as well, and system
    /// administrators have every permission.
    ///
    /// ```
    /// # use modelyard::{Service, ServiceInfo};
    /// # let builder = Service::builder(ServiceInfo::new("my-model", "My model"));
    /// builder.with_permissions([
    ///     ("ml:train", vec!["admin"]),
    ///     ("ml:predict", vec!["user", "admin"]),
    /// ]);
    /// ```
    pub fn with_permissions<'a, R: IntoIterator<Item = &'a str>>(
        mut self,
        permissions: impl IntoIterator<Item = (&'a str, R)>,
    ) -> Self {
        let owned = |roles: R| roles.into_iter().map(str::to_owned).collect();
        let rules = permissions.into_iter().map(|(name, roles)| (name.to_owned(), owned(roles)));
        self.service.rules = Rules::new(rules.collect());
        self
    }

    /// How often somebody may ask. What the settings `rate_limits` say is better, each key by itself and
    /// each endpoint.
    ///
    /// ```
    /// # use modelyard::{RateLimiting, Service, ServiceInfo};
    /// # let builder = Service::builder(ServiceInfo::new("my-model", "My model"));
    /// builder.with_rate_limiting(
    ///     RateLimiting::new(["100/minute", "1000/hour"])
    ///         .endpoint("/api/v1/ml/$train", ["10/hour", "50/day"]),
    /// );
    /// ```
    ///
    /// [`build`](Self::build) says when one of them is no limit, or of no endpoint.
    pub fn with_rate_limiting(mut self, limits: RateLimiting) -> Self {
        self.service.rate_limiting = limits;
        self
    }

    /// Adds a field of your own to `/api/v1/info`.
    pub fn with_info_field(mut self, name: &str, value: Value) -> Self {
        self.service.info_fields.insert(name.to_owned(), value);
        self
    }

    /// What each run of a shell command may use: those of tasks, and archives of workspaces. A
    /// [`ShellRunner`] has limits of its own, in its [`ShellSpec`](crate::ShellSpec).
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.service.limits = limits;
        self
    }

    /// Whether it answers `/metrics`; it does unless told otherwise.
    pub fn with_metrics(mut self, shown: bool) -> Self {
        self.service.metrics = shown;
        self
    }

    /// How many jobs it does at a time: the setting `jobs.concurrency`.
    pub fn with_jobs(self, concurrency: usize) -> Self {
        self.with_setting("jobs.concurrency", concurrency)
    }

    /// The orchestrator that it registers with: the setting `registration.url`.
    pub fn with_registration(self, url: &str) -> Self {
        self.with_setting("registration.url", url)
    }

    /// The database that it keeps its rows in: the setting `database.url`.
    pub fn with_database(self, url: &str) -> Self {
        self.with_setting("database.url", url)
    }

    /// Where it listens: the settings `server.host` and `server.port`.
    pub fn with_address(self, host: &str, port: u16) -> Self {
        self.with_setting("server.host", host).with_setting("server.port", port)
    }

    /// Any other setting, by its key as in `docs/settings.md` and written as in a variable:
    /// `.with_setting("auth.header", "X-Model-Key")`. It is better than the default of the setting,
    /// and whatever an operator says is better: `modelyard.toml`, the environment, the command line.
    ///
    /// [`serve`](Self::serve) says when there is no such setting. [`build`](Self::build) knows no
    /// settings: a program that starts a [`Server`](crate::Server) itself gives it its own.
    pub fn with_setting(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// The finished service.
    ///
    /// # Errors
    /// When the description contradicts itself.
    pub fn build(self) -> Result<Service, ServiceError> {
        self.service.info.check()?;
        self.service.rules.check()?;
        check_rates(&self.service.rate_limiting)?;
        Ok(self.service)
    }

    /// Serves it until the process is asked to stop. The settings are those of the command line, of
    /// the environment, of `modelyard.toml` in the current directory and of this builder; each wins
    /// over those after it.
    ///
    /// The command line is that of the process, and takes what `modelyard serve` does: `--host`,
    /// `--port`, `--data-dir`, `--database`, `--register`, `--config`. `--help` lists them, and the
    /// process ends; so it does with anything else. A program with a command line of its own gives
    /// [`server::serve`] what [`build`](Self::build) makes.
    ///
    /// # Errors
    /// When the settings are wrong, the database cannot be opened, or the port is taken.
    pub async fn serve(mut self) -> Result<(), ServeError> {
        let program = std::mem::take(&mut self.settings);
        let service = self.build()?;
        let flags = Flags::of_this_process(service.info.display_name.clone());
        let settings = Settings::load(&Options { program, ..flags.options(None) })?;
        let _log = crate::logging::start(&settings);
        server::serve(vec![service], settings).await
    }
}
