//! Where settings come from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use modelyard_flow::job::{PolicyChange, Workers};
use modelyard_ml::project::units;
use modelyard_ops::rate::{MOST_LIMITS, OnFailure, Per, Policy, RateLimiting};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::merge::Layers;
use super::{
    Access, Audit, Auth, BlobStore, Data, Database, ForwardedHeader, InfoSettings, Jobs, LogFormat,
    Logging, Mail, RateLimits, Registration, Server, Settings, Tasks, TlsFiles,
};
use crate::http::{RateError, check_endpoint};

const DEFAULTS: &str = include_str!("../../settings.default.toml");
/// The settings file, where none is named.
pub(super) const FILE: &str = "modelyard.toml";
/// Variables of ours: `MODELYARD_SERVER__PORT` is `server.port`.
const PREFIX: &str = "MODELYARD_";
/// Variables of ours that scripts see and that are no settings.
const FOR_SCRIPTS: [&str; 1] = ["MODELYARD_WORKSPACE"];

/// The names that those who come from chapkit know, and the settings that they are.
pub(super) const CONTRACT: [(&str, &str); 12] = [
    ("HOST", "server.host"),
    ("SERVICEKIT_PORT", "registration.port"),
    ("PORT", "server.port"),
    ("DATABASE_URL", "database.url"),
    ("LOG_LEVEL", "logging.level"),
    ("LOG_FORMAT", "logging.format"),
    ("CHAPKIT_TEMP_DIR", "data.temp_dir"),
    ("SERVICEKIT_API_KEYS", "auth.api_keys"),
    ("SERVICEKIT_ORCHESTRATOR_URL", "registration.url"),
    ("SERVICEKIT_HOST", "registration.host"),
    ("SERVICEKIT_REGISTRATION_KEY", "registration.key"),
    ("GIT_REVISION", "info.git_revision"),
];

/// The table of endpoints that have limits of their own.
const ENDPOINTS: &str = "rate_limits.endpoints.";

/// What the command line says, and the program itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Settings that the program brings, `section.key` and value, written as in a variable. Whatever
    /// an operator says wins over them.
    pub program: Vec<(String, String)>,
    /// The settings file; `modelyard.toml` in the current directory unless given.
    pub file: Option<PathBuf>,
    /// `server.host`.
    pub host: Option<String>,
    /// `server.port`.
    pub port: Option<u16>,
    /// `data.dir`.
    pub data_dir: Option<PathBuf>,
    /// `database.url`.
    pub database: Option<String>,
    /// `registration.url`.
    pub register: Option<String>,
    /// `jobs.concurrency`.
    pub concurrency: Option<usize>,
    /// `jobs.workers`.
    pub workers: Option<String>,
}

/// A setting is wrong.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("the settings cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// The file is no TOML.
    #[error("{file}{line}: {message}")]
    Syntax {
        /// Which file.
        file: String,
        /// `:LINE`, when it is known.
        line: String,
        /// What is wrong.
        message: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting `{key}`{hint}")]
    Unknown {
        /// The key.
        key: String,
        /// Where it stands.
        origin: String,
        /// What was probably meant.
        hint: String,
    },
    /// The value is of another type or out of bounds.
    #[error("{origin}: `{key}` is {expected}")]
    Wrong {
        /// The key.
        key: String,
        /// Where it stands.
        origin: String,
        /// What it should be.
        expected: String,
    },
    /// Several of those, each on a line.
    #[error("{}", lines(.0))]
    Several(Vec<SettingsError>),
}

fn lines(problems: &[SettingsError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl SettingsError {
    /// All that was found wrong, or nothing.
    fn check(mut problems: Vec<Self>) -> Result<(), Self> {
        match problems.len() {
            0 => Ok(()),
            1 => Err(problems.remove(0)),
            _ => {
                problems.sort_by_key(|it| it.line().unwrap_or(usize::MAX));
                Err(Self::Several(problems))
            }
        }
    }

    /// The line of the file where it is wrong.
    fn line(&self) -> Option<usize> {
        match self {
            Self::Unknown { origin, .. } | Self::Wrong { origin, .. } => {
                origin.rsplit_once(':')?.1.parse().ok()
            }
            _ => None,
        }
    }

    pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|it| text.get(..it.start));
        let line = before.map(|it| format!(":{}", it.matches('\n').count() + 1));
        Self::Syntax {
            file: file.to_owned(),
            line: line.unwrap_or_default(),
            message: error.message().to_owned(),
        }
    }
}

