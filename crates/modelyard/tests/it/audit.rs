//! The audit, through the whole server: what is in it, what is not, and that nothing is left out.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use modelyard::access::Deployment;
use modelyard_access::password::Password;
use modelyard_kernel::db::query;
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, on_both_databases};
use serde_json::{Value, json};

use crate::support::{ended, frame, service, settings, start, text, train_body, until};

const EMAIL: &str = "canary-ada@example.org";
const NAME: &str = "Canary Lovelace";
const PASSWORD: &str = "nine canary horses with batteries";

/// What changes nothing, or nothing that anybody but the service itself sees.
const CHANGE_NOTHING: [&str; 2] = ["POST /api/v1/auth/introspect", "POST /api/v1/ml/$validate"];

/// What takes more than a request to succeed, such as what was mailed or a code: the tests of `modelyard_access`
/// do them, and the events stand in the same function as the change.
const ELSEWHERE: [&str; 6] = [
    "DELETE /api/v1/account/factor",
    "DELETE /api/v1/users/{id}/factor",
    "POST /api/v1/account/factor/$confirm",
    "POST /api/v1/account/factor/$recovery-codes",
    "POST /api/v1/auth/$accept-invitation",
    "POST /api/v1/auth/$reset-password",
];

/// Somebody who does things, and looks whether that was written down.
struct Walk {
    client: TestClient,
    token: String,
    done: BTreeSet<String>,
}

impl Walk {
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> TestResponse {
        let bearer = format!("Bearer {}", self.token);
        let request = self.client.request(method, path).header("authorization", &bearer);
        match body {
            Some(body) => request.json(body).send().await,
            None => request.send().await,
        }
    }

    /// The last entry that is about anything but looking.
    async fn last(&self) -> i64 {
        let path = "/api/v1/audit?action[ne]=request.read&limit=1";
        let listed = self.ask(Method::GET, path, None).await.expect(200).body;
        listed["items"][0]["seq"].as_i64().unwrap_or(0)
    }

    /// Does something, `route` of the document, which must succeed and be written down.
    async fn does(&mut self, route: &str, id: &str, body: Value) -> Value {
        let (method, path) = route.split_once(' ').unwrap();
        let begin = path.find('{').unwrap_or(path.len());
        let end = path.find('}').map_or(path.len(), |it| it + 1);
        let path = format!("{}{id}{}", &path[..begin], &path[end..]);
        let before = self.last().await;
        let body = Some(&body).filter(|it| !it.is_null());
        let answer = self.ask(method.parse().unwrap(), &path, body).await;
        assert!(answer.status.is_success(), "{route}: {} {}", answer.status, answer.body);
        until(&format!("{route} is written down"), async || self.last().await > before).await;
        self.done.insert(route.to_owned());
        answer.body
    }

    async fn login(&self) -> Value {
        let body = json!({"email": EMAIL, "password": PASSWORD});
        self.client.post("/api/v1/auth/login", &body).await.expect(200).body
    }

    async fn everything(&mut self) {
        self.models().await;
        self.jobs().await;
        self.people().await;
        self.sessions().await;
    }

    async fn models(&mut self) {
        let none = Value::Null;
        let config = json!({"name": "a", "data": {}});
        let made = text(&self.does("POST /api/v1/configs", "", config.clone()).await["id"]);
        self.does("PUT /api/v1/configs/{id}", &made, config.clone()).await;
        let artifact = json!({"data": {"content": "canary-content"}});
        let root = text(&self.does("POST /api/v1/artifacts", "", artifact.clone()).await["id"]);
        let link = json!({"artifact_id": root});
        self.does("POST /api/v1/configs/{id}/$link-artifact", &made, link.clone()).await;
        self.does("POST /api/v1/configs/{id}/$unlink-artifact", &made, link).await;
        self.does("PUT /api/v1/artifacts/{id}", &root, artifact.clone()).await;
        self.does("DELETE /api/v1/artifacts/{id}", &root, none.clone()).await;
        self.does("DELETE /api/v1/configs/{id}", &made, none.clone()).await;
        self.does("POST /api/v1/artifacts/$upload", "", json!({"any": "content"})).await;
        let bulk = |body: &Value| json!({"operations": [{"op": "create", "body": body}]});
        self.does("POST /api/v1/configs/$bulk", "", bulk(&config)).await;
        self.does("POST /api/v1/artifacts/$bulk", "", bulk(&artifact)).await;

        let task = json!({"command": "echo", "task_type": "python", "parameters": {}});
        let made = text(&self.does("POST /api/v1/tasks", "", task.clone()).await["id"]);
        self.does("PUT /api/v1/tasks/{id}", &made, task.clone()).await;
        self.does("POST /api/v1/tasks/{id}/$execute", &made, none.clone()).await;
        let target = json!({"kind": "task.execute", "input": {"task_id": made}});
        let schedule = json!({"name": "a", "target": target,
            "trigger": {"type": "cron", "expression": "@yearly"}});
        let by = text(&self.does("POST /api/v1/schedules", "", schedule.clone()).await["id"]);
        self.does("PUT /api/v1/schedules/{id}", &by, schedule.clone()).await;
        self.does("POST /api/v1/schedules/{id}/$pause", &by, none.clone()).await;
        self.does("POST /api/v1/schedules/{id}/$resume", &by, none.clone()).await;
        self.does("POST /api/v1/schedules/{id}/$run-now", &by, none.clone()).await;
        self.does("DELETE /api/v1/schedules/{id}", &by, none.clone()).await;
        self.does("POST /api/v1/schedules/$bulk", "", bulk(&schedule)).await;
        self.does("POST /api/v1/tasks/$bulk", "", bulk(&task)).await;
        self.does("DELETE /api/v1/tasks/{id}", &made, none).await;
    }

