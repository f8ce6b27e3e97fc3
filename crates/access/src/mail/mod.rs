//! Mail: what the program tells its users when they are not looking.
//!
//! A mail is a job that is added in the transaction of what it tells of, so that there is none of a
//! change that was not made, and none is lost. What a job has to remember of a mail is sealed: there may be
//! a link in it that lets somebody in.

mod smtp;
mod template;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use lettre::message::Mailbox;
use modelyard_flow::job::{self, JobId, Jobs, NewJob, Submission};
use modelyard_kernel::{
    Assignment, Clock, Conn, Failed, Failure, Kind, Part, Policy, Result, Scope, Time, Ulid,
    Wishes, Work,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::secret::Secret;
pub use smtp::{Smtp, SmtpOptions, SmtpSecurity};
use template::Templates;
pub use template::{INVITATION_DAYS, RESET_MINUTES};

/// The kind of job that sends a mail.
pub const KIND: &str = "mail.send";
/// The queue that mails wait in.
const QUEUE: &str = "mail";

/// How often a mail is tried: for a day, since servers are down for hours.
const POLICY: Policy = Policy {
    max_attempts: 12,
    backoff: Duration::from_secs(30),
    max_backoff: Duration::from_secs(3 * 60 * 60),
    attempt_timeout: Some(Duration::from_secs(90)),
    deadline: Some(Duration::from_secs(24 * 60 * 60)),
};

/// Who mails are from, and where their links lead.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the product is called.
    pub product: String,
    /// Where clients find the service. Links lead there, whatever a request says.
    pub public_url: Url,
    /// The sender, such as `Modelyard <no-reply@example.org>`.
    pub from: String,
}

/// A mail to one user.
#[derive(Debug)]
pub struct Mail {
    /// The address.
    pub to: String,
    /// What its user is called.
    pub name: String,
    /// What it says.
    pub letter: Letter,
}

/// What a mail says.
pub enum Letter {
    /// Somebody may come in.
    Invitation {
        /// What lets them.
        token: String,
    },
    /// Somebody has forgotten a password.
    PasswordReset {
        /// What allows to set another.
        token: String,
    },
    /// Somebody came in.
    NewLogin {
        /// When.
        at: Time,
        /// From where.
        address: String,
        /// With what.
        user_agent: String,
    },
    /// A second factor is another, or gone.
    FactorChanged {
        /// What became of it, as the end of a sentence.
        change: &'static str,
        /// When.
        at: Time,
    },
    /// A password is another.
    PasswordChanged {
        /// When.
        at: Time,
    },
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.template())
    }
}

/// A mail as a mailer sends it.
#[derive(Clone)]
#[expect(missing_docs, reason = "they are what every mail has")]
pub struct Message {
    /// Is the same however often it is tried.
    pub id: Ulid,
    pub at: Time,
    pub from: Mailbox,
    pub to: Mailbox,
    pub subject: String,
    pub text: String,
    pub html: String,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// It may go well later.
    #[error("{0}")]
    Later(String),
    /// It would be refused again.
    #[error("{0}")]
    Never(String),
}

/// Sends mails.
#[async_trait]
pub trait Mailer: fmt::Debug + Send + Sync {
    /// Gives a mail to somebody who delivers it.
    async fn send(&self, message: &Message) -> Result<(), MailError>;
}

/// Sends nothing, and says so: for development, where no server is configured.
#[derive(Clone, Copy, Debug)]
pub struct Unsent;

#[async_trait]
impl Mailer for Unsent {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        let to = Sha256::digest(message.to.email.to_string().as_bytes());
        let to: String = to.iter().take(4).map(|it| format!("{it:02x}")).collect();
        let subject = &message.subject;
        tracing::warn!(subject, to, "a mail was not sent, since no SMTP server is configured");
        Ok(())
    }
}

/// What a job remembers of a mail.
#[derive(Serialize, Deserialize)]
struct Stored {
    to: String,
    name: String,
    template: String,
    values: BTreeMap<String, String>,
}

/// Why mails cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("`{0}` is no sender, such as `Modelyard <no-reply@example.org>`")]
    From(String),
    #[error("links of mails cannot lead to `{0}`, but to an address that begins with https://")]
    PublicUrl(Url),
}

/// Mails that are to be sent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mails(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    jobs: Jobs,
    clock: Clock,
    secret: Secret,
    mailer: Arc<dyn Mailer>,
    templates: Templates,
    product: String,
    public_url: Url,
    from: Mailbox,
}

