//! There is an end to everything that clients can take: places in the queue, connections, time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use modelyard::{Server, Service, ServiceInfo, functions};
use modelyard_testkit::{TestDatabase, TestResponse, on_both_databases, run};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    assert_problem, assert_refused, config, files, frame, running, service, settings, start,
    stored, text, train_body, train_with, until,
};

const SHORT: Duration = Duration::from_millis(300);

#[track_caller]
fn assert_try_again(answer: &TestResponse, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
    assert_problem(answer, &"try again");
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

on_both_databases! {
    async fn a_full_queue_takes_no_more_until_there_is_room(database: TestDatabase) {
        let mut settings = settings(&database);
        settings.jobs.max_pending = 3;
        let (server, client) = start(service("behaviour"), settings).await;
        let id = config(&client, json!({"seconds": 60})).await;
        let first = train_with(&client, &id).await;
        running(&client, &first.job).await;
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(train_with(&client, &id).await.job);
        }
        let full = stored(&database).await;
        let refused = client.post("/api/v1/ml/$train", &train_body(&id)).await;
        assert_try_again(&refused, 429);
        assert_eq!(refused.body["code"], "queue_full");
        assert_eq!(stored(&database).await, full);
        // Others wait in queues of their own.
        let frame = frame();
        let body = json!({"artifact_id": first.artifact, "historic": frame, "future": frame});
        for _ in 0..3 {
            client.post("/api/v1/ml/$predict", &body).await.expect(202);
        }
        let refused = client.post("/api/v1/ml/$predict", &body).await;
        assert_try_again(&refused, 429);
        client.delete(&format!("/api/v1/jobs/{}", waiting[1])).await.expect(204);
        train_with(&client, &id).await;
        server.stop().await;
    }
}

async fn connect(server: &Server, start: &str) -> TcpStream {
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    socket.write_all(start.as_bytes()).await.unwrap();
    socket
}

/// What comes until the server closes the connection.
async fn rest(mut socket: TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut bytes)).await;
    // A reset is an end too.
    let _length = read.expect("the server keeps the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn whoever_takes_for_ever_to_ask_is_cut_off() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.idle_timeout = SHORT;
        let (server, client) = start(service("behaviour"), settings).await;
        for begun in ["", "GET /hea", "GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow: "] {
            let asked = Instant::now();
            let mut socket = connect(&server, begun).await;
            // A byte now and then, as those do who want to keep places.
            for _ in 0..4 {
                tokio::time::sleep(SHORT / 5).await;
                let _closed_already =
                    socket.write_all(if begun.is_empty() { b"" } else { b"x" }).await;
            }
            let answer = rest(socket).await;
            assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
            assert!(asked.elapsed() < SHORT * 8, "{begun:?}: {:?}", asked.elapsed());
        }
        // Idle after an answer is the same.
        let asked = Instant::now();
        let socket = connect(&server, "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(rest(socket).await.starts_with("HTTP/1.1 200"));
        assert!(asked.elapsed() < SHORT * 8, "{:?}", asked.elapsed());
        client.get("/health").await.expect(200);
        server.stop().await;
    });
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.request_timeout = SHORT;
        let (server, _) = start(service("behaviour"), settings).await;
        let empty = stored(&database).await;
        for (path, status) in [
            ("/api/v1/configs", "408"),
            ("/api/v1/ml/$train", "408"),
            ("/api/v1/artifacts/$upload", "400"),
        ] {
            let asked = Instant::now();
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 content-length: 1000\r\n\r\n{{\"name\": "
            );
            let answer = rest(connect(&server, &head).await).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
            assert!(answer.contains("urn:servicekit:error:"), "{path}: {answer}");
            assert!(asked.elapsed() < SHORT * 8, "{path}: {:?}", asked.elapsed());
        }
        assert_eq!(stored(&database).await, empty);
        let blobs = database.dir().join("data/blobs");
        assert_eq!(files(&blobs), Vec::<String>::new());
        server.stop().await;
    });
}