    async fn config(&self, data: Value) -> String {
        let body = json!({"name": "a", "data": data});
        let made = self.ask(Method::POST, "/api/v1/configs", Some(&body)).await;
        text(&made.expect(201).body["id"])
    }

    async fn jobs(&mut self) {
        let none = Value::Null;
        let with_token =
            self.client.clone().with_header("authorization", &format!("Bearer {}", self.token));
        let config = self.config(json!({})).await;
        let trained = self.does("POST /api/v1/ml/$train", "", train_body(&config)).await;
        assert_eq!(ended(&with_token, &text(&trained["job_id"])).await["status"], "completed");
        let predict = json!({"artifact_id": trained["artifact_id"], "historic": frame(),
            "future": frame()});
        self.does("POST /api/v1/ml/$predict", "", predict).await;
        for (route, asked) in [
            ("$batch-train", format!("config_id={config}&group_by=location")),
            ("$batch-predict", format!("artifact_id={}", text(&trained["artifact_id"]))),
        ] {
            let before = self.last().await;
            let request = with_token.request(Method::POST, &format!("/api/v1/ml/{route}?{asked}"));
            let csv = "time_period,location,rainfall,disease_cases\n2026-01,north,1.5,3\n";
            let request = request.header("content-type", "text/csv").body(csv);
            request.send().await.expect(202);
            assert!(self.last().await > before, "{route}");
            self.done.insert(format!("POST /api/v1/ml/{route}"));
        }
        self.does("POST /api/v1/queues/{queue}/$pause", "train", none.clone()).await;
        let waiting = async |it: &Self| {
            let body = train_body(&config);
            let made = it.ask(Method::POST, "/api/v1/ml/$train", Some(&body)).await;
            text(&made.expect(202).body["job_id"])
        };
        let job = waiting(self).await;
        self.does("POST /api/v1/jobs/{job_id}/$cancel", &job, none.clone()).await;
        self.does("DELETE /api/v1/jobs/{job_id}", &job, none.clone()).await;
        let job = waiting(self).await;
        let bulk = json!({"operations": [{"op": "delete", "id": job}]});
        self.does("POST /api/v1/jobs/$bulk", "", bulk).await;
        self.does("POST /api/v1/queues/{queue}/$resume", "train", none.clone()).await;
        let failing = self.config(json!({"how": "fail"})).await;
        let body = train_body(&failing);
        let made = self.ask(Method::POST, "/api/v1/ml/$train", Some(&body)).await.expect(202);
        let job = text(&made.body["job_id"]);
        assert_eq!(ended(&with_token, &job).await["status"], "failed");
        let again = self.does("POST /api/v1/jobs/{job_id}/$retry", &job, none.clone()).await;
        let again = text(&again["job_id"]);
        assert_eq!(ended(&with_token, &again).await["status"], "failed");
        self.does("POST /api/v1/jobs/{job_id}/$discard", &again, none).await;
    }

