use std::collections::VecDeque;
use std::future::Future;

use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::StatusCode;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

/// What an orchestrator heard.
#[derive(Debug)]
struct Heard {
    line: String,
    key: Option<String>,
    length: Option<String>,
    body: Value,
}

#[derive(Clone)]
struct Script {
    base: String,
    heard: UnboundedSender<Heard>,
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
}

/// An orchestrator that gives these answers one after the other, and then the last again and again.
struct Fake {
    heard: UnboundedReceiver<Heard>,
    base: String,
    background: Background,
}

impl Fake {
    async fn start(answers: impl IntoIterator<Item = (u16, Value)>) -> Self {
        let (sender, heard) = unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let script = Script { base: base.clone(), heard: sender, answers };
        let app = Router::new().fallback(answer).with_state(script);
        let background = Background::default();
        background.spawn(async move {
            let _stopped = axum::serve(listener, app).await;
        });
        Self { heard, base, background }
    }

    fn settings(&self) -> Registration {
        Registration {
            url: Some(format!("{}/v2/services/$register", self.base)),
            host: Some("vm".to_owned()),
            port: Some(18122),
            key: Some("secret123".to_owned()),
            keepalive_interval: Duration::from_millis(5),
            retries: 5,
            retry_delay: Duration::from_millis(5),
            grace: Duration::from_millis(5),
        }
    }

    async fn hears(&mut self) -> Heard {
        in_time(self.heard.recv()).await.unwrap()
    }
}

async fn answer(Shared(script): Shared<Script>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let headers = request.headers().clone();
    let header = |name| headers.get(name).map(|it| it.to_str().unwrap().to_owned());
    let (key, length) = (header("x-service-key"), header("content-length"));
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (status, answer) = {
        let mut answers = script.answers.lock();
        let next = answers.pop_front().unwrap();
        if answers.is_empty() {
            answers.push_back(next.clone());
        }
        next
    };
    let _nobody_listens = script.heard.send(Heard { line, key, length, body });
    let status = StatusCode::from_u16(status).unwrap();
    // Where the recorded orchestrator was.
    let answer = answer.to_string().replace("http://127.0.0.1:18212", &script.base);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    if answer.is_null() { status.into_response() } else { (status, Json(answer)).into_response() }
}

async fn in_time<T>(it: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), it).await.expect("within twenty seconds")
}

fn address() -> SocketAddr {
    "127.0.0.1:9090".parse().unwrap()
}

fn registered(ping: &str) -> (u16, Value) {
    (200, json!({"id": "peer-model", "status": "registered", "ttl_seconds": 30, "ping_url": ping}))
}

/// Starts to register, and gives the question for its health and what stops it.
fn start(settings: &Registration) -> (HealthCheck, Background) {
    let pending = prepare(settings, address()).unwrap();
    let check = pending.health_check();
    let background = Background::default();
    pending.start("peer-model", json!({"id": "peer-model"}), &background);
    (check, background)
}

