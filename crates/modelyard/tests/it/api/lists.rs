//! What a list keeps, in which order, and what it shows of each item: compared with what a program
//! would make of the plain list.

use std::cmp::Ordering;

use modelyard_kernel::list::{FieldKind, Fields};
use modelyard_testkit::{TestClient, on_both_databases};
use serde_json::{Value, json};

use super::{config, create, encode, ids, items, start};
use crate::support::until;

/// A collection and what its lists may be asked.
pub struct Collection {
    pub path: &'static str,
    pub fields: &'static Fields,
}

pub fn collections() -> [Collection; 5] {
    [
        Collection { path: "/api/v1/configs", fields: &modelyard_run::config::http::FIELDS },
        Collection { path: "/api/v1/artifacts", fields: &modelyard_run::artifact::http::FIELDS },
        Collection { path: "/api/v1/jobs", fields: &modelyard_flow::job::FIELDS },
        Collection { path: "/api/v1/tasks", fields: &modelyard_run::task::http::FIELDS },
        Collection { path: "/api/v1/schedules", fields: &modelyard_flow::schedule::FIELDS },
    ]
}

/// Puts items into every collection that differ in all that can be filtered.
async fn fill(client: &TestClient) {
    let names = ["alpha", "Beta", "beta", "100%", "a_b", "\u{e5}ngstr\u{f6}m", "alpha"];
    for (number, name) in names.into_iter().enumerate() {
        let mut config = config(name);
        config["tags"] = json!([["weekly", "north"], ["monthly", "north"]][number % 2]);
        create(client, "/api/v1/configs", &config).await;
    }
    let mut parent = Value::Null;
    for number in 0..6 {
        let tags = [json!(["kept"]), json!(["kept", "Draft"]), json!([])][number % 3].clone();
        let body = json!({"data": {"number": number}, "tags": tags, "parent_id": parent});
        let id = create(client, "/api/v1/artifacts", &body).await;
        parent = if number % 3 == 2 { Value::Null } else { id.into() };
    }
    for (command, task_type, enabled) in [
        ("echo", "python", true),
        ("fail", "python", true),
        ("date", "shell", false),
        ("echo 50%", "shell", true),
        ("Echo", "python", false),
    ] {
        let body = json!({"command": command, "task_type": task_type, "enabled": enabled});
        let id = create(client, "/api/v1/tasks", &body).await;
        if enabled && task_type == "python" {
            for _ in 0..2 {
                client
                    .post(
                        &format!("/api/v1/tasks/{id}/$execute?label=by-hand&deadline_seconds=3600"),
                        &Value::Null,
                    )
                    .await
                    .expect(202);
            }
        }
    }
    let task = json!({"command": "echo", "task_type": "python", "enabled": true});
    let task = create(client, "/api/v1/tasks", &task).await;
    for (name, misfire, overlap, enabled) in [
        ("alpha", "skip", "queue", true),
        ("Beta", "once", "allow", true),
        ("beta", "catch_up", "skip", false),
        ("100%", "once", "skip", true),
    ] {
        let trigger = json!({"type": "cron", "expression": "@daily"});
        let target = json!({"kind": "task.execute", "input": {"task_id": task}});
        let body = json!({"name": name, "trigger": trigger, "target": target, "misfire": misfire,
            "overlap": overlap, "enabled": enabled});
        let id = create(client, "/api/v1/schedules", &body).await;
        if overlap != "skip" {
            let run = format!("/api/v1/schedules/{id}/$run-now");
            client.post(&run, &Value::Null).await.expect(202);
        }
    }
    // Tasks end well whatever their function says; trainings do not.
    let fails = json!({"name": "alpha", "data": {"fail_train": true}, "tags": ["weekly"]});
    let fails = create(client, "/api/v1/configs", &fails).await;
    let frame = json!({"columns": ["disease_cases"], "data": [[1]]});
    for _ in 0..2 {
        let train = json!({"config_id": fails, "data": frame});
        client.post("/api/v1/ml/$train", &train).await.expect(202);
    }
    let unfinished = "/api/v1/jobs?status[in]=pending,running&fields=id";
    until("the jobs have ended", async || {
        items(&client.get(unfinished).await.expect(200)).is_empty()
    })
    .await;
}

