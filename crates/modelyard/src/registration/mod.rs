//! Telling an orchestrator that a service is here: register, keep alive, and say goodbye, as the
//! contract's clients do.
//!
//! Whatever goes wrong is logged and shown as degraded health, and tried again; a service works
//! without its orchestrator.

mod orchestrator;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use modelyard_kernel::part::Checked;
use modelyard_kernel::{Background, Health, HealthCheck};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::settings::Registration;
use orchestrator::{Orchestrator, Trouble};

/// How long an orchestrator may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a stop waits for the orchestrator to hear of it.
const GOODBYE: Duration = Duration::from_secs(3);

/// A registration that is wanted and not begun.
#[derive(Debug)]
pub struct Pending {
    settings: Registration,
    orchestrator: String,
    url: String,
    state: State,
}

/// What [`Pending::health_check`] answers.
#[derive(Clone, Debug)]
struct State(Arc<Mutex<Checked>>);

impl State {
    fn healthy(&self) {
        *self.0.lock() = (Health::Healthy, None);
    }

    fn degraded(&self, why: impl Into<String>) {
        *self.0.lock() = (Health::Degraded, Some(why.into()));
    }
}

/// A registration with the orchestrator that the settings name, if they name one. `address` is
/// where the process listens.
pub fn prepare(settings: &Registration, address: SocketAddr) -> Option<Pending> {
    let orchestrator = settings.url.clone()?;
    let host = host(settings)?;
    let port = settings.port.unwrap_or_else(|| address.port());
    // An IPv6 address stands in brackets.
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let url = format!("http://{host}:{port}");
    if address.ip().is_loopback() && !is_here(&url) && !is_here(&orchestrator) {
        tracing::warn!(
            url,
            "the orchestrator is told an address that it cannot reach, since this process listens \
             to its own machine only; set `server.host`, or `registration.host` and `.port`"
        );
    }
    let state =
        State(Arc::new(Mutex::new((Health::Degraded, Some("not registered yet".to_owned())))));
    Some(Pending { settings: settings.clone(), orchestrator, url, state })
}

/// What the orchestrator that the settings name is told to call this machine.
pub fn host(settings: &Registration) -> Option<String> {
    settings.url.is_some().then(|| settings.host.clone().unwrap_or_else(machine))
}

/// What the machine is called on its network.
fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn is_here(url: &str) -> bool {
    Url::parse(url).is_ok_and(|it| match it.host() {
        Some(url::Host::Domain(it)) => it == "localhost",
        Some(url::Host::Ipv4(it)) => it.is_loopback(),
        Some(url::Host::Ipv6(it)) => it.is_loopback(),
        None => false,
    })
}

impl Pending {
    /// The service is not at the root but below `path`, such as `/services/my-model`.
    #[must_use]
    pub fn below(mut self, path: &str) -> Self {
        self.url.push_str(path);
        self
    }

    /// The same, where TLS is spoken.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.url = self.url.replacen("http://", "https://", 1);
        self
    }

    /// Healthy while the orchestrator knows the service.
    pub fn health_check(&self) -> HealthCheck {
        let state = self.state.clone();
        let ask = move || futures_util::future::ready(state.0.lock().clone()).boxed();
        HealthCheck { name: "registration", ask: Arc::new(ask) }
    }

    /// Registers, keeps the registration alive until the process stops, and takes it back then.
    /// `info` is what `/api/v1/info` answers.
    pub fn start(self, id: &str, info: Value, background: &Background) {
        let Self { settings, orchestrator, url, state } = self;
        let key = settings.key.as_deref();
        let orchestrator = match Orchestrator::new(&orchestrator, key, PATIENCE) {
            Ok(it) => it,
            Err(trouble) => {
                tracing::error!(service = id, %trouble, "the service cannot register");
                state.degraded(trouble.to_string());
                return;
            }
        };
        let body = json!({"id": id, "url": url, "info": info});
        let stopping = background.stopping().clone();
        let id = id.to_owned();
        background.spawn(Member { settings, orchestrator, id, body, state, stopping }.live());
    }
}

/// A service in its life with an orchestrator.
struct Member {
    settings: Registration,
    orchestrator: Orchestrator,
    id: String,
    body: Value,
    state: State,
    stopping: CancellationToken,
}

impl Member {
    async fn live(self) {
        let stopping = self.stopping.clone();
        let mut registered = false;
        // Wherever it is, a stop ends it.
        let _stopped = stopping.run_until_cancelled(self.stay(&mut registered)).await;
        if registered {
            self.leave().await;
        }
    }

    async fn stay(&self, registered: &mut bool) {
        loop {
            let ping = self.register().await;
            *registered = true;
            self.keep_alive(ping.as_ref()).await;
            tracing::warn!(service = self.id, "the orchestrator has forgotten the service");
            self.state.degraded("the orchestrator has forgotten the service");
            tokio::time::sleep(self.settings.grace).await;
        }
    }

    /// Tries until it succeeds: a few times in quick succession, then now and again.
    async fn register(&self) -> Option<Url> {
        let mut attempt: u32 = 0;
        loop {
            attempt = attempt.saturating_add(1);
            let trouble = match self.orchestrator.register(&self.id, &self.body).await {
                Ok(ping) => {
                    tracing::info!(service = self.id, "registered with the orchestrator");
                    self.state.healthy();
                    return ping;
                }
                Err(it) => it,
            };
            self.state.degraded(format!("not registered: {trouble}"));
            let pause = if attempt < self.settings.retries {
                tracing::warn!(service = self.id, attempt, %trouble, "not registered yet");
                self.settings.retry_delay
            } else {
                let every = self.settings.grace;
                if attempt == self.settings.retries.max(1) {
                    tracing::error!(service = self.id, %trouble, ?every, "not registered, trying again now and then");
                }
                every
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Pings until the orchestrator does not know the service any more.
    async fn keep_alive(&self, ping: Option<&Url>) {
        let Some(ping) = ping else {
            // It did not say where to ping, so it does not expect to be.
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(self.settings.keepalive_interval).await;
            match self.orchestrator.ping(ping).await {
                Ok(()) => self.state.healthy(),
                Err(Trouble::Refused(status)) if status.as_u16() == 404 => return,
                Err(trouble) => {
                    tracing::warn!(service = self.id, %trouble, "the registration is not kept alive");
                    self.state.degraded(format!("not kept alive: {trouble}"));
                }
            }
        }
    }

    async fn leave(&self) {
        match tokio::time::timeout(GOODBYE, self.orchestrator.leave(&self.id)).await {
            Ok(Ok(())) => tracing::info!(service = self.id, "no longer registered"),
            Ok(Err(trouble)) => {
                tracing::warn!(service = self.id, %trouble, "the registration is not taken back");
            }
            Err(_) => {
                tracing::warn!(service = self.id, "the orchestrator does not answer a goodbye");
            }
        }
    }
}
