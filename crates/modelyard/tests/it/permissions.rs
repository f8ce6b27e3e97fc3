//! Who may come where is said once, for every route.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use modelyard::permissions::{self, Need};
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, on_both_databases, run};
use serde_json::{Value, json};

use crate::support::{start_model, text};

#[test]
fn every_route_says_what_it_wants_and_every_saying_is_of_a_route() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (server, client) = start_model(&database).await;
        let document = client.get("/openapi.json").await.expect(200).body;
        let mut routes = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                routes.insert((method.to_uppercase(), path.clone()));
            }
        }
        let said: BTreeSet<_> =
            permissions::all().map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
        let undeclared: Vec<_> = routes.difference(&said).collect();
        assert!(undeclared.is_empty(), "nobody said who may come there: {undeclared:?}");
        let gone: Vec<_> = said.difference(&routes).collect();
        assert!(gone.is_empty(), "there are no such routes: {gone:?}");
        server.stop().await;
    });
}

/// What roles may do beside reading, as the specification has it: each also has what those before it
/// have. Not taken from the code under test.
const LADDER: [(&str, &[&str]); 5] = [
    (
        "viewer",
        &[
            "info:read",
            "system:read",
            "configs:read",
            "artifacts:read",
            "jobs:read",
            "tasks:read",
            "schedules:read",
            "ml:read",
        ],
    ),
    (
        "user",
        &[
            "configs:write",
            "artifacts:write",
            "jobs:write",
            "ml:train",
            "ml:predict",
            "tasks:execute",
        ],
    ),
    ("operator", &["tasks:write", "schedules:write", "metrics:read"]),
    (
        "tenant-admin",
        &[
            "users:read",
            "users:write",
            "keys:read",
            "keys:write",
            "roles:read",
            "roles:write",
            "sessions:read",
            "audit:read",
        ],
    ),
    ("system-admin", &["signing_keys:write"]),
];

/// Never ends for whoever may follow it.
const ENDLESS: &str = "/health/$stream";

/// An id that nothing has.
const NOBODY: &str = "01JCSEED000000000000000000";

async fn key(client: &TestClient, admin: Option<&str>, body: Value) -> (String, String) {
    let request = client.request(Method::POST, "/api/v1/keys").json(&body);
    let request = match admin {
        Some(key) => request.header("x-api-key", key),
        None => request,
    };
    let made = request.send().await.expect(201).body;
    (text(&made["id"]), text(&made["key"]))
}

/// The answer to a request that would do nothing, with what is shown.
async fn probe(client: &TestClient, method: &str, path: &str, shown: (&str, &str)) -> TestResponse {
    let path: Vec<&str> =
        path.split('/').map(|it| if it.starts_with('{') { NOBODY } else { it }).collect();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = client.request(method, &path.join("/")).header(shown.0, shown.1);
    request.header("content-type", "application/json").body("{}").send().await
}

on_both_databases! {
    async fn everybody_may_come_exactly_where_they_may(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let everywhere = |role: &str| json!({"name": role, "roles": [{"role": role}]});
        let (_, admin) = key(&client, None, everywhere("system-admin")).await;
        let mut keys = Vec::new();
        for (role, _) in LADDER {
            keys.push((role, key(&client, Some(&admin), everywhere(role)).await.1));
        }
        let (revoked, revoked_key) = key(&client, Some(&admin), everywhere("system-admin")).await;
        let path = format!("/api/v1/keys/{revoked}");
        let revoke = client.request(Method::DELETE, &path).header("x-api-key", &admin);
        revoke.send().await.expect(204);
        let elsewhere = json!({"name": "x", "roles": [{"role": "operator", "applies_to": "other"}]});
        let (_, elsewhere) = key(&client, Some(&admin), elsewhere).await;
        let limited = json!({"name": "y", "roles": [{"role": "operator"}], "scopes": ["ml:predict"]});
        let (_, limited) = key(&client, Some(&admin), limited).await;
        // It is known by now that somebody is there, and that one of them is there no more.
        tokio::time::sleep(Duration::from_secs(1)).await;

        let mut seen = 0;
        for (method, path) in permissions::all() {
            let need = permissions::need(&method.parse().unwrap(), path).unwrap();
            let nobodies = [
                ("x-nothing", "x"), ("x-api-key", "wrong"), ("x-api-key", &*revoked_key),
                ("authorization", "Bearer wrong"), ("authorization", "Bearer a.b.c"),
                ("authorization", "Basic d3Jvbmc6d3Jvbmc="), ("cookie", "modelyard=wrong"),
            ];
            for shown in nobodies {
                let answer = probe(&client, method, path, shown).await;
                let is_open = need == Need::Open;
                assert_eq!(answer.status == 401 && !is_open, !is_open,
                    "{method} {path} {shown:?}: {} {}", answer.status, answer.body);
                seen += 1;
            }
            let Some(name) = name_of(need) else { continue };
            let mut granted: BTreeSet<&str> = BTreeSet::new();
            for ((role, key), (_, more)) in keys.iter().zip(LADDER) {
                granted.extend(more.iter());
                let may = granted.contains(name);
                if may && path == ENDLESS {
                    continue;
                }
                for header in ["x-api-key", "authorization"] {
                    let value = if header == "x-api-key" { key.clone() } else { format!("Bearer {key}") };
                    let answer = probe(&client, method, path, (header, &value)).await;
                    let refused = matches!(answer.status.as_u16(), 401 | 403)
                        && answer.body["code"] == "permission_denied";
                    assert_eq!(!refused, may,
                        "{role} {method} {path} wants {name}: {} {}", answer.status, answer.body);
                    seen += 1;
                }
            }
            for (key, may) in [(&elsewhere, false), (&limited, name == "ml:predict")] {
                let answer = probe(&client, method, path, ("x-api-key", key)).await;
                assert_eq!(answer.body["code"] != "permission_denied", may,
                    "{method} {path}: {} {}", answer.status, answer.body);
                seen += 1;
            }
        }
        println!("{seen} probes");
        assert!(seen > 1500, "{seen}");
        server.stop().await;
    }
}

fn name_of(need: Need) -> Option<&'static str> {
    match need {
        Need::Service(it) | Need::Deployment(it) => Some(it.0),
        Need::Open | Need::Known => None,
    }
}