impl Settings {
    /// Reads the settings of this process.
    ///
    /// # Errors
    /// Says which settings are wrong and where they stand.
    pub fn load(options: &Options) -> Result<Self, SettingsError> {
        let text = |it: OsString| it.into_string().ok();
        // What is no text is none of ours.
        let environment = std::env::vars_os().filter_map(|it| Some((text(it.0)?, text(it.1)?)));
        Self::from_sources(options, environment)
    }

    /// The defaults, whatever the environment says; for programs that set everything themselves.
    ///
    /// # Errors
    /// When an option is wrong.
    pub fn with_options(options: &Options) -> Result<Self, SettingsError> {
        let mut layers = Layers::defaults(DEFAULTS)?;
        let mut problems = program(&mut layers, options);
        problems.extend(command_line(&mut layers, options));
        build(layers, problems)
    }

    pub(super) fn from_sources(
        options: &Options,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let mut layers = Layers::defaults(DEFAULTS)?;
        let mut problems = program(&mut layers, options);
        let fallback = PathBuf::from(FILE);
        let path = match &options.file {
            Some(path) => Some(path),
            None => fallback.is_file().then_some(&fallback),
        };
        if let Some(path) = path {
            let text = fs_err::read_to_string(path).map_err(SettingsError::Unreadable)?;
            problems.extend(layers.file(&path.display().to_string(), &text)?);
        }
        problems.extend(variables(&mut layers, environment));
        problems.extend(command_line(&mut layers, options));
        build(layers, problems)
    }
}

/// What the program itself says, in the order in which it does.
fn program(layers: &mut Layers, options: &Options) -> Vec<SettingsError> {
    let given = options.program.iter();
    given.filter_map(|(key, text)| layers.text(key, text, "program").err()).collect()
}

fn variables(
    layers: &mut Layers,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Vec<SettingsError> {
    let mut problems = Vec::new();
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for (name, text) in environment {
        // Compose files pass on variables that nobody has set as empty ones.
        if text.is_empty() || FOR_SCRIPTS.contains(&name.as_str()) {
            continue;
        }
        if let Some(key) = name.strip_prefix(PREFIX) {
            if key.contains("__") {
                ours.push((key.to_lowercase().replace("__", "."), text, name));
            } else {
                problems.extend(refuse_slip(layers, key, &text, &name).err());
            }
        } else if let Some(at) = CONTRACT.iter().position(|it| it.0 == name) {
            theirs.push((at, text));
        }
    }
    // Ours win over the contract's.
    theirs.sort_by_key(|it| it.0);
    ours.sort();
    let theirs = theirs.into_iter().map(|(at, text)| {
        let (name, key) = CONTRACT[at];
        (key.to_owned(), text, name.to_owned())
    });
    for (key, text, name) in theirs.chain(ours) {
        problems.extend(layers.text(&key, &text, &format!("variable {name}")).err());
    }
    problems
}

/// Brings what may be written in several ways into one.
fn normalise(layers: &mut Layers) -> Vec<SettingsError> {
    let address = "an address that begins with `sqlite:` or `postgres://`";
    let level =
        "`error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,hyper=warn`";
    let public = "an `http://` or `https://` address such as `https://models.example.org`, without \
                  query and fragment";
    let done = [
        layers.rewrite("database.url", database_url, address),
        layers.rewrite("logging.level", log_level, level),
        layers.rewrite("server.public_url", public_url, public),
    ];
    done.into_iter().filter_map(Result::err).collect()
}

/// An address that a path can be put behind.
fn public_url(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    let url = Url::parse(text).ok().filter(|it| matches!(it.scheme(), "http" | "https"))?;
    let is_plain = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    is_plain.then(|| url.as_str().trim_end_matches('/').to_owned())
}

/// A variable with one underscore where two were meant. Others are not ours to judge: next to a
/// service of the name `modelyard`, Kubernetes sets `MODELYARD_SERVICE_HOST` and the like.
fn refuse_slip(layers: &Layers, key: &str, text: &str, name: &str) -> Result<(), SettingsError> {
    let meant = key.to_lowercase().replacen('_', ".", 1);
    if layers.get(&meant).is_none() || text.starts_with("tcp://") || text.starts_with("udp://") {
        return Ok(());
    }
    let (section, key) = meant.split_once('.').unwrap_or((&meant, ""));
    let hint = format!("{PREFIX}{section}__{key}").to_uppercase();
    Err(SettingsError::Unknown {
        key: name.to_owned(),
        origin: format!("variable {name}"),
        hint: format!(", did you mean `{hint}`?"),
    })
}

/// The address of a database in our form. `SQLAlchemy`'s is taken as well, wherever it stands: there,
/// three slashes before a file are a relative path and four an absolute one.
fn database_url(text: &str) -> Option<String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let is_ours =
            text.is_empty() || text.strip_prefix("sqlite:").is_some_and(|it| !it.is_empty());
        return is_ours.then(|| text.to_owned());
    };
    match scheme.split('+').next()? {
        "sqlite" => {
            let path = rest.split('?').next()?;
            match path.strip_prefix('/').unwrap_or(path) {
                "" => Some("sqlite::memory:".to_owned()),
                path => Some(format!("sqlite:{path}")),
            }
        }
        "postgresql" | "postgres" => Some(format!("postgres://{rest}")),
        _ => None,
    }
}

