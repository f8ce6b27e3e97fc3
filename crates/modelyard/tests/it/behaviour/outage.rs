//! PostgreSQL goes away and comes back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use modelyard::settings::Settings;
use modelyard_kernel::db::query;
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, run};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{
    assert_problem, config, ended, running, service, settings, start, text, train_with, until,
};

/// What stands between the server and its database.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Line {
    Open,
    /// Connections are torn, and new ones as well.
    Cut,
    /// Connections stay, and nothing comes through.
    Silent,
}

#[derive(Debug)]
struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (line, state) = watch::channel(Line::Open);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (from, _) = listener.accept().await.unwrap();
                connections.spawn(connection(from, to.clone(), state.clone()));
            }
        });
        Self { address, line, _tasks: tasks }
    }

    fn set(&self, line: Line) {
        self.line.send(line).unwrap();
    }

    /// Settings of a server that reaches its database only through here.
    fn settings(&self, database: &TestDatabase) -> Settings {
        let (host, port) = host_of(&database.url);
        let mut settings = settings(database);
        let address = self.address.to_string();
        settings.database.url = database.url.replacen(&format!("{host}:{port}"), &address, 1);
        settings.database.connect_timeout = Duration::from_secs(2);
        settings
    }
}

async fn connection(mut from: TcpStream, to: impl ToSocketAddrs, mut line: watch::Receiver<Line>) {
    if *line.borrow() == Line::Cut {
        return;
    }
    let mut to = TcpStream::connect(to).await.unwrap();
    loop {
        let state = *line.borrow_and_update();
        match state {
            Line::Cut => return,
            Line::Open => tokio::select! {
                _ended = tokio::io::copy_bidirectional(&mut from, &mut to) => return,
                _changed = line.changed() => {}
            },
            Line::Silent => match line.changed().await {
                Ok(()) => {}
                // The test is over.
                Err(_) => return,
            },
        }
    }
}

/// Host and port of a database's address.
fn host_of(url: &str) -> (String, u16) {
    let url: url::Url = url.parse().unwrap();
    (url.host_str().unwrap().to_owned(), url.port().expect("the address has a port"))
}

async fn proxy(database: &TestDatabase) -> Proxy {
    let (host, port) = host_of(&database.url);
    Proxy::start(format!("{host}:{port}")).await
}

/// Makes configs until told to stop; their names, as far as the server said that they are stored.
async fn write(client: &TestClient, writer: usize, done: &AtomicBool) -> (Vec<String>, usize) {
    let (mut stored, mut refused) = (Vec::new(), 0);
    for number in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{writer}-{number}");
        let answer = client.post("/api/v1/configs", &json!({"name": name, "data": {}})).await;
        if answer.status == 201 {
            stored.push(name);
        } else {
            assert_unavailable(&answer);
            refused += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    (stored, refused)
}

#[track_caller]
fn assert_unavailable(answer: &TestResponse) {
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_problem(answer, &"an outage");
    assert!(answer.header("retry-after").is_some());
    let said = text(&answer.body["detail"]);
    for secret in ["postgres", "127.0.0.1", "SELECT", "terminat"] {
        assert!(!said.contains(secret), "{said}");
    }
}

async fn health(client: &TestClient) -> (u16, String) {
    let answer = client.get("/health").await;
    (answer.status.as_u16(), text(&answer.body["status"]))
}

#[test]
fn connections_that_are_ended_under_load_lose_nothing_that_was_promised() {
    run(async {
        let database = TestDatabase::postgres().await;
        let (server, client) = start(service("behaviour"), settings(&database)).await;
        let done = Arc::new(AtomicBool::new(false));
        let writers = join_all((0..4).map(|it| write(&client, it, &done)));
        let killing = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(80)).await;
                let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                            WHERE datname = current_database() AND pid <> pg_backend_pid()";
                query(kill).execute(&mut database.db.conn().await.unwrap()).await.unwrap();
            }
            done.store(true, Ordering::Relaxed);
        };
        let (written, ()) = tokio::join!(writers, killing);
        let promised: BTreeSet<String> = written.into_iter().flat_map(|it| it.0).collect();
        assert!(promised.len() > 20, "{}", promised.len());
        until("it is over", async || client.get("/api/v1/configs").await.status == 200).await;
        let listed = client.get("/api/v1/configs").await;
        let stored: BTreeSet<String> = listed
            .expect(200)
            .body
            .as_array()
            .unwrap()
            .iter()
            .map(|it| text(&it["name"]))
            .collect();
        assert!(promised.is_subset(&stored), "{:?}", promised.difference(&stored));
        server.stop().await;
    });
}

