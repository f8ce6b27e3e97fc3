//! Clients that follow a stream and leave whenever they like.

use std::time::Duration;

use modelyard_testkit::on_both_databases;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{config, ended, running, start_model, stored, text, train_with};

on_both_databases! {
    async fn streams_that_are_torn_off_harm_nobody(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({"how": "wait", "seconds": 0.8})).await;
        let job = train_with(&client, &id).await.job;
        running(&client, &job).await;
        let before = stored(&database).await;

        for round in 0..40_u64 {
            let health = "/health/$stream?poll_interval=0.001".to_owned();
            for path in [health, format!("/api/v1/jobs/{job}/$stream?poll_interval=0.001")] {
                let mut socket = TcpStream::connect(server.address()).await.unwrap();
                let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
                socket.write_all(request.as_bytes()).await.unwrap();
                if round % 2 == 0 {
                    let mut start = [0; 16];
                    socket.read_exact(&mut start).await.unwrap();
                }
                // Reset, not closed: what is on its way is thrown away.
                socket.set_zero_linger().unwrap();
                tokio::time::sleep(Duration::from_millis(round % 5)).await;
                drop(socket);
            }
            let health = client.get("/health").await.expect(200).body;
            assert_eq!(health["status"], "healthy", "{health}");
        }

        assert_eq!(stored(&database).await, before);
        assert_eq!(client.get("/api/v1/configs").await.expect(200).body[0]["id"], json!(id));
        assert_eq!(ended(&client, &job).await["status"], "completed");
        server.stop().await;
    }

    async fn a_stream_of_a_job_shows_how_it_goes_and_ends_with_it(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({"how": "wait", "seconds": 0.2})).await;
        let job = train_with(&client, &id).await.job;
        let path = format!("/api/v1/jobs/{job}/$stream?poll_interval=0.02");
        let mut stream = client.request(http::Method::GET, &path).open().await;
        let mut states = Vec::new();
        while let Some(event) = stream.next_event().await {
            let record: serde_json::Value = serde_json::from_str(&event).unwrap();
            states.push(text(&record["status"]));
        }
        states.dedup();
        assert_eq!(states.last().unwrap(), "completed");
        assert!(states.contains(&"running".to_owned()), "{states:?}");
        server.stop().await;
    }
}
