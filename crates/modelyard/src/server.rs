//! A running process: its database, its services, its port.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::future::join_all;
use modelyard_access::role::Rules;
use modelyard_flow::job::{Engine, Workers};
use modelyard_flow::schedule::Schedules;
use modelyard_kernel::background::{compute, on_a_thread};
use modelyard_kernel::blobs::OpenError;
use modelyard_kernel::part::Counter;
use modelyard_kernel::{Background, Blobs, Caller, Clock, Db, Failure, HealthCheck, Ulid, db};
use modelyard_ml::info::PeriodType;
use modelyard_ml::ml::Ml;
use modelyard_ops::rate::{self, ENTRIES, Limiter, MemoryStore, RateLimiting, Store};
use modelyard_run::runner::{RunError, Workspace};
use modelyard_schema::SchemaError;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::access::{Access, AccessError};
use crate::app::{self, Assembled, Shared, TENANT};
use crate::audit::Auditing;
use crate::data_dir::{DataDir, DataDirError};
use crate::health;
use crate::http::{
    self, Authenticator, NotAHeader, RateError, Rates, ServeOptions, Sites, Tls, TlsError,
};
use crate::metrics::Metrics;
use crate::openapi::About;
use crate::page;
use crate::permissions::Guard;
use crate::process;
use crate::registration::{self, Pending};
use crate::service::{Service, ServiceError};
use crate::settings::{RateLimits, Settings, SettingsError};

/// How often content that nobody refers to is looked for.
const SWEEP: Duration = Duration::from_secs(600);
/// How often workspaces are looked for that were kept for jobs that need them no more.
const SWEEP_KEPT: Duration = Duration::from_secs(300);
/// How often the log says that a model is still starting.
const STILL: Duration = Duration::from_secs(30);

/// Why a process cannot serve.
///
/// Its `Debug` is for people too, since that is what a `main` that answers it prints.
#[derive(thiserror::Error)]
pub enum ServeError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A service contradicts itself.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Two services have one id.
    #[error("two services have the id `{0}`; give one of them another")]
    TwoIds(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database cannot be opened.
    #[error("the database cannot be opened; see the setting `database.url`")]
    Database(#[from] db::Error),
    /// Nobody could come in.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The database and the program do not fit.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The store for content cannot be opened.
    #[error("content cannot be stored; see the setting `blobs.url`")]
    Blobs(#[from] OpenError),
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on; choose another with `--port`")]
    Listen {
        /// What was asked for.
        address: String,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// Everybody on the network could do everything.
    #[error(
        "{address} can be reached from the network, and whoever reaches `{service}` may do everything, \
         since nobody has an identity yet: make the first administrator with `modelyard admin create`, \
         or set `auth.api_keys` or `auth.api_key_file`; or let `server.host` be 127.0.0.1"
    )]
    Exposed {
        /// Where it would listen.
        address: SocketAddr,
        /// What would be open.
        service: String,
    },
    /// Links of mails would lead nowhere.
    #[error(
        "mails are sent and {address} is reached from other machines, so that links in mails need an address that \
         leads there: set `server.public_url`, such as https://models.example.org"
    )]
    NoPublicUrl {
        /// Where it would listen.
        address: SocketAddr,
    },
    /// The certificate is of no use.
    #[error("TLS cannot be spoken; see the settings `server.tls_certificate` and `server.tls_key`")]
    Tls(#[from] TlsError),
    /// A name for the key's header is none.
    #[error(transparent)]
    Header(#[from] NotAHeader),
    /// Requests cannot be counted.
    #[error(transparent)]
    Rates(#[from] rate::OpenError),
    /// A model's own start failed.
    #[error("the model `{service}` does not start")]
    Model {
        /// Whose.
        service: String,
        /// What it said.
        #[source]
        cause: RunError,
    },
    /// Processes that split the work do not share what they must.
    #[error("{0}")]
    NotShared(&'static str),
    /// Nobody could stop it.
    #[error("signals cannot be listened for")]
    Signals(#[source] std::io::Error),
    /// Something else failed at start.
    #[error(transparent)]
    Start(#[from] Failure),
}

impl fmt::Debug for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&explain(self))
    }
}

/// An error with its causes, each on a line.
pub fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        let said = it.to_string();
        // Some errors say their cause themselves.
        if !text.ends_with(&said) {
            text.push_str("\n  because: ");
            text.push_str(&said);
        }
        cause = it.source();
    }
    text
}

