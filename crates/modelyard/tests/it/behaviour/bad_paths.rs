//! Addresses that are wrong: ids that are none, things that are not there, queries in disarray.

use http::Method;
use modelyard::Service;
use modelyard_ml::project::Project as Manifest;
use modelyard_testkit::{TestClient, on_both_databases};
use serde_json::{Value, json};

use crate::support::program::Project;
use crate::support::{
    assert_refused, config, ended, frame, settings, start, start_model, stored, text, train_body,
    train_with,
};

/// Every operation whose path has parameters, by the service's own description.
async fn operations(client: &TestClient) -> Vec<(Method, String)> {
    let openapi = client.get("/openapi.json").await.expect(200).body;
    let mut found = Vec::new();
    for (path, operations) in openapi["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|_| path.contains('{')) {
            if let Ok(method) = method.to_uppercase().parse() {
                found.push((method, path.clone()));
            }
        }
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

fn fill(path: &str, id: &str) -> String {
    let mut filled = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        filled.push_str(id);
        rest = after.split_once('}').unwrap().1;
    }
    filled + rest
}

/// A body that the operation would take.
fn body_of(path: &str) -> Value {
    match path {
        it if it.contains("$link") || it.contains("$unlink") => {
            json!({"artifact_id": "01K72PWT05GEXK1S24AVKAZ9VE"})
        }
        it if it.contains("configs") => json!({"name": "n", "data": {}}),
        it if it.contains("$execute") => json!({}),
        it if it.contains("schedules") => json!({"name": "n",
            "trigger": {"type": "interval", "every_seconds": 60},
            "target": {"kind": "task.execute", "input": {"task_id": "01K72PWT05GEXK1S24AVKAZ9VE"}}}),
        it if it.contains("tasks") => json!({"command": "echo", "task_type": "python"}),
        _ => json!({"data": {}}),
    }
}

