//! The audit, put together: what it is signed with, and what the edge tells it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use axum::response::Response;
use http::{Method, StatusCode, Uri};
use modelyard_access::token::Tokens;
use modelyard_kernel::failure::Unrendered;
use modelyard_kernel::{Background, Caller, Clock, Db, Part, Result};
use modelyard_ops::audit::model::Keys;
use modelyard_ops::audit::{Audit, Options, Recorder, Refusal, Signature, Signer};
use pin_project_lite::pin_project;

use crate::access::Access;
use crate::app::TENANT;
use crate::http::without_secrets;
use crate::settings::Settings;

/// The audit of a deployment, and what tells it of refusals and of what administrators look at. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct Auditing {
    /// The audit.
    pub audit: Audit,
    /// What tells it; nothing where nobody keeps an audit.
    pub recorder: Option<Recorder>,
}

impl Auditing {
    /// Puts it together.
    ///
    /// # Errors
    /// Never, but for a defect.
    pub(crate) fn new(
        settings: &Settings,
        access: &Access,
        (db, clock): (&Db, &Clock),
        background: &Background,
    ) -> Result<Self> {
        let audit = open(settings, access, db, clock);
        let recorder = match settings.audit.enabled {
            true => {
                let (db, clock, reads) = (db.clone(), clock.clone(), settings.audit.reads);
                Some(Recorder::new(db, clock, background, TENANT, reads)?)
            }
            false => None,
        };
        Ok(Self { audit, recorder })
    }

    /// What it brings to each service.
    pub(crate) fn part(&self) -> Part {
        let mut part = self.audit.part();
        part.counters.extend(self.recorder.as_ref().map(Recorder::counter));
        part
    }

    /// Takes what is told into the chains, until the process stops.
    pub(crate) fn start(&self, background: &Background) {
        if self.recorder.is_some() {
            self.audit.start(background);
        }
    }

    /// The same for the last time.
    pub(crate) async fn finish(&self) {
        if self.recorder.is_none() {
            return;
        }
        if let Err(failure) = self.audit.finish().await {
            tracing::warn!(%failure, "what was told at last is taken into the audit at the next start");
        }
    }
}

/// The audit alone, for commands.
pub(crate) fn open(settings: &Settings, access: &Access, db: &Db, clock: &Clock) -> Audit {
    let keep = Some(settings.audit.keep).filter(|it| !it.is_zero());
    let options = Options { keep, reads: settings.audit.reads };
    let signer = Arc::new(OfTokens(access.tokens().clone()));
    Audit::new(db.clone(), clock.clone(), signer, options)
}

/// Signs with the keys that sign access tokens.
#[derive(Debug)]
struct OfTokens(Tokens);

#[async_trait]
impl Signer for OfTokens {
    async fn sign(&self, text: &[u8]) -> Result<Signature> {
        let (kid, public_key, signature) = self.0.sign(text).await?;
        Ok(Signature { kid, public_key, signature })
    }

    async fn keys(&self) -> Result<Keys> {
        Ok(self.0.public_keys().await?.into_iter().collect())
    }
}

/// What is asked, for whoever writes down that it was refused.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) caller: Caller,
    pub(crate) deployment: bool,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) recorder: Recorder,
}

impl Asked {
    /// As an entry names it: without the query, in which somebody may be named.
    pub(crate) fn named(method: &Method, uri: &Uri) -> String {
        format!("{method} {}", without_secrets(uri.path()))
    }

    /// Tells that it was refused, if it was.
    pub(crate) fn tell(&self, response: &Response) {
        if response.status() != StatusCode::FORBIDDEN {
            return;
        }
        let failure = response.extensions().get::<Unrendered>();
        let code = failure.map_or("permission_denied", |it| it.0.code());
        let refusal = Refusal { code, status: StatusCode::FORBIDDEN.as_u16() };
        let what = Self::named(&self.method, &self.uri);
        self.recorder.refused(&self.caller, self.deployment, what, &refusal);
    }
}

pin_project! {
    /// An answer on its way, of which a refusal is told.
    #[derive(Debug)]
    pub struct Watched<F> {
        #[pin]
        inner: F,
        asked: Option<Asked>,
    }
}

impl<F> Watched<F> {
    pub(crate) fn new(inner: F, asked: Option<Asked>) -> Self {
        Self { inner, asked }
    }
}

impl<F: Future<Output = Result<Response, E>>, E> Future for Watched<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        if let (Some(asked), Ok(response)) = (this.asked.take(), &answer) {
            asked.tell(response);
        }
        Poll::Ready(answer)
    }
}
