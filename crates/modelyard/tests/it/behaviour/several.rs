//! Several services in one process: side by side, and strangers to each other.

use http::Method;
use modelyard::{Server, Service, ServiceInfo};
use modelyard_testkit::{TestClient, TestDatabase, on_both_databases};
use serde_json::json;

use crate::support::{
    config, ended, frame, running, service, settings, start_model, stored, text, train_body,
    train_with,
};

const ID: &str = "01K72PWT05GEXK1S24AVKAZ9VE";

async fn start_both(database: &TestDatabase) -> (Server, [TestClient; 2]) {
    let services = vec![service("first"), service("second")];
    let server = Server::start(services, settings(database)).await.unwrap();
    let client = |id: &str| TestClient::new(format!("http://{}/services/{id}", server.address()));
    let clients = ["first", "second"].map(client);
    (server, clients)
}

on_both_databases! {
    async fn each_is_at_an_address_of_its_own_and_none_at_the_front(database: TestDatabase) {
        let (server, [first, second]) = start_both(&database).await;
        for (client, id) in [(&first, "first"), (&second, "second")] {
            assert_eq!(client.get("/api/v1/info").await.expect(200).body["id"], id);
            client.get("/health").await.expect(200);
            client.get("/openapi.json").await.expect(200);
            client.get("/docs").await.expect(200);
        }
        let front = TestClient::new(format!("http://{}", server.address()));
        for path in ["/api/v1/info", "/api/v1/configs", "/services/third/api/v1/info"] {
            front.get(path).await.expect(404);
        }
        let page = front.get("/").await.expect(200).text();
        assert!(page.contains("services/first") && page.contains("services/second"), "{page}");
        server.stop().await;
    }

    async fn a_single_one_is_at_both_addresses(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({})).await;
        let nested = TestClient::new(format!("{}/services/behaviour", client.base()));
        assert_eq!(nested.get("/api/v1/info").await.expect(200).body["id"], "behaviour");
        nested.get(&format!("/api/v1/configs/{id}")).await.expect(200);
        server.stop().await;
    }

    async fn the_same_ids_are_different_things_in_each(database: TestDatabase) {
        let (server, clients) = start_both(&database).await;
        for (client, who) in clients.iter().zip(["first", "second"]) {
            let new = json!({"id": ID, "name": who, "tags": [who], "data": {"who": who}});
            client.post("/api/v1/configs", &new).await.expect(201);
            let content = "the same ".repeat(5000);
            let new = json!({"id": ID, "data": {"who": who, "content": content}});
            client.post("/api/v1/artifacts", &new).await.expect(201);
            let new = json!({"id": ID, "command": "echo", "task_type": "python", "parameters": {"who": who}});
            client.post("/api/v1/tasks", &new).await.expect(201);
            let link = json!({"artifact_id": ID});
            client.post(&format!("/api/v1/configs/{ID}/$link-artifact"), &link).await.expect(204);
        }
        for (client, who) in clients.iter().zip(["first", "second"]) {
            for kind in ["configs", "artifacts", "tasks"] {
                let list = client.get(&format!("/api/v1/{kind}")).await.expect(200).body;
                assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
                assert!(list.to_string().contains(who), "{list}");
            }
            for query in ["tags=first", "name=first", "q=first"] {
                let found = client.get(&format!("/api/v1/configs?{query}")).await.expect(200).body;
                assert_eq!(found.as_array().unwrap().len(), usize::from(who == "first"));
            }
        }
        // What one removes the other keeps, with its content.
        let [first, second] = &clients;
        first.delete(&format!("/api/v1/configs/{ID}")).await.expect(204);
        first.get(&format!("/api/v1/artifacts/{ID}")).await.expect(404);
        let kept = second.get(&format!("/api/v1/artifacts/{ID}")).await.expect(200).body;
        assert!(text(&kept["data"]["content"]).starts_with("the same"));
        assert_eq!(second.get(&format!("/api/v1/artifacts/{ID}/$config")).await.expect(200).body["name"], "second");
        server.stop().await;
    }

    async fn neither_sees_touches_or_trains_with_what_is_the_others(database: TestDatabase) {
        let (server, [first, second]) = start_both(&database).await;
        let id = config(&first, json!({})).await;
        let submitted = train_with(&first, &id).await;
        assert_eq!(ended(&first, &submitted.job).await["status"], "completed");
        let before = stored(&database).await;
        let (config, artifact, job) =
            (format!("/api/v1/configs/{id}"), &submitted.artifact, &submitted.job);
        let artifact_path = format!("/api/v1/artifacts/{artifact}");
        for (method, path) in [
            (Method::GET, config.clone()),
            (Method::DELETE, config.clone()),
            (Method::GET, artifact_path.clone()),
            (Method::GET, format!("{artifact_path}/$tree")),
            (Method::GET, format!("{artifact_path}/$download")),
            (Method::GET, format!("{artifact_path}/$config")),
            (Method::DELETE, artifact_path.clone()),
            (Method::GET, format!("/api/v1/jobs/{job}")),
            (Method::DELETE, format!("/api/v1/jobs/{job}")),
            (Method::GET, format!("/api/v1/jobs/{job}/$stream")),
        ] {
            second.request(method, &path).send().await.expect(404);
        }
        second.put(&config, &json!({"name": "mine", "data": {}})).await.expect(404);
        second.put(&artifact_path, &json!({"data": {}})).await.expect(404);
        let child = json!({"parent_id": artifact, "data": {}});
        second.post("/api/v1/artifacts", &child).await.expect(409);
        assert_eq!(second.get("/api/v1/jobs").await.expect(200).body, json!([]));
        assert_eq!(stored(&database).await, before);

        let body = json!({"artifact_id": artifact, "historic": frame(), "future": frame()});
        let stranger = second.post("/api/v1/ml/$predict", &body).await.expect(202).body;
        let record = ended(&second, &text(&stranger["job_id"])).await;
        assert_eq!(record["status"], "failed", "{record}");
        server.stop().await;
    }

    async fn a_full_queue_of_one_is_not_the_others(database: TestDatabase) {
        let mut settings = settings(&database);
        settings.jobs.max_pending = 1;
        let services = vec![service("first"), service("second")];
        let server = Server::start(services, settings).await.unwrap();
        let at = |id: &str| TestClient::new(format!("http://{}/services/{id}", server.address()));
        let (first, second) = (at("first"), at("second"));
        let slow = config(&first, json!({"seconds": 60})).await;
        let busy = train_with(&first, &slow).await;
        running(&first, &busy.job).await;
        train_with(&first, &slow).await;
        first.post("/api/v1/ml/$train", &train_body(&slow)).await.expect(429);
        let quick = config(&second, json!({})).await;
        let job = train_with(&second, &quick).await.job;
        assert_eq!(ended(&second, &job).await["status"], "completed");
        server.stop().await;
    }

    async fn who_has_a_key_of_one_is_nobody_in_the_deployment(database: TestDatabase) {
        let keyed = Service::builder(ServiceInfo::new("first", "First"));
        let keyed = keyed.with_auth(["first-key".to_owned()]).build().unwrap();
        let services = vec![keyed, service("second")];
        let server = Server::start(services, settings(&database)).await.unwrap();
        let new = json!({"name": "mine", "roles": [{"role": "system-admin"}]});
        for (id, key) in [("first", "first-key"), ("second", "")] {
            let client = TestClient::new(format!("http://{}/services/{id}", server.address()));
            let client = client.with_header("x-api-key", key);
            client.get("/api/v1/configs").await.expect(200);
            let refused = client.post("/api/v1/keys", &new).await.expect(403);
            assert_eq!(refused.body["code"], "permission_denied");
            client.get("/api/v1/users").await.expect(403);
        }
        server.stop().await;
    }
}