impl Mails {
    /// Mails that `mailer` sends.
    ///
    /// # Errors
    /// When the options are none.
    pub fn new(
        jobs: Jobs,
        clock: Clock,
        secret: Secret,
        mailer: Arc<dyn Mailer>,
        options: Options,
    ) -> Result<Self, OptionsError> {
        let Options { product, public_url, from } = options;
        let Ok(mailbox) = from.parse() else { return Err(OptionsError::From(from)) };
        if !matches!(public_url.scheme(), "http" | "https") || public_url.host().is_none() {
            return Err(OptionsError::PublicUrl(public_url));
        }
        let (templates, from) = (Templates::new(), mailbox);
        let product = template::clean(&product);
        let inner = Inner { jobs, clock, secret, mailer, templates, product, public_url, from };
        Ok(Self(Arc::new(inner)))
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "mail", work: vec![self.work()], ..Part::default() }
    }

    /// What the product is called.
    pub fn product(&self) -> &str {
        &self.0.product
    }

    /// Sends mails; for the service that is the deployment itself.
    pub fn work(&self) -> Work {
        let it = self.clone();
        let run = move |assignment| {
            let it = it.clone();
            async move { it.send(assignment).await }.boxed()
        };
        Work {
            kind: KIND,
            queue: QUEUE,
            permission: crate::user::WRITE,
            policy: POLICY,
            run: Arc::new(run),
        }
    }

    /// Has a mail sent, once the transaction of whatever it tells of has committed; call
    /// [`Mails::wake`] then.
    ///
    /// # Errors
    /// `queue_full` when too many wait.
    pub async fn submit(&self, conn: &mut Conn, scope: &Scope, mail: Mail) -> Result<Submission> {
        let Mail { to, name, letter } = mail;
        let stored = Stored {
            to,
            name: template::clean(&name),
            template: letter.template().to_owned(),
            values: letter.values(&self.0.public_url),
        };
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(&stored)?);
        let input = self.0.secret.seal(KIND, &plain)?;
        let wishes = Wishes { deadline: letter.is_of_use_for(), ..Wishes::default() };
        let id = JobId::new(&self.0.clock);
        let new = NewJob { wishes, ..NewJob::new(id, KIND, input) };
        self.0.jobs.submit(conn, scope, new).await
    }

    /// Has a mail sent that only tells of a change. When too many wait, as they do while the server is
    /// away, the change goes ahead without.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn notify(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        mail: Mail,
    ) -> Result<Option<Submission>> {
        match self.submit(conn, scope, mail).await {
            Ok(submitted) => Ok(Some(submitted)),
            Err(failure) if failure.kind() == Kind::Exhausted => {
                tracing::warn!(%failure, "a notice is not mailed");
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Tells of mails that were committed.
    pub fn wake(&self, submitted: impl IntoIterator<Item = Submission>) {
        for it in submitted {
            self.0.jobs.wake(&it);
        }
    }

    async fn send(&self, assignment: Assignment) -> Result<(), Failed> {
        let message = self.message(&assignment)?;
        match self.0.mailer.send(&message).await {
            Ok(()) => {}
            Err(MailError::Later(why)) => return Err(Failed::new("OSError", why).transient()),
            Err(MailError::Never(why)) => return Err(Failed::new("ValueError", why)),
        }
        // It must not be sent again because the database was away for a moment.
        let scope = assignment.caller.permit(job::WRITE)?;
        let jobs = &self.0.jobs;
        let complete = || jobs.complete(scope, (&assignment).into(), None);
        Ok(jobs.patiently(&assignment, complete).await?)
    }

    fn message(&self, assignment: &Assignment) -> Result<Message, Failed> {
        let opened = self.0.secret.open(KIND, &assignment.input)?;
        let stored: Stored = serde_json::from_slice(&opened).map_err(Failure::internal)?;
        let Stored { to, name, template, values } = stored;
        // The answer is not repeated: addresses are not for the records of jobs.
        let address = to.parse().map_err(|_| Failed::new("ValueError", "it is no mail address"))?;
        let rendered = self.0.templates.render(&template, &self.0.product, &name, &values)?;
        Ok(Message {
            id: assignment.job,
            at: self.0.clock.now(),
            from: self.0.from.clone(),
            to: Mailbox::new(Some(name).filter(|it| !it.is_empty()), address),
            subject: rendered.subject,
            text: rendered.text,
            html: rendered.html,
        })
    }
}
