//! Sends mails by SMTP.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use lettre::message::MultiPart;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use zeroize::Zeroizing;

use super::{MailError, Mailer, Message};

/// How long the server may take for one command.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a connection to a server is kept from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmtpSecurity {
    /// Not at all.
    None,
    /// It becomes TLS before anything is said; a server that cannot is not told anything.
    #[default]
    StartTls,
    /// It is TLS from the start.
    Tls,
}

impl SmtpSecurity {
    /// The one of this name in the settings.
    pub fn read(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "starttls" => Some(Self::StartTls),
            "tls" => Some(Self::Tls),
            _ => None,
        }
    }

    /// Where servers listen for it unless they are told otherwise.
    pub fn port(self) -> u16 {
        match self {
            Self::None => 25,
            Self::StartTls => 587,
            Self::Tls => 465,
        }
    }
}

/// Which server takes mails.
#[derive(Clone)]
pub struct SmtpOptions {
    /// Its name.
    pub host: String,
    /// Its port; that of `security` unless given.
    pub port: Option<u16>,
    /// How the connection is kept from others.
    pub security: SmtpSecurity,
    /// User and password, where it wants one.
    pub credentials: Option<(String, Zeroizing<String>)>,
    /// Who has signed its certificate, as PEM, where that is nobody whom the system trusts.
    pub authority: Option<Vec<u8>>,
    /// What this machine calls itself, where the server looks at that.
    pub hello: Option<String>,
}

impl fmt::Debug for SmtpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpOptions").field("host", &self.host).finish_non_exhaustive()
    }
}

/// A server that takes mails.
#[derive(Debug)]
pub struct Smtp(AsyncSmtpTransport<Tokio1Executor>);

impl Smtp {
    /// The server of these options.
    ///
    /// # Errors
    /// When a password would be sent in the clear, or the authority is none.
    pub fn new(options: SmtpOptions) -> Result<Self, MailError> {
        let SmtpOptions { host, port, security, credentials, authority, hello } = options;
        if credentials.is_some() && security == SmtpSecurity::None && !is_here(&host) {
            return Err(MailError::Never(format!(
                "a password is not sent to `{host}` without TLS, choose `starttls` or `tls`"
            )));
        }
        let parameters = || {
            let mut parameters = TlsParameters::builder(host.clone());
            if let Some(pem) = &authority {
                parameters = parameters.add_root_certificate(Certificate::from_pem(pem)?);
            }
            parameters.build_rustls()
        };
        let tls = match security {
            SmtpSecurity::None => Tls::None,
            SmtpSecurity::StartTls => Tls::Required(parameters().map_err(never)?),
            SmtpSecurity::Tls => Tls::Wrapper(parameters().map_err(never)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(port.unwrap_or_else(|| security.port()))
            .timeout(Some(PATIENCE))
            .tls(tls);
        if let Some(hello) = hello {
            builder = builder.hello_name(ClientId::Domain(hello));
        }
        if let Some((user, password)) = credentials {
            builder = builder.credentials(Credentials::new(user, password.to_string()));
        }
        Ok(Self(builder.build()))
    }
}

fn never(error: impl fmt::Display) -> MailError {
    MailError::Never(error.to_string())
}

/// Whether a server is on this machine.
fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback())
}

#[async_trait]
impl Mailer for Smtp {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        let letter = letter(message).map_err(never)?;
        match self.0.send(letter).await {
            Ok(_accepted) => Ok(()),
            // `client` is what the server cannot do at all, such as TLS.
            Err(error) if error.is_permanent() || error.is_client() => Err(never(error)),
            Err(error) => Err(MailError::Later(error.to_string())),
        }
    }
}

fn letter(message: &Message) -> Result<lettre::Message, lettre::error::Error> {
    let Message { id, at, from, to, subject, text, html } = message;
    let micros = u64::try_from(at.micros()).unwrap_or(0);
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    lettre::Message::builder()
        .date(UNIX_EPOCH + Duration::from_micros(micros))
        // The same for every try, so that one that arrives twice can be told.
        .message_id(Some(format!("<{id}@{}>", from.email.domain())))
        .from(from.clone())
        .to(to.clone())
        .subject(subject)
        // So that nobody's out-of-office answers.
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .multipart(MultiPart::alternative_plain_html(text.clone(), html.clone()))
}
