//! Many clients at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use modelyard_testkit::on_both_databases;
use serde_json::json;

use crate::support::{
    config, ended, files, frame, running, service, settings, start, start_model, stored, submitted,
    text, train_with,
};

on_both_databases! {
    async fn a_busy_worker_is_not_woken_instead_of_a_free_one(database: TestDatabase) {
        let mut settings = settings(&database);
        settings.jobs.concurrency = 2;
        let (server, client) = start(service("behaviour"), settings).await;
        let long = config(&client, json!({"seconds": 60})).await;
        let long = train_with(&client, &long).await.job;
        running(&client, &long).await;
        let short = config(&client, json!({})).await;
        for _ in 0..4 {
            let asked = std::time::Instant::now();
            let job = train_with(&client, &short).await.job;
            assert_eq!(ended(&client, &job).await["status"], "completed");
            // A worker that nobody wakes looks every five seconds.
            assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        }
        client.delete(&format!("/api/v1/jobs/{long}")).await.expect(204);
        server.stop().await;
    }

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

    async fn moves_at_once_never_close_a_circle(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            let made = client.post("/api/v1/artifacts", &json!({"data": {}})).await.expect(201);
            ids.push(text(&made.body["id"]));
        }
        let below = |it: usize, parent: Option<usize>| {
            let (client, path) = (client.clone(), format!("/api/v1/artifacts/{}", ids[it]));
            let body = json!({"parent_id": parent.map(|it| &ids[it]), "data": {}});
            async move { client.put(&path, &body).await }
        };
        for _ in 0..15 {
            // Each below the next, and the last below the first.
            let moved = join_all((0..4).map(|it| below(it, Some((it + 1) % 4)))).await;
            let statuses: Vec<u16> = moved.iter().map(|it| it.status.as_u16()).collect();
            assert!(statuses.iter().all(|it| matches!(it, 200 | 400 | 409)), "{statuses:?}");
            assert!(statuses.contains(&400), "somebody closed the circle: {statuses:?}");
            let all = client.get("/api/v1/artifacts").await.expect(200).body;
            let roots = all.as_array().unwrap().iter().filter(|it| it["parent_id"].is_null());
            assert_eq!(roots.count(), 1, "{all}");
            for it in 0..4 {
                below(it, None).await.expect(200);
            }
        }
        server.stop().await;
    }

    async fn changes_in_opposite_order_all_end(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let (one, other) = (config(&client, json!({})).await, config(&client, json!({})).await);
        let update = |id: &str| {
            json!({"op": "update", "id": id, "body": {"name": "changed", "data": {}}})
        };
        let bulk = |ids: [&str; 2]| json!({"atomic": true, "operations": ids.map(update)});
        let bulks = [bulk([&one, &other]), bulk([&other, &one])];
        for _ in 0..4 {
            let sent = bulks.iter().map(|it| client.post("/api/v1/configs/$bulk", it));
            for answer in join_all(sent).await {
                let results = answer.expect(200).body;
                for result in results["results"].as_array().unwrap() {
                    let status = result["status"].as_u64().unwrap();
                    assert!(matches!(status, 200 | 409 | 424), "{results}");
                }
            }
        }
        server.stop().await;
    }

    async fn a_config_that_goes_while_it_is_trained_with_leaves_nothing(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({"seconds": 0.3})).await;
        let job = train_with(&client, &id).await.job;
        running(&client, &job).await;
        client.delete(&format!("/api/v1/configs/{id}")).await.expect(204);
        assert_eq!(ended(&client, &job).await["status"], "failed");
        client.delete(&format!("/api/v1/jobs/{job}")).await.expect(204);
        assert!(stored(&database).await.iter().all(|it| it.1 == 0));
        let blobs = database.dir().join("data/blobs");
        assert_eq!(files(&blobs), Vec::<String>::new());
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