#[test]
fn those_whom_nobody_knows_say_little_and_soon() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (server, client) = start(service("behaviour"), settings(&database)).await;
        let head = |length: usize| {
            format!(
                "POST /api/v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\n\r\n{{\"email\": "
            )
        };
        // More than there are places for, whose bodies do not come.
        let (short, asked) = (head(100), Instant::now());
        let slow = join_all((0..160).map(|_| connect(&server, &short))).await;
        // Whatever else is asked finds a place.
        let (answers, configs) =
            tokio::join!(join_all(slow.into_iter().map(rest)), client.get("/api/v1/configs"));
        configs.expect(200);
        let (mut given_up, mut turned_away) = (0, 0);
        for answer in answers {
            given_up += usize::from(answer.starts_with("HTTP/1.1 400 "));
            turned_away += usize::from(answer.starts_with("HTTP/1.1 503 "));
        }
        assert_eq!((given_up, turned_away), (128, 32));
        assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
        let login = json!({"email": "ada@example.org", "password": "wrong"});
        client.post("/api/v1/auth/login", &login).await.expect(401);

        let large = rest(connect(&server, &head(17 << 10)).await).await;
        assert!(large.starts_with("HTTP/1.1 413 "), "{large}");
        let large = json!({"email": vec![[1]; 5000], "password": "wrong"});
        client.post("/api/v1/auth/login", &large).await.expect(413);
        server.stop().await;
    });
}

#[test]
fn an_answer_that_does_not_come_is_given_up_and_its_work_with_it() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.request_timeout = SHORT;
        let (server, client) = start(service("behaviour"), settings).await;
        let id = config(&client, json!({"seconds": 60})).await;
        let mut body = train_body(&id);
        body["type"] = json!("train");
        let asked = Instant::now();
        let answer = client.post("/api/v1/ml/$validate", &body).await;
        assert_problem(&answer, &"a validation that takes a minute");
        assert_eq!(answer.body["code"], "request_timeout");
        assert!(asked.elapsed() < SHORT * 5, "{:?}", asked.elapsed());
        let work = database.dir().join("data/work");
        until("its workspace is gone", async || fs_err::read_dir(&work).unwrap().next().is_none())
            .await;
        server.stop().await;
    });
}

#[test]
fn validations_beyond_the_bound_wait_their_turn() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, seen) = (now.clone(), most.clone());
        let validate = move |_: Value, _| {
            let (now, most) = (counted.clone(), seen.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(Vec::new())
            }
        };
        let runner = functions(
            |_: Value, _| async { Ok(()) },
            |_: Value, (): (), it| async move { Ok(it.future) },
        );
        let builder = Service::builder(ServiceInfo::new("behaviour", "Behaviour"));
        let service = builder.runner(runner.validate_train(validate)).build().unwrap();
        let (server, client) = start(service, settings(&database)).await;
        let mut body = train_body(&config(&client, json!({})).await);
        body["type"] = json!("train");
        for answer in join_all((0..40).map(|_| client.post("/api/v1/ml/$validate", &body))).await {
            answer.expect(200);
        }
        let places = std::thread::available_parallelism().unwrap().get().max(2);
        let most = most.load(Ordering::SeqCst);
        assert!(most > 1 && most <= places, "{most} at a time in {places} places");
        server.stop().await;
    });
}

#[test]
fn connections_beyond_the_bound_wait_their_turn() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.max_connections = 2;
        settings.server.idle_timeout = SHORT * 2;
        let (server, _) = start(service("behaviour"), settings).await;
        let _idle = [connect(&server, "").await, connect(&server, "").await];
        tokio::time::sleep(SHORT / 3).await;
        let asked = Instant::now();
        let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let answer = rest(connect(&server, request).await).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(asked.elapsed() > SHORT, "{:?}", asked.elapsed());
        server.stop().await;
    });
}

#[test]
fn requests_beyond_the_bound_are_told_to_come_back_but_health_is_answered() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.max_requests = 2;
        let (server, client) = start(service("behaviour"), settings).await;
        let head = "POST /api/v1/configs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n";
        let slow = [connect(&server, head).await, connect(&server, head).await];
        until("they are being answered", async || {
            client.get("/api/v1/configs").await.status == 503
        })
        .await;
        assert_try_again(&client.get("/api/v1/configs").await, 503);
        client.get("/health").await.expect(200);
        drop(slow);
        until("there is room", async || client.get("/api/v1/configs").await.status == 200).await;
        server.stop().await;
    });
}

