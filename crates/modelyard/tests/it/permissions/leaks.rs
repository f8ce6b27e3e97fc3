//! Nobody learns from a refusal what there is: what exists is answered as what never did.

use modelyard::permissions::{self, Need};
use modelyard_testkit::{TestResponse, on_both_databases};
use serde_json::{Value, json};

use super::granted;
use crate::support::house::{House, Shown};
use crate::support::{frame, text};

/// An id that nothing ever had, as long as any.
const NEVER: &str = "01JCSEED000000000000000000";

/// Beside the method that a route has.
const METHODS: [&str; 4] = ["HEAD", "OPTIONS", "PATCH", "TRACE"];

/// Something that is there, by the beginning of the paths that lead to it, and what never was.
async fn things(house: &House) -> Vec<(&'static str, String, String)> {
    let make = async |path: &str, body: Value| {
        text(&house.admin("POST", path, body).await.expect(201).body["id"])
    };
    let config = make("/api/v1/configs", json!({"name": "a", "data": {}})).await;
    let artifact = make("/api/v1/artifacts", json!({"data": {"content": "a"}})).await;
    let task = json!({"command": "echo", "task_type": "python", "parameters": {}});
    let task = make("/api/v1/tasks", task).await;
    let schedule = json!({"name": "a", "trigger": {"type": "cron", "expression": "@yearly"},
        "target": {"kind": "task.execute", "input": {"task_id": task}}});
    let schedule = make("/api/v1/schedules", schedule).await;
    let train = json!({"config_id": config, "data": frame()});
    let job = house.admin("POST", "/api/v1/ml/$train", train).await.expect(202).body;
    let (key, _) = house.key(json!({"name": "k", "roles": []})).await;
    let user = house.user("somebody@example.org", json!([])).await;
    let theirs = house.login("somebody@example.org", false).await;
    let session = house.ask("GET", "/api/v1/auth/session", &theirs, Value::Null).await.expect(200);
    let role = json!({"name": "there", "permissions": ["ml:predict"]});
    house.admin("POST", "/api/v1/roles", role).await.expect(201);
    let never = || NEVER.to_owned();
    vec![
        ("/api/v1/configs/", config, never()),
        ("/api/v1/artifacts/", artifact, never()),
        ("/api/v1/tasks/", task, never()),
        ("/api/v1/schedules/", schedule, never()),
        ("/api/v1/jobs/", text(&job["job_id"]), never()),
        ("/api/v1/queues/", "train".to_owned(), "never".to_owned()),
        ("/api/v1/keys/", key, never()),
        ("/api/v1/users/", user.clone(), never()),
        ("/api/v1/roles/$bindings/", user, never()),
        ("/api/v1/roles/", "there".to_owned(), "never".to_owned()),
        ("/api/v1/audit/", "1".to_owned(), "9".to_owned()),
        ("/api/v1/auth/sessions/", session_id(&session), never()),
    ]
}

fn session_id(answer: &TestResponse) -> String {
    let body = &answer.body;
    text(if body["id"].is_string() { &body["id"] } else { &body["session"]["id"] })
}

/// A path with what stands for the id replaced.
fn with(path: &str, id: &str) -> String {
    let parts: Vec<&str> =
        path.split('/').map(|it| if it.starts_with('{') { id } else { it }).collect();
    parts.join("/")
}

/// All that an answer says, but for what was asked and when.
fn said(answer: &TestResponse, id: &str) -> String {
    const OF_THE_REQUEST: [&str; 2] = ["date", "x-request-id"];
    let mut headers: Vec<String> = Vec::new();
    for (name, value) in &answer.headers {
        if !OF_THE_REQUEST.contains(&name.as_str()) {
            headers.push(format!("{name}: {}", value.to_str().unwrap()));
        }
    }
    headers.sort();
    let mut body = answer.body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("trace_id");
        // It repeats what was asked.
        let instance = fields.remove("instance");
        assert!(instance.is_none_or(|it| text(&it).contains(id)), "{body}");
    }
    let said = format!("{} {headers:?} {body}", answer.status);
    // A short one may be anything elsewhere, such as a status.
    if id.len() < NEVER.len() { said } else { said.replace(id, "ID") }
}

