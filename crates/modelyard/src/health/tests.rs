use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::{Request, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use modelyard_kernel::part::Checked;
use tower::ServiceExt;

use super::*;

fn check(
    name: &'static str,
    ask: impl Fn() -> BoxFuture<'static, Checked> + Send + Sync + 'static,
) -> HealthCheck {
    HealthCheck { name, ask: Arc::new(ask) }
}

fn says(name: &'static str, state: Health, message: Option<&'static str>) -> HealthCheck {
    check(name, move || async move { (state, message.map(ToOwned::to_owned)) }.boxed())
}

fn service(checks: Vec<HealthCheck>) -> Router {
    Checks::new(checks, Background::default()).part().routes.into()
}

async fn get(service: &Router, path: &str) -> Response {
    let request = Request::get(path).body(Body::empty()).unwrap();
    service.clone().oneshot(request).await.unwrap()
}

async fn health(service: &Router) -> (StatusCode, String) {
    let response = get(service, "/health").await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn what_there_is_nothing_to_say_about_is_left_out() {
    let (status, body) = health(&service(Vec::new())).await;
    assert_eq!((status.as_u16(), body.as_str()), (200, r#"{"status":"healthy"}"#));

    let database = says("database", Health::Healthy, None);
    let (_, body) = health(&service(vec![database])).await;
    assert_eq!(body, r#"{"status":"healthy","checks":{"database":{"state":"healthy"}}}"#);
}

#[tokio::test]
async fn the_worst_check_decides_and_unhealthy_is_503() {
    let flaky = says("flaky", Health::Degraded, Some("slow"));
    let (status, body) =
        health(&service(vec![flaky.clone(), says("database", Health::Healthy, None)])).await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        r#"{"status":"degraded","checks":{"flaky":{"state":"degraded","message":"slow"},"database":{"state":"healthy"}}}"#
    );
    let (status, body) =
        health(&service(vec![flaky, says("database", Health::Unhealthy, Some("gone"))])).await;
    assert_eq!(status, 503);
    assert!(body.starts_with(r#"{"status":"unhealthy""#), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_panics_or_hangs_is_unhealthy() {
    let panics = check("panics", || panic!("on purpose"));
    let hangs = check("hangs", || futures_util::future::pending().boxed());
    let (status, body) = health(&service(vec![panics, hangs])).await;
    assert_eq!(status, 503);
    assert_eq!(
        body,
        r#"{"status":"unhealthy","checks":{"panics":{"state":"unhealthy","message":"Check failed: the check itself does not work"},"hangs":{"state":"unhealthy","message":"Check timed out"}}}"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_check_is_asked_once_a_second_however_many_ask() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let slow = check("slow", move || {
        counter.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            (Health::Healthy, None)
        }
        .boxed()
    });
    let service = service(vec![slow]);
    let crowd = (0..50).map(|_| health(&service));
    join_all(crowd).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    tokio::time::advance(FRESH).await;
    health(&service).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_does_not_interrupt_a_check() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counter = ended.clone();
    let slow = check("slow", move || {
        let counter = counter.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            counter.fetch_add(1, Ordering::Relaxed);
            (Health::Healthy, None)
        }
        .boxed()
    });
    let service = service(vec![slow]);
    let impatient = tokio::time::timeout(Duration::from_millis(10), health(&service)).await;
    assert!(impatient.is_err());
    let (status, _) = health(&service).await;
    assert_eq!((status.as_u16(), ended.load(Ordering::Relaxed)), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn the_stream_begins_at_once_and_ends_with_the_process() {
    let background = Background::default();
    let checks = Checks::new(Vec::new(), background.clone());
    let service: Router = checks.part().routes.into();
    let response = get(&service, "/health/$stream?poll_interval=0.5").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut body = response.into_body();
    for _ in 0..2 {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.data_ref().unwrap(), "data: {\"status\":\"healthy\"}\n\n");
    }
    background.stopping().cancel();
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn an_interval_out_of_bounds_is_refused() {
    for wrong in ["0", "61", "abc"] {
        let path = format!("/health/$stream?poll_interval={wrong}");
        assert_eq!(get(&service(Vec::new()), &path).await.status(), 422, "{wrong}");
    }
}

#[tokio::test]
async fn a_database_is_healthy_until_it_is_closed() {
    let options = modelyard_kernel::db::Options::default();
    let db = modelyard_kernel::Db::connect(&options).await.unwrap();
    let check = database_check(db.clone());
    assert_eq!((check.ask)().await, (Health::Healthy, None));
    db.close().await;
    let (state, message) = (check.ask)().await;
    assert_eq!(state, Health::Unhealthy);
    assert_eq!(message.unwrap(), "Check failed: the database does not answer");
}