/// Serves until the process is asked to stop, and says on standard output where.
///
/// # Errors
/// When it cannot start; nothing is left running then.
pub async fn serve(services: Vec<Service>, settings: Settings) -> Result<(), ServeError> {
    // Before anything is begun: until here a signal ends the process at once.
    let mut stop = StopSignal::listen()?;
    process::prepare(settings.server.max_connections);
    let Some(server) = Server::start_unless(services, settings, stop.received()).await? else {
        tracing::info!("stopped before it served");
        return Ok(());
    };
    // That nobody reads it is no reason not to serve.
    let _unread = std::io::stdout().write_all(server.greeting().as_bytes());
    stop.received().await;
    tracing::info!("stopping: what runs may finish");
    server.stop().await;
    Ok(())
}

/// A process that serves.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    tls: bool,
    services: Vec<(String, String)>,
    /// Whether everybody who reaches it may do everything.
    open: bool,
    begun: Begun,
    stopped: oneshot::Receiver<()>,
    _data_dir: DataDir,
}

impl Server {
    /// Opens the database, brings it up to date, builds the services, and listens. A model may take
    /// as long as it likes to start, since loading one legitimately takes minutes; the log says so
    /// meanwhile.
    ///
    /// # Errors
    /// When any of that cannot be done; nothing is left running then.
    pub async fn start(services: Vec<Service>, settings: Settings) -> Result<Self, ServeError> {
        let started = Self::start_unless(services, settings, std::future::pending()).await?;
        Ok(started.expect("nothing asked it to stop"))
    }

