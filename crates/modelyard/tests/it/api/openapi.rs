//! The OpenAPI document says what the server does, and the server does what the document says.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use http::Method;
use modelyard_testkit::{TestClient, on_both_databases};
use serde_json::{Value, json};

use super::lists::collections;
use super::{completed_job, config, create, service, start, upload};
use crate::architecture::sources;
use crate::support::{self, settings};

/// Routes that are added without a description, each with its reason.
const UNDESCRIBED: [(&str, &str, &str); 4] = [
    ("crates/modelyard/src/page/http.rs", "/docs/{asset}", "files of the reference, no operation"),
    ("crates/modelyard/src/page/card.rs", "/", "the page before several services is no service's"),
    ("crates/modelyard/src/page/card.rs", "/reset-password", "the same, for links of mails"),
    ("crates/modelyard/src/page/card.rs", "/accept-invitation", "the same, for links of mails"),
];

/// The document of a service.
pub async fn document(client: &TestClient) -> Value {
    client.get("/openapi.json").await.expect(200).body
}

/// One item of each kind, to ask for.
pub struct Place {
    artifact: String,
    config: String,
    job: String,
    task: String,
    schedule: String,
}

/// Makes one item of each kind.
pub async fn place(client: &TestClient) -> Place {
    let last = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let artifact = last(&upload(client, "text/csv", "a,b\n1,2\n").await);
    let config = create(client, "/api/v1/configs", &config("one")).await;
    let link = json!({"artifact_id": artifact});
    client.post(&format!("/api/v1/configs/{config}/$link-artifact"), &link).await.expect(204);
    let task = json!({"command": "echo", "task_type": "python"});
    let task = create(client, "/api/v1/tasks", &task).await;
    client.post(&format!("/api/v1/tasks/{task}/$execute"), &Value::Null).await.expect(202);
    let schedule = json!({"name": "daily", "trigger": {"type": "cron", "expression": "@daily"},
        "target": {"kind": "task.execute", "input": {"task_id": task}}});
    let schedule = create(client, "/api/v1/schedules", &schedule).await;
    Place { artifact, config, job: completed_job(client).await, task, schedule }
}

impl Place {
    /// An address that a path of the document stands for.
    pub fn path_of(&self, path: &str) -> String {
        let id = match path.split('/').nth(3) {
            Some("artifacts") => &self.artifact,
            Some("configs") => &self.config,
            Some("schedules") => &self.schedule,
            _ => &self.task,
        };
        let path = path.replace("{id}", id).replace("{job_id}", &self.job);
        if path.ends_with("$generate-sample-data") { format!("{path}?seed=1") } else { path }
    }
}

/// Every operation: path, method, and what is said of it.
fn operations(document: &Value) -> Vec<(String, Method, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |path: &str, methods: &'_ Value| {
        let methods = methods.as_object().unwrap().clone();
        methods.keys().map(|it| (path.to_owned(), it.to_uppercase())).collect::<Vec<_>>()
    };
    let all = paths.iter().flat_map(|(path, methods)| of(path, methods));
    all.map(|(path, method)| {
        let operation = &document["paths"][&path][method.to_lowercase()];
        (path, method.parse().unwrap(), operation)
    })
    .collect()
}

/// What a reference within the document leads to.
#[track_caller]
fn resolve<'a>(document: &'a Value, it: &'a Value) -> &'a Value {
    match it["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').unwrap();
            document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => it,
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
            map.values().for_each(|it| references(it, found));
        }
        Value::Array(items) => items.iter().for_each(|it| references(it, found)),
        _ => {}
    }
}