on_both_databases! {
    async fn what_is_there_is_refused_as_what_never_was(database: TestDatabase) {
        let house = House::open(database, |_| {}).await;
        let things = things(&house).await;
        // In the order in which they may more; what they may they are not asked here.
        let mut who: Vec<(&str, Shown)> = vec![("nobody", Vec::new())];
        for role in ["none", "viewer", "user", "operator"] {
            let email = format!("{role}@example.org");
            let roles = if role == "none" { json!([]) } else { json!([{"role": role}]) };
            house.user(&email, roles).await;
            who.push((role, house.login(&email, false).await));
        }
        let roles = json!([{"role": "operator", "applies_to": "second"}]);
        house.user("second@example.org", roles).await;
        who.push(("of the second", house.login("second@example.org", false).await));

        let mut seen = 0;
        for (method, path) in permissions::all().filter(|it| it.1.contains('{')) {
            let thing = things.iter().find(|it| path.starts_with(it.0));
            let Some((_, there, never)) = thing else {
                let need = permissions::need(&method.parse().unwrap(), path);
                assert_eq!(need, Some(Need::Open), "nothing is known that is at {path}");
                continue;
            };
            for (name, shown) in &who {
                for method in [method].iter().chain(&METHODS) {
                    let may = match permissions::need(&method.parse().unwrap(), path) {
                        Some(Need::Open) => true,
                        // Their own, which what is there is not; and what is no method of it.
                        Some(Need::Known) | None => false,
                        Some(Need::Service(it) | Need::Deployment(it)) => {
                            granted(name).contains(it.0)
                        }
                    };
                    if may {
                        continue;
                    }
                    let at = async |id: &str| {
                        let answer = house.ask(method, &with(path, id), shown, Value::Null).await;
                        assert!(answer.status.is_client_error() || answer.status == 200,
                            "{method} {path}: {} {}", answer.status, answer.body);
                        said(&answer, id)
                    };
                    assert_eq!(at(there).await, at(never).await, "{name} {method} {path}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 500, "{seen}");
        house.stop().await;
    }

    async fn what_is_in_one_service_is_not_in_the_other(database: TestDatabase) {
        let house = House::open(database, |_| {}).await;
        let things = things(&house).await;
        let roles = json!([{"role": "operator", "applies_to": "second"}]);
        house.user("second@example.org", roles).await;
        let shown = house.login("second@example.org", false).await;
        let mut seen = 0;
        for (method, path) in permissions::all().filter(|it| it.1.contains('{')) {
            let need = permissions::need(&method.parse().unwrap(), path).unwrap();
            let thing = things.iter().find(|it| path.starts_with(it.0));
            let Some((_, there, never)) = thing.filter(|_| matches!(need, Need::Service(_))) else {
                continue;
            };
            // Every service has queues of these names.
            if path.contains("queues") {
                continue;
            }
            for method in [method, "HEAD", "OPTIONS"] {
                let at = async |id: &str| {
                    let path = format!("/services/second{}", with(path, id));
                    said(&house.ask_front(method, &path, &shown, json!({})).await, id)
                };
                let (there, never) = (at(there).await, at(never).await);
                assert_eq!(there, never, "{method} {path}");
                seen += 1;
            }
        }
        assert!(seen > 60, "{seen}");
        house.stop().await;
    }

    async fn without_credentials_nobody_learns_which_paths_there_are(database: TestDatabase) {
        let house = House::open(database, |_| {}).await;
        let nothing = Vec::new();
        let mut seen = 0;
        for (_, path) in permissions::all().filter(|it| !permissions::is_open(it.1)) {
            let path = with(path, NEVER);
            // As long, so that no length differs.
            let other = "/".to_owned() + &"x".repeat(path.len() - 1);
            for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"] {
                let at = async |path: &str| {
                    let answer = house.ask(method, path, &nothing, Value::Null).await;
                    assert_eq!(answer.status, 401, "{method} {path}");
                    said(&answer, path)
                };
                assert_eq!(at(&path).await, at(&other).await, "{method} {path}");
                seen += 1;
            }
        }
        assert!(seen > 500, "{seen}");
        house.stop().await;
    }
}
