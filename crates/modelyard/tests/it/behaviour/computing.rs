//! Models that compute, and frames that take long to read: nobody who asks for health notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use modelyard_testkit::{TestClient, TestDatabase, run};
use serde_json::json;

use crate::support::{config, ended, running, service, settings, start, text, train_with};

/// Measures again what took too long: a busy neighbour is not our doing, and does not stay.
async fn assert_quick(limit: Duration, mut measure: impl AsyncFnMut() -> Duration) {
    let mut slow = Vec::new();
    for _ in 0..3 {
        match measure().await {
            took if took < limit => return,
            took => slow.push(took),
        }
    }
    panic!("{slow:?}");
}

/// Asks for health every few milliseconds for as long as `work` takes, and gives the time that one
/// in a hundred answers takes. Both run on threads and runtimes of their own, so that only the
/// server's work can hold up the server.
async fn health_during(
    client: &TestClient,
    work: impl Future<Output = ()> + Send + 'static,
) -> Duration {
    let done = Arc::new(AtomicBool::new(false));
    let (client, seen) = (TestClient::new(client.base()), done.clone());
    let asking = apart(async move {
        let mut waits = Vec::new();
        while !seen.load(Ordering::Relaxed) {
            let asked = Instant::now();
            client.get("/health").await.expect(200);
            waits.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        waits
    });
    apart(work).await;
    done.store(true, Ordering::Relaxed);
    let mut waits = asking.await;
    waits.sort();
    assert!(waits.len() >= 100, "{} answers are too few to tell", waits.len());
    waits[waits.len() * 99 / 100]
}

#[expect(clippy::disallowed_methods, reason = "a client, which stands back for nobody")]
fn apart<T: Send + 'static>(
    client: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> {
    let thread = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(client)
    });
    async { thread.await.unwrap() }
}

#[test]
fn models_that_compute_do_not_keep_health_waiting() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.jobs.concurrency = 4;
        let (server, client) = start(service("behaviour"), settings).await;
        let id = config(&client, json!({"how": "compute", "seconds": 2.0})).await;
        // The peer stands still for the whole of the training.
        assert_quick(Duration::from_millis(250), async || {
            let mut jobs = Vec::new();
            for _ in 0..4 {
                jobs.push(train_with(&client, &id).await.job);
            }
            for job in &jobs {
                running(&client, job).await;
            }
            let client = client.clone();
            let base = client.base().to_owned();
            health_during(&client, async move {
                let client = TestClient::new(base);
                for job in &jobs {
                    assert_eq!(ended(&client, job).await["status"], "completed");
                }
            })
            .await
        })
        .await;
        server.stop().await;
    });
}

/// Rows of a training that is large, but not unheard of.
const ROWS: usize = 50_000;

#[test]
fn large_frames_do_not_keep_health_waiting() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.jobs.concurrency = 5;
        let (server, client) = start(service("behaviour"), settings).await;
        let id = config(&client, json!({})).await;
        let row = |it: usize| json!([format!("20{:02}-01", it % 100), "north", it, 1.5, null]);
        let rows: Vec<_> = (0..ROWS).map(row).collect();
        let frame = json!({"columns": ["time_period", "location", "a", "b", "c"], "data": rows});
        let body = Bytes::from(json!({"config_id": id, "data": frame}).to_string());
        // A test build. It was most of a second when frames were read where requests are answered.
        assert_quick(Duration::from_millis(100), async || {
            let (base, body) = (client.base().to_owned(), body.clone());
            health_during(&client, async move {
                let client = TestClient::new(base);
                let send = |_| {
                    let request = client.request(Method::POST, "/api/v1/ml/$train");
                    request.header("content-type", "application/json").body(body.clone()).send()
                };
                for answer in join_all((0..5).map(send)).await {
                    let job = text(&answer.expect(202).body["job_id"]);
                    assert_eq!(ended(&client, &job).await["status"], "completed");
                }
            })
            .await
        })
        .await;
        server.stop().await;
    });
}
