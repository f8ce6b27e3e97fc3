//! A running process: its database, its services, its port.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use modelyard_flow::job;
use modelyard_kernel::blobs::OpenError;
use modelyard_kernel::{Background, Blobs, Caller, Clock, Db, Failure, HealthCheck, db};
use modelyard_ml::ml::Ml;
use modelyard_run::runner::{RunError, Workspace};
use modelyard_schema::SchemaError;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{self, Assembled, Shared, TENANT};
use crate::data_dir::{DataDir, DataDirError};
use crate::http::{self, Authenticator, NotAHeader, ServeOptions};
use crate::metrics::Metrics;
use crate::openapi::About;
use crate::page;
use crate::registration::{self, Pending};
use crate::service::Service;
use crate::settings::{Settings, SettingsError};

/// How often content that nobody refers to is looked for.
const SWEEP: Duration = Duration::from_secs(600);

/// Why a process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A service contradicts itself.
    #[error("{0}")]
    Service(String),
    /// There is nothing to serve, or two services have one id.
    #[error("two services have the id `{0}`; give one of them another")]
    TwoIds(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database cannot be opened.
    #[error("{0}; see the setting `database.url`")]
    Database(#[from] db::Error),
    /// The database and the program do not fit.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The store for content cannot be opened.
    #[error("{0}; see the setting `blobs.url`")]
    Blobs(#[from] OpenError),
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {cause}; choose another with `--port`")]
    Listen {
        /// What was asked for.
        address: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A name for the key's header is none.
    #[error(transparent)]
    Header(#[from] NotAHeader),
    /// A model's own start failed.
    #[error("the model `{service}` does not start: {cause}")]
    Model {
        /// Whose.
        service: String,
        /// What it said.
        cause: RunError,
    },
    /// Nobody could stop it.
    #[error("signals cannot be listened for: {0}")]
    Signals(#[source] std::io::Error),
    /// Something else failed at start.
    #[error("{0}")]
    Start(#[from] Failure),
}

/// A process that serves.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    background: Background,
    db: Db,
    models: Vec<Ml>,
    services: Vec<(String, String)>,
    patience: Duration,
    stopped: tokio::sync::oneshot::Receiver<()>,
    work_root: Arc<Path>,
    _data_dir: DataDir,
}

impl Server {
    /// Opens the database, brings it up to date, builds the services, and listens.
    ///
    /// # Errors
    /// When any of that cannot be done; nothing is left running then.
    pub async fn start(services: Vec<Service>, settings: Settings) -> Result<Self, ServeError> {
        let mut ids = HashSet::new();
        for service in &services {
            let id = service.info.id.as_str();
            if !ids.insert(id.to_owned()) {
                return Err(ServeError::TwoIds(id.to_owned()));
            }
        }
        // First of all, so that a port that is taken costs nothing.
        let listener = listen(&settings).await?;
        let address = listener
            .local_addr()
            .map_err(|cause| ServeError::Listen { address: settings.server.host.clone(), cause })?;
        let clock = Clock::system();
        let data_dir = DataDir::open(&settings.data.dir, &clock)?;
        let background = Background::default();
        let shared = share(&settings, &data_dir, clock, background.clone()).await?;

        let alone = services.len() == 1;
        let mut assembled = Vec::with_capacity(services.len());
        let mut registrations = Vec::new();
        for service in services {
            let id = service.info.id.as_str().to_owned();
            let registration = registration::prepare(&settings.registration, address)
                .map(|it| if alone { it } else { it.below(&format!("/services/{id}")) });
            let check = registration.as_ref().map(Pending::health_check);
            let prepared = prepare(service, &shared, &settings, check).await?;
            registrations.extend(registration.map(|it| (it, id, prepared.0.info.clone())));
            assembled.push(prepared);
        }
        let names: Vec<(String, String)> =
            assembled.iter().map(|it| (it.0.id.clone(), it.0.name.clone())).collect();
        let mut models = Vec::new();
        let mut routers = Vec::with_capacity(assembled.len());
        for (service, keys) in assembled {
            models.extend(service.ml.clone());
            routers.push(open(service, keys, &shared, &settings).await?);
        }
        let front = page::front(&names_of(&names));
        let router = http::mount(routers, front);
        let app =
            http::app(router, shared.clock.clone(), shared.metrics.clone(), settings.limits());
        let options = ServeOptions {
            connections: settings.server.max_connections,
            idle_timeout: settings.server.idle_timeout,
            drain: settings.server.drain,
        };
        let (done, stopped) = tokio::sync::oneshot::channel();
        let (tasks, stopping) = (background.clone(), background.stopping().clone());
        background.spawn(async move {
            http::serve(listener, app, &tasks, stopping, options).await;
            let _nobody_waits = done.send(());
        });
        // Last, because an orchestrator may call back at once.
        for (registration, id, info) in registrations {
            registration.start(&id, info, &background);
        }
        let patience = settings.server.drain.max(settings.jobs.drain) + Duration::from_secs(6);
        Ok(Self {
            address,
            background,
            db: shared.db.clone(),
            models,
            services: names,
            patience,
            stopped,
            work_root: shared.work_root.clone(),
            _data_dir: data_dir,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ids and names of its services.
    pub fn services(&self) -> &[(String, String)] {
        &self.services
    }

    /// What to tell whoever started the process: where it listens, and what to try next.
    pub fn greeting(&self) -> String {
        let url = format!("http://{}", self.address);
        let mut text = String::from("\n");
        for (id, name) in &self.services {
            let at =
                if self.services.len() == 1 { url.clone() } else { format!("{url}/services/{id}") };
            text.push_str(&format!("  {name} is served at {at}\n"));
        }
        let first = match self.services.as_slice() {
            [(id, _), _, ..] => format!("{url}/services/{id}"),
            _ => url,
        };
        text.push_str(&format!(
            "\n  Try next, in another terminal:\n\n    curl -s {first}/api/v1/info\n    curl -s {first}/api/v1/configs -H 'content-type: application/json' -d '{{\"name\": \"first\", \"data\": {{}}}}'\n\n  Every operation, to read and to try: {first}/docs\n  Ctrl-C stops.\n"
        ));
        text
    }

    /// Serves until the process is asked to stop, and stops.
    pub async fn run(self, stop: StopSignal) {
        stop.received().await;
        tracing::info!("stopping: what runs may finish");
        self.stop().await;
    }

    /// Stops: requests and jobs may finish, then they are interrupted; interrupted jobs are begun
    /// again at the next start. No process and no temporary directory is left.
    pub async fn stop(self) {
        let Self { background, db, models, patience, stopped, work_root, .. } = self;
        background.stopping().cancel();
        let _closed = tokio::time::timeout(patience, stopped).await;
        if !background.shutdown(patience).await {
            tracing::warn!("some work did not end in time and is left behind");
        }
        for model in models {
            model.stop().await;
        }
        // What was let go of a moment ago may not be gone yet, and the runtime waits for nobody.
        if let Err(failure) = sweep_workspaces(&work_root).await {
            tracing::warn!(%failure, "workspaces are left for the next start");
        }
        db.close().await;
    }
}

fn names_of(names: &[(String, String)]) -> Vec<(&str, &str)> {
    names.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect()
}

async fn listen(settings: &Settings) -> Result<TcpListener, ServeError> {
    let address = (settings.server.host.as_str(), settings.server.port);
    TcpListener::bind(address).await.map_err(|cause| ServeError::Listen {
        address: format!("{}:{}", settings.server.host, settings.server.port),
        cause,
    })
}

/// Opens what the services share.
async fn share(
    settings: &Settings,
    data_dir: &DataDir,
    clock: Clock,
    background: Background,
) -> Result<Shared, ServeError> {
    let db = Db::connect(&settings.database_options(data_dir.path())).await?;
    let applied = modelyard_schema::migrate(&db, &clock).await?;
    if !applied.is_empty() {
        tracing::info!(?applied, "the database was brought up to date");
    }
    let blobs = open_blobs(settings, data_dir.path(), clock.clone())?;
    let work_root = settings.data.temp_dir.clone().unwrap_or_else(|| data_dir.path().join("work"));
    sweep_workspaces(&work_root).await?;
    Ok(Shared {
        db,
        blobs,
        clock,
        background,
        metrics: Metrics::new()?,
        node: data_dir.node().into(),
        work_root: work_root.into(),
        jobs: job::Options {
            concurrency: settings.jobs.concurrency,
            max_pending: settings.jobs.max_pending,
            drain: settings.jobs.drain,
        },
        shell_tasks: settings.tasks.shell,
        provenance: settings.info.provenance,
        git_revision: settings.info.git_revision.as_deref().map(Into::into),
    })
}

/// Opens the store for content that the settings name.
///
/// # Errors
/// When the store cannot be opened.
pub fn open_blobs(settings: &Settings, data_dir: &Path, clock: Clock) -> Result<Blobs, OpenError> {
    match settings.blobs.url.as_str() {
        "" => Blobs::directory(&data_dir.join("blobs"), clock),
        url => Blobs::url(url, settings.blobs.options.clone(), clock),
    }
}

/// Ends and removes what nobody holds any more, such as what a process that was killed left behind.
async fn sweep_workspaces(root: &Path) -> Result<(), ServeError> {
    let root: PathBuf = root.to_owned();
    let swept = tokio::task::spawn_blocking(move || {
        fs_err::create_dir_all(&root)?;
        Workspace::sweep(&root)
    });
    let swept = swept.await.map_err(Failure::internal)?.map_err(DataDirError::Unusable)?;
    if swept.workspaces > 0 {
        tracing::info!(
            workspaces = swept.workspaces,
            processes = swept.killed,
            "what was left behind is gone"
        );
    }
    Ok(())
}

async fn prepare(
    service: Service,
    shared: &Shared,
    settings: &Settings,
    registration: Option<HealthCheck>,
) -> Result<(Assembled, Vec<String>), ServeError> {
    let mut keys = settings.auth.api_keys.clone();
    keys.extend(service.api_keys.iter().cloned());
    for note in &service.notes {
        tracing::warn!(service = service.info.id.as_str(), "{note}");
    }
    let assembled = app::assemble(service, shared, registration)?;
    if let Some(ml) = &assembled.ml {
        ml.start()
            .await
            .map_err(|cause| ServeError::Model { service: assembled.id.clone(), cause })?;
    }
    Ok((assembled, keys))
}

/// Starts a service's work and puts its routes behind its authenticator.
async fn open(
    mut service: Assembled,
    keys: Vec<String>,
    shared: &Shared,
    settings: &Settings,
) -> Result<(String, Router), ServeError> {
    shared.metrics.add_service(&service.id, std::mem::take(&mut service.counters))?;
    if let Some(jobs) = &service.jobs {
        jobs.start(std::mem::take(&mut service.work)).await?;
    }
    let (db, blobs) = (shared.db.clone(), shared.blobs.clone());
    let system = Caller::system("sweep", TENANT, &service.id);
    let stopping = shared.background.stopping().clone();
    shared.background.spawn(async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            let swept = match system.permit(modelyard_run::artifact::WRITE) {
                Ok(scope) => blobs.sweep(&db, scope).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = swept {
                tracing::error!(%failure, "content that nobody refers to is not removed");
            }
        }
    });
    let mut about = About::new(service.configs.schema(), service.info);
    if keys.iter().any(|it| !it.is_empty()) {
        about.key_header = Some(settings.auth.header.clone());
    }
    let authenticator = Authenticator::new(&service.id, &settings.auth.header, keys)?;
    let routes = page::with_pages(service.routes, service.openapi, &about)?;
    Ok((service.id, http::guarded(routes, authenticator)))
}

/// The wish that the process stops: Ctrl-C, or `SIGTERM`.
///
/// Make it before the server starts: until then a signal ends the process at once, and whatever it
/// has begun is left for its next start.
#[derive(Debug)]
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn listen() -> Result<Self, ServeError> {
        let listen = |kind| signal(kind).map_err(ServeError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Ends when the process is, or was, asked to stop.
    async fn received(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