on_both_databases! {
    async fn every_operation_of_the_document_is_a_route(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let document = document(&client).await;
        for (path, method, _) in operations(&document) {
            let answer = client.request(method.clone(), &path).open().await;
            let code = match answer.headers.get("content-type").map(|it| it.as_bytes()) {
                Some(b"application/problem+json") => {
                    let text = { let mut answer = answer; answer.next_bytes().await.unwrap() };
                    serde_json::from_slice::<Value>(&text).unwrap()["code"].clone()
                }
                _ => Value::Null,
            };
            assert_ne!(code, "route_missing", "{method} {path}");
            assert_ne!(code, "method_not_allowed", "{method} {path}");
        }
        server.stop().await;
    }

    async fn every_method_of_a_route_is_an_operation_of_the_document(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let document = document(&client).await;
        let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, method, _) in operations(&document) {
            let methods = documented.entry(path).or_default();
            if method == Method::GET {
                methods.insert("HEAD".to_owned());
            }
            methods.insert(method.to_string());
        }
        for (path, methods) in documented {
            // No route takes this method, so the router names those that it takes.
            let refused = client.request(Method::TRACE, &path).send().await.expect(405);
            let allowed = refused.header("allow").unwrap().split(", ").map(ToOwned::to_owned);
            assert_eq!(allowed.collect::<BTreeSet<_>>(), methods, "{path}");
        }
        server.stop().await;
    }

    async fn every_operation_is_described(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let document = document(&client).await;
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["title"], "Peer Model");
        assert_eq!(document["info"]["version"], "1.2.3");
        let tags: Vec<&Value> =
            document["tags"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        let handlers = handlers();
        let mut seen = HashSet::new();
        for (path, method, operation) in operations(&document) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(seen.insert(id), "{id} is there twice");
            assert!(handlers.contains(id), "{id} is no handler");
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(!summary.is_empty(), "{id} has no summary");
            assert!(tags.contains(&&operation["tags"][0]), "{id} has no tag");
            if let Some(body) = operation.get("requestBody") {
                for content in body["content"].as_object().unwrap().values() {
                    let schema = resolve(&document, &content["schema"]);
                    assert!(schema.as_object().is_some_and(|it| !it.is_empty()), "{id}: {body}");
                    assert_ne!(*schema, json!({"type": "object"}), "{id}: any object is no schema");
                }
            }
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|it| it < &"400".to_owned()), "{id} never succeeds");
            assert!(responses.contains_key("500"), "{id} never fails");
            for (status, response) in responses {
                let response = resolve(&document, response);
                let what = format!("{id} {status}");
                assert!(response["description"].is_string(), "{what}");
                assert!(response["headers"]["x-request-id"].is_object(), "{what}");
                // The health of an unhealthy service is no problem document.
                if status.as_str() >= "400" && !(id == "get_health" && status == "503") {
                    let problem = &response["content"]["application/problem+json"]["schema"];
                    assert_eq!(problem["$ref"], "#/components/schemas/Problem", "{what}");
                }
            }
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let names: Vec<(&Value, &Value)> = parameters
                .map(|it| resolve(&document, it))
                .inspect(|it| assert!(it["schema"].is_object(), "{id}: {it}"))
                .map(|it| (&it["in"], &it["name"]))
                .collect();
            let distinct: HashSet<String> = names.iter().map(|it| format!("{it:?}")).collect();
            assert_eq!(distinct.len(), names.len(), "{id}: {names:?}");
            for name in path.split(['{', '}']).skip(1).step_by(2) {
                assert!(names.contains(&(&"path".into(), &name.into())), "{id}: {name}");
            }
            let expected = [
                ("422", operation.get("requestBody").is_some()),
                ("413", operation.get("requestBody").is_some()),
                ("404", path.contains('{')),
                ("412", method == Method::PUT || method == Method::DELETE),
            ];
            for (status, is_expected) in expected {
                let known = responses.contains_key(status);
                assert!(!is_expected || known, "{id} does not say that it may answer {status}");
            }
        }
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in &found {
            resolve(&document, &json!({ "$ref": reference }));
        }
        server.stop().await;
    }

    async fn lists_say_what_they_may_be_asked(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let document = document(&client).await;
        for collection in collections() {
            let operation = &document["paths"][collection.path]["get"];
            let parameters = operation["parameters"].as_array().unwrap().iter();
            let parameters: BTreeMap<&str, &Value> = parameters
                .map(|it| resolve(&document, it))
                .map(|it| (it["name"].as_str().unwrap(), it))
                .collect();
            for name in ["page", "size", "limit", "cursor", "sort", "fields", "q", "If-None-Match"] {
                assert!(parameters.contains_key(name), "{}: {name}", collection.path);
            }
            for field in collection.fields.fields {
                let described = parameters.get(field.name);
                let described = described.unwrap_or_else(|| panic!("{}", field.name));
                let description = described["description"].as_str().unwrap();
                if field.name == "enabled" {
                    // The contract's, which its handler describes.
                    continue;
                }
                for operator in field.kind.operators().filter(|it| *it != "eq") {
                    let text = format!("`{}[{operator}]`", field.name);
                    assert!(description.contains(&text), "{text} is not in {description}");
                }
            }
            let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            let item = resolve(&document, &schema["anyOf"][0]["items"]["anyOf"][0]);
            let keys: BTreeSet<&str> =
                item["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            let expected: BTreeSet<&str> = collection.fields.keys.iter().copied().collect();
            assert_eq!(keys, expected, "{}", collection.path);
        }
        server.stop().await;
    }

    async fn answers_have_a_tag_where_the_document_says_so(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let place = place(&client).await;
        let document = document(&client).await;
        for (path, method, operation) in operations(&document) {
            // Who asks here is no user; and as soon as there is one, nobody comes in who is not known.
            let of_somebody = ["/api/v1/account", "/api/v1/keys/", "/api/v1/users/", "/api/v1/roles/"];
            if method != Method::GET || of_somebody.iter().any(|it| path.starts_with(it)) {
                continue;
            }
            let says = operation["responses"].get("304").is_some();
            let answer = client.request(Method::GET, &place.path_of(&path)).open().await;
            let has = answer.headers.contains_key("etag");
            assert_eq!(has, says, "{path}: {}", answer.status);
            if says {
                let again = client.request(Method::GET, &place.path_of(&path));
                again.header("if-none-match", "*").send().await.expect(304);
            }
        }
        server.stop().await;
    }

    async fn keys_are_asked_for_where_the_document_says_so(database: TestDatabase) {
        let service = service().with_auth(["key".to_owned()]).build().unwrap();
        let (server, client) = support::start(service, settings(&database)).await;
        let document = document(&client).await;
        let scheme = &document["components"]["securitySchemes"]["ApiKey"];
        assert_eq!(*scheme, json!({"type": "apiKey", "in": "header", "name": "X-API-Key"}));
        assert_eq!(document["security"], json!([{"ApiKey": []}]));
        for (path, method, operation) in operations(&document) {
            let is_open = operation["security"] == json!([]);
            // What is open to those who are not known yet may find out that they are nobody.
            if !path.starts_with("/api/v1/auth/") {
                assert_eq!(operation["responses"].get("401").is_none(), is_open, "{method} {path}");
            }
            let answer = client.request(method.clone(), &path).open().await;
            assert_eq!(answer.status != 401, is_open, "{method} {path}: {}", answer.status);
        }
        server.stop().await;
    }

    async fn the_page_of_a_service_leads_to_what_it_has(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let html = client.get("/").await.expect(200).text();
        let links: Vec<&str> =
            html.split("<a href=\"").skip(1).map(|it| it.split('"').next().unwrap()).collect();
        let ours: Vec<&&str> = links.iter().filter(|it| !it.contains(':')).collect();
        assert_eq!(ours.len(), 8, "{links:?}");
        for link in ours {
            client.get(&format!("/{link}")).await.expect(200);
        }
        server.stop().await;
    }

    async fn the_documents_configs_are_those_of_the_service(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let document = document(&client).await;
        let schema = client.get("/api/v1/configs/$schema").await.expect(200).body;
        let described = &document["components"]["schemas"]["ConfigData"];
        assert_eq!(described["properties"]["n_lags"], schema["properties"]["n_lags"]);
        let data = &document["components"]["schemas"]["ConfigIn"]["properties"]["data"];
        assert_eq!(data["$ref"], "#/components/schemas/ConfigData");
        let example = &data["example"];
        assert_eq!(example["n_lags"], 3, "{example}");
        let made = client.post("/api/v1/configs", &json!({"name": "example", "data": example})).await;
        assert_eq!(made.expect(201).body["data"]["n_lags"], 3);
        let below = client.get("/services/peer-model/openapi.json").await.expect(200).body;
        assert_eq!(below, document);
        server.stop().await;
    }
}