    async fn people(&mut self) {
        let none = Value::Null;
        let role = json!({"name": "x", "permissions": ["ml:predict"]});
        self.does("POST /api/v1/roles", "", role).await;
        let change = json!({"permissions": ["ml:train"]});
        self.does("PUT /api/v1/roles/{name}", "x", change).await;
        self.does("DELETE /api/v1/roles/{name}", "x", none.clone()).await;
        let key = json!({"name": "a", "roles": [{"role": "user"}]});
        let made = text(&self.does("POST /api/v1/keys", "", key).await["id"]);
        self.does("PATCH /api/v1/keys/{id}", &made, json!({"per_minute": 5})).await;
        let rotated = self.does("POST /api/v1/keys/{id}/$rotate", &made, none.clone()).await;
        let bindings = json!([{"role": "viewer"}]);
        let route = "PUT /api/v1/roles/$bindings/{subject_id}";
        self.does(route, &text(&rotated["id"]), bindings).await;
        self.does("DELETE /api/v1/keys/{id}", &made, none.clone()).await;
        let user = json!({"email": "canary-bob@example.org", "name": "Canary Bob",
            "password": "eleven canary mules with engines"});
        let made = text(&self.does("POST /api/v1/users", "", user).await["id"]);
        let change = json!({"name": "Canary Robert", "factor_required": false});
        self.does("PUT /api/v1/users/{id}", &made, change).await;
        for verb in ["$disable", "$enable", "$end-sessions"] {
            self.does(&format!("POST /api/v1/users/{{id}}/{verb}"), &made, none.clone()).await;
        }
        self.does("DELETE /api/v1/users/{id}", &made, none.clone()).await;
        let invited = json!({"email": "canary-eve@example.org", "name": "Canary Eve"});
        let made = text(&self.does("POST /api/v1/users", "", invited).await["id"]);
        self.does("POST /api/v1/users/{id}/$invite", &made, none.clone()).await;
        self.does("PUT /api/v1/account", "", json!({"name": NAME})).await;
        self.does("POST /api/v1/account/factor", "", none.clone()).await;
        self.does("POST /api/v1/auth/$rotate-signing-keys", "", none).await;
        let forgot = json!({"email": EMAIL});
        self.does("POST /api/v1/auth/$forgot-password", "", forgot).await;
    }

    async fn sessions(&mut self) {
        let none = Value::Null;
        let body = json!({"email": EMAIL, "password": PASSWORD});
        self.does("POST /api/v1/auth/login", "", body).await;
        self.does("POST /api/v1/auth/$step-up", "", json!({"password": PASSWORD})).await;
        let other = self.login().await;
        let refresh = json!({"refresh_token": other["refresh_token"]});
        let other = self.does("POST /api/v1/auth/refresh", "", refresh).await;
        let token = json!({"token": other["refresh_token"]});
        self.does("POST /api/v1/auth/revoke", "", token).await;
        let other = text(&self.login().await["session"]["id"]);
        self.does("DELETE /api/v1/auth/sessions/{id}", &other, none.clone()).await;
        // Whoever has logged out cannot look whether it was written down.
        for route in ["POST /api/v1/auth/logout", "POST /api/v1/auth/logout-all"] {
            let token = text(&self.login().await["access_token"]);
            let mine = std::mem::replace(&mut self.token, token);
            let before = self.last().await;
            let looks = std::mem::replace(&mut self.token, mine);
            let path = route.strip_prefix("POST ").unwrap();
            self.ask(Method::POST, path, None).await.expect(204);
            self.token = looks;
            if route.ends_with("-all") {
                self.token = text(&self.login().await["access_token"]);
            }
            assert!(self.last().await > before, "{route}");
            self.done.insert(route.to_owned());
        }
        let change =
            json!({"old_password": PASSWORD, "new_password": "ten canary horses on a hill"});
        self.does("POST /api/v1/account/$change-password", "", change).await;
    }
}

async fn begin(database: &TestDatabase) -> (modelyard::Server, Walk) {
    let settings = settings(database);
    let (server, client) = start(service("audited"), settings.clone()).await;
    let deployment = Deployment::open(&settings).await.unwrap();
    let password = Password::new(PASSWORD);
    deployment.access.users().create_first_admin(EMAIL, NAME, password).await.unwrap();
    deployment.close().await;
    until("nobody comes in unknown", async || client.get("/api/v1/configs").await.status == 401)
        .await;
    let mut walk = Walk { client, token: String::new(), done: BTreeSet::new() };
    walk.token = text(&walk.login().await["access_token"]);
    (server, walk)
}