    /// The same, unless `stop` ends before: then what was begun is ended, and there is no server.
    async fn start_unless(
        services: Vec<Service>,
        settings: Settings,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Self>, ServeError> {
        check(&services, &settings)?;
        let mut stop = std::pin::pin!(stop);
        // First of all, so that a port that is taken costs nothing. Looking a name up may take long.
        let listener = tokio::select! {
            listener = listen(&settings) => listener?,
            () = &mut stop => return Ok(None),
        };
        let address = listener
            .local_addr()
            .map_err(|cause| ServeError::Listen { address: settings.server.host.clone(), cause })?;
        let tls = match &settings.server.tls {
            Some(files) => Some(Tls::open(files.clone()).await?),
            None => None,
        };
        let clock = Clock::system();
        let data_dir = DataDir::open(&settings.data.dir, &clock)?;
        let shared = tokio::select! {
            shared = share(&settings, &data_dir, clock) => shared?,
            () = &mut stop => return Ok(None),
        };
        let mut begun = Begun::new(&shared, &settings);
        let launched = tokio::select! {
            launched = launch(services, &shared, &settings, address, &mut begun.models) => {
                launched.map(Some)
            }
            () = &mut stop => Ok(None),
        };
        let Launched { routes, services, registrations, open } = match launched {
            Ok(Some(it)) => it,
            Ok(None) => {
                begun.stop().await;
                return Ok(None);
            }
            Err(error) => {
                begun.stop().await;
                return Err(error);
            }
        };
        let app = http::app(
            routes,
            shared.clock.clone(),
            shared.metrics.clone(),
            settings.limits(),
            settings.surroundings(),
        );
        let options = ServeOptions {
            connections: settings.server.max_connections,
            idle_timeout: settings.server.idle_timeout,
            drain: settings.server.drain,
        };
        let background = &begun.background;
        if let Some(tls) = &tls {
            tls.watch(background);
        }
        let speaks_tls = tls.is_some();
        let (done, stopped) = oneshot::channel();
        let (tasks, stopping) = (background.clone(), background.stopping().clone());
        background.spawn(async move {
            http::serve(listener, tls, app, &tasks, stopping, options).await;
            let _nobody_waits = done.send(());
        });
        // Last, because an orchestrator may call back at once.
        for (registration, id, info) in registrations {
            registration.start(&id, info, background);
        }
        let tls = speaks_tls;
        Ok(Some(Self { address, tls, services, open, begun, stopped, _data_dir: data_dir }))
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
        let url = format!("{}://{}", if self.tls { "https" } else { "http" }, self.address);
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
        if self.open {
            text.push_str(
                "\n  Nobody has to log in: whoever can ask this machine may do everything. To change that:\n\n    \
                 modelyard admin create --email YOU@EXAMPLE.ORG\n",
            );
        }
        text.push_str(&format!(
            "\n  Try next, in another terminal:\n\n    curl -s {first}/api/v1/info\n    curl -s {first}/api/v1/configs -H 'content-type: application/json' -d '{{\"name\": \"first\", \"data\": {{}}}}'\n\n  Every operation, to read and to try: {first}/docs\n  Ctrl-C stops.\n"
        ));
        text
    }

    /// Stops: requests and jobs may finish, then they are interrupted; interrupted jobs are begun
    /// again at the next start. No process and no temporary directory is left.
    pub async fn stop(self) {
        let Self { begun, stopped, .. } = self;
        begun.background.stopping().cancel();
        let _closed = tokio::time::timeout(begun.patience, stopped).await;
        begun.stop().await;
    }
}

/// What has to be ended when the process stops, or when it cannot start after all.
#[derive(Debug)]
pub(crate) struct Begun {
    background: Background,
    db: Db,
    engine: Engine,
    /// Models whose own start is done.
    pub(crate) models: Vec<Ml>,
    /// How long each kind of work may take to end.
    patience: Duration,
    work_root: Arc<Path>,
    auditing: Auditing,
}

impl Begun {
    pub(crate) fn new(shared: &Shared, settings: &Settings) -> Self {
        Self {
            background: shared.background.clone(),
            db: shared.db.clone(),
            engine: shared.engine.clone(),
            models: Vec::new(),
            patience: settings.server.drain.max(settings.jobs.drain) + Duration::from_secs(6),
            work_root: shared.work_root.clone(),
            auditing: shared.auditing.clone(),
        }
    }