/// A filter of the log, with the levels of Python's `logging` under our names.
fn log_level(text: &str) -> Option<String> {
    let parts = text.split(',').map(|part| {
        let (target, level) = match part.trim().rsplit_once('=') {
            Some((target, level)) => (Some(target), level),
            None => (None, part.trim()),
        };
        let level = match level.to_lowercase().as_str() {
            "error" | "critical" | "fatal" => "error",
            "warn" | "warning" => "warn",
            "info" => "info",
            "debug" => "debug",
            "trace" | "notset" => "trace",
            "off" => "off",
            _ => return None,
        };
        Some(target.map_or_else(|| level.to_owned(), |it| format!("{it}={level}")))
    });
    let filter = parts.collect::<Option<Vec<_>>>()?.join(",");
    EnvFilter::try_new(&filter).is_ok().then_some(filter)
}

fn command_line(layers: &mut Layers, options: &Options) -> Vec<SettingsError> {
    let Options {
        file: _,
        program: _,
        host,
        port,
        data_dir,
        database,
        register,
        concurrency,
        workers,
    } = options;
    let path = |it: &PathBuf| it.display().to_string();
    let given = [
        ("server.host", "--host", host.clone()),
        ("server.port", "--port", port.map(|it| it.to_string())),
        ("data.dir", "--data-dir", data_dir.as_ref().map(path)),
        ("database.url", "--database", database.clone()),
        ("registration.url", "--register", register.clone()),
        ("jobs.concurrency", "--concurrency", concurrency.map(|it| it.to_string())),
        ("jobs.workers", "--queues", workers.clone()),
    ];
    let given = given.into_iter().filter_map(|(key, option, text)| Some((key, option, text?)));
    given
        .filter_map(|(key, option, text)| {
            layers.text(key, &text, &format!("option {option}")).err()
        })
        .collect()
}

/// Reads values in the types that they are used in. What is wrong is noted, and stands as nothing
/// until all is read.
struct Reader<'a> {
    layers: &'a Layers,
    problems: RefCell<Vec<SettingsError>>,
}

