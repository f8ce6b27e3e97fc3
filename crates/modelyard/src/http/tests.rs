use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, StatusCode};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use modelyard_kernel::bulk::{Applied, Changed, Outcomes};
use modelyard_kernel::{
    Background, Caller, ClientAddress, Clock, Failure, IsSecure, JsonBody, reply,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use super::*;

const HOST: &str = "test.example:9090";

/// Routes as slices have them, with the ways in which they misbehave.
fn routes() -> Router {
    Router::new()
        .route("/health", get(|| async { "healthy" }))
        .route("/things", get(|caller: Caller| async move { caller.subject().to_owned() }))
        .route("/things", post(async |body: JsonBody| body.read(|it| Some(it.value().to_string()))))
        .route("/things/$train", post(|| async { "trained" }))
        .route("/things/$upload", post(async |body: Bytes| body.len().to_string()))
        .route("/things/{id}", get(async |Path(id): Path<String>| id))
        .route("/api/v1/users", get(seen).post(seen))
        .route("/api/v1/users/{id}/$disable", post(seen))
        .route("/api/v1/system", get(seen))
        .route("/api/v1/auth/$rotate-signing-keys", post(seen))
        .route("/seen", get(seen))
        .route("/fails", get(|| async { Failure::internal("secret").into_response() }))
        .route(
            "/partly",
            post(async |uri: Uri| {
                let results = vec![Err(Failure::internal("secret")), Ok(Applied::Deleted)];
                Outcomes::new(Changed { applied: true, results }, &uri)
            }),
        )
        .route("/panics", get(|| async { panic!("secret") as StatusCode }))
        .route(
            "/made",
            post(async |headers: ::http::HeaderMap, uri: Uri| {
                let place = reply::Place::new(&headers, &uri).of(&"it");
                (StatusCode::CREATED, [("location", place)])
            }),
        )
        .route("/elsewhere", get(|| async { axum::response::Redirect::temporary("things") }))
        .route("/hangs", get(|| async { std::future::pending::<StatusCode>().await }))
        .route(
            "/long",
            get(|| async { ([("content-type", "application/json")], "x".repeat(5000)) }),
        )
        .route(
            "/exact",
            get(|| async {
                ([("content-type", "text/csv"), ("etag", "\"strong\"")], "x".repeat(5000))
            }),
        )
        .route(
            "/ranged",
            get(|| async {
                ([("content-type", "text/csv"), ("accept-ranges", "bytes")], "x".repeat(5000))
            }),
        )
}

/// Who asks, as the routes see it.
async fn seen(extensions: ::http::Extensions) -> String {
    let client = ClientAddress::of(&extensions).map(|it| it.to_string()).unwrap_or_default();
    format!("{client} {}", IsSecure::of(&extensions))
}

fn limits() -> Limits {
    Limits { body_bytes: 1000, request_timeout: Duration::from_secs(60), ..Limits::default() }
}

fn app_of(routes: Router, limits: Limits) -> App {
    app_within(routes, limits, Surroundings::default())
}

fn app_within(routes: Router, limits: Limits, around: Surroundings) -> App {
    app(routes, Clock::system(), Metrics::new().unwrap(), limits, around)
}

fn open() -> App {
    app_of(guarded(routes(), None, Authenticator::open("test")), limits())
}

async fn send(app: &App, method: &str, path: &str, body: impl Into<Body>) -> Response {
    let request = Request::builder().method(method).uri(path).header("host", HOST);
    let request = request.header("content-type", "application/json");
    app.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn problem(response: Response) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let problem: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(problem["trace_id"], id);
    problem
}

#[tokio::test]
async fn every_answer_has_an_id_of_our_own() {
    let app = open();
    let mut seen = Vec::new();
    for path in ["/health", "/health", "/nope", "/panics"] {
        let request = Request::get(path).header("x-request-id", "theirs");
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(id.len(), 26, "{id}");
        seen.push(id);
    }
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

/// What is written to the log, kept.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_defect_is_one_line_of_the_log_with_the_id_of_its_request() {
    let lines = Lines::default();
    let writer = lines.clone();
    let logged = tracing_subscriber::fmt().json().flatten_event(true);
    let logged = logged.with_writer(move || writer.clone()).finish();
    let _logged = tracing::subscriber::set_default(logged);
    let app = open();
    for (method, path) in [("GET", "/fails"), ("GET", "/panics"), ("POST", "/partly")] {
        lines.0.lock().clear();
        let answer = send(&app, method, &format!("{path}?query=private"), "").await;
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let written = String::from_utf8(lines.0.lock().clone()).unwrap();
        let written: Vec<Value> =
            written.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
        let errors: Vec<&Value> = written.iter().filter(|it| it["level"] == "ERROR").collect();
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!(error["request_id"], id);
        assert_eq!((&error["method"], &error["path"]), (&method.into(), &path.into()));
        assert!(error["failure"].as_str().unwrap().contains("secret"), "{error}");
        assert!(!error.to_string().contains("private"), "{error}");
    }
}

#[tokio::test]
async fn addresses_in_answers_are_those_that_the_operator_says() {
    let public = "https://models.example/dengue";
    let routes = guarded(routes(), None, Authenticator::open("test"));
    let around = Surroundings { public_url: Some(public.to_owned()), ..Surroundings::default() };
    let behind = app_within(routes, limits(), around);
    for (app, origin) in [(open(), format!("http://{HOST}")), (behind, public.to_owned())] {
        let made = send(&app, "POST", "/made", "").await;
        assert_eq!(made.headers()["location"], format!("{origin}/made/it"));
        let problem = problem(send(&app, "GET", "/fails?x=1", "").await).await;
        assert_eq!(problem["instance"], format!("{origin}/fails?x=1"));
        // What is relative is right wherever the service is.
        let moved = send(&app, "GET", "/elsewhere", "").await;
        assert_eq!(moved.headers()["location"], "things");
    }
}

#[tokio::test]
async fn misses_are_404_to_readers_and_405_to_everyone_else() {
    let app = open();
    let missed = [
        ("GET", "/nope", 404, None),
        ("HEAD", "/nope", 404, None),
        ("POST", "/nope", 405, Some("GET, HEAD")),
        ("DELETE", "/", 405, Some("GET, HEAD")),
        ("GET", "/things/", 404, None),
        ("GET", "/things/$train", 404, None),
        ("DELETE", "/things", 405, Some("GET, HEAD, POST")),
        ("OPTIONS", "/things", 405, Some("GET, HEAD, POST")),
        ("POST", "/health", 405, Some("GET, HEAD")),
    ];
    for (method, path, status, allow) in missed {
        let response = send(&app, method, path, "").await;
        assert_eq!(response.status(), status, "{method} {path}");
        let allowed = response.headers().get("allow").map(|it| it.to_str().unwrap().to_owned());
        assert_eq!(allowed.as_deref(), allow, "{method} {path}");
        if method != "HEAD" {
            let detail = if status == 404 { "Not Found" } else { "Method Not Allowed" };
            assert_eq!(problem(response).await["detail"], detail);
        }
    }
}

#[tokio::test]
async fn an_encoded_dollar_is_a_dollar() {
    let response = send(&open(), "POST", "/things/%24train?a=%24b", "").await;
    assert_eq!(text(response).await, "trained");
}

#[tokio::test]
async fn an_answer_to_head_has_the_length_and_no_body() {
    for (path, status) in [("/health", 200), ("/nope", 404)] {
        let response = send(&open(), "HEAD", path, "").await;
        assert_eq!(response.status(), status);
        let length: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
        assert!(length > 0, "{path}");
        assert_eq!(text(response).await, "");
    }
}

#[tokio::test]
async fn a_failure_and_a_panic_are_problems_that_tell_nothing() {
    for path in ["/fails?q=1", "/panics?q=1"] {
        let response = send(&open(), "GET", path, "").await;
        assert_eq!(response.status(), 500);
        let problem = problem(response).await;
        assert_eq!(problem["instance"], format!("http://{HOST}{path}"));
        assert!(!problem.to_string().contains("secret"), "{problem}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_read_is_a_problem() {
    let response = send(&open(), "GET", "/things/%FF", "").await;
    assert_eq!(response.status(), 400);
    assert_eq!(problem(response).await["code"], "address_unreadable");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_given_up() {
    let response = send(&open(), "GET", "/hangs", "").await;
    assert_eq!(response.status(), 408);
    assert_eq!(problem(response).await["code"], "request_timeout");
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_can_be_answered_are_turned_away() {
    let limits = Limits { concurrent_requests: 1, ..limits() };
    let app = app_of(guarded(routes(), None, Authenticator::open("test")), limits);
    let other = app.clone();
    let background = Background::default();
    background.spawn(async move {
        send(&other, "GET", "/hangs", "").await;
    });
    tokio::task::yield_now().await;
    let response = send(&app, "GET", "/things", "").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(problem(response).await["code"], "service_busy");
    assert_eq!(send(&app, "GET", "/health", "").await.status(), 200);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(send(&app, "GET", "/things", "").await.status(), 200);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_413_whether_announced_or_not() {
    let pieces = || {
        let pieces = (0..20).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 100])));
        Body::from_stream(futures_util::stream::iter(pieces))
    };
    for body in [Body::from(" ".repeat(2000)), pieces()] {
        let response = send(&open(), "POST", "/things", body).await;
        assert_eq!(response.status(), 413);
        assert_eq!(problem(response).await["code"], "body_too_large");
    }
    let response = send(&open(), "POST", "/things", "[1]").await;
    assert_eq!(text(response).await, "[1]");
    let response = send(&open(), "POST", "/things/$upload", pieces()).await;
    assert_eq!(text(response).await, "2000");
}

#[tokio::test]
async fn the_limit_of_a_body_bounds_how_much_json_is_in_it() {
    let limits = Limits { body_bytes: 4 << 20, ..limits() };
    let app = app_of(guarded(routes(), None, Authenticator::open("test")), limits);
    let list = |length: usize| format!("[{}0]", "0,".repeat(length - 1));
    assert_eq!(send(&app, "POST", "/things", list(131_000)).await.status(), 200);
    let response = send(&app, "POST", "/things", list(131_073)).await;
    assert_eq!(response.status(), 413);
    let detail = "the body holds more than 131072 JSON values; send less, or upload large content as \
                  a stream";
    assert_eq!(problem(response).await["detail"], detail);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stands_still_is_given_up() {
    let stuck = Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>());
    let response = send(&open(), "POST", "/things/$upload", stuck).await;
    assert!(response.status().is_client_error());
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_read_it() {
    let app = open();
    let ask = async |path: &str, accept: &str| {
        let request = Request::get(path).header("accept-encoding", accept);
        app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let response = ask("/long", "gzip, deflate").await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert_eq!(response.headers()["vary"], "accept-encoding");
    assert!(response.headers().get("content-length").is_none());
    let packed = response.into_body().collect().await.unwrap().to_bytes();
    let mut plain = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut plain)
        .unwrap();
    assert_eq!(plain, "x".repeat(5000));
    let response = ask("/exact", "gzip").await;
    assert_eq!(response.headers()["etag"], "W/\"strong\"");
    assert_eq!(ask("/exact", "br").await.headers()["etag"], "\"strong\"");
    for (path, accept) in
        [("/long", "br"), ("/long", "gzip;q=0"), ("/health", "gzip"), ("/ranged", "gzip")]
    {
        let response = ask(path, accept).await;
        assert!(response.headers().get("content-encoding").is_none(), "{path} {accept}");
    }
}

#[tokio::test]
async fn without_the_key_nobody_learns_anything() {
    let keys = ["sk_one".to_owned(), "sk_two".to_owned()];
    let authenticator = Authenticator::new("test", "X-API-Key", keys).unwrap();
    let routes = guarded(routes(), None, authenticator);
    let app = app_of(mount(vec![("a".to_owned(), routes)], Router::new()), limits());
    let ask = async |path: &str, name: &str, value: &str| {
        let request = Request::get(path).header(name, value);
        app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let missing = "Missing authentication header: X-API-Key";
    let turned_away = [
        ("/things", "accept", "x", missing),
        ("/nope", "accept", "x", missing),
        ("/services/a/nope", "accept", "x", missing),
        ("/health/$stream", "accept", "x", missing),
        ("/things", "x-api-key", "", missing),
        ("/things", "authorization", "Bearer sk_one", missing),
        ("/things", "x-api-key", "sk_three", "Invalid API key"),
        ("/services/a/things", "x-api-key", "sk_on", "Invalid API key"),
    ];
    for (path, name, value, detail) in turned_away {
        let response = ask(path, name, value).await;
        assert_eq!(response.status(), 401, "{path} {name}: {value}");
        let problem = problem(response).await;
        assert_eq!((&problem["detail"], &problem["instance"]), (&detail.into(), &path.into()));
    }
    for path in ["/health", "/services/a/health"] {
        assert_eq!(ask(path, "accept", "x").await.status(), 200, "{path}");
    }
    assert_eq!(text(ask("/things", "x-api-key", "sk_two").await).await, "api-key-2");
    assert_eq!(text(ask("/services/a/things", "x-api-key", "sk_one").await).await, "api-key-1");
}

#[tokio::test]
async fn several_services_are_side_by_side_behind_a_front() {
    let service = |name: &'static str| {
        let routes = Router::new().route("/who", get(move || async move { name }));
        (name.to_owned(), guarded(routes, None, Authenticator::open(name)))
    };
    let front = Router::new().route("/", get(|| async { "front" }));
    let front = guarded(front, None, Authenticator::open("front"));
    let app = app_of(mount(vec![service("a"), service("b")], front), limits());
    for (path, body) in [("/services/a/who", "a"), ("/services/b/who", "b"), ("/", "front")] {
        assert_eq!(text(send(&app, "GET", path, "").await).await, body);
    }
    for path in ["/who", "/services/c/who", "/services/a/nope", "/services/a"] {
        let response = send(&app, "GET", path, "").await;
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(problem(response).await["instance"], path);
    }
    assert_eq!(send(&app, "POST", "/services/a/nope", "").await.status(), 405);
}

#[tokio::test]
async fn requests_are_measured_by_route() {
    let metrics = Metrics::new().unwrap();
    let service = guarded(routes(), None, Authenticator::open("test"));
    let app = app(
        mount(vec![("a".to_owned(), service)], Router::new()),
        Clock::system(),
        metrics.clone(),
        limits(),
        Surroundings::default(),
    );
    for path in
        ["/things/one", "/things/two", "/services/a/things/one", "/nope", "/services/a/nope"]
    {
        send(&app, "GET", path, "").await;
    }
    let shown = metrics.render().unwrap();
    let count = |status: u16, route: &str| {
        let labels = format!(
            r#"_count{{http_request_method="GET",http_response_status_code="{status}",http_route="{route}"}} "#
        );
        shown.lines().find_map(|it| it.split_once(&labels)).map(|it| it.1.to_owned())
    };
    assert_eq!(count(200, "/things/{id}").as_deref(), Some("2"), "{shown}");
    assert_eq!(count(200, "/services/a/things/{id}").as_deref(), Some("1"), "{shown}");
    assert_eq!(count(404, "unmatched").as_deref(), Some("2"), "{shown}");
    assert!(shown.contains("http_server_active_requests 0"), "{shown}");
}

/// A server on a port, and what stops it.
async fn served(app: App, options: ServeOptions) -> (std::net::SocketAddr, Background) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let background = Background::default();
    let owner = background.clone();
    background.spawn(async move {
        serve(listener, None, app, &owner, owner.stopping().clone(), options).await;
    });
    (address, background)
}

#[tokio::test]
async fn a_stop_waits_for_what_is_being_answered() {
    let slow = get(|| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        "done"
    });
    let app = app_of(Router::new().route("/slow", slow), limits());
    let (address, background) = served(app, ServeOptions::default()).await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(background.shutdown(Duration::from_secs(5)).await);
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("done"), "{answer}");
    assert_eq!(idle.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn idle_connections_are_closed_and_make_room() {
    let idle_timeout = Duration::from_millis(100);
    let options = ServeOptions { connections: 1, idle_timeout, ..ServeOptions::default() };
    let (address, _background) = served(open(), options).await;
    let _holds_the_only_place = TcpStream::connect(address).await.unwrap();
    let mut waits = TcpStream::connect(address).await.unwrap();
    waits.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 15];
    waits.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_client_that_sends_too_much_still_hears_why() {
    let (address, _background) = served(open(), ServeOptions::default()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = "POST /things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                connection: close\r\ncontent-length: 3000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.write_all(&[b' '; 1000]).await.unwrap();
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// What is answered to these bytes, head and body.
async fn answer_to(address: std::net::SocketAddr, sent: &str) -> (String, String) {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.rsplit_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_an_id_and_a_problem() {
    let (address, _background) = served(open(), ServeOptions::default()).await;
    let get = "GET /health HTTP/1.1\r\nhost: localhost\r\n";
    let headers: String = (0..200).map(|it| format!("h{it}: x\r\n")).collect();
    // All that is read of a head. Were there more, closing the connection on it could lose the answer.
    let large = format!("{get}large: {}", "x".repeat((128 << 10) - get.len() - 7));
    for (sent, status, code) in [
        ("what is this\r\n\r\n".to_owned(), 400, "request_unreadable"),
        (format!("{get}no colon\r\n\r\n"), 400, "request_unreadable"),
        (format!("{get}content-length: many\r\n\r\n"), 400, "request_unreadable"),
        (
            format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(100_000)),
            414,
            "address_too_long",
        ),
        (format!("{get}{headers}\r\n"), 431, "headers_too_large"),
        (large, 431, "headers_too_large"),
        // After an answer, on the same connection.
        (format!("{get}\r\nwhat is this\r\n\r\n"), 400, "request_unreadable"),
    ] {
        let (head, body) = answer_to(address, &sent).await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&status.into(), &code.into()),
            "{body}"
        );
        let id = problem["trace_id"].as_str().unwrap();
        for header in [
            format!("HTTP/1.1 {status} "),
            format!("x-request-id: {id}\r\n"),
            format!("content-length: {}\r\n", body.len()),
            "content-type: application/problem+json\r\n".to_owned(),
            "connection: close".to_owned(),
            "x-content-type-options: nosniff\r\n".to_owned(),
            "cache-control: no-store\r\n".to_owned(),
        ] {
            assert!(head.contains(&header), "{header} is not in {head}");
        }
    }
}

#[tokio::test]
async fn a_body_that_looks_like_an_answer_is_left_alone() {
    let text = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let streamed = get(async move || {
        let ticks = futures_util::stream::unfold(0, move |n| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            (n < 3).then(|| (Ok::<_, Infallible>(text), n + 1))
        });
        Body::from_stream(ticks)
    });
    let app = app_of(Router::new().route("/streamed", streamed), limits());
    let (address, _background) = served(app, ServeOptions::default()).await;
    let ask = "GET /streamed HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer.matches(text).count(), 3, "{answer}");
}

/// Status, head and body of an answer over a connection.
async fn asked(
    address: std::net::SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String, String) {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let ask = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
    );
    let (head, body) = answer_to(address, &ask).await;
    (head[9..12].parse().unwrap(), head, body)
}