    pub(crate) async fn stop(self) {
        let Self { background, db, engine, models, patience, work_root, auditing } = self;
        if !background.shutdown(patience).await {
            tracing::warn!("some work did not end in time and is left behind");
        }
        let stops = models.iter().map(|it| tokio::time::timeout(patience, it.stop()));
        if join_all(stops).await.iter().any(Result::is_err) {
            tracing::warn!("a model did not clean up in time and is left behind");
        }
        // What was let go of a moment ago may not be gone yet, and the runtime waits for nobody.
        match engine.wanted_here().await {
            Ok(wanted) => {
                if let Err(failure) = sweep_workspaces(&work_root, wanted).await {
                    tracing::warn!(%failure, "workspaces are left for the next start");
                }
            }
            Err(failure) => tracing::warn!(%failure, "workspaces are left for the next start"),
        }
        auditing.finish().await;
        db.close().await;
    }
}

/// What can be found wrong before anything is begun.
pub(crate) fn check(services: &[Service], settings: &Settings) -> Result<(), ServeError> {
    let mut ids = HashSet::new();
    for service in services {
        let id = service.info.id.as_str();
        if !ids.insert(id.to_owned()) {
            return Err(ServeError::TwoIds(id.to_owned()));
        }
    }
    if settings.jobs.workers != Workers::All {
        if !settings.database.url.starts_with("postgres") {
            return Err(ServeError::NotShared(
                "processes that split the work share a PostgreSQL: set `database.url`",
            ));
        }
        if settings.blobs.url.is_empty() {
            return Err(ServeError::NotShared(
                "processes that split the work share a store for content: set `blobs.url` to an \
                 object store, or to a directory that all of them see (`file:///…`)",
            ));
        }
    }
    Ok(())
}

async fn listen(settings: &Settings) -> Result<TcpListener, ServeError> {
    let address = (settings.server.host.as_str(), settings.server.port);
    TcpListener::bind(address).await.map_err(|cause| ServeError::Listen {
        address: format!("{}:{}", settings.server.host, settings.server.port),
        cause,
    })
}

/// Opens what the services share.
pub(crate) async fn share(
    settings: &Settings,
    data_dir: &DataDir,
    clock: Clock,
) -> Result<Shared, ServeError> {
    let db = Db::connect(&settings.database_options(data_dir.path())).await?;
    let shared = share_with(db.clone(), settings, data_dir, clock).await;
    if shared.is_err() {
        db.close().await;
    }
    shared
}

async fn share_with(
    db: Db,
    settings: &Settings,
    data_dir: &DataDir,
    clock: Clock,
) -> Result<Shared, ServeError> {
    let applied = modelyard_schema::migrate(&db, &clock).await?;
    if !applied.is_empty() {
        tracing::info!(?applied, "the database was brought up to date");
    }
    let blobs = open_blobs(settings, data_dir.path(), clock.clone())?;
    let work_root = settings.data.temp_dir.clone().unwrap_or_else(|| data_dir.path().join("work"));
    let background = Background::default();
    let node = data_dir.node().to_owned();
    let engine =
        Engine::new(db.clone(), clock.clone(), background.clone(), node, settings.jobs.options());
    let access = Access::new(settings, data_dir.path(), (&db, &clock), &background, &engine)?;
    access.check_secret().await?;
    let auditing = Auditing::new(settings, &access, (&db, &clock), &background)?;
    sweep_workspaces(&work_root, engine.wanted_here().await?).await?;
    Ok(Shared {
        access,
        auditing,
        db,
        blobs,
        clock,
        background,
        metrics: Metrics::new()?,
        engine,
        work_root: work_root.into(),
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
/// Those of `wanted` jobs stay.
async fn sweep_workspaces(root: &Path, wanted: HashSet<Ulid>) -> Result<(), DataDirError> {
    let root: PathBuf = root.to_owned();
    let swept = on_a_thread(move || {
        fs_err::create_dir_all(&root)?;
        Workspace::sweep(&root, |job| wanted.contains(&job))
    });
    let swept = swept.await.unwrap_or_else(|it| Err(std::io::Error::other(it)));
    let swept = swept.map_err(DataDirError::Unusable)?;
    if swept.workspaces > 0 {
        tracing::info!(
            workspaces = swept.workspaces,
            processes = swept.killed,
            "what was left behind is gone"
        );
    }
    Ok(())
}

/// What is ready to be served.
struct Launched {
    routes: Router,
    /// Ids and names.
    services: Vec<(String, String)>,
    /// What an orchestrator is told of, with its id and what it says of itself.
    registrations: Vec<(Pending, String, Value)>,
    /// Whether everybody who reaches a service may do everything.
    open: bool,
}

/// Builds every service, then starts the models, then the work: whatever can be found wrong is found
/// before anything runs. `started` gets each model whose start is done.
async fn launch(
    services: Vec<Service>,
    shared: &Shared,
    settings: &Settings,
    address: SocketAddr,
    started: &mut Vec<Ml>,
) -> Result<Launched, ServeError> {
    let has_identity = shared.access.is_in_use().await?;
    check_exposure(&services, settings, address, has_identity)?;
    check_links(settings, address)?;
    let alone = services.len() == 1;
    let keyed = services.iter().any(|it| has_key(it, settings));
    let open = !has_identity && services.iter().any(|it| !has_key(it, settings));
    if open {
        tracing::warn!("nobody has to log in, since there is no user and no key yet");
    }
    let limiting = Limiting::open(settings, shared)?;
    let mut names = Vec::with_capacity(services.len());
    let mut routers = Vec::with_capacity(services.len());
    let mut assembled = Vec::with_capacity(services.len());
    let mut registrations = Vec::new();
    // Whoever may ask one of the services may ask for what is all of theirs.
    let mut measured = false;
    let mut own_keys = Vec::new();
    for service in services {
        measured |= service.metrics;
        own_keys.extend(service.api_keys.iter().cloned());
        let id = service.info.id.as_str().to_owned();
        let registration = registration::prepare(&settings.registration, address)
            .map(|it| if settings.server.tls.is_some() { it.over_tls() } else { it })
            .map(|it| if alone { it } else { it.below(&format!("/services/{id}")) });
        let check = registration.as_ref().map(Pending::health_check);
        let (service, routes) =
            build(service, shared, settings, (address, keyed, &limiting), check)?;
        names.push((id.clone(), service.name.clone()));
        registrations.extend(registration.map(|it| (it, id.clone(), service.info.clone())));
        routers.push((id, routes));
        assembled.push(service);
    }
    let health = assembled.iter().map(|it| (it.id.clone(), it.health.clone())).collect();
    begin(assembled, shared, started).await?;
    let shown: Vec<_> = names.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
    let mut front = page::front(&shown).merge(health::front(health));
    if measured {
        front = front.merge(Router::from(shared.metrics.part().routes));
    }
    let keys = settings.auth.api_keys.iter().cloned();
    let authenticator = Authenticator::new("front", &settings.auth.header, keys)?
        .with_service_keys(own_keys)
        .knowing(shared.access.clone(), Rules::default())
        .told_to(shared.auditing.recorder.clone())
        .within(sites(settings, address));
    let rates = limiting.of("front", &RateLimiting::default())?.0;
    let front = front.route_layer(Guard::new(shared.auditing.recorder.clone()));
    let routes = http::mount(routers, http::guarded(front, rates, authenticator));
    Ok(Launched { routes, services: names, registrations, open })
}

/// Starts the models, then the work, then what begins it by the clock. `started` gets each model whose start is done.
pub(crate) async fn begin(
    services: Vec<Assembled>,
    shared: &Shared,
    started: &mut Vec<Ml>,
) -> Result<(), ServeError> {
    for service in &services {
        if let Some(ml) = &service.ml {
            start_model(&service.id, ml).await?;
            started.push(ml.clone());
        }
    }
    let mut schedules = Vec::new();
    for service in services {
        schedules.extend(service.schedules);
        if service.jobs.is_some() {
            shared.engine.serve(&service.id, service.work);
        }
        sweep_content(&service.id, shared);
    }
    shared.access.serve(&shared.engine);
    shared.access.keep_tidy(&shared.background);
    shared.engine.start().await?;
    shared.auditing.start(&shared.background);
    sweep_kept(shared);
    schedules.iter().for_each(Schedules::start);
    Ok(())
}

/// A service that does not run yet, and its routes behind its authenticator.
fn build(
    service: Service,
    shared: &Shared,
    settings: &Settings,
    (address, is_known_elsewhere, limiting): (SocketAddr, bool, &Limiting),
    registration: Option<HealthCheck>,
) -> Result<(Assembled, Router), ServeError> {
    for note in &service.notes {
        tracing::warn!(service = service.info.id.as_str(), "{note}");
    }
    let needs_key = has_key(&service, settings);
    warn(&service, settings);
    let (header, keys) = (&settings.auth.header, settings.auth.api_keys.iter().cloned());
    let mut authenticator = Authenticator::new(service.info.id.as_str(), header, keys)?
        .with_service_keys(service.api_keys.iter().cloned());
    if is_known_elsewhere {
        authenticator = authenticator.beside_others();
    }
    shared.access.roles().heed(service.rules.clone());
    let authenticator = authenticator
        .knowing(shared.access.clone(), service.rules.clone())
        .told_to(shared.auditing.recorder.clone())
        .within(sites(settings, address));
    let (rates, counters) = limiting.of(service.info.id.as_str(), &service.rate_limiting)?;
    let mut service = app::assemble(service, shared, registration)?;
    service.counters.extend(counters);
    shared.metrics.add_service(&service.id, std::mem::take(&mut service.counters))?;
    let mut about = About::new(service.configs.schema(), service.info.clone());
    about.key_header = needs_key.then(|| header.clone());
    let routes = std::mem::take(&mut service.routes);
    let openapi = std::mem::take(&mut service.openapi);
    let routes = page::with_pages(routes, openapi, &about)?;
    let routes = routes.route_layer(Guard::new(shared.auditing.recorder.clone()));
    Ok((service, http::guarded(routes, rates, authenticator)))
}

/// How often somebody may ask: what the settings say, and where it is counted.
struct Limiting {
    settings: RateLimits,
    store: Arc<dyn Store>,
    clock: Clock,
}

impl Limiting {
    fn open(settings: &Settings, shared: &Shared) -> Result<Self, ServeError> {
        let (settings, clock) = (settings.rate_limits.clone(), shared.clock.clone());
        let store = match &settings.redis_url {
            Some(url) => rate::open(url)?,
            None => Arc::new(MemoryStore::new(clock.clone(), ENTRIES)),
        };
        Ok(Self { settings, store, clock })
    }

    /// The layer of a service, and what it counts.
    fn of(
        &self,
        service: &str,
        own: &RateLimiting,
    ) -> Result<(Option<Rates>, Vec<Counter>), ServeError> {
        let limits = own.clone().overruled_by(&self.settings.limits).read(service);
        let limits = limits.map_err(|it| ServiceError::from(RateError::from(it)))?;
        let limiter =
            Limiter::new(self.store.clone(), self.settings.on_failure, self.clock.clone());
        let counters = limiter.counters();
        let rates = Rates::new(limiter, limits);
        let counters = rates.iter().flat_map(|_| counters.clone()).collect();
        Ok((rates, counters))
    }
}

/// Refuses to let everybody on a network do everything. `has_identity`: somebody has an account, so
/// that nobody else comes in without one.
fn check_exposure(
    services: &[Service],
    settings: &Settings,
    address: SocketAddr,
    has_identity: bool,
) -> Result<(), ServeError> {
    if has_identity || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    match services.iter().find(|it| !has_key(it, settings)) {
        Some(open) => {
            Err(ServeError::Exposed { address, service: open.info.id.as_str().to_owned() })
        }
        None => Ok(()),
    }
}

/// Refuses to send links that lead nowhere: nothing that a request says makes them.
fn check_links(settings: &Settings, address: SocketAddr) -> Result<(), ServeError> {
    let lead_somewhere = settings.mail.host.is_none()
        || settings.server.public_url.is_some()
        || address.ip().to_canonical().is_loopback();
    if lead_somewhere { Ok(()) } else { Err(ServeError::NoPublicUrl { address }) }
}

/// Whether a service is asked by those only who show a key.
fn has_key(service: &Service, settings: &Settings) -> bool {
    settings.auth.api_keys.iter().chain(&service.api_keys).any(|it| !it.is_empty())
}

/// What the operator should think about at start.
fn warn(service: &Service, settings: &Settings) {
    let id = service.info.id.as_str();
    if service.runner.is_some()
        && service.info.period_type == PeriodType::Any
        && !settings.info.provenance
    {
        tracing::warn!(
            service = id,
            "the period type is `any`, which chap-core up to 2.2 does not know, so that it refuses the \
             service; say `supported_period_type: week` or `month` in an MLproject, or \
             `period_type` in `modelyard.toml`"
        );
    }
}

/// From where a service may be asked.
fn sites(settings: &Settings, address: SocketAddr) -> Sites {
    let sites = Sites::new(settings.server.public_url.as_deref()).open_to(settings.cors());
    if !address.ip().is_loopback() {
        // Whoever is on the network may know it by a name that nobody here knows.
        return sites;
    }
    let named = registration::host(&settings.registration);
    sites.known_as([settings.server.host.clone()].into_iter().chain(named))
}

async fn start_model(service: &str, ml: &Ml) -> Result<(), ServeError> {
    let mut starting = std::pin::pin!(ml.start());
    loop {
        match tokio::time::timeout(STILL, &mut starting).await {
            Ok(started) => {
                let service = service.to_owned();
                return started.map_err(|cause| ServeError::Model { service, cause });
            }
            Err(_) => tracing::info!(service, "the model is still starting"),
        }
    }
}

/// Removes content of a service that nobody refers to any more, now and then.
fn sweep_content(service: &str, shared: &Shared) {
    let (db, blobs) = (shared.db.clone(), shared.blobs.clone());
    let system = Caller::system("sweep", TENANT, service);
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
}

/// Removes workspaces that were kept for jobs that were cancelled since, or that another process has
/// done, now and then.
fn sweep_kept(shared: &Shared) {
    let (engine, root) = (shared.engine.clone(), Arc::clone(&shared.work_root));
    let stopping = shared.background.stopping().clone();
    shared.background.spawn(async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(SWEEP_KEPT) => {}
            }
            if let Err(failure) = sweep_kept_now(&engine, Arc::clone(&root)).await {
                tracing::error!(%failure, "workspaces that no job needs are not removed");
            }
        }
    });
}

async fn sweep_kept_now(engine: &Engine, root: Arc<Path>) -> Result<(), Failure> {
    // Before their jobs are asked for: one that is kept later may be of a job that was unknown then.
    let kept = compute(move || Workspace::kept(&root)).await?.map_err(Failure::internal)?;
    if kept.is_empty() {
        return Ok(());
    }
    let wanted = engine.wanted_here().await?;
    let remove = move || {
        for it in kept.into_iter().filter(|it| !wanted.contains(&it.job)) {
            let job = it.job;
            match it.remove() {
                Ok(true) => tracing::info!(%job, "a workspace that its job left behind is gone"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%job, %error, "a workspace could not be removed"),
            }
        }
    };
    compute(remove).await
}

/// The wish that the process stops: Ctrl-C, or `SIGTERM`.
#[derive(Debug)]
pub(crate) struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, ServeError> {
        let listen = |kind| signal(kind).map_err(ServeError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Ends when the process is, or was, asked to stop.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use modelyard_run::runner::Run;
    use modelyard_testkit::TestDatabase;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn what_a_main_prints_is_a_sentence_and_its_cause() {
        let cause = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let error = ServeError::Listen { address: "127.0.0.1:9090".to_owned(), cause };
        let printed: Box<dyn Error> = error.into();
        assert_eq!(
            format!("{printed:?}"),
            "127.0.0.1:9090 cannot be listened on; choose another with `--port`\n  because: address in use"
        );
    }

    #[tokio::test]
    async fn workspaces_that_no_job_needs_are_removed_while_the_server_runs() {
        let database = TestDatabase::sqlite().await;
        let (db, clock) = (database.db.clone(), database.clock.clone());
        let options = modelyard_flow::job::Options::default();
        let engine = Engine::new(db, clock, Background::default(), "here".to_owned(), options);
        let root = tempfile::tempdir().unwrap();
        let keep = async |job: &str| {
            let (job, cancel) = (Ulid::read(job).unwrap(), CancellationToken::new());
            let run = Run::begin_kept(root.path(), job, cancel).await.unwrap();
            run.workspace.keep().await.unwrap();
            run
        };
        let in_use = keep("01K6ZSNMWZ5D2YVTV9H3Y4P7QX").await;
        drop(keep("01K6ZSNMX01N3C9F8Q2R6B7V5D").await);
        let entries = || fs_err::read_dir(root.path()).unwrap().count();
        assert_eq!(entries(), 2);
        sweep_kept_now(&engine, root.path().into()).await.unwrap();
        assert_eq!(entries(), 1);
        assert!(in_use.workspace.path().unwrap().exists());
    }
}
