//! Settings: how this process runs. What a model is stands in its manifest.
//!
//! Defaults are in `settings.default.toml` alone. Over them come what a program brings
//! ([`ServiceBuilder::with_setting`](crate::ServiceBuilder::with_setting)), `modelyard.toml`, the
//! environment and the command line; the later wins. Whatever is unknown or mistyped is an error that says
//! where it stands and what was probably meant.

pub mod flags;
mod load;
mod merge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use modelyard_flow::job::{PolicyChange, Workers};
use modelyard_kernel::db;
use modelyard_ops::rate::{OnFailure, RateLimiting};

use crate::http::{Cors, Limits, Proxies, Surroundings};

pub use crate::http::{ForwardedHeader, TlsFiles};
pub use load::{Options, SettingsError};
pub use merge::Shown;

/// How this process runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The HTTP edge.
    pub server: Server,
    /// The data directory.
    pub data: Data,
    /// The database.
    pub database: Database,
    /// The store for content.
    pub blobs: BlobStore,
    /// The jobs of each service.
    pub jobs: Jobs,
    /// Stored commands and functions.
    pub tasks: Tasks,
    /// Who may come in.
    pub auth: Auth,
    /// Users, sessions and their secret.
    pub access: Access,
    /// What is written down of who did what.
    pub audit: Audit,
    /// Where mails go.
    pub mail: Mail,
    /// How often somebody may ask.
    pub rate_limits: RateLimits,
    /// The orchestrator.
    pub registration: Registration,
    /// What is written to standard error.
    pub logging: Logging,
    /// What the services say of themselves.
    pub info: InfoSettings,
    shown: Vec<Shown>,
}

/// The HTTP edge.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub public_url: Option<String>,
    pub tls: Option<TlsFiles>,
    pub trusted_proxies: Vec<IpNet>,
    pub forwarded_header: ForwardedHeader,
    pub cors_origins: Vec<String>,
    pub cors_credentials: bool,
    pub admin_networks: Vec<IpNet>,
    pub request_timeout: Duration,
    pub body_limit: u64,
    pub max_connections: usize,
    pub max_requests: usize,
    pub idle_timeout: Duration,
    pub drain: Duration,
}

/// The data directory.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Data {
    pub dir: PathBuf,
    pub temp_dir: Option<PathBuf>,
}

/// The database.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Database {
    pub url: String,
    pub pool_size: usize,
    pub connect_timeout: Duration,
}

/// The store for content.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct BlobStore {
    pub url: String,
    pub options: Vec<(String, String)>,
}

/// The jobs of each service.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Jobs {
    pub concurrency: usize,
    pub total: usize,
    pub queues: BTreeMap<String, usize>,
    pub policies: BTreeMap<String, PolicyChange>,
    pub workers: Workers,
    pub max_pending: i64,
    pub max_pending_bytes: u64,
    pub retention: Duration,
    pub drain: Duration,
}

impl Jobs {
    /// The same for the engine.
    pub fn options(&self) -> modelyard_flow::job::Options {
        let Self { concurrency, total, max_pending, max_pending_bytes, retention, drain, .. } =
            *self;
        modelyard_flow::job::Options {
            workers: self.workers.clone(),
            concurrency,
            total,
            queues: self.queues.clone(),
            policies: self.policies.clone(),
            max_pending,
            max_pending_bytes: i64::try_from(max_pending_bytes).unwrap_or(i64::MAX),
            drain,
            retention,
        }
    }
}

/// Stored commands and functions.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Tasks {
    pub shell: bool,
}

/// Who may come in. `api_keys` has those of the file as well.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Auth {
    pub api_keys: Vec<String>,
    pub api_key_file: Option<PathBuf>,
    pub header: String,
}

/// Users, sessions and their secret.
#[derive(Clone)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Access {
    pub secret: Option<String>,
    pub secret_file: Option<PathBuf>,
    pub session_idle: Duration,
    pub session_lifetime: Duration,
    pub token_lifetime: Duration,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("secret_file", &self.secret_file).finish_non_exhaustive()
    }
}

/// What is written down of who did what.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Audit {
    pub enabled: bool,
    pub reads: bool,
    pub keep: Duration,
}

/// Where mails go.
#[derive(Clone)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Mail {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub security: String,
    pub user: Option<String>,
    pub password: Option<String>,
    pub password_file: Option<PathBuf>,
    pub from: String,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mail").field("host", &self.host).finish_non_exhaustive()
    }
}

/// How often somebody may ask.
#[derive(Clone)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct RateLimits {
    pub limits: RateLimiting,
    pub redis_url: Option<String>,
    pub on_failure: OnFailure,
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimits").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The orchestrator.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Registration {
    pub url: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub key: Option<String>,
    pub keepalive_interval: Duration,
    pub retries: u32,
    pub retry_delay: Duration,
    pub grace: Duration,
}

/// What is written to standard error.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct Logging {
    pub level: String,
    pub format: LogFormat,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Console,
    /// One JSON object a line.
    Json,
}

/// What the services say of themselves.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the comments of settings.default.toml are the documentation")]
pub struct InfoSettings {
    pub provenance: bool,
    pub git_revision: Option<String>,
}

impl Settings {
    /// Every setting with its value and where it comes from; secrets are masked.
    pub fn effective(&self) -> &[Shown] {
        &self.shown
    }

    /// Bounds of every request.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            body_bytes: self.server.body_limit,
            request_timeout: self.server.request_timeout,
            concurrent_requests: self.server.max_requests,
            concurrent_streams: (self.server.max_requests / 2)
                .min(self.server.max_connections / 4)
                .max(1),
            ..Limits::default()
        }
    }

    /// Pages of other sites that may ask.
    pub(crate) fn cors(&self) -> Cors {
        let Server { cors_origins, cors_credentials, .. } = &self.server;
        Cors::new(cors_origins, *cors_credentials)
    }

    /// What is around the process on its network.
    pub(crate) fn surroundings(&self) -> Surroundings {
        let Server { public_url, trusted_proxies, forwarded_header, admin_networks, .. } =
            &self.server;
        Surroundings {
            public_url: public_url.clone(),
            proxies: Proxies {
                trusted: trusted_proxies.clone(),
                header: *forwarded_header,
                ..Proxies::default()
            },
            cors: self.cors(),
            admin_networks: admin_networks.clone(),
        }
    }

    /// How to open the database, when the data directory is this one.
    pub fn database_options(&self, data_dir: &Path) -> db::Options {
        let url = match self.database.url.as_str() {
            "" => format!("sqlite:{}", data_dir.join("modelyard.db").display()),
            url => url.to_owned(),
        };
        db::Options {
            url,
            pool_size: self.database.pool_size,
            connect_timeout: self.database.connect_timeout,
            events: self.audit.enabled,
            ..db::Options::default()
        }
    }
}
