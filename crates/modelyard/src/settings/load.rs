//! Where settings come from.

use std::path::PathBuf;
use std::time::Duration;

use modelyard_ml::project::units;

use super::merge::Layers;
use super::{
    Auth, BlobStore, Data, Database, InfoSettings, Jobs, LogFormat, Logging, Registration, Server,
    Settings, Tasks,
};

const DEFAULTS: &str = include_str!("../../settings.default.toml");
/// Variables of ours: `MODELYARD_SERVER__PORT` is `server.port`.
const PREFIX: &str = "MODELYARD_";
/// Variables of ours that scripts see and that are no settings.
const FOR_SCRIPTS: [&str; 1] = ["MODELYARD_WORKSPACE"];

/// The names that those who come from chapkit know, and the settings that they are.
const CONTRACT: [(&str, &str); 12] = [
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

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Options {
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
}

impl SettingsError {
    pub(super) fn syntax(file: &str, error: &toml::de::Error) -> Self {
        Self::Syntax {
            file: file.to_owned(),
            line: String::new(),
            message: error.to_string().trim().to_owned(),
        }
    }
}

impl Settings {
    /// Reads the settings of this process.
    ///
    /// # Errors
    /// Says which setting is wrong and where it stands.
    pub fn load(options: &Options) -> Result<Self, SettingsError> {
        Self::from_sources(options, std::env::vars())
    }

    /// The defaults, whatever the environment says; for programs that set everything themselves.
    ///
    /// # Errors
    /// When an option is wrong.
    pub fn with_options(options: &Options) -> Result<Self, SettingsError> {
        let mut layers = Layers::defaults(DEFAULTS)?;
        command_line(&mut layers, options)?;
        build(&layers)
    }

    pub(super) fn from_sources(
        options: &Options,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let mut layers = Layers::defaults(DEFAULTS)?;
        let fallback = PathBuf::from("modelyard.toml");
        let path = match &options.file {
            Some(path) => Some(path),
            None => fallback.is_file().then_some(&fallback),
        };
        if let Some(path) = path {
            let text = fs_err::read_to_string(path).map_err(SettingsError::Unreadable)?;
            layers.file(&path.display().to_string(), &text)?;
        }
        variables(&mut layers, environment)?;
        command_line(&mut layers, options)?;
        build(&layers)
    }
}

fn variables(
    layers: &mut Layers,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(), SettingsError> {
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for (name, text) in environment {
        if FOR_SCRIPTS.contains(&name.as_str()) {
            continue;
        }
        if let Some(key) = name.strip_prefix(PREFIX) {
            ours.push((key.to_lowercase().replace("__", "."), text, name));
        } else if let Some(at) = CONTRACT.iter().position(|it| it.0 == name) {
            theirs.push((at, text));
        }
    }
    // Ours win over the contract's.
    theirs.sort_by_key(|it| it.0);
    for (at, text) in theirs {
        let (name, key) = CONTRACT[at];
        let text = if key == "database.url" { database_url(&text) } else { text.to_owned() };
        let text = if key == "logging.level" { text.to_lowercase() } else { text };
        layers.text(key, &text, &format!("variable {name}"))?;
    }
    ours.sort();
    for (key, text, name) in ours {
        layers.text(&key, &text, &format!("variable {name}"))?;
    }
    Ok(())
}

/// An address as SQLAlchemy writes it, in ours.
fn database_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    match scheme.split('+').next().unwrap_or(scheme) {
        // Three slashes are a relative path there, four an absolute one.
        "sqlite" => format!("sqlite:{}", rest.strip_prefix('/').unwrap_or(rest)),
        "postgresql" | "postgres" => format!("postgres://{rest}"),
        _ => text.to_owned(),
    }
}

fn command_line(layers: &mut Layers, options: &Options) -> Result<(), SettingsError> {
    let Options { file: _, host, port, data_dir, database, register, concurrency } = options;
    let path = |it: &PathBuf| it.display().to_string();
    for (key, option, text) in [
        ("server.host", "--host", host.clone()),
        ("server.port", "--port", port.map(|it| it.to_string())),
        ("data.dir", "--data-dir", data_dir.as_ref().map(path)),
        ("database.url", "--database", database.clone()),
        ("registration.url", "--register", register.clone()),
        ("jobs.concurrency", "concurrency", concurrency.map(|it| it.to_string())),
    ] {
        if let Some(text) = text {
            layers.text(key, &text, &format!("option {option}"))?;
        }
    }
    Ok(())
}

/// Reads values in the types that they are used in.
struct Reader<'a>(&'a Layers);

