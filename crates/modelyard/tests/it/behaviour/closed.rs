//! A service whose author closes what clients might change.

use http::Method;
use modelyard::{Access, Service, ServiceInfo};
use modelyard_testkit::{TestDatabase, run};
use serde_json::{Value, json};

use crate::support::{settings, start};

const ID: &str = "01K72PWT05GEXK1S24AVKAZ9VE";

#[test]
fn what_is_read_only_has_no_operation_that_changes_it() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let service = Service::builder(ServiceInfo::new("closed", "Closed"))
            .with_task("echo", |it: Value| async move { Ok(it) })
            .with_configs(Access::ReadOnly)
            .with_artifacts(Access::ReadOnly)
            .with_tasks(Access::ReadOnly);
        let (server, client) = start(service.build().unwrap(), settings(&database)).await;
        for (kind, key) in
            [("configs", "config_id"), ("artifacts", "artifact_id"), ("tasks", "task_id")]
        {
            let all = format!("/api/v1/{kind}");
            let one = format!("{all}/{ID}");
            client.get(&all).await.expect(200);
            client.get(&one).await.expect(404);
            client.get(&format!("{all}/$stats")).await.expect(200);
            client.post(&all, &json!({"name": "x", "data": {}})).await.expect(405);
            client.patch(&all, &json!({})).await.expect(405);
            client.put(&one, &json!({"name": "x", "data": {}})).await.expect(405);
            client.request(Method::DELETE, &one).send().await.expect(405);

            let document = client.get("/openapi.json").await.expect(200).body;
            let operations = |path: &str| {
                let found = document["paths"][path].as_object();
                found.map(|it| it.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
            };
            for path in [all.clone(), format!("{all}/{{{key}}}")] {
                let operations = operations(&path);
                let reads =
                    operations.iter().all(|it| it == "get" || it == "head" || it == "parameters");
                assert!(reads, "{path}: {operations:?}");
            }
        }
        server.stop().await;
    });
}
