//! Bodies of 100 megabytes.

use std::time::{Duration, Instant};

use modelyard_testkit::{TestClient, run};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::program::{Program, Project};

const SIZE: usize = 100_000_000;
const PIECE: usize = 1 << 20;

/// What the server answers to a body of [`SIZE`], the way a client sends it that reads only at the
/// end; status and body.
async fn send(client: &TestClient, head: &str, chunked: bool) -> (u16, Value) {
    let address = client.base().trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/v1/configs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\n{head}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'['; PIECE];
    let mut left = SIZE;
    while left > 0 {
        let length = left.min(PIECE);
        if chunked {
            socket.write_all(format!("{length:x}\r\n").as_bytes()).await.unwrap();
        }
        socket.write_all(&piece[..length]).await.unwrap();
        if chunked {
            socket.write_all(b"\r\n").await.unwrap();
        }
        left -= length;
    }
    if chunked {
        socket.write_all(b"0\r\n\r\n").await.unwrap();
    }
    read(socket).await
}

async fn read(mut socket: TcpStream) -> (u16, Value) {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[test]
fn a_hundred_megabytes_are_refused_quickly_and_without_keeping_them() {
    run(async {
        let project = Project::new("");
        let program = Program::start(project.serve()).await;
        program.client.get("/health").await.expect(200);
        let before = program.peak_memory();

        let asked = Instant::now();
        let length = format!("content-length: {SIZE}");
        let (status, problem) = send(&program.client, &length, false).await;
        assert_eq!((status, &problem["code"]), (413, &"body_too_large".into()), "{problem}");
        let grown = program.peak_memory() - before;
        assert!(grown < 16 << 20, "{grown} bytes for a body that said how long it is");

        let (status, problem) = send(&program.client, "transfer-encoding: chunked", true).await;
        assert_eq!((status, &problem["code"]), (413, &"body_too_large".into()), "{problem}");
        let grown = program.peak_memory() - before;
        assert!(grown < 200 << 20, "{grown} bytes for a body that did not say how long it is");
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());

        let configs = program.client.get("/api/v1/configs").await.expect(200).body;
        assert_eq!(configs, Value::Array(Vec::new()));
    });
}

#[test]
fn who_asks_before_sending_need_not_send() {
    run(async {
        let project = Project::new("");
        let program = Program::start(project.serve()).await;
        let address = program.client.base().trim_start_matches("http://");
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /api/v1/configs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {SIZE}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let (status, problem) = read(socket).await;
        assert_eq!((status, &problem["code"]), (413, &"body_too_large".into()), "{problem}");
    });
}
