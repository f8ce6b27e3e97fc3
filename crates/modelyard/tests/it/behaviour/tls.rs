//! TLS as clients see it: real ones, hurried ones, and those that speak something else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use modelyard::Server;
use modelyard::server::{ServeError, explain};
use modelyard::settings::{Settings, TlsFiles};
use modelyard_testkit::{TestDatabase, run};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::tls::Version;
use rustix::process::{Signal, getpid, kill_process};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{service, settings, until};

const SHORT: Duration = Duration::from_millis(300);

/// An authority that clients of these tests trust.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate of this machine, and its key, in PEM.
    fn pair(&self) -> (String, String) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Puts a new pair where `files` says, and gives the certificate as it is shown to clients.
    fn renew(&self, files: &TlsFiles) -> Vec<u8> {
        let (certificate, key) = self.pair();
        // As those do who renew: nobody sees half a file.
        for (path, text) in [(&files.certificate, &certificate), (&files.key, &key)] {
            let next = path.with_extension("next");
            fs_err::write(&next, text).unwrap();
            fs_err::rename(&next, path).unwrap();
        }
        pem_bytes(&certificate)
    }

    fn client(&self) -> reqwest::ClientBuilder {
        let _chosen = default_provider().install_default();
        let authority = reqwest::Certificate::from_der(self.certificate.der()).unwrap();
        reqwest::Client::builder().tls_certs_only([authority]).timeout(Duration::from_secs(10))
    }
}

fn pem_bytes(text: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(text.as_bytes()).unwrap().to_vec()
}

fn files(directory: &Path) -> TlsFiles {
    TlsFiles { certificate: directory.join("tls.crt"), key: directory.join("tls.key") }
}

/// Settings of a server that speaks TLS, its authority, and the certificate.
fn secured(database: &TestDatabase) -> (Settings, Authority, TlsFiles, Vec<u8>) {
    let (mut settings, authority, files) =
        (settings(database), Authority::new(), files(database.dir()));
    let certificate = authority.renew(&files);
    settings.server.tls = Some(files.clone());
    (settings, authority, files, certificate)
}

async fn started(settings: Settings) -> (Server, String) {
    let server = Server::start(vec![service("behaviour")], settings).await.unwrap();
    let url = format!("https://{}", server.address());
    (server, url)
}

/// A connection whose client trusts the authority.
async fn agreed(server: &Server, authority: &Authority) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// What a new client is shown: the certificate, and the protocol that both agree on.
async fn shown(server: &Server, authority: &Authority) -> (Vec<u8>, Option<Vec<u8>>) {
    let stream = agreed(server, authority).await;
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().unwrap()[0].to_vec();
    (certificate, session.alpn_protocol().map(<[u8]>::to_vec))
}

#[test]
fn a_service_with_a_certificate_speaks_tls_and_says_so() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (settings, authority, _, certificate) = secured(&database);
        let (server, url) = started(settings).await;
        for version in [Version::TLS_1_2, Version::TLS_1_3] {
            let client = authority.client().tls_version_min(version).tls_version_max(version);
            let answer = client.build().unwrap().get(format!("{url}/health")).send().await;
            let answer = answer.unwrap_or_else(|it| panic!("{version:?}: {}", explain(&it)));
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.version(), http::Version::HTTP_11);
            assert!(answer.headers().contains_key("strict-transport-security"));
        }
        assert_eq!(shown(&server, &authority).await, (certificate, Some(b"http/1.1".to_vec())));
        let client = authority.client().build().unwrap();
        let made = client.post(format!("{url}/api/v1/configs"));
        let made = made.json(&json!({"name": "a", "data": {}})).send().await.unwrap();
        assert_eq!(made.status(), 201);
        let place = made.headers()["location"].to_str().unwrap();
        assert!(place.starts_with(&format!("{url}/api/v1/configs/")), "{place}");
        assert!(server.greeting().contains(&format!("is served at {url}\n")));
        // Whoever does not know the authority does not go on.
        let stranger = Authority::new().client().build().unwrap();
        stranger.get(format!("{url}/health")).send().await.unwrap_err();
        // Large content passes, both ways.
        let content = vec![7; 5 << 20];
        let upload = client.post(format!("{url}/api/v1/artifacts/$upload")).body(content.clone());
        let made: serde_json::Value = upload.send().await.unwrap().json().await.unwrap();
        let id = made["id"].as_str().unwrap();
        let back = client.get(format!("{url}/api/v1/artifacts/{id}/$download"));
        assert_eq!(back.send().await.unwrap().bytes().await.unwrap(), content);
        server.stop().await;
    });
}

#[test]
fn a_new_certificate_is_shown_without_a_stop_and_without_a_failed_request() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (settings, authority, files, first) = secured(&database);
        let (server, url) = started(settings).await;
        let (done, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
        let ask = async |kept: usize| {
            let client = authority.client().pool_max_idle_per_host(kept).build().unwrap();
            while !done.load(Ordering::Relaxed) {
                let answer = client.get(format!("{url}/api/v1/configs")).send().await;
                let answer = answer.unwrap_or_else(|it| panic!("{}", explain(&it)));
                assert_eq!(answer.text().await.unwrap(), "[]");
                requests.fetch_add(1, Ordering::Relaxed);
            }
        };
        let renew = async {
            assert_eq!(shown(&server, &authority).await.0, first);
            for _ in 0..3 {
                let next = authority.renew(&files);
                until("the new certificate is shown", async || {
                    shown(&server, &authority).await.0 == next
                })
                .await;
            }
            done.store(true, Ordering::Relaxed);
        };
        // Connections that are kept, and a new one for each request.
        tokio::join!(ask(1), ask(1), ask(0), ask(0), renew);
        assert!(requests.load(Ordering::Relaxed) > 100, "{requests:?}");
        server.stop().await;
    });
}