/// Whether a program would keep an item.
fn keeps(kind: FieldKind, held: &Value, operator: &str, wanted: &str) -> bool {
    let list = || wanted.split(',').map(str::trim);
    if let (FieldKind::Tags, Value::Array(tags)) = (kind, held) {
        let has = |tag: &str| tags.iter().any(|it| it == tag);
        return match operator {
            "eq" => has(wanted),
            "ne" => !has(wanted),
            _ => list().any(has),
        };
    }
    let Some(held) = shown(held) else { return operator == "ne" };
    let compared = match kind {
        FieldKind::Int => held.parse::<i64>().unwrap().cmp(&wanted.parse().unwrap_or_default()),
        // Times of one form compare as texts.
        _ => held.as_str().cmp(wanted),
    };
    match operator {
        "eq" => compared == Ordering::Equal,
        "ne" => compared != Ordering::Equal,
        "gt" => compared == Ordering::Greater,
        "gte" => compared != Ordering::Less,
        "lt" => compared == Ordering::Less,
        "lte" => compared != Ordering::Greater,
        "in" => list().any(|it| it == held),
        "contains" => held.to_ascii_lowercase().contains(&wanted.to_ascii_lowercase()),
        other => panic!("{other}"),
    }
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Values to compare a field with: some that items have, and parts of them.
fn wanted(kind: FieldKind, name: &str, all: &[Value]) -> Vec<String> {
    let mut values: Vec<String> = match kind {
        FieldKind::Tags => {
            all.iter().flat_map(|it| it[name].as_array().unwrap()).filter_map(shown).collect()
        }
        _ => all.iter().filter_map(|it| shown(&it[name])).collect(),
    };
    values.sort();
    values.dedup();
    let middle = values.len() / 2;
    values.drain(..middle.saturating_sub(1));
    values.truncate(2);
    assert!(!values.is_empty(), "no item has `{name}`");
    values
}

on_both_databases! {
    async fn every_field_is_compared_by_every_operator(database: TestDatabase) {
        let (server, client) = start(&database).await;
        fill(&client).await;
        for Collection { path, fields } in collections() {
            let all = items(&client.get(path).await.expect(200));
            assert!(all.len() >= 4, "{path}");
            for field in fields.fields {
                let mut values = wanted(field.kind, field.name, &all);
                let both = values.join(",");
                for operator in field.kind.operators() {
                    if operator == "in" {
                        values.push(both.clone());
                    }
                    for value in &values {
                        if value.contains(',') && operator != "in" {
                            continue;
                        }
                        let name = field.name;
                        let query = format!("{path}?{name}[{operator}]={}", encode(value));
                        let found = items(&client.get(&query).await.expect(200));
                        let expected: Vec<Value> = all
                            .iter()
                            .filter(|it| keeps(field.kind, &it[name], operator, value))
                            .cloned()
                            .collect();
                        assert_eq!(found, expected, "{path} {name}[{operator}]={value}");
                    }
                }
            }
        }
        let letters = client.get("/api/v1/configs?name[contains]=ET").await.expect(200);
        assert_eq!(ids(&letters).len(), 2);
        let percent = client.get("/api/v1/configs?name[contains]=%25").await.expect(200);
        assert_eq!(items(&percent)[0]["name"], "100%");
        server.stop().await;
    }

    async fn conditions_add_up(database: TestDatabase) {
        let (server, client) = start(&database).await;
        fill(&client).await;
        let path = "/api/v1/configs?tags=north&tags=weekly&name[gte]=a&name[lt]=b&sort=name:desc,id:desc\
                    &fields=name,id&page=1&size=2";
        let answer = client.get(path).await.expect(200);
        let keys: Vec<&String> = answer.body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["items", "total", "page", "size", "pages"]);
        assert_eq!(answer.body["total"], 3, "{}", answer.body);
        assert_eq!(answer.body["pages"], 2);
        let names: Vec<Value> = items(&answer).iter().map(|it| it["name"].clone()).collect();
        assert_eq!(names, ["alpha", "alpha"]);
        for item in items(&answer) {
            assert_eq!(item.as_object().unwrap().keys().collect::<Vec<_>>(), ["name", "id"]);
        }
        let of_the_contract = client.get("/api/v1/jobs?status_filter=failed").await.expect(200);
        assert_eq!(ids(&of_the_contract).len(), 2);
        let enabled = client.get("/api/v1/tasks?enabled=off").await.expect(200);
        assert_eq!(ids(&enabled).len(), 2);
        server.stop().await;
    }

    async fn lists_are_sorted_by_several_keys_each_its_way(database: TestDatabase) {
        let (server, client) = start(&database).await;
        fill(&client).await;
        for Collection { path, fields } in collections() {
            let sortable: Vec<_> = fields.fields.iter().filter(|it| it.sortable).collect();
            let all = items(&client.get(path).await.expect(200));
            for (first, second) in sortable.iter().zip(sortable.iter().cycle().skip(1)) {
                for (one, two) in [("asc", "desc"), ("desc", "asc")] {
                    let sort = format!("{}:{one},{}:{two}", first.name, second.name);
                    let sorted = items(&client.get(&format!("{path}?sort={sort}")).await.expect(200));
                    let mut expected = all.clone();
                    let last = ("id", FieldKind::Id, two);
                    let keys = [
                        (first.name, first.kind, one),
                        (second.name, second.kind, two),
                        last,
                    ];
                    expected.sort_by(|a, b| {
                        keys.iter().fold(Ordering::Equal, |so_far, (name, kind, direction)| {
                            so_far.then_with(|| {
                                let order = order(*kind, name, a, b);
                                if *direction == "asc" { order } else { order.reverse() }
                            })
                        })
                    });
                    assert_eq!(sorted, expected, "{path} {sort}");
                }
            }
        }
        server.stop().await;
    }

    async fn only_the_fields_that_are_asked_for_are_shown(database: TestDatabase) {
        let (server, client) = start(&database).await;
        fill(&client).await;
        for Collection { path, fields } in collections() {
            let all = items(&client.get(path).await.expect(200));
            for item in &all {
                let keys: Vec<&String> = item.as_object().unwrap().keys().collect();
                assert_eq!(keys.len(), fields.keys.len(), "{path}: {keys:?}");
                assert!(fields.keys.iter().all(|key| item.get(key).is_some()), "{path}: {keys:?}");
            }
            for key in fields.keys {
                let only = items(&client.get(&format!("{path}?fields={key}")).await.expect(200));
                for (item, whole) in only.iter().zip(&all) {
                    let expected = json!({ (*key): whole[*key] });
                    assert_eq!(*item, expected, "{path}");
                }
            }
            assert_eq!(items(&client.get(&format!("{path}?fields=")).await.expect(200)), all);
        }
        server.stop().await;
    }

    async fn a_text_is_found_in_names_and_tags(database: TestDatabase) {
        let (server, client) = start(&database).await;
        fill(&client).await;
        for (query, count) in [
            ("configs?q=BETA", 2),
            ("configs?q=week", 5),
            ("configs?q=100%25", 1),
            ("configs?q=_", 1),
            ("configs?q=%C3%A5ng", 1),
            ("configs?q=nowhere", 0),
            ("configs?q=", 8),
            ("configs?q=beta&tags=monthly", 1),
            ("artifacts?q=draft", 2),
            ("schedules?q=BETA", 2),
            ("schedules?q=Execute", 4),
            ("tasks?q=ECHO", 4),
            ("jobs?q=ON+purpose", 2),
            ("jobs?q=task.execute", 6),
        ] {
            let found = client.get(&format!("/api/v1/{query}")).await.expect(200);
            assert_eq!(ids(&found).len(), count, "{query}: {}", found.body);
        }
        server.stop().await;
    }

    async fn what_there_is_not_is_answered_with_what_there_is(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for Collection { path, fields } in collections() {
            let filters: Vec<&str> = fields.fields.iter().map(|it| it.name).collect();
            let sortable: Vec<&str> =
                fields.fields.iter().filter(|it| it.sortable).map(|it| it.name).collect();
            let time = fields.fields.iter().find(|it| it.kind == FieldKind::Time).unwrap().name;
            let operators: Vec<&str> = FieldKind::Time.operators().collect();
            for (query, code, valid) in [
                ("colour=red".to_owned(), "filter_unknown", &filters),
                (format!("{time}[near]=2026-01-01"), "operator_unknown", &operators),
                ("sort=colour".to_owned(), "sort_unknown", &sortable),
                (format!("sort={time}:up"), "sort_unknown", &vec!["asc", "desc"]),
                ("fields=id,colour".to_owned(), "field_unknown", &fields.keys.to_vec()),
            ] {
                let refused = client.get(&format!("{path}?{query}")).await.expect(400);
                assert_eq!(refused.body["code"], code, "{path} {query}");
                let detail = refused.body["detail"].as_str().unwrap();
                let missing: Vec<_> =
                    valid.iter().filter(|it| !detail.contains(&format!("`{it}`"))).collect();
                assert!(missing.is_empty(), "{path} {query}: {missing:?} is missing in: {detail}");
            }
        }
        server.stop().await;
    }

    async fn everything_wrong_with_a_question_is_in_one_answer(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for Collection { path, .. } in collections() {
            let query = "nope=1&sort=nope&fields=nope&id[foo]=1&page=0&size=1000&limit=x\
                &status_filter=z&enabled=z";
            let refused = client.get(&format!("{path}?{query}")).await.expect(400).body;
            assert_eq!(refused["code"], "filter_unknown", "{path} {refused}");
            let detail = refused["detail"].as_str().unwrap();
            assert!(detail.starts_with("there is no filter `nope`"), "{path} {detail}");
            let errors = refused["errors"].as_array().unwrap();
            assert_eq!(errors[0], json!({"type": "filter_unknown", "loc": ["query", "nope"],
                "msg": detail, "input": "1"}), "{path}");
            let names = ["nope", "sort", "fields", "id[foo]", "page", "size", "limit",
                "status_filter", "enabled"];
            for name in names {
                let found = errors.iter().filter(|it| it["loc"] == json!(["query", name])).count();
                assert_eq!(found, 1, "{path} {name} {refused}");
            }
            assert_eq!(errors.len(), names.len(), "{path} {refused}");
        }
        server.stop().await;
    }

    async fn who_asks_for_nothing_gets_the_plain_list(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for Collection { path, .. } in collections() {
            assert_eq!(client.get(path).await.expect(200).body, json!([]), "{path}");
        }
        fill(&client).await;
        for Collection { path, .. } in collections() {
            let plain = client.get(path).await.expect(200);
            assert!(plain.body.is_array(), "{path}");
            // The contract wants both before it gives pages.
            for half in ["page=1", "size=2"] {
                assert_eq!(client.get(&format!("{path}?{half}")).await.body, plain.body, "{half}");
            }
            for bad in ["page=0&size=2", "page=1&size=101", "page=x&size=1", "limit=501"] {
                let refused = client.get(&format!("{path}?{bad}")).await.expect(422);
                assert_eq!(refused.body["errors"][0]["loc"][0], "query", "{bad}");
            }
        }
        server.stop().await;
    }
}

/// How a program orders two items.
fn order(kind: FieldKind, name: &str, a: &Value, b: &Value) -> Ordering {
    let text = |it: &Value, name: &str| it[name].as_str().unwrap_or_default().to_owned();
    match kind {
        // Entities show seconds, and ids have the order in which the items were made.
        FieldKind::Time => text(a, "id").cmp(&text(b, "id")),
        FieldKind::Int => a[name].as_i64().cmp(&b[name].as_i64()),
        FieldKind::Bool => a[name].as_bool().cmp(&b[name].as_bool()),
        _ => text(a, name).cmp(&text(b, name)),
    }
}
