//! TLS with a certificate from files, which are read again when they change: whoever renews it need
//! not stop the service.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use modelyard_kernel::Background;
use modelyard_kernel::background::compute;
use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often it is looked at whether the files changed.
const LOOK: Duration = Duration::from_secs(2);
/// How long files must stay as they are before they are read: two are not written at once.
const SETTLED: Duration = Duration::from_millis(200);

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to an authority, in PEM, its own first.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Why a certificate is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("a file cannot be read")]
    Unreadable(#[source] io::Error),
    /// A file is something else.
    #[error("{file} has no {what} in PEM")]
    NotPem {
        /// Which.
        file: String,
        /// What it should have.
        what: &'static str,
        /// What is wrong.
        #[source]
        cause: pem::Error,
    },
    /// The certificate is not that of the key, or one of them is of a kind that is not known.
    #[error("certificate and key are no pair")]
    NoPair(#[source] rustls::Error),
    /// Looking at the files failed.
    #[error(transparent)]
    Defect(#[from] modelyard_kernel::Failure),
}

/// TLS of a server. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.current.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// With the certificate in these files.
    ///
    /// # Errors
    /// When they cannot be used.
    pub async fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let (seen, key) = look(files.clone(), Arc::clone(&provider)).await?;
        let state = RwLock::new(State { seen, key: Arc::new(key?) });
        let current = Arc::new(Current { files, provider: Arc::clone(&provider), state });
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::NoPair)?;
        let mut config = config
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current })
    }

    /// Reads the files again whenever they change, and when the process is told to (`SIGHUP`).
    pub fn watch(&self, background: &Background) {
        let (current, stopping) = (Arc::clone(&self.current), background.stopping().clone());
        // From now on, since it would end the process otherwise.
        let mut hang_up = signal(SignalKind::hangup()).ok();
        background.spawn(async move {
            loop {
                let told = async {
                    let received = match &mut hang_up {
                        Some(it) => it.recv().await,
                        None => None,
                    };
                    if received.is_none() {
                        std::future::pending::<()>().await;
                    }
                };
                let told = tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(LOOK) => false,
                    () = told => true,
                };
                current.refresh(told).await;
            }
        });
    }

    /// A connection, once client and server agree.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }
}

/// The certificate that is shown now.
struct Current {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    state: RwLock<State>,
}

struct State {
    /// How the files looked when they were read last, well or not.
    seen: Seen,
    key: Arc<CertifiedKey>,
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.state.read().key))
    }
}

impl Current {
    /// Takes what is in the files now, if it is something else and of use.
    async fn refresh(&self, told: bool) {
        let seen = async || {
            let files = self.files.clone();
            compute(move || Seen::of(&files)).await.ok()
        };
        if !told {
            let before = seen().await;
            if before.is_none_or(|it| it == self.state.read().seen) {
                return;
            }
            tokio::time::sleep(SETTLED).await;
            if seen().await != before {
                return;
            }
        }
        let read = match look(self.files.clone(), Arc::clone(&self.provider)).await {
            Ok((seen, key)) => {
                self.state.write().seen = seen;
                key
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(key) => {
                self.state.write().key = Arc::new(key);
                tracing::info!("the certificate was read again");
            }
            Err(error) => tracing::error!(
                error = crate::server::explain(&error),
                certificate = %self.files.certificate.display(),
                key = %self.files.key.display(),
                "the new certificate is of no use, and the old one stays"
            ),
        }
    }
}

/// What tells whether files were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen([Option<(u64, u64, i64, i64)>; 2]);

impl Seen {
    fn of(files: &TlsFiles) -> Self {
        let look = |it: Metadata| (it.ino(), it.len(), it.mtime(), it.mtime_nsec());
        Self([&files.certificate, &files.key].map(|it| fs_err::metadata(it).ok().map(look)))
    }
}

/// How the files look, and what is in them. Looked at first: what is written meanwhile is read at the
/// next look.
async fn look(
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
) -> Result<(Seen, Result<CertifiedKey, TlsError>), TlsError> {
    Ok(compute(move || (Seen::of(&files), read(&files, &provider))).await?)
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let not_pem = |file: &PathBuf, what| {
        let file = file.display().to_string();
        move |cause| TlsError::NotPem { file, what, cause }
    };
    let text = fs_err::read(&files.certificate).map_err(TlsError::Unreadable)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(not_pem(&files.certificate, "certificate"))?;
    if chain.is_empty() {
        return Err(not_pem(&files.certificate, "certificate")(pem::Error::NoItemsFound));
    }
    let text = fs_err::read(&files.key).map_err(TlsError::Unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(not_pem(&files.key, "private key"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(TlsError::NoPair)
}