/// The names of all handlers: async functions behind a `utoipa::path`.
fn handlers() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in sources() {
        for after in text.split("#[utoipa::path(").skip(1) {
            let rest = &after[after.find("async fn ").unwrap() + 9..];
            names.insert(rest[..rest.find('(').unwrap()].to_owned());
        }
    }
    names
}

/// Routes reach the document by `routes!`. Whatever else puts one into a router is found here.
#[test]
fn no_route_is_added_beside_the_document() {
    const WAYS: [&str; 6] = [
        ".route(",
        ".route_service(",
        ".nest_service(",
        ".fallback_service(",
        ".on(",
        "MethodRouter",
    ];
    let mut found = Vec::new();
    for (path, text) in sources() {
        for way in WAYS {
            for (at, _) in text.match_indices(way) {
                let arguments = text[at + way.len()..].trim_start();
                if arguments.starts_with(')') {
                    continue;
                }
                let route = arguments.split('"').nth(1).unwrap_or_default();
                found.push((path.clone(), route.to_owned()));
            }
        }
    }
    let allowed = UNDESCRIBED.map(|(path, route, _)| (path.to_owned(), route.to_owned()));
    for it in &found {
        assert!(allowed.contains(it), "{it:?} is added without a description: use `routes!`");
    }
    assert_eq!(found.len(), allowed.len(), "an exception is no longer needed: {found:?}");
}

/// Two schemas of one name would overwrite each other in the document.
#[test]
fn no_two_schemas_have_one_name() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (path, text) in sources() {
        for after in text.split("#[derive(").skip(1) {
            let (derived, rest) = after.split_once(")]").unwrap();
            if !derived.contains("ToSchema") {
                continue;
            }
            let item =
                rest.lines().find(|it| it.contains("struct ") || it.contains("enum ")).unwrap();
            let attributes = &rest[..rest.find(item).unwrap()];
            let name = match attributes.split_once("#[schema(as = ") {
                Some((_, name)) => name.split([')', ',']).next().unwrap(),
                None => {
                    let mut words = item.split([' ', '<', '{', '(']);
                    words.find(|it| matches!(*it, "struct" | "enum"));
                    words.next().unwrap()
                }
            };
            if let Some(other) = seen.insert(name.to_owned(), path.clone()) {
                panic!(
                    "`{name}` is a schema of {other} and of {path}; give one another name with `as`"
                );
            }
        }
    }
    assert!(seen.len() > 30, "{seen:?}");
}
