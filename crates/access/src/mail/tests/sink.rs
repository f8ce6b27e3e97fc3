//! An SMTP server that keeps what it is sent.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use modelyard_kernel::Background;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::mail::SmtpSecurity;

/// A server on a port of its own.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    pub(crate) port: u16,
    /// Who has signed its certificate, as PEM.
    pub(crate) authority: String,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    mails: Vec<Received>,
    /// Every line that a client has said but for those of mails.
    said: Vec<String>,
    /// Replies to the next mails instead of taking them.
    refusals: Vec<&'static str>,
}

/// A mail that was taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// The recipients of the envelope.
    pub(crate) to: Vec<String>,
    /// Headers and body as they came.
    pub(crate) data: String,
}

impl Sink {
    /// One without TLS.
    pub(crate) async fn start(background: &Background) -> Self {
        Self::start_with(background, SmtpSecurity::None).await
    }

    /// One that calls itself `localhost`.
    pub(crate) async fn start_with(background: &Background, security: SmtpSecurity) -> Self {
        let (acceptor, authority) = certified();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let kept = Arc::<Mutex<Kept>>::default();
        let (shared, owner) = (Arc::clone(&kept), background.clone());
        background.spawn(async move {
            loop {
                let connection = tokio::select! {
                    it = listener.accept() => it.unwrap().0,
                    () = owner.stopping().cancelled() => return,
                };
                let (kept, acceptor) = (Arc::clone(&shared), acceptor.clone());
                owner.spawn(async move {
                    let _client_went_away = serve(connection, &kept, security, acceptor).await;
                });
            }
        });
        Self { port, authority, kept }
    }

    /// Replies so to the next mail.
    pub(crate) fn refuse(&self, reply: &'static str) {
        self.kept.lock().refusals.push(reply);
    }

    pub(crate) fn mails(&self) -> Vec<Received> {
        self.kept.lock().mails.clone()
    }

    pub(crate) fn said(&self) -> Vec<String> {
        self.kept.lock().said.clone()
    }

    /// The mails, once there are so many.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        for _ in 0..1000 {
            let mails = self.mails();
            if mails.len() >= count {
                return mails;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{} mails came, not {count}", self.mails().len());
    }
}

/// A certificate for `localhost`, and who has signed it.
fn certified() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

async fn serve(
    mut connection: TcpStream,
    kept: &Mutex<Kept>,
    security: SmtpSecurity,
    acceptor: TlsAcceptor,
) -> std::io::Result<()> {
    let greeting = b"220 sink ESMTP\r\n";
    if security == SmtpSecurity::Tls {
        let mut stream = acceptor.accept(connection).await?;
        stream.write_all(greeting).await?;
        return talk(stream, kept, false).await.map(drop);
    }
    connection.write_all(greeting).await?;
    match talk(connection, kept, security == SmtpSecurity::StartTls).await? {
        Some(plain) => talk(acceptor.accept(plain).await?, kept, false).await.map(drop),
        None => Ok(()),
    }
}

/// Until the client says goodbye, or wants TLS.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    kept: &Mutex<Kept>,
    offers_tls: bool,
) -> std::io::Result<Option<S>> {
    let mut stream = BufReader::new(stream);
    let mut mail = Received::default();
    while let Some(line) = next(&mut stream).await? {
        kept.lock().said.push(line.clone());
        let upper = line.to_ascii_uppercase();
        let reply = if upper.starts_with("EHLO") && offers_tls {
            "250-sink\r\n250 STARTTLS"
        } else if upper.starts_with("EHLO") {
            "250-sink\r\n250-8BITMIME\r\n250 AUTH PLAIN"
        } else if upper == "STARTTLS" && offers_tls {
            stream.write_all(b"220 go on\r\n").await?;
            return Ok(Some(stream.into_inner()));
        } else if upper.starts_with("AUTH PLAIN") {
            "235 welcome"
        } else if upper.starts_with("RCPT TO:") {
            mail.to.push(line["RCPT TO:".len()..].trim_matches(['<', '>']).to_owned());
            "250 ok"
        } else if upper == "DATA" {
            stream.write_all(b"354 go on\r\n").await?;
            while let Some(line) = next(&mut stream).await?.filter(|it| it != ".") {
                mail.data.push_str(line.strip_prefix('.').unwrap_or(&line));
                mail.data.push('\n');
            }
            let mut kept = kept.lock();
            let taken = std::mem::take(&mut mail);
            if kept.refusals.is_empty() {
                kept.mails.push(taken);
                "250 taken"
            } else {
                kept.refusals.remove(0)
            }
        } else if upper == "QUIT" {
            stream.write_all(b"221 bye\r\n").await?;
            return Ok(None);
        } else {
            "250 ok"
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(None)
}

async fn next<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

impl Received {
    /// A header with its continuations.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let head = self.data.split("\n\n").next().unwrap();
        let unfolded = head.replace("\n ", " ").replace("\n\t", " ");
        let line = unfolded.lines().find_map(|it| it.strip_prefix(&format!("{name}: ")));
        line.map(str::to_owned)
    }

    pub(crate) fn text(&self) -> String {
        self.part("text/plain")
    }

    pub(crate) fn html(&self) -> String {
        self.part("text/html")
    }

    /// What is in the part of a type, decoded.
    fn part(&self, kind: &str) -> String {
        let boundary = self.data.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap();
        let boundary = format!("--{boundary}");
        let parts = self.data.split(&boundary);
        let part = parts.skip(1).find(|it| it.contains(&format!("Content-Type: {kind}"))).unwrap();
        let (head, body) = part.split_once("\n\n").unwrap();
        if head.contains("base64") {
            let joined: String = body.split_whitespace().collect();
            return String::from_utf8(STANDARD.decode(joined).unwrap()).unwrap();
        }
        if head.contains("quoted-printable") {
            return unquote(&body.replace("=\n", ""));
        }
        body.to_owned()
    }

    /// The token of the link in it.
    pub(crate) fn token(&self) -> String {
        let text = self.text();
        let rest = text.split("#token=").nth(1).unwrap_or_else(|| panic!("no link in {text}"));
        rest.split_whitespace().next().unwrap().to_owned()
    }
}

fn unquote(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        if *first == b'=' {
            let code = std::str::from_utf8(&after[..2]).unwrap();
            bytes.push(u8::from_str_radix(code, 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}
