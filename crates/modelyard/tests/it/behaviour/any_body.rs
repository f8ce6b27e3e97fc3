//! Whatever JSON comes: no operation answers with a defect of ours.

use std::fmt::Write as _;

use http::Method;
use modelyard_testkit::{TestClient, on_both_databases};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use crate::support::{assert_problem, config, start_model, text};

/// Bodies per run; each goes to every operation.
const BODIES: u32 = 60;

/// The words of the API, so that a body is sometimes nearly right.
const WORDS: [&str; 40] = [
    "id",
    "name",
    "tags",
    "data",
    "parent_id",
    "artifact_id",
    "config_id",
    "command",
    "task_type",
    "parameters",
    "enabled",
    "type",
    "train",
    "predict",
    "python",
    "echo",
    "columns",
    "schema",
    "fields",
    "title",
    "historic",
    "future",
    "geo",
    "features",
    "geometry",
    "properties",
    "coordinates",
    "FeatureCollection",
    "Point",
    "Feature",
    "run_info",
    "prediction_periods",
    "operations",
    "op",
    "create",
    "update",
    "delete",
    "body",
    "atomic",
    "user_option_values",
];

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => proptest::sample::select(&WORDS[..]).prop_map(str::to_owned),
        1 => Just("01K72PWT05GEXK1S24AVKAZ9VE".to_owned()),
        1 => any::<String>(),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_i64..3).prop_map(Value::from),
        words().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 80, 8, |inner| {
        prop_oneof![
            1 => proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            3 => proptest::collection::vec((words(), inner), 0..8)
                .prop_map(|it| Value::Object(it.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Every operation that takes a body, with ids of what is there.
async fn operations(client: &TestClient) -> Vec<(Method, String)> {
    let configs = config(client, json!({})).await;
    let artifact = client.post("/api/v1/artifacts", &json!({"data": {}})).await.expect(201).body;
    let task = json!({"command": "echo", "task_type": "python"});
    let task = client.post("/api/v1/tasks", &task).await.expect(201).body;
    let ids =
        [("configs", configs), ("artifacts", text(&artifact["id"])), ("tasks", text(&task["id"]))];

    let openapi = client.get("/openapi.json").await.expect(200).body;
    let mut found = Vec::new();
    for (path, operations) in openapi["paths"].as_object().unwrap() {
        let id = ids.iter().find(|(kind, _)| path.contains(&format!("/{kind}/{{")));
        let path = match (path.split_once('{'), id) {
            (Some((before, rest)), Some((_, id))) => {
                format!("{before}{id}{}", rest.split_once('}').unwrap().1)
            }
            _ => path.clone(),
        };
        for method in [Method::POST, Method::PUT, Method::PATCH] {
            if operations.get(method.as_str().to_lowercase()).is_some() {
                found.push((method, path.clone()));
            }
        }
    }
    assert!(found.len() >= 14, "{found:?}");
    found
}

async fn send(client: &TestClient, operations: &[(Method, String)], body: &Value) -> String {
    let mut defects = String::new();
    for (method, path) in operations {
        let answer = client.request(method.clone(), path).json(body).send().await;
        let results = answer.body["results"].as_array().into_iter().flatten();
        let worst = results.filter_map(|it| it["status"].as_u64()).max().unwrap_or_default();
        if answer.status.is_server_error() || worst >= 500 {
            let _infallible =
                writeln!(defects, "{method} {path}: {} {}", answer.status, answer.body);
        } else if !answer.status.is_success() {
            assert_problem(&answer, &format!("{method} {path} {body}"));
        }
    }
    defects
}

on_both_databases! {
    async fn no_body_is_answered_with_a_defect(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let operations = operations(&client).await;
        let config = Config { cases: BODIES, failure_persistence: None, ..Config::default() };
        let checked = tokio::task::block_in_place(|| {
            TestRunner::new(config).run(&any_json(), |body| {
                let defects = Handle::current().block_on(send(&client, &operations, &body));
                prop_assert!(defects.is_empty(), "{defects}");
                Ok(())
            })
        });
        if let Err(failure) = checked {
            panic!("{failure}");
        }
        client.get("/health").await.expect(200);
        server.stop().await;
    }
}