fn behind_a_proxy(public_url: Option<&str>, admin: &[&str]) -> Surroundings {
    let networks = |them: &[&str]| them.iter().map(|it| it.parse().unwrap()).collect();
    Surroundings {
        public_url: public_url.map(ToOwned::to_owned),
        proxies: Proxies { trusted: networks(&["127.0.0.0/8"]), ..Proxies::default() },
        admin_networks: networks(admin),
        ..Surroundings::default()
    }
}

#[tokio::test]
async fn a_request_says_who_asks_and_only_proxies_that_are_trusted_are_believed() {
    let lines = Lines::default();
    let writer = lines.clone();
    let logged = tracing_subscriber::fmt().json().flatten_event(true);
    let logged = logged.with_writer(move || writer.clone()).finish();
    let _logged = tracing::subscriber::set_default(logged);
    let forwarded = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https")];
    let routes = || guarded(routes(), None, Authenticator::open("test"));
    for (around, headers, expected) in [
        (Surroundings::default(), &forwarded[..], "127.0.0.1 false"),
        (behind_a_proxy(None, &[]), &forwarded, "192.0.2.1 true"),
        (behind_a_proxy(None, &[]), &forwarded[..1], "192.0.2.1 false"),
        (behind_a_proxy(None, &[]), &[], "127.0.0.1 false"),
        (behind_a_proxy(Some("https://a.example"), &[]), &[], "127.0.0.1 true"),
    ] {
        lines.0.lock().clear();
        let (address, _background) =
            served(app_within(routes(), limits(), around), ServeOptions::default()).await;
        let (status, head, body) = asked(address, "GET", "/seen", headers).await;
        assert_eq!((status, body.as_str()), (200, expected), "{headers:?}");
        let secure = expected.ends_with("true");
        assert_eq!(head.contains("strict-transport-security: "), secure, "{head}");
        let written = String::from_utf8(lines.0.lock().clone()).unwrap();
        let client = expected.split(' ').next().unwrap();
        assert!(written.contains(&format!("\"client\":\"{client}\"")), "{written}");
        assert!(written.contains("\"subject\":\"anonymous\""), "{written}");
    }
}