impl Reader<'_> {
    fn wrong(&self, key: &str, expected: impl Into<String>) -> SettingsError {
        let origin = self.0.get(key).map_or_else(String::new, |it| it.1.to_owned());
        SettingsError::Wrong { key: key.to_owned(), origin, expected: expected.into() }
    }

    fn text(&self, key: &str) -> String {
        let value = self.0.get(key).and_then(|it| it.0.as_str());
        value.unwrap_or_default().to_owned()
    }

    fn some(&self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|it| !it.is_empty())
    }

    fn flag(&self, key: &str) -> bool {
        self.0.get(key).and_then(|it| it.0.as_bool()).unwrap_or(false)
    }

    fn number<T: TryFrom<i64>>(&self, key: &str, least: i64) -> Result<T, SettingsError> {
        let value = self.0.get(key).and_then(|it| it.0.as_integer()).filter(|it| *it >= least);
        let value = value.and_then(|it| T::try_from(it).ok());
        value.ok_or_else(|| self.wrong(key, format!("a whole number from {least}")))
    }

    fn duration(&self, key: &str) -> Result<Duration, SettingsError> {
        units::duration(&self.text(key)).ok_or_else(|| self.wrong(key, units::DURATION))
    }

    fn size(&self, key: &str) -> Result<u64, SettingsError> {
        units::size(&self.text(key)).ok_or_else(|| self.wrong(key, units::SIZE))
    }
}

fn build(layers: &Layers) -> Result<Settings, SettingsError> {
    let it = Reader(layers);
    Ok(Settings {
        server: Server {
            host: it.text("server.host"),
            port: it.number("server.port", 0)?,
            request_timeout: it.duration("server.request_timeout")?,
            body_limit: it.size("server.body_limit")?,
            max_connections: it.number("server.max_connections", 1)?,
            max_requests: it.number("server.max_requests", 1)?,
            idle_timeout: it.duration("server.idle_timeout")?,
            drain: it.duration("server.drain")?,
        },
        data: Data {
            dir: it.text("data.dir").into(),
            temp_dir: it.some("data.temp_dir").map(PathBuf::from),
        },
        database: Database {
            url: it.text("database.url"),
            pool_size: it.number("database.pool_size", 1)?,
            connect_timeout: it.duration("database.connect_timeout")?,
        },
        blobs: BlobStore { url: it.text("blobs.url"), options: layers.free() },
        jobs: Jobs {
            concurrency: it.number("jobs.concurrency", 1)?,
            max_pending: it.number("jobs.max_pending", 1)?,
            drain: it.duration("jobs.drain")?,
        },
        tasks: Tasks { shell: it.flag("tasks.shell") },
        auth: auth(&it)?,
        registration: Registration {
            url: it.some("registration.url"),
            host: it.some("registration.host"),
            port: Some(it.number("registration.port", 0)?).filter(|it| *it != 0),
            key: it.some("registration.key"),
            keepalive_interval: it.duration("registration.keepalive_interval")?,
            retries: it.number("registration.retries", 0)?,
            retry_delay: it.duration("registration.retry_delay")?,
            grace: it.duration("registration.grace")?,
        },
        logging: Logging {
            level: it.text("logging.level"),
            format: match it.text("logging.format").as_str() {
                "console" => LogFormat::Console,
                "json" => LogFormat::Json,
                _ => return Err(it.wrong("logging.format", "`console` or `json`")),
            },
        },
        info: InfoSettings {
            provenance: it.flag("info.provenance"),
            git_revision: it.some("info.git_revision"),
        },
        shown: layers.shown(),
    })
}

/// Keys of the setting and of the file.
fn auth(it: &Reader<'_>) -> Result<Auth, SettingsError> {
    let list = it.0.get("auth.api_keys").and_then(|it| it.0.as_array());
    let mut api_keys = Vec::new();
    for key in list.into_iter().flatten() {
        let text = key.as_str().filter(|it| !it.is_empty());
        api_keys.push(text.ok_or_else(|| it.wrong("auth.api_keys", "a list of texts"))?.to_owned());
    }
    if let Some(file) = it.some("auth.api_key_file") {
        let text = fs_err::read_to_string(file).map_err(SettingsError::Unreadable)?;
        let lines = text.lines().map(|it| it.split('#').next().unwrap_or_default().trim());
        let before = api_keys.len();
        api_keys.extend(lines.filter(|it| !it.is_empty()).map(ToOwned::to_owned));
        if api_keys.len() == before {
            // An empty file must not mean that everybody may come in.
            return Err(it.wrong("auth.api_key_file", "a file with at least one key"));
        }
    }
    Ok(Auth { api_keys, header: it.text("auth.header") })
}
