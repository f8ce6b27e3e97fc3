//! What is said to an orchestrator, and what it answers.

use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use url::Url;

/// What an orchestrator is called with.
const KEY: &str = "x-service-key";
/// The longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;

/// An orchestrator, seen from a service. Nobody else is called, so that nobody else gets the key.
#[derive(Debug)]
pub(super) struct Orchestrator {
    client: Client,
    register: Url,
    key: Option<HeaderValue>,
}

/// Why something was not done. Never has the address, which may have a password in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The settings do not work.
    #[error("{0}")]
    Settings(String),
    /// No answer.
    #[error("the orchestrator does not answer: {0}")]
    Silent(String),
    /// An answer that says no.
    #[error("the orchestrator answered {0}")]
    Refused(StatusCode),
    /// An answer that is not understood.
    #[error("the orchestrator's answer is not understood")]
    Puzzling,
}

impl Orchestrator {
    pub(super) fn new(url: &str, key: Option<&str>, timeout: Duration) -> Result<Self, Trouble> {
        let wrong = |it: &str| Trouble::Settings(format!("`registration.{it}` cannot be used"));
        let register = Url::parse(url).map_err(|_| wrong("url"))?;
        if !matches!(register.scheme(), "http" | "https") || !register.has_host() {
            return Err(wrong("url"));
        }
        let key = key.map(HeaderValue::from_str).transpose().map_err(|_| wrong("key"))?;
        let key = key.map(|mut it| {
            it.set_sensitive(true);
            it
        });
        // Somebody else in the process may have chosen already, which is as good.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(concat!("modelyard/", env!("CARGO_PKG_VERSION")))
            // Wherever one leads, the key would go along.
            .redirect(Policy::none())
            .timeout(timeout);
        if register.scheme() == "http" {
            // Nobody needs the certificates of the system, which a small container has not.
            client = client.tls_certs_only([]);
        }
        let client = client.build().map_err(|it| Trouble::Settings(reason(&it)))?;
        Ok(Self { client, register, key })
    }

    /// Registers, and gives the address to ping, if there is one.
    pub(super) async fn register(&self, id: &str, body: &Value) -> Result<Option<Url>, Trouble> {
        let request = self.client.post(self.register.clone()).json(body);
        let mut answer = self.send(request).await?;
        let mut bytes = Vec::new();
        while let Some(more) = answer.chunk().await.map_err(|it| Trouble::Silent(reason(&it)))? {
            bytes.extend_from_slice(&more);
            if bytes.len() > MAX_ANSWER {
                return Err(Trouble::Puzzling);
            }
        }
        let answer: Value = serde_json::from_slice(&bytes).map_err(|_| Trouble::Puzzling)?;
        let Some(ping) = answer.get("ping_url").and_then(Value::as_str) else { return Ok(None) };
        let ping = self.register.join(ping).map_err(|_| Trouble::Puzzling)?;
        if ping.origin() == self.register.origin() {
            return Ok(Some(ping));
        }
        // Behind a proxy it may not know what it is called from outside.
        tracing::warn!(
            service = id,
            "the orchestrator names an address at another host to ping, and is pinged at its own"
        );
        Ok(Some(self.place(id, "/$ping")))
    }

    /// Says that the service is still there.
    pub(super) async fn ping(&self, url: &Url) -> Result<(), Trouble> {
        // The contract's clients send a length although there is no body.
        let request = self.client.put(url.clone()).header(http::header::CONTENT_LENGTH, 0);
        self.send(request).await.map(drop)
    }

    /// Takes the registration back.
    pub(super) async fn leave(&self, id: &str) -> Result<(), Trouble> {
        self.send(self.client.delete(self.place(id, ""))).await.map(drop)
    }

    /// Where the orchestrator has a service, and what is below that.
    fn place(&self, id: &str, below: &str) -> Url {
        let mut url = self.register.clone();
        let path = url.path();
        let collection = path.strip_suffix("/$register").unwrap_or(path).trim_end_matches('/');
        let path = format!("{collection}/{id}{below}");
        url.set_path(&path);
        url
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<Response, Trouble> {
        if let Some(key) = &self.key {
            request = request.header(KEY, key.clone());
        }
        let answer = request.send().await.map_err(|it| Trouble::Silent(reason(&it)))?;
        let status = answer.status();
        if status.is_success() { Ok(answer) } else { Err(Trouble::Refused(status)) }
    }
}

/// What went wrong, without the address.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(it) = innermost.source() {
        innermost = it;
    }
    innermost.to_string()
}