impl Reader<'_> {
    fn wrong<T: Default>(&self, key: &str, expected: impl Into<String>) -> T {
        let origin = self.layers.get(key).map_or_else(String::new, |it| it.1.to_owned());
        let wrong = SettingsError::Wrong { key: key.to_owned(), origin, expected: expected.into() };
        self.problems.borrow_mut().push(wrong);
        T::default()
    }

    fn text(&self, key: &str) -> String {
        let value = self.layers.get(key).and_then(|it| it.0.as_str());
        value.unwrap_or_default().to_owned()
    }

    fn some(&self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|it| !it.is_empty())
    }

    fn flag(&self, key: &str) -> bool {
        self.layers.get(key).and_then(|it| it.0.as_bool()).unwrap_or(false)
    }

    fn number<T: TryFrom<i64> + Default>(&self, key: &str, least: i64) -> T {
        let value = self.layers.get(key).and_then(|it| it.0.as_integer());
        let value = value.filter(|it| *it >= least).and_then(|it| T::try_from(it).ok());
        value.unwrap_or_else(|| self.wrong(key, format!("a whole number from {least}")))
    }

    fn duration(&self, key: &str) -> Duration {
        units::duration(&self.text(key)).unwrap_or_else(|| self.wrong(key, units::DURATION))
    }

    fn size(&self, key: &str) -> u64 {
        units::size(&self.text(key)).unwrap_or_else(|| self.wrong(key, units::SIZE))
    }

    /// Values by name: `train=1, predict=4`.
    fn by_name<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let text = self.text(key);
        let parts = text.split(',').map(str::trim).filter(|it| !it.is_empty());
        let parts = parts.map(|it| {
            let (name, value) = it.split_once('=')?;
            Some((name.trim().to_owned(), read(value.trim())?))
        });
        parts.collect::<Option<_>>().unwrap_or_else(|| self.wrong(key, expected))
    }

    /// What is changed of how often and how long jobs of a kind are tried.
    fn policies(&self) -> BTreeMap<String, PolicyChange> {
        let from_one = |it: &str| it.parse().ok().filter(|it| *it > 0);
        let attempts = self.by_name(
            "jobs.attempts",
            "kinds of jobs and numbers from 1, such as `ml.train=1`",
            from_one,
        );
        let durations = |key| {
            self.by_name(key, "kinds of jobs and durations, such as `ml.train=4h`", units::duration)
        };
        let mut policies: BTreeMap<String, PolicyChange> = BTreeMap::new();
        for (kind, most) in attempts {
            policies.entry(kind).or_default().max_attempts = Some(most);
        }
        for (kind, pause) in durations("jobs.backoff") {
            policies.entry(kind).or_default().backoff = Some(pause);
        }
        for (kind, longest) in durations("jobs.attempt_timeout") {
            policies.entry(kind).or_default().attempt_timeout = Some(longest);
        }
        policies
    }

    /// `all`, `none`, or names of queues.
    fn workers(&self) -> Workers {
        match self.text("jobs.workers").trim() {
            "all" => Workers::All,
            "none" => Workers::None,
            names => {
                let names: Vec<String> = names
                    .split(',')
                    .map(str::trim)
                    .filter(|it| !it.is_empty())
                    .map(ToOwned::to_owned)
                    .collect();
                if names.is_empty() {
                    return self.wrong("jobs.workers", "`all`, `none`, or names of queues");
                }
                Workers::Queues(names)
            }
        }
    }

    /// The values of a list that stand for something. A list that somebody set and that names nothing
    /// is wrong: it is meant to let somebody in, or to keep others out.
    fn list<T>(&self, key: &str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let Some((value, origin)) = self.layers.get(key) else { return Vec::new() };
        let values = value.as_array().into_iter().flatten();
        let values: Option<Vec<T>> = values.map(|it| read(it.as_str()?.trim())).collect();
        let from_variable = origin.starts_with("variable");
        match values.filter(|it| !it.is_empty() || !from_variable) {
            Some(values) => values,
            None => self.wrong(key, expected),
        }
    }

    fn networks(&self, key: &str) -> Vec<IpNet> {
        let expected = "a list of networks and addresses, such as \"10.0.0.0/8\" and \
                        \"2001:db8::7\", none of which is everybody";
        self.list(key, expected, network)
    }

    /// Pages of other sites.
    fn origins(&self) -> Vec<String> {
        let expected = "a list of origins as browsers write them, such as \
                        \"https://console.example.org\", without path, or \"*\"";
        let origins = self.list("server.cors_origins", expected, origin);
        if origins.iter().any(|it| it == "*") && self.flag("server.cors_credentials") {
            let expected = "`false` when `server.cors_origins` has \"*\": any page at all could \
                            act as whoever looks at it; name the origins";
            return self.wrong("server.cors_credentials", expected);
        }
        origins
    }

    /// How often somebody may ask.
    fn rate_limits(&self) -> RateLimits {
        let quota = self.some("rate_limits.quota").filter(|it| match Policy::quota(it) {
            Ok(_) => true,
            Err(why) => {
                self.wrong("rate_limits.quota", format!("a quota such as \"5000/day\"; {why}"))
            }
        });
        let default = self.layers.get("rate_limits.default").map(|it| it.0);
        let mut limits = RateLimiting {
            default: default.map_or_else(Vec::new, |it| self.limits("rate_limits.default", it)),
            quota,
            per: Per::named(&self.text("rate_limits.per")).unwrap_or_else(|| {
                self.wrong("rate_limits.per", "`caller`, `user`, `key`, `tenant` or `address`")
            }),
            ..RateLimiting::default()
        };
        for (key, value) in self.layers.below(ENDPOINTS) {
            let path = key.strip_prefix(ENDPOINTS).unwrap_or_default();
            match check_endpoint(path) {
                Ok(()) => drop(limits.endpoints.insert(path.to_owned(), self.limits(key, value))),
                Err(RateError::Unknown { hint, .. }) => {
                    self.wrong::<()>(key, format!("no endpoint{hint}"));
                }
                Err(other) => self.wrong(key, format!("no limit: {other}")),
            }
        }
        RateLimits {
            limits,
            redis_url: self.some("rate_limits.redis_url"),
            on_failure: match self.text("rate_limits.on_failure").as_str() {
                "open" => OnFailure::Open,
                "closed" => OnFailure::Closed,
                _ => self.wrong("rate_limits.on_failure", "`open` or `closed`"),
            },
        }
    }

    /// A list of limits. One that is empty is none, but for an endpoint, which is free then.
    fn limits(&self, key: &str, value: &toml::Value) -> Vec<String> {
        let expected = |why: &str| format!("a list of limits such as [\"100/minute\"]{why}");
        let texts = value.as_array().map(|it| it.iter().map(|it| it.as_str()));
        let Some(texts) = texts.and_then(|it| it.collect::<Option<Vec<&str>>>()) else {
            return self.wrong(key, expected(""));
        };
        if texts.len() > MOST_LIMITS - 1 {
            return self.wrong(key, expected(&format!(", at most {} of them", MOST_LIMITS - 1)));
        }
        for text in &texts {
            if let Err(why) = text.parse::<Policy>() {
                return self.wrong(key, expected(&format!("; of `{text}`: {why}")));
            }
        }
        texts.into_iter().map(str::to_owned).collect()
    }

    /// Both files, or none.
    fn tls(&self) -> Option<TlsFiles> {
        let file = |key| self.some(key).map(PathBuf::from);
        match (file("server.tls_certificate"), file("server.tls_key")) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (certificate, _) => {
                let (lacks, has) = match certificate {
                    Some(_) => ("server.tls_key", "server.tls_certificate"),
                    None => ("server.tls_certificate", "server.tls_key"),
                };
                self.wrong(lacks, format!("a file when `{has}` is one"))
            }
        }
    }

    /// Keys of the setting and of the file.
    fn auth(&self) -> Result<Auth, SettingsError> {
        let (list, origin) = self
            .layers
            .get("auth.api_keys")
            .map_or((None, "default"), |it| (it.0.as_array(), it.1));
        let keys = list.into_iter().flatten();
        let keys = keys.map(|it| it.as_str().filter(|it| !it.trim().is_empty()).map(str::to_owned));
        let mut api_keys = match keys.collect::<Option<Vec<_>>>() {
            Some(keys) => keys,
            None => self.wrong("auth.api_keys", "a list of texts, none of them empty"),
        };
        if api_keys.is_empty() && origin.starts_with("variable") {
            // Who says something of keys must not let everybody in by a slip.
            api_keys = self.wrong("auth.api_keys", "at least one key, or else leave it out");
        }
        if let Some(file) = self.some("auth.api_key_file") {
            let text = fs_err::read_to_string(file).map_err(SettingsError::Unreadable)?;
            let lines = text.lines().map(|it| without_comment(it).trim());
            let before = api_keys.len();
            api_keys.extend(lines.filter(|it| !it.is_empty()).map(ToOwned::to_owned));
            if api_keys.len() == before {
                // An empty file must not mean that everybody may come in.
                api_keys = self.wrong("auth.api_key_file", "a file with at least one key");
            }
        }
        let api_key_file = self.some("auth.api_key_file").map(PathBuf::from);
        Ok(Auth { api_keys, api_key_file, header: self.text("auth.header") })
    }
}

