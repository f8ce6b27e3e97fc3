//! Clients that stay: whatever else is asked finds a place beside them.

use std::time::{Duration, Instant};

use http::Method;
use modelyard::Server;
use modelyard_testkit::{TestDatabase, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{files, service, settings, start, stored, until};

/// How long a client has to bring something.
const SHORT: Duration = Duration::from_millis(400);

const UPLOAD: &str = "POST /api/v1/artifacts/$upload HTTP/1.1\r\nhost: localhost\r\n\
                      transfer-encoding: chunked\r\n\r\n";

async fn connect(server: &Server, head: &str) -> TcpStream {
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

/// Sends `bytes` a few times a second until there is an answer, or for so long.
async fn drip(socket: &mut TcpStream, bytes: usize, patience: Duration) -> String {
    let began = Instant::now();
    let chunk = format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
    let mut answer = vec![0; 4096];
    while began.elapsed() < patience {
        if socket.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
        let read = tokio::time::timeout(SHORT / 8, socket.read(&mut answer)).await;
        if let Ok(read) = read {
            answer.truncate(read.unwrap_or_default());
            return String::from_utf8_lossy(&answer).into_owned();
        }
    }
    String::new()
}

#[test]
fn an_upload_that_comes_in_drops_is_given_up_and_a_slow_one_is_not() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.request_timeout = SHORT;
        let (server, _) = start(service("behaviour"), settings).await;
        let before = stored(&database).await;
        let asked = Instant::now();
        let answer = drip(&mut connect(&server, UPLOAD).await, 1, SHORT * 10).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
        assert!(asked.elapsed() < SHORT * 5, "{:?}", asked.elapsed());
        assert_eq!(stored(&database).await, before);
        assert_eq!(files(&database.dir().join("data/blobs")), Vec::<String>::new());

        let mut slow = connect(&server, UPLOAD).await;
        assert_eq!(drip(&mut slow, 500, SHORT * 5).await, "");
        slow.write_all(b"0\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        slow.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 201");
        server.stop().await;
    });
}

#[test]
fn uploads_leave_places_to_others() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.max_requests = 4;
        let (server, client) = start(service("behaviour"), settings).await;
        let taken_in = async || {
            let head = UPLOAD.replace("host:", "expect: 100-continue\r\nhost:");
            let mut socket = connect(&server, &head).await;
            let mut answer = [0; 12];
            socket.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 100");
            socket
        };
        let uploads = [taken_in().await, taken_in().await];
        let upload = async || {
            let request = client.request(Method::POST, "/api/v1/artifacts/$upload");
            request.body("x").send().await
        };
        let refused = upload().await.expect(503);
        assert_eq!(refused.body["code"], "service_busy");
        assert!(refused.header("retry-after").is_some());
        client.get("/api/v1/configs").await.expect(200);
        drop(uploads);
        until("there is room", async || upload().await.status == 201).await;
        server.stop().await;
    });
}

#[test]
fn streams_leave_places_to_others() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.max_connections = 8;
        let (server, client) = start(service("behaviour"), settings).await;
        let follow = async || client.request(Method::GET, "/health/$stream").open().await;
        let mut followed = Vec::new();
        for _ in 0..2 {
            let mut stream = follow().await;
            assert!(stream.next_event().await.is_some());
            followed.push(stream);
        }
        for _ in 0..20 {
            let refused = client.get("/health/$stream").await.expect(503);
            assert_eq!(refused.body["code"], "service_busy");
        }
        client.get("/health").await.expect(200);
        client.get("/api/v1/configs").await.expect(200);
        drop(followed.pop());
        until("there is room", async || follow().await.status == 200).await;
        server.stop().await;
    });
}