on_both_databases! {
    async fn an_id_in_a_path_that_is_none_is_400(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let before = stored(&database).await;
        let long = "0".repeat(5000);
        for (method, path) in operations(&client).await {
            for wrong in [
                "nope", "1", "null", "01K72PWT05GEXK1S24AVKAZ9V", "01K72PWT05GEXK1S24AVKAZ9VEE",
                "01K72PWT05GEXK1S24AVKAZ9VU", "81K72PWT05GEXK1S24AVKAZ9VE", "%00", "%FF%FE",
                "01K72PWT05GEXK1S24AVKAZ9V%00", "..%2F..%2Fetc%2Fpasswd", "%F0%9F%98%80",
                "'%20OR%201=1--", "%7Bid%7D", &long,
            ] {
                if path.contains("{seq}") && wrong == "1" {
                    // Entries of the audit are numbered.
                    continue;
                }
                let target = fill(&path, wrong);
                let request = client.request(method.clone(), &target).json(&body_of(&path));
                let answer = request.send().await;
                let what = format!("{method} {target}");
                // Queues and roles have names, of which any may be one.
                let is_named = path.contains("{queue}") || path.contains("{name}");
                // What is one's own is nobody's here.
                let is_own = path.starts_with("/api/v1/auth/sessions/");
                let expected = match (is_named, is_own) {
                    (true, _) => [400, 404, 422],
                    (_, true) => [400, 400, 403],
                    _ => [400, 400, 400],
                };
                if method == Method::HEAD {
                    assert!(expected.contains(&answer.status.as_u16()), "{what}: {}", answer.status);
                    continue;
                }
                assert_refused(&answer, &what);
                assert!(expected.contains(&answer.status.as_u16()), "{what}: {}", answer.body);
                assert!(answer.bytes.len() < 20_000, "{what} is repeated at length");
            }
        }
        assert_eq!(stored(&database).await, before);
        server.stop().await;
    }

    async fn what_is_not_there_is_404_or_refused(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let before = stored(&database).await;
        for (method, path) in operations(&client).await {
            let target = fill(&path, "01K72PWT05GEXK1S24AVKAZ9VE");
            let request = client.request(method.clone(), &target).json(&body_of(&path));
            let answer = request.send().await;
            // An unknown config has no artifacts, says the contract; and who is nobody has no roles.
            if path.ends_with("/$artifacts") || path.contains("$bindings") && method == Method::GET {
                assert_eq!((answer.status.as_u16(), &answer.body), (200, &json!([])));
                continue;
            }
            assert_refused(&answer, &format!("{method} {target}"));
        }
        assert_eq!(stored(&database).await, before);
        server.stop().await;
    }

    async fn a_query_in_disarray_is_refused(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        config(&client, json!({})).await;
        for collection in ["configs", "artifacts", "jobs", "tasks", "schedules"] {
            for query in [
                "page=0&size=10", "page=-1&size=10", "page=1&size=0", "page=1&size=101", "page=x&size=y",
                "page=99999999999999999999&size=1", "page=1.5&size=10", "limit=0", "limit=501", "limit=x",
                "cursor=garbage", "cursor=bm90IGpzb24", "cursor=%FF", "sort=nope", "sort=id:sideways",
                "fields=nope", "nope=1", "id[like]=x", "id[=x", "id[]=x", "id=nope", "id[in]=nope,nope",
                "[gt]=1", "%5B%5D=1", "=1", "&&&=&", "created_at[gte]=yesterday", "created_at=99999-01-01",
                "%FF=%FE", "id[gt]=%F0%9F%98%80",
            ] {
                if query.starts_with("created_at") && collection == "jobs" {
                    continue;
                }
                let answer = client.get(&format!("/api/v1/{collection}?{query}")).await;
                assert_refused(&answer, &format!("{collection}?{query}"));
            }
            // Far out is not wrong.
            for query in ["page=9223372036854775807&size=100", "limit=500", "id[gte]=00000000000000000000000000"] {
                client.get(&format!("/api/v1/{collection}?{query}")).await.expect(200);
            }
        }
        // As many as an address has room for.
        for condition in ["name=a&", "id[ne]=01K72PWT05GEXK1S24AVKAZ9VE&", "tags=a&", "created_at[gt]=2026-01-01&"] {
            let query = condition.repeat(60_000 / condition.len());
            assert_refused(&client.get(&format!("/api/v1/configs?{query}")).await, &condition);
        }
        for query in ["sort=name,id&", "fields=id&", "q=a&", "limit=1&", "page=1&size=1&"] {
            client.get(&format!("/api/v1/configs?{}", query.repeat(50_000 / query.len()))).await.expect(200);
        }
        for query in [
            "level=99999999999999999999", "level=1.5", "level[gt]=x", "level=", "parent_id=x",
        ] {
            let answer = client.get(&format!("/api/v1/artifacts?{query}")).await;
            assert_refused(&answer, &query);
        }
        client.get("/api/v1/artifacts?level=9223372036854775807").await.expect(200);
        for year in ["-009999-01-01T00:00:00Z", "0001-01-01", "9999-12-31T23:59:59Z"] {
            let answer = client.get(&format!("/api/v1/configs?created_at[lte]={year}")).await;
            assert!(answer.status == 200 || answer.status == 400, "{year}: {}", answer.body);
        }
        for query in [
            "poll_interval=0", "poll_interval=-1", "poll_interval=61", "poll_interval=NaN",
            "poll_interval=inf", "poll_interval=1e400", "poll_interval=x", "poll_interval=",
        ] {
            let answer = client.get(&format!("/health/$stream?{query}")).await;
            assert_refused(&answer, &query);
        }
        for query in [
            "kind=nope", "num_locations=-1", "num_locations=99999999", "num_periods=1e9", "seed=x",
            "num_periods=99999999999999999999", "config_id=nope", "geo_type=x", "include_geo=maybe",
            "num_locations=1000&num_periods=10000&num_features=100", "config_id=%00", "config_id=%FF",
        ] {
            let answer = client.get(&format!("/api/v1/ml/$generate-sample-data?{query}")).await;
            assert_refused(&answer, &query);
        }
        server.stop().await;
    }

    async fn trees_have_no_circles_and_end_at_level_64(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let mut ids: Vec<String> = Vec::new();
        for _ in 0..=64 {
            let body = json!({"parent_id": ids.last(), "data": {}});
            ids.push(text(&client.post("/api/v1/artifacts", &body).await.expect(201).body["id"]));
        }
        let before = stored(&database).await;
        let below = |id: &String| json!({"parent_id": id, "data": {"moved": true}});
        let at = |id: &String| format!("/api/v1/artifacts/{id}");
        let too_deep = client.post("/api/v1/artifacts", &below(&ids[64])).await.expect(400);
        assert_refused(&too_deep, &"level 65");
        for (moved, to) in [(0, 64), (0, 0), (30, 31), (30, 30), (1, 64)] {
            let answer = client.put(&at(&ids[moved]), &below(&ids[to])).await.expect(400);
            assert_refused(&answer, &format!("{moved} below {to}"));
        }
        // A tree of two that fits nowhere but at the top.
        let root = client.post("/api/v1/artifacts", &json!({"data": {}})).await.expect(201).body;
        let root = text(&root["id"]);
        let child = json!({"parent_id": root, "data": {}});
        let child = text(&client.post("/api/v1/artifacts", &child).await.expect(201).body["id"]);
        client.put(&at(&root), &below(&ids[63])).await.expect(400);
        let tree = client.get(&format!("/api/v1/artifacts/{root}/$tree")).await.expect(200).body;
        assert_eq!(tree["children"][0]["id"], json!(child));
        client.put(&at(&root), &below(&ids[62])).await.expect(200);
        let whole = client.get(&format!("/api/v1/artifacts/{}/$tree", ids[0])).await.expect(200);
        assert_eq!(whole.text().matches("\"level\":64").count(), 2);
        for (count, (before, after)) in before.iter().zip(stored(&database).await).enumerate() {
            let two_more = if count == 1 { 2 } else { 0 };
            assert_eq!(before.1 + two_more, after.1, "{}", before.0);
        }
        server.stop().await;
    }

    async fn what_a_config_or_a_training_is_not_fails_the_job_and_no_more(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let unknown = "01K72PWT05GEXK1S24AVKAZ9VE";
        let submitted = client.post("/api/v1/ml/$train", &train_body(unknown)).await.expect(202).body;
        let record = ended(&client, &text(&submitted["job_id"])).await;
        assert_eq!(record["status"], "failed");
        assert!(text(&record["error"]).contains("not found"), "{record}");

        let artifact = json!({"data": {"type": "ml_training_workspace", "metadata": {"config_id": 7}}});
        let artifact = text(&client.post("/api/v1/artifacts", &artifact).await.expect(201).body["id"]);
        let frame = frame();
        for id in [unknown, &artifact] {
            let body = json!({"artifact_id": id, "historic": frame, "future": frame});
            let submitted = client.post("/api/v1/ml/$predict", &body).await.expect(202).body;
            let record = ended(&client, &text(&submitted["job_id"])).await;
            assert_eq!(record["status"], "failed", "{record}");
        }
        let stored = stored(&database).await;
        assert_eq!((stored[1].1, stored[5].1), (1, 0), "{stored:?}");
        server.stop().await;
    }

    async fn whatever_a_script_prints_can_be_the_end_of_its_job(database: TestDatabase) {
        let project = Project::new(r"printf 'a\000b\377c\n'; printf 'd\000e\376f\n' >&2; exit 3");
        let service = Service::from_project(Manifest::load(project.path()).unwrap()).unwrap();
        let (server, client) = start(service, settings(&database)).await;
        let id = config(&client, json!({})).await;
        let submitted = train_with(&client, &id).await;
        let record = ended(&client, &submitted.job).await;
        assert_eq!(record["status"], "failed");
        let error = text(&record["error"]);
        assert!(error.contains("exit code 3") && error.ends_with("d\u{fffd}e\u{fffd}f"), "{error}");
        let artifact = format!("/api/v1/artifacts/{}", submitted.artifact);
        let metadata = &client.get(&artifact).await.expect(200).body["data"]["metadata"];
        assert_eq!(metadata["stdout"], "a\0b\u{fffd}c\n");
        assert_eq!(metadata["stderr"], "d\0e\u{fffd}f\n");
        server.stop().await;
    }

    async fn what_cannot_be_written_in_a_database_can_be_the_end_of_a_job(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({"how": "fail"})).await;
        let job = train_with(&client, &id).await.job;
        let record = ended(&client, &job).await;
        assert_eq!(record["status"], "failed");
        assert!(text(&record["error"]).starts_with("ValueError: no"), "{record}");
        server.stop().await;
    }
}