/// Reads what the layers come to. `problems` are those that they have already.
fn build(mut layers: Layers, mut problems: Vec<SettingsError>) -> Result<Settings, SettingsError> {
    problems.extend(normalise(&mut layers));
    let it = Reader { layers: &layers, problems: RefCell::new(problems) };
    let settings = Settings {
        server: Server {
            host: it.text("server.host"),
            port: it.number("server.port", 0),
            public_url: it.some("server.public_url"),
            tls: it.tls(),
            trusted_proxies: it.networks("server.trusted_proxies"),
            forwarded_header: match it.text("server.forwarded_header").to_lowercase().as_str() {
                "x-forwarded-for" => ForwardedHeader::XForwardedFor,
                "forwarded" => ForwardedHeader::Forwarded,
                _ => it.wrong("server.forwarded_header", "`x-forwarded-for` or `forwarded`"),
            },
            cors_origins: it.origins(),
            cors_credentials: it.flag("server.cors_credentials"),
            admin_networks: it.networks("server.admin_networks"),
            request_timeout: it.duration("server.request_timeout"),
            body_limit: it.size("server.body_limit"),
            max_connections: it.number("server.max_connections", 1),
            max_requests: it.number("server.max_requests", 1),
            idle_timeout: it.duration("server.idle_timeout"),
            drain: it.duration("server.drain"),
        },
        data: Data {
            dir: it.text("data.dir").into(),
            temp_dir: it.some("data.temp_dir").map(PathBuf::from),
        },
        database: Database {
            url: it.text("database.url"),
            pool_size: it.number("database.pool_size", 1),
            connect_timeout: it.duration("database.connect_timeout"),
        },
        blobs: BlobStore { url: it.text("blobs.url"), options: layers.free() },
        jobs: Jobs {
            concurrency: it.number("jobs.concurrency", 1),
            total: it.number("jobs.total", 0),
            queues: it.by_name(
                "jobs.queues",
                "names of queues and numbers from 1, such as `train=1, task=4`",
                |it| it.parse().ok().filter(|it| *it > 0),
            ),
            policies: it.policies(),
            workers: it.workers(),
            max_pending: it.number("jobs.max_pending", 1),
            max_pending_bytes: it.size("jobs.max_pending_bytes"),
            retention: it.duration("jobs.retention"),
            drain: it.duration("jobs.drain"),
        },
        tasks: Tasks { shell: it.flag("tasks.shell") },
        auth: it.auth()?,
        access: Access {
            secret: it.some("access.secret"),
            secret_file: it.some("access.secret_file").map(PathBuf::from),
            session_idle: it.duration("access.session_idle"),
            session_lifetime: it.duration("access.session_lifetime"),
            token_lifetime: it.duration("access.token_lifetime"),
        },
        audit: Audit {
            enabled: it.flag("audit.enabled"),
            reads: it.flag("audit.reads"),
            keep: it.duration("audit.keep"),
        },
        mail: Mail {
            host: it.some("mail.host"),
            port: Some(it.number("mail.port", 0)).filter(|it| *it != 0),
            security: match it.text("mail.security") {
                named if matches!(&*named, "none" | "starttls" | "tls") => named,
                _ => it.wrong("mail.security", "`starttls`, `tls` or `none`"),
            },
            user: it.some("mail.user"),
            password: it.some("mail.password"),
            password_file: it.some("mail.password_file").map(PathBuf::from),
            from: it.text("mail.from"),
        },
        rate_limits: it.rate_limits(),
        registration: Registration {
            url: it.some("registration.url"),
            host: it.some("registration.host"),
            port: Some(it.number("registration.port", 0)).filter(|it| *it != 0),
            key: it.some("registration.key"),
            keepalive_interval: it.duration("registration.keepalive_interval"),
            retries: it.number("registration.retries", 0),
            retry_delay: it.duration("registration.retry_delay"),
            grace: it.duration("registration.grace"),
        },
        logging: Logging {
            level: it.text("logging.level"),
            format: match it.text("logging.format").as_str() {
                "console" => LogFormat::Console,
                "json" => LogFormat::Json,
                _ => it.wrong("logging.format", "`console` or `json`"),
            },
        },
        info: InfoSettings {
            provenance: it.flag("info.provenance"),
            git_revision: it.some("info.git_revision"),
        },
        shown: layers.shown(),
    };
    SettingsError::check(it.problems.into_inner())?;
    Ok(settings)
}

/// A network, or an address alone. Whoever means everybody leaves the list empty.
fn network(text: &str) -> Option<IpNet> {
    let network =
        text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network.map(|it| it.trunc()).filter(|it| it.prefix_len() > 0)
}

/// An origin as browsers write it.
fn origin(text: &str) -> Option<String> {
    if text == "*" {
        return Some(text.to_owned());
    }
    let url = Url::parse(text).ok().filter(|it| matches!(it.scheme(), "http" | "https"))?;
    let origin = url.origin().ascii_serialization();
    // Without the path and user that an origin has not; a usual port is left out by browsers, too.
    let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    (plain && url.username().is_empty() && url.password().is_none()).then_some(origin)
}

/// A `#` begins a comment where a word could begin: within one it belongs to the key.
fn without_comment(line: &str) -> &str {
    let begins = |at: &usize| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let end = line.match_indices('#').map(|it| it.0).find(begins);
    end.map_or(line, |end| &line[..end])
}