#[tokio::test]
async fn from_elsewhere_administration_is_as_if_it_were_not_there() {
    let authenticator = || Authenticator::new("test", "X-API-Key", ["key".to_owned()]).unwrap();
    let routes = || {
        let service = ("a".to_owned(), guarded(routes(), None, authenticator()));
        mount(vec![service], Router::new())
    };
    let around = behind_a_proxy(None, &["192.0.2.0/24"]);
    let (address, _background) =
        served(app_within(routes(), limits(), around), ServeOptions::default()).await;
    let key = ("x-api-key", "key");
    for (from, inside) in [
        (None, true),
        (Some(("x-forwarded-for", "192.0.2.7")), true),
        (Some(("x-forwarded-for", "198.51.100.7")), false),
        (Some(("x-forwarded-for", "192.0.2.7, 198.51.100.7")), false),
        (Some(("x-forwarded-for", "what is this")), false),
        (Some(("via", "1.1 somebody")), false),
    ] {
        let headers: Vec<_> = [key].into_iter().chain(from).collect();
        for (method, path, hidden) in [
            ("GET", "/api/v1/users", true),
            ("POST", "/api/v1/users", true),
            ("GET", "/services/a/api/v1/users", true),
            ("POST", "/api/v1/users/1/%24disable", true),
            ("POST", "/services/a/api/v1/auth/$rotate-signing-keys", true),
            ("GET", "/api/v1/system", false),
            ("GET", "/things", false),
        ] {
            let (status, head, body) = asked(address, method, path, &headers).await;
            if inside || !hidden {
                assert_eq!(status, 200, "{from:?} {method} {path}: {body}");
                continue;
            }
            // The same as of a path that is really not there.
            let missing = asked(address, method, "/api/v1/nothing", &headers).await;
            assert_eq!(status, missing.0, "{from:?} {method} {path}: {body}");
            let said = |body: &str| {
                let mut said: Value = serde_json::from_str(body).unwrap();
                said["instance"].take();
                said["trace_id"].take();
                said
            };
            assert_eq!(said(&body), said(&missing.2));
            let names = |head: &str| {
                let lines = head.lines().filter_map(|it| it.split_once(':'));
                let lines =
                    lines.filter(|it| !["x-request-id", "date", "content-length"].contains(&it.0));
                lines.map(|it| format!("{}:{}", it.0, it.1)).collect::<Vec<_>>()
            };
            assert_eq!(names(&head), names(&missing.1));
            // And nobody without a key sees more.
            let stranger: Vec<_> = from.into_iter().collect();
            for path in [path, "/api/v1/nothing"] {
                assert_eq!(asked(address, method, path, &stranger).await.0, 401, "{path}");
            }
        }
    }
}
