//! The other side: what a service sends to the orchestrator that it registers with. Here the
//! recorded answers are played, and the requests compared.

use std::collections::VecDeque;
use std::future::{IntoFuture, Ready, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri};
use modelyard::Server;
use modelyard_testkit::on_both_databases;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::bind::Bindings;
use super::compare::Comparison;
use super::deviations::Deviations;
use super::recording;
use crate::peer_model;
use crate::support::settings;

/// The headers of requests that an orchestrator reads.
const HEADERS: [&str; 3] = ["content-type", "x-service-key", "content-length"];

/// A request of the peer, and what it was answered.
#[derive(Clone, Debug, Deserialize)]
struct Recorded {
    method: String,
    path: String,
    request_headers: Vec<(String, String)>,
    request_body: String,
    status: u16,
    response_body: Value,
}

/// A request of ours.
#[derive(Debug)]
struct Sent {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// An orchestrator that says its lines.
#[derive(Clone, Debug)]
struct Orchestrator {
    lines: Arc<Mutex<VecDeque<Recorded>>>,
    heard: Arc<Mutex<Vec<Sent>>>,
    base: String,
}

impl Orchestrator {
    fn answer(&self, sent: Sent) -> Response {
        self.heard.lock().unwrap().push(sent);
        let line = self.lines.lock().unwrap().pop_front();
        let Some(line) = line else { return StatusCode::GONE.into_response() };
        let status = StatusCode::from_u16(line.status).unwrap();
        match line.response_body.to_string().replace(RECORDED_AT, &self.base) {
            body if body == "null" => status.into_response(),
            body => (status, [("content-type", "application/json")], body).into_response(),
        }
    }
}

fn hear(
    State(orchestrator): State<Orchestrator>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Ready<Response> {
    ready(orchestrator.answer(Sent { method, path: uri.to_string(), headers, body }))
}

const RECORDED_AT: &str = "http://127.0.0.1:18212";

on_both_databases! {
    async fn an_orchestrator_hears_what_was_recorded(database: TestDatabase) {
        let text = recording!("v2-chapkit-2.4.1/s12-registration");
        let recorded: Vec<Recorded> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let orchestrator = Orchestrator {
            lines: Arc::new(Mutex::new(recorded.clone().into())),
            heard: Arc::default(),
            base: base.clone(),
        };
        let routes = Router::new().fallback(hear).with_state(orchestrator.clone());
        let mut listening = JoinSet::new();
        listening.spawn(axum::serve(listener, routes).into_future());

        let mut settings = settings(&database);
        settings.registration.url = Some(format!("{base}/v2/services/$register"));
        settings.registration.key = Some("secret123".to_owned());
        settings.registration.host = Some("vm".to_owned());
        settings.registration.port = Some(18122);
        // The peer took a second, 0.3 and 0.5.
        settings.registration.keepalive_interval = Duration::from_millis(100);
        settings.registration.retry_delay = Duration::from_millis(30);
        settings.registration.grace = Duration::from_millis(50);
        let service = peer_model::service().build().unwrap();
        let server = Server::start(vec![service], settings).await.unwrap();

        // All but the last, with which a service takes its leave.
        let heard = || orchestrator.heard.lock().unwrap().len();
        for _ in 0..1000 {
            if heard() + 1 >= recorded.len() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.stop().await;

        let mut deviations = Deviations::read();
        let mut failures = Vec::new();
        let sent = std::mem::take(&mut *orchestrator.heard.lock().unwrap());
        for (at, (recorded, ours)) in recorded.iter().zip(&sent).enumerate() {
            let found = compare(recorded, ours);
            let place = format!("s12#{}", at + 1);
            for difference in deviations.filter_at(&["*", "s12", &place], found) {
                failures.push(format!("{place} {} {}\n    {difference}", ours.method, ours.path));
            }
        }
        if recorded.len() != sent.len() {
            failures.push(format!("{} requests recorded, {} ours", recorded.len(), sent.len()));
        }
        failures.extend(deviations.unused(&["s12"], false));
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}

fn compare(recorded: &Recorded, ours: &Sent) -> Vec<super::compare::Difference> {
    let mut bindings = Bindings::default();
    let mut comparison = Comparison { bindings: &mut bindings, tolerance: 0.0, found: Vec::new() };
    let read = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
    let ours_body = read(&ours.body);
    comparison.values("", &read(recorded.request_body.as_bytes()), &ours_body);
    let line = |method: &str, path: &str| json!(format!("{method} {path}"));
    let request = (line(&recorded.method, &recorded.path), line(ours.method.as_str(), &ours.path));
    comparison.values("request", &request.0, &request.1);
    let is_empty = recorded.request_body.is_empty();
    for name in HEADERS.into_iter().filter(|it| is_empty || *it != "content-length") {
        let header = recorded.request_headers.iter().find(|it| it.0.eq_ignore_ascii_case(name));
        let header = header.map(|it| it.1.as_str());
        let mine = ours.headers.get(name).and_then(|it| it.to_str().ok());
        comparison.values(&format!("header {name}"), &json!(header), &json!(mine));
    }
    comparison.found
}
