//! A stop by signal, as a supervisor does it: everything ends, in time, and leaves nothing.

use std::process::Stdio;
use std::time::{Duration, Instant};

use http::Method;
use modelyard_testkit::{TestClient, on_both_databases, run};
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::program::{Program, Project};
use crate::support::{config, ended, running, train_with, until};

/// Does not listen, and has a family that does not either.
const STUBBORN: &str = r#"
trap "" TERM
sh -c 'trap "" TERM; sleep 60; :' grandchild "$1" &
setsid sh -c 'trap "" TERM; sleep 60; :' stray "$1" &
sh -c 'sleep 60; :' child "$1"
"#;

fn impatient(project: &Project) -> tokio::process::Command {
    let mut command = project.serve();
    command.env("MODELYARD_SERVER__DRAIN", "200ms").env("MODELYARD_JOBS__DRAIN", "200ms");
    command
}

on_both_databases! {
    async fn a_stop_ends_scripts_streams_and_directories_in_time(database: TestDatabase) {
        let project = Project::new(STUBBORN);
        let mut command = impatient(&project);
        command.arg("--database").arg(&database.url);
        let mut program = Program::start(command).await;
        let id = config(&program.client, json!({})).await;
        let submitted = train_with(&program.client, &id).await;
        let mut streams = Vec::new();
        for path in ["/health/$stream".to_owned(), format!("/api/v1/jobs/{}/$stream", submitted.job)] {
            let mut stream = program.client.request(Method::GET, &path).open().await;
            assert!(stream.next_event().await.is_some());
            streams.push(stream);
        }
        until("the family is complete", async || project.processes().len() >= 5).await;

        let asked = Instant::now();
        program.signal(Signal::TERM);
        let following = async {
            for stream in &mut streams {
                while stream.next_event().await.is_some() {}
            }
        };
        tokio::time::timeout(Duration::from_secs(3), following).await.expect("the streams end");
        let status = program.ended(Duration::from_secs(10)).await;
        let took = asked.elapsed();
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(project.processes().is_empty(), "{:?}", project.processes());
        assert!(project.workspaces().is_empty(), "{:?}", project.workspaces());
        // Drain, then a script's grace of one and a half seconds.
        assert!(took < Duration::from_secs(4), "{took:?}");

        // Nobody cancelled it: it is done again.
        fs_err::write(project.path().join("train.sh"), "echo trained > model").unwrap();
        let mut command = impatient(&project);
        command.arg("--database").arg(&database.url);
        let program = Program::start(command).await;
        assert_eq!(ended(&program.client, &submitted.job).await["status"], "completed");
    }
}

#[test]
fn what_is_nearly_done_is_finished_before_the_end() {
    run(async {
        let project = Project::new("sleep 0.7; echo trained > model");
        let mut command = project.serve();
        command.env("MODELYARD_JOBS__DRAIN", "10s");
        let mut program = Program::start(command).await;
        let id = config(&program.client, json!({})).await;
        let submitted = train_with(&program.client, &id).await;
        running(&program.client, &submitted.job).await;
        program.signal(Signal::TERM);
        assert_eq!(program.ended(Duration::from_secs(8)).await.code(), Some(0));

        let program = Program::start(project.serve()).await;
        let path = format!("/api/v1/jobs/{}", submitted.job);
        let record = program.client.get(&path).await.expect(200).body;
        assert_eq!(record["status"], "completed", "{record}");
    });
}

#[test]
fn a_request_that_is_being_answered_is_answered() {
    run(async {
        let project = Project::new("");
        let mut program = Program::start(project.serve()).await;
        let address = program.client.base().trim_start_matches("http://").to_owned();
        let mut socket = TcpStream::connect(&address).await.unwrap();
        let body = r#"{"name": "late", "data": {}}"#;
        let head = format!(
            "POST /api/v1/configs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        program.signal(Signal::TERM);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(TcpStream::connect(&address).await.is_err(), "nobody new is let in");
        socket.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        assert_eq!(program.ended(Duration::from_secs(5)).await.code(), Some(0));
    });
}

#[test]
fn it_serves_although_nobody_reads_what_it_says() {
    run(async {
        let project = Project::new("");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = project.serve();
        let mut child =
            command.arg("--port").arg(port.to_string()).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let address = format!("127.0.0.1:{port}");
        until("it listens", async || TcpStream::connect(&address).await.is_ok()).await;
        let client = TestClient::new(format!("http://{address}"));
        client.get("/health").await.expect(200);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
    });
}

#[test]
fn a_stop_while_it_starts_is_a_stop() {
    run(async {
        let project = Project::new("sleep 60");
        let mut program = Program::start(impatient(&project)).await;
        let id = config(&program.client, json!({})).await;
        train_with(&program.client, &id).await;
        // The sooner the signal, the likelier that nobody listens for it yet.
        program.signal(Signal::TERM);
        assert_eq!(program.ended(Duration::from_secs(8)).await.code(), Some(0));
        for _ in 0..5 {
            let mut program = Program::start(impatient(&project)).await;
            program.signal(Signal::TERM);
            assert_eq!(program.ended(Duration::from_secs(8)).await.code(), Some(0));
            assert!(project.workspaces().is_empty(), "{:?}", project.workspaces());
        }
    });
}

#[test]
fn an_interrupt_is_a_stop_too() {
    run(async {
        let project = Project::new("");
        let mut program = Program::start(project.serve()).await;
        program.client.get("/health").await.expect(200);
        program.signal(Signal::INT);
        // The client's connection is kept and idle: nothing to wait for.
        assert_eq!(program.ended(Duration::from_secs(2)).await.code(), Some(0));
    });
}