on_both_databases! {
    async fn whoever_changes_something_is_written_down_and_nothing_secret_is(database: TestDatabase) {
        let (server, mut walk) = begin(&database).await;
        let document = walk.client.get("/openapi.json").await.expect(200).body;
        Box::pin(walk.everything()).await;
        let mut missed = Vec::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys().filter(|it| *it != "get") {
                let route = format!("{} {path}", method.to_uppercase());
                let excused = [&CHANGE_NOTHING[..], &ELSEWHERE[..]].concat();
                if !walk.done.contains(&route) && !excused.contains(&&*route) {
                    missed.push(route);
                }
            }
        }
        assert!(missed.is_empty(), "nobody looked whether these are written down: {missed:#?}");

        let found = walk.ask(Method::GET, "/api/v1/audit/$verify", None).await.expect(200).body;
        assert_eq!(found["ok"], true, "{found}");
        let file = walk.ask(Method::GET, "/api/v1/audit/$export", None).await.expect(200).text();
        assert!(file.lines().count() > 100, "{file}");
        // Whatever of people and secrets came by.
        for secret in ["canary-", "Canary ", "canary horses", "canary mules", "mk_", "eyJ"] {
            let line = file.lines().find(|it| {
                it.contains(secret) && !it.contains("\"action\":\"key.")
            });
            assert_eq!(line, None, "{secret}");
        }
        // Of keys there is what they begin with, which is no secret.
        assert!(!file.contains("\"key\":\""), "{file}");
        server.stop().await;
    }

    async fn what_is_refused_and_what_administrators_look_at_is_written_down(database: TestDatabase) {
        let (server, walk) = begin(&database).await;
        let viewer = json!({"name": "v", "roles": [{"role": "viewer"}]});
        let key = walk.ask(Method::POST, "/api/v1/keys", Some(&viewer)).await.expect(201).body;
        let (id, key) = (text(&key["id"]), text(&key["key"]));
        let refused = walk.client.request(Method::DELETE, "/api/v1/users/x").header("x-api-key", &key);
        refused.send().await.expect(403);
        walk.client.post("/api/v1/auth/login", &json!({"email": EMAIL, "password": "wrong"})).await.expect(401);
        walk.ask(Method::GET, "/api/v1/users?email=canary-ada", None).await.expect(200);

        let path = format!("/api/v1/audit?outcome=denied&actor=key:{id}");
        let found = walk.ask(Method::GET, &path, None).await.expect(200).body;
        let entry = &found["items"][0];
        assert_eq!(entry["subject"], "DELETE /api/v1/users/x", "{found}");
        assert_eq!((&entry["after"]["code"], &entry["address"]), (&json!("permission_denied"), &json!("127.0.0.1")));
        let found = walk.ask(Method::GET, "/api/v1/audit?action=session.refused", None).await.expect(200).body;
        assert_eq!(found["items"][0]["after"], json!({"code": "login_refused"}), "{found}");
        let path = "/api/v1/audit?action=request.read&subject=GET%20/api/v1/users";
        let found = walk.ask(Method::GET, path, None).await.expect(200).body;
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
        let first = &walk.ask(Method::GET, "/api/v1/audit/1", None).await.expect(200).body;
        assert_eq!((&first["seq"], &first["actor"]), (&json!(1), &json!("access")), "{first}");
        walk.ask(Method::GET, "/api/v1/audit/99999", None).await.expect(404);
        // And who may not look does not.
        let looks = walk.client.request(Method::GET, "/api/v1/audit").header("x-api-key", &key);
        looks.send().await.expect(403);
        server.stop().await;
    }

    async fn a_job_says_which_job_it_is(database: TestDatabase) {
        let (server, client) = start(service("audited"), settings(&database)).await;
        let config = crate::support::config(&client, json!({})).await;
        let submitted = crate::support::train_with(&client, &config).await;
        ended(&client, &submitted.job).await;
        let path = format!("/api/v1/audit?subject={}", submitted.artifact);
        let found = client.get(&path).await.expect(200).body;
        let entry = &found["items"][0];
        assert_eq!(entry["action"], "artifact.created", "{found}");
        assert_eq!((text(&entry["actor"]), text(&entry["request"])), ("jobs".to_owned(), submitted.job));
        server.stop().await;
    }

    async fn where_nobody_keeps_an_audit_nothing_is_told(database: TestDatabase) {
        let mut settings = settings(&database);
        settings.audit.enabled = false;
        let (server, client) = start(service("audited"), settings).await;
        crate::support::config(&client, json!({})).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let sql = "SELECT (SELECT COUNT(*) FROM events) + (SELECT COUNT(*) FROM audit_entries)";
        let mut conn = database.db.conn().await.unwrap();
        let (count,): (i64,) = query(sql).fetch_one(&mut conn).await.unwrap();
        assert_eq!(count, 0);
        server.stop().await;
    }
}
