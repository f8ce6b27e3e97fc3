//! Entity tags: what is unchanged is not sent again, and what was changed is not overwritten.

use http::Method;
use modelyard_testkit::{TestClient, TestResponse, on_both_databases};
use serde_json::{Value, json};

use super::{completed_job, config, create, start, upload};

async fn ask(
    client: &TestClient,
    method: Method,
    path: &str,
    header: (&str, &str),
    body: Option<&Value>,
) -> TestResponse {
    let request = client.request(method, path).header(header.0, header.1);
    match body {
        Some(body) => request.json(body).send().await,
        None => request.send().await,
    }
}

/// One item of each collection: its path and a body to replace it with, if it can be.
async fn one_of_each(client: &TestClient) -> Vec<(String, Option<Value>)> {
    let task = json!({"command": "echo", "task_type": "python"});
    let artifact = json!({"data": {"x": 1, "content": [1, 2]}});
    let mut all = Vec::new();
    for (path, body) in [
        ("/api/v1/configs", config("first")),
        ("/api/v1/artifacts", artifact),
        ("/api/v1/tasks", task),
    ] {
        let id = create(client, path, &body).await;
        all.push((format!("{path}/{id}"), Some(body)));
    }
    client.post(&format!("{}/$execute", all[2].0), &json!(null)).await.expect(202);
    all.push((format!("/api/v1/jobs/{}", completed_job(client).await), None));
    all
}

on_both_databases! {
    async fn what_the_client_has_is_not_sent_again(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let mut paths: Vec<String> =
            one_of_each(&client).await.into_iter().map(|it| it.0).collect();
        let artifact = paths[1].clone();
        paths.extend(["$tree", "$expand"].map(|it| format!("{artifact}/{it}")));
        let content = upload(&client, "text/csv", "a,b\n1,2\n").await;
        paths.push(format!("{content}/$download"));
        let collections = ["configs", "artifacts", "jobs", "tasks", "schedules"];
        paths.extend(collections.map(|it| format!("/api/v1/{it}")));
        paths.extend(collections.map(|it| format!("/api/v1/{it}/$schema")));
        paths.extend(["info", "system/apps"].map(|it| format!("/api/v1/{it}")));
        paths.push("/api/v1/configs?page=1&size=10&fields=id".to_owned());
        paths.push("/openapi.json".to_owned());
        for path in paths {
            let first = client.get(&path).await.expect(200);
            let etag = first.header("etag").unwrap_or_else(|| panic!("{path} has no tag")).to_owned();
            let again = client.get(&path).await.expect(200);
            assert_eq!(again.header("etag"), Some(etag.as_str()), "{path}");
            let weak = format!("W/{}", etag.trim_start_matches("W/"));
            for known in [etag.as_str(), &weak, "*", &format!("\"other\", {etag}")] {
                let fresh = ask(&client, Method::GET, &path, ("if-none-match", known), None).await;
                assert_eq!(fresh.status, 304, "{path} {known}");
                assert!(fresh.bytes.is_empty(), "{path}");
                assert_eq!(fresh.header("etag"), Some(etag.as_str()), "{path}");
            }
            let other = ask(&client, Method::GET, &path, ("if-none-match", "\"other\""), None).await;
            assert_eq!(other.expect(200).bytes, first.bytes, "{path}");
        }
        server.stop().await;
    }

    async fn the_tag_changes_with_what_it_is_of(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for (path, body) in one_of_each(&client).await {
            let Some(body) = body else { continue };
            let collection = path.rsplit_once('/').unwrap().0;
            let tag = async |path: &str| {
                client.get(path).await.expect(200).header("etag").unwrap().to_owned()
            };
            let (one, all) = (tag(&path).await, tag(collection).await);
            let changed = client.put(&path, &body).await.expect(200);
            assert_ne!(tag(&path).await, one, "{path}");
            assert_eq!(changed.header("etag"), Some(tag(&path).await.as_str()), "{path}");
            let known = ask(&client, Method::GET, &path, ("if-none-match", &one), None).await;
            assert_eq!(known.status, 200, "{path}");
            create(&client, collection, &body).await;
            assert_ne!(tag(collection).await, all, "{collection}");
        }
        server.stop().await;
    }

    async fn a_change_based_on_what_was_is_refused_and_changes_nothing(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for (path, body) in one_of_each(&client).await {
            let before = client.get(&path).await.expect(200);
            let etag = before.header("etag").unwrap().to_owned();
            let outdated = if let Some(body) = &body {
                client.put(&path, body).await.expect(200);
                etag
            } else {
                "\"other\"".to_owned()
            };
            let now = client.get(&path).await.expect(200);
            let current = now.header("etag").unwrap().to_owned();
            let mut methods = vec![(Method::DELETE, None)];
            if let Some(body) = &body {
                methods.insert(0, (Method::PUT, Some(body)));
            }
            for (method, body) in &methods {
                for header in [("if-match", outdated.as_str()), ("if-none-match", "*")] {
                    let refused = ask(&client, method.clone(), &path, header, *body).await.expect(412);
                    assert_eq!(refused.body["code"], "precondition_failed", "{method} {path}");
                    let same = client.get(&path).await.expect(200);
                    assert_eq!((same.header("etag"), &same.body), (Some(current.as_str()), &now.body));
                }
            }
            if let Some(body) = &body {
                let put = ask(&client, Method::PUT, &path, ("if-match", &current), Some(body)).await;
                put.expect(200);
                ask(&client, Method::PUT, &path, ("if-match", &current), Some(body)).await.expect(412);
            }
            let latest = client.get(&path).await.header("etag").unwrap().to_owned();
            ask(&client, Method::DELETE, &path, ("if-match", &latest), None).await.expect(204);
            ask(&client, Method::DELETE, &path, ("if-match", "*"), None).await.expect(404);
        }
        server.stop().await;
    }

    async fn of_two_who_change_the_same_one_starts_again(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let id = create(&client, "/api/v1/configs", &config("first")).await;
        let path = format!("/api/v1/configs/{id}");
        let etag = client.get(&path).await.header("etag").unwrap().to_owned();
        let (mine, theirs) = (config("mine"), config("theirs"));
        let (a, b) = tokio::join!(
            ask(&client, Method::PUT, &path, ("if-match", &etag), Some(&mine)),
            ask(&client, Method::PUT, &path, ("if-match", &etag), Some(&theirs)),
        );
        let mut statuses = [a.status.as_u16(), b.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412]);
        let winner = if a.status == 200 { "mine" } else { "theirs" };
        assert_eq!(client.get(&path).await.body["name"], winner);
        server.stop().await;
    }
}