#[test]
fn during_an_outage_requests_are_told_so_and_afterwards_all_is_well() {
    run(async {
        let database = TestDatabase::postgres().await;
        let proxy = proxy(&database).await;
        let (server, client) = start(service("behaviour"), proxy.settings(&database)).await;
        config(&client, json!({})).await;
        assert_eq!(health(&client).await, (200, "healthy".to_owned()));
        let mut settings = proxy.settings(&database);
        settings.auth.api_keys = vec!["a key".to_owned()];
        settings.data.dir = database.dir().join("data-2");
        let (known_server, known) = start(service("known"), settings).await;

        let done = Arc::new(AtomicBool::new(false));
        let writers = join_all((0..4).map(|it| write(&client, it, &done)));
        let outage = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            proxy.set(Line::Cut);
            until("the service is unhealthy", async || {
                health(&client).await == (503, "unhealthy".to_owned())
            })
            .await;
            for path in ["/api/v1/configs", "/api/v1/artifacts", "/api/v1/jobs", "/api/v1/tasks"] {
                assert_unavailable(&client.get(path).await);
            }
            // Whether there is anybody by now, so that others may not come in, cannot be known.
            assert_unavailable(&client.get("/api/v1/info").await);
            // Who shows a key of the settings is known without.
            for path in ["/api/v1/info", "/metrics"] {
                let asked = known.request(Method::GET, path).header("x-api-key", "a key");
                asked.send().await.expect(200);
            }
            proxy.set(Line::Open);
            until("the service is healthy", async || health(&client).await.0 == 200).await;
            client.get("/api/v1/configs").await.expect(200);
            done.store(true, Ordering::Relaxed);
        };
        let (written, ()) = tokio::join!(writers, outage);
        assert!(written.iter().all(|it| it.1 > 0), "everybody was to notice");
        let mut names: Vec<String> = written.into_iter().flat_map(|it| it.0).collect();
        let listed = client.get("/api/v1/configs").await.expect(200).body;
        let listed: BTreeSet<String> =
            listed.as_array().unwrap().iter().map(|it| text(&it["name"])).collect();
        names.retain(|it| !listed.contains(it));
        assert!(names.is_empty(), "promised and not there: {names:?}");
        server.stop().await;
        known_server.stop().await;
    });
}

#[test]
fn a_database_that_says_nothing_keeps_nobody_for_ever() {
    run(async {
        let database = TestDatabase::postgres().await;
        let proxy = proxy(&database).await;
        let mut settings = proxy.settings(&database);
        settings.server.request_timeout = Duration::from_millis(2500);
        let (server, client) = start(service("behaviour"), settings).await;
        config(&client, json!({})).await;
        proxy.set(Line::Silent);
        let asked = Instant::now();
        let answers = join_all((0..20).map(|_| client.get("/api/v1/configs"))).await;
        for answer in answers {
            assert!(matches!(answer.status.as_u16(), 408 | 503), "{}", answer.body);
            assert_problem(&answer, &"silence");
        }
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        until("the service is unhealthy", async || health(&client).await.0 == 503).await;
        proxy.set(Line::Open);
        until("the service is healthy", async || health(&client).await.0 == 200).await;
        until("requests are answered", async || client.get("/api/v1/configs").await.status == 200)
            .await;
        server.stop().await;
    });
}

#[test]
fn a_job_that_ends_during_an_outage_is_written_down_when_it_is_over() {
    run(async {
        let database = TestDatabase::postgres().await;
        let proxy = proxy(&database).await;
        let (server, client) = start(service("behaviour"), proxy.settings(&database)).await;
        let id = config(&client, json!({"seconds": 0.5})).await;
        let submitted = train_with(&client, &id).await;
        running(&client, &submitted.job).await;
        proxy.set(Line::Cut);
        // Longer than anybody would try in one go.
        tokio::time::sleep(Duration::from_secs(5)).await;
        proxy.set(Line::Open);
        let path = format!("/api/v1/jobs/{}", submitted.job);
        until("the job has ended", async || {
            let answer = client.get(&path).await;
            answer.status == 200
                && matches!(answer.body["status"].as_str(), Some("completed" | "failed"))
        })
        .await;
        let quick = config(&client, json!({})).await;
        let next = train_with(&client, &quick).await;
        assert_eq!(ended(&client, &next.job).await["status"], "completed");
        server.stop().await;
    });
}