#[test]
fn whoever_asks_and_does_not_read_loses_the_place() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.max_connections = 1;
        settings.server.idle_timeout = SHORT;
        let (server, client) = start(service("behaviour"), settings).await;
        let upload = client.request(Method::POST, "/api/v1/artifacts/$upload");
        let made = upload.body(vec![7; 40 << 20]).send().await.expect(201).body;
        drop(client);
        tokio::time::sleep(SHORT * 2).await;

        let path = format!("/api/v1/artifacts/{}/$download", text(&made["id"]));
        let mut greedy =
            connect(&server, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let mut start = [0; 1024];
        greedy.read_exact(&mut start).await.unwrap();
        assert!(start.starts_with(b"HTTP/1.1 200"));
        let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let answer = rest(connect(&server, request).await).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop(greedy);
        server.stop().await;
    });
}

#[test]
fn whoever_is_refused_hears_why_however_much_there_was_to_send() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let service = Service::builder(ServiceInfo::new("behaviour", "Behaviour"));
        let service = service.with_auth(["the key".to_owned()]).build().unwrap();
        let (server, stranger) = start(service, settings(&database)).await;
        let client = stranger.clone().with_header("x-api-key", "the key");
        let body = Bytes::from(vec![b'7'; 50 << 20]);
        for (client, path, status) in [
            (&stranger, "/api/v1/artifacts/$upload", 401),
            (&stranger, "/api/v1/configs", 401),
            (&client, "/api/v1/artifacts/$upload?parent_id=nope", 422),
            (&client, "/api/v1/artifacts/$upload?tags=a%20b", 422),
            (&client, "/api/v1/nothing", 405),
            (&client, "/api/v1/configs/01K72PWT05GEXK1S24AVKAZ9VE", 405),
        ] {
            for _ in 0..3 {
                let request = client.request(Method::POST, path).body(body.clone());
                let answer = request.send().await.expect(status);
                assert_refused(&answer, &path);
            }
        }
        assert_eq!(files(&database.dir().join("data/blobs")), Vec::<String>::new());
        server.stop().await;
    });
}

#[test]
fn what_is_no_http_is_cut_off_and_harms_nobody() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.idle_timeout = SHORT;
        let (server, client) = start(service("behaviour"), settings).await;
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x-header: value\r\n".repeat(5000));
        let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(1 << 20));
        for garbage in [
            b"\0\0\0\0\r\n\r\n".as_slice(),
            b"hello\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /health HTTP/9.9\r\n\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
            b"GET /api/v1/configs?name=\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
            b"GET /health HTTP/1.1\r\nhost: \x01\r\n\r\n",
            b"POST /api/v1/configs HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
            b"POST /api/v1/configs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999\r\n\r\n",
            b"POST /api/v1/configs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
            b"POST /api/v1/configs HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            b"POST /api/v1/configs HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            many.as_bytes(),
            long.as_bytes(),
        ] {
            let mut socket = TcpStream::connect(server.address()).await.unwrap();
            // It may be cut off before all of it is sent.
            let _cut_off = socket.write_all(garbage).await;
            let answer = rest(socket).await;
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(!status.starts_with('5'), "{}: {answer}", String::from_utf8_lossy(garbage));
        }
        assert_eq!(client.get("/api/v1/configs").await.expect(200).body, json!([]));
        server.stop().await;
    });
}

#[test]
fn a_list_of_changes_has_an_end() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (server, client) = start(service("behaviour"), settings(&database)).await;
        let before = stored(&database).await;
        let one = json!({"op": "create", "body": {"name": "n", "data": {}}});
        let many = json!({"operations": vec![one; 1001]});
        let answer = client.post("/api/v1/configs/$bulk", &many).await.expect(422);
        assert_refused(&answer, &"1001 operations");
        assert_eq!(stored(&database).await, before);
        server.stop().await;
    });
}