#[test]
fn a_signal_shows_a_new_certificate_at_once() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (settings, authority, files, _) = secured(&database);
        let (server, _) = started(settings).await;
        let began = Instant::now();
        let next = authority.renew(&files);
        kill_process(getpid(), Signal::HUP).unwrap();
        until("it is shown", async || shown(&server, &authority).await.0 == next).await;
        // Sooner than anybody looks at the files.
        assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
        server.stop().await;
    });
}

#[test]
fn a_certificate_that_is_of_no_use_leaves_the_old_one() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (settings, authority, files, first) = secured(&database);
        let (server, _) = started(settings).await;
        let whole = fs_err::read_to_string(&files.certificate).unwrap();
        for broken in [authority.pair().0, "nothing".to_owned(), whole[..200].to_owned()] {
            fs_err::write(&files.certificate, broken).unwrap();
            kill_process(getpid(), Signal::HUP).unwrap();
            tokio::time::sleep(SHORT).await;
            assert_eq!(shown(&server, &authority).await.0, first);
        }
        fs_err::remove_file(&files.certificate).unwrap();
        tokio::time::sleep(SHORT * 9).await;
        assert_eq!(shown(&server, &authority).await.0, first);
        let next = authority.renew(&files);
        until("it is shown", async || shown(&server, &authority).await.0 == next).await;
        server.stop().await;
    });
}

#[test]
fn a_start_with_a_certificate_of_no_use_says_what_is_wrong() {
    run(async {
        let authority = Authority::new();
        for (certificate, key, said) in [
            (Some(authority.pair().0), Some(authority.pair().1), "no pair"),
            (Some("nothing".to_owned()), Some(authority.pair().1), "no certificate in PEM"),
            (Some(authority.pair().0), Some("nothing".to_owned()), "no private key in PEM"),
            (Some(authority.pair().0), None, "tls.key"),
            (None, None, "tls.crt"),
        ] {
            let database = TestDatabase::sqlite().await;
            let mut settings = settings(&database);
            let files = files(database.dir());
            for (path, text) in [(&files.certificate, certificate), (&files.key, key)] {
                if let Some(text) = text {
                    fs_err::write(path, text).unwrap();
                }
            }
            settings.server.tls = Some(files);
            let refused = Server::start(vec![service("behaviour")], settings).await;
            let Err(ServeError::Tls(error)) = refused else { panic!("{refused:?}") };
            let error = explain(&ServeError::Tls(error));
            assert!(error.contains(said) && error.contains("`server.tls_key`"), "{error}");
        }
    });
}

#[test]
fn whoever_speaks_http_where_tls_is_spoken_hears_it() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (settings, authority, ..) = secured(&database);
        let (server, url) = started(settings).await;
        let long = "x".repeat(50_000);
        for more in ["", &long] {
            let mut socket = TcpStream::connect(server.address()).await.unwrap();
            let ask = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nmore: {more}\r\n\r\n");
            socket.write_all(ask.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("application/problem+json"), "{head}");
            assert!(!head.contains("strict-transport-security"), "{head}");
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["code"], "tls_required");
        }
        for garbage in
            [&b"\0\0\0\0"[..], b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\xff\xff\0\0\0"]
        {
            let mut socket = TcpStream::connect(server.address()).await.unwrap();
            let _cut_off = socket.write_all(garbage).await;
            let _cut_off = socket.shutdown().await;
            let _cut_off = socket.read_to_end(&mut Vec::new()).await;
        }
        let client = authority.client().build().unwrap();
        assert_eq!(client.get(format!("{url}/health")).send().await.unwrap().status(), 200);
        server.stop().await;
    });
}

#[test]
fn whoever_does_not_come_to_an_agreement_loses_the_place() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (mut settings, authority, ..) = secured(&database);
        settings.server.max_connections = 1;
        settings.server.idle_timeout = SHORT;
        let (server, url) = started(settings).await;
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        for (begun, drip) in [(&b""[..], false), (hello, false), (hello, true)] {
            let mut stuck = TcpStream::connect(server.address()).await.unwrap();
            stuck.write_all(begun).await.unwrap();
            let dripping = async {
                while drip && stuck.write_all(b"\0").await.is_ok() {
                    tokio::time::sleep(SHORT / 10).await;
                }
            };
            let asked = Instant::now();
            let asking = async {
                let client = authority.client().build().unwrap();
                client.get(format!("{url}/health")).send().await.unwrap().status()
            };
            let (status, ()) = tokio::join!(asking, async {
                let _until_it_is_cut_off = tokio::time::timeout(SHORT * 3, dripping).await;
            });
            assert_eq!(status, 200);
            assert!(asked.elapsed() < SHORT * 10, "{begun:?} {drip}: {:?}", asked.elapsed());
        }
        // One that has agreed and asks nothing, or not all of it, is as any other.
        for begun in ["", "GET /hea"] {
            let mut idle = agreed(&server, &authority).await;
            idle.write_all(begun.as_bytes()).await.unwrap();
            idle.flush().await.unwrap();
            let mut rest = Vec::new();
            let cut_off = idle.read_to_end(&mut rest);
            let _a_reset_is_an_end = tokio::time::timeout(SHORT * 8, cut_off).await.unwrap();
        }
        let began = Instant::now();
        let _stuck = TcpStream::connect(server.address()).await.unwrap();
        server.stop().await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    });
}
