//! Many clients at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use modelyard_testkit::on_both_databases;
use serde_json::json;

use super::support::{
    config, ended, frame, service, settings, start, start_model, submitted, text, train_with,
};

on_both_databases! {
    async fn two_writers_and_four_readers_lose_nothing(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let done = AtomicBool::new(false);
        let writing = async {
            let writers = (0..2).map(|writer| {
                let client = client.clone();
                async move {
                    let mut ids = Vec::new();
                    for number in 0..100 {
                        let body = json!({"name": format!("{writer}-{number}"), "data": {}});
                        let made = client.post("/api/v1/configs", &body).await.expect(201);
                        ids.push(text(&made.body["id"]));
                    }
                    ids
                }
            });
            let ids: BTreeSet<String> = join_all(writers).await.into_iter().flatten().collect();
            done.store(true, Ordering::Relaxed);
            ids
        };
        let readers = (0..4).map(|reader| {
            let (client, done) = (client.clone(), &done);
            async move {
                while !done.load(Ordering::Relaxed) {
                    match reader % 2 {
                        0 => client.get("/health").await.expect(200),
                        _ => client.get("/api/v1/configs").await.expect(200),
                    };
                }
            }
        });
        let (written, _) = tokio::join!(writing, join_all(readers));
        let listed = client.get("/api/v1/configs").await.expect(200).body;
        let listed = listed.as_array().unwrap().iter().map(|it| text(&it["id"])).collect();
        assert_eq!(written.len(), 200);
        assert_eq!(written, listed);
        server.stop().await;
    }

    async fn one_connection_to_the_database_is_enough(database: TestDatabase) {
        let mut settings = settings(&database);
        settings.database.pool_size = 1;
        settings.database.connect_timeout = Duration::from_secs(3);
        settings.jobs.concurrency = 2;
        let (server, client) = start(service("behaviour"), settings).await;
        let everything = (0..4).map(|number| {
            let client = client.clone();
            async move {
                let id = config(&client, json!({})).await;
                let trained = train_with(&client, &id).await;
                assert_eq!(ended(&client, &trained.job).await["status"], "completed");
                let artifact = format!("/api/v1/artifacts/{}", trained.artifact);
                let predict = json!({
                    "artifact_id": trained.artifact, "historic": frame(), "future": frame(),
                });
                let predicted = submitted(&client.post("/api/v1/ml/$predict", &predict).await.expect(202));
                assert_eq!(ended(&client, &predicted.job).await["status"], "completed");
                for path in ["", "/$tree", "/$config", "/$download", "/$metadata"] {
                    client.get(&format!("{artifact}{path}")).await.expect(200);
                }
                let new = json!({"op": "create", "body": {"name": "n", "data": {}}});
                let bulk = json!({"atomic": number % 2 == 0, "operations": [new, new]});
                client.post("/api/v1/configs/$bulk", &bulk).await.expect(200);
                client.get("/api/v1/configs?page=1&size=5").await.expect(200);
                client.put(&artifact, &json!({"data": {"content": "other"}})).await.expect(200);
                client.get("/health").await.expect(200);
                client.delete(&format!("/api/v1/configs/{id}")).await.expect(204);
            }
        });
        join_all(everything).await;
        server.stop().await;
    }

    async fn of_many_who_take_one_id_one_gets_it(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        for path in ["/api/v1/configs", "/api/v1/artifacts"] {
            let body = json!({"id": "01K72PWT05GEXK1S24AVKAZ9VE", "name": "mine", "data": {"a": 1}});
            let answers = join_all((0..20).map(|_| client.post(path, &body))).await;
            let mut statuses: Vec<u16> = answers.iter().map(|it| it.status.as_u16()).collect();
            statuses.sort_unstable();
            assert_eq!(statuses[0], 201, "{path}");
            assert!(statuses[1..].iter().all(|it| *it == 409), "{path}: {statuses:?}");
        }
        server.stop().await;
    }
}