async fn until(check: &HealthCheck, wanted: Health) -> Option<String> {
    in_time(async {
        loop {
            let (health, why) = (check.ask)().await;
            if health == wanted {
                return why;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// The recorded life of a contract's client: refused once, registered, pinged, forgotten,
/// registered again, pinged, gone.
#[tokio::test]
async fn a_service_lives_with_its_orchestrator_as_the_contracts_clients_do() {
    let recorded: Vec<Value> =
        include_str!("../../tests/fixtures/transcripts/v2-chapkit-2.4.1/s12-registration.jsonl")
            .lines()
            .map(|it| serde_json::from_str(it).unwrap())
            .collect();
    let answers = recorded.iter().map(|it| {
        let status = u16::try_from(it["status"].as_u64().unwrap()).unwrap();
        (status, it["response_body"].clone())
    });
    let mut orchestrator = Fake::start(answers.collect::<Vec<_>>()).await;
    let (check, background) = start(&orchestrator.settings());
    let (goodbye, life) = recorded.split_last().unwrap();
    for step in life {
        let heard = orchestrator.hears().await;
        let line =
            format!("{} {}", step["method"].as_str().unwrap(), step["path"].as_str().unwrap());
        assert_eq!(heard.line, line);
        assert_eq!(heard.key.as_deref(), Some("secret123"));
        let body = step["request_body"].as_str().unwrap();
        if body.is_empty() {
            assert_eq!(heard.length.as_deref(), Some("0"));
        } else {
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(heard.body["id"], body["id"]);
            assert_eq!(heard.body["url"], body["url"]);
            assert_eq!(heard.body["info"], json!({"id": "peer-model"}));
        }
    }
    until(&check, Health::Healthy).await;
    assert!(background.shutdown(Duration::from_secs(10)).await);
    // More pings may have come before.
    let last = in_time(async {
        loop {
            let heard = orchestrator.hears().await;
            if !heard.line.starts_with("PUT") {
                return heard;
            }
        }
    })
    .await;
    assert_eq!(last.line, format!("DELETE {}", goodbye["path"].as_str().unwrap()));
    assert_eq!(last.key.as_deref(), Some("secret123"));
    orchestrator.background.stopping().cancel();
}

#[tokio::test]
async fn without_an_orchestrator_nothing_is_registered() {
    let settings = Registration { url: None, ..Fake::start([]).await.settings() };
    assert!(prepare(&settings, address()).is_none());
}

#[tokio::test]
async fn an_orchestrator_that_refuses_is_asked_again_and_again() {
    let mut orchestrator = Fake::start([(500, Value::Null)]).await;
    let settings = Registration { retries: 2, ..orchestrator.settings() };
    let (check, background) = start(&settings);
    for _ in 0..5 {
        assert!(orchestrator.hears().await.line.starts_with("POST"));
    }
    let why = until(&check, Health::Degraded).await.unwrap();
    assert!(why.contains("500"), "{why}");
    assert!(background.shutdown(Duration::from_secs(10)).await);
    // Whoever was never registered says no goodbye.
    orchestrator.heard.close();
    while let Some(heard) = orchestrator.heard.recv().await {
        assert!(heard.line.starts_with("POST"), "{}", heard.line);
    }
}

#[tokio::test]
async fn a_ping_that_fails_degrades_health_until_one_succeeds() {
    let ping = "/ping";
    let answers = [registered(ping), (503, Value::Null), (200, json!({})), (200, json!({}))];
    let mut orchestrator = Fake::start(answers).await;
    let settings =
        Registration { keepalive_interval: Duration::from_millis(100), ..orchestrator.settings() };
    let (check, background) = start(&settings);
    assert!(orchestrator.hears().await.line.starts_with("POST"));
    until(&check, Health::Healthy).await;
    assert_eq!(orchestrator.hears().await.line, "PUT /ping");
    let why = until(&check, Health::Degraded).await.unwrap();
    assert!(why.contains("503"), "{why}");
    assert_eq!(orchestrator.hears().await.line, "PUT /ping");
    until(&check, Health::Healthy).await;
    background.stopping().cancel();
}

/// Where the key must not go, and whether anything came.
async fn elsewhere() -> Fake {
    Fake::start([(200, json!({}))]).await
}

#[tokio::test]
async fn the_key_does_not_follow_a_redirect() {
    let mut elsewhere = elsewhere().await;
    let to = elsewhere.base.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new()
        .fallback(move || std::future::ready(axum::response::Redirect::temporary(&to)));
    let background = Background::default();
    background.spawn(async move {
        let _stopped = axum::serve(listener, app).await;
    });
    let settings = Registration { url: Some(format!("{base}/$register")), ..elsewhere.settings() };
    let (check, service) = start(&settings);
    in_time(async {
        loop {
            let (_, why) = (check.ask)().await;
            if why.is_some_and(|it| it.contains("307")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(service.shutdown(Duration::from_secs(10)).await);
    assert!(elsewhere.heard.try_recv().is_err());
    background.stopping().cancel();
}

#[tokio::test]
async fn only_the_orchestrator_itself_is_pinged() {
    for other in ["http://127.0.0.1:1/ping", "//localhost/ping", "https://127.0.0.1/v2/ping"] {
        let mut elsewhere = elsewhere().await;
        let foreign = other.replace("http://127.0.0.1:1", &elsewhere.base);
        let mut orchestrator = Fake::start([registered(&foreign)]).await;
        let (check, background) = start(&orchestrator.settings());
        assert!(orchestrator.hears().await.line.starts_with("POST"));
        // Where the contract has it.
        let ping = orchestrator.hears().await;
        assert_eq!(ping.line, "PUT /v2/services/peer-model/$ping");
        assert_eq!(ping.key.as_deref(), Some("secret123"));
        until(&check, Health::Healthy).await;
        assert!(background.shutdown(Duration::from_secs(10)).await);
        assert!(elsewhere.heard.try_recv().is_err(), "{foreign}");
    }
}

#[tokio::test]
async fn an_orchestrator_that_is_not_there_stops_nobody() {
    let settings = Registration {
        url: Some("http://user:canary@127.0.0.1:1/$register".to_owned()),
        key: None,
        ..Fake::start([]).await.settings()
    };
    let (check, background) = start(&settings);
    let why = until(&check, Health::Degraded).await.unwrap();
    assert!(!why.contains("canary"), "{why}");
    assert!(background.shutdown(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn what_cannot_be_used_is_told() {
    let orchestrator = Fake::start([]).await;
    for (settings, named) in [
        (Registration { url: Some("chap:8000".to_owned()), ..orchestrator.settings() }, "url"),
        (Registration { url: Some("nonsense".to_owned()), ..orchestrator.settings() }, "url"),
        (Registration { key: Some("\n".to_owned()), ..orchestrator.settings() }, "key"),
    ] {
        let (check, background) = start(&settings);
        let why = until(&check, Health::Degraded).await.unwrap();
        assert!(why.contains(named), "{why}");
        background.stopping().cancel();
    }
}

#[tokio::test]
async fn the_address_is_the_machines_unless_the_settings_say_another() {
    let settings = Fake::start([]).await.settings();
    let url = |settings: &Registration| prepare(settings, address()).unwrap().url;
    assert_eq!(url(&settings), "http://vm:18122");
    assert_eq!(
        prepare(&settings, address()).unwrap().below("/services/a").url,
        "http://vm:18122/services/a"
    );
    let secured = prepare(&settings, address()).unwrap().over_tls();
    assert_eq!(secured.below("/services/a").url, "https://vm:18122/services/a");
    let plain = Registration { host: None, port: None, ..settings.clone() };
    assert_eq!(url(&plain), format!("http://{}:9090", machine()));
    let six = Registration { host: Some("::1".to_owned()), ..settings };
    assert_eq!(url(&six), "http://[::1]:18122");
}
