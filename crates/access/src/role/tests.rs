//! Through the routes, on both databases.

use ::http::{Method, Request};
use axum::body::Body;
use axum::{Extension, Router};
use modelyard_kernel::failure::Unrendered;
use modelyard_kernel::{Background, Caller, Grants, Permission};
use modelyard_testkit::{SERVICE, TENANT, TestDatabase, on_both_databases, test_caller};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::key::{Keys, NewKey};
use crate::link::tests::People;

const ANNA: &str = "01JCSEED000000000000000AAA";
const BERT: &str = "01JCSEED000000000000000BBB";

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ::http::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The code of a failure.
    #[track_caller]
    pub(crate) fn code(self, status: u16) -> String {
        self.expect(status)["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> String {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap()).to_owned()
    }
}

/// Asks a slice's routes as somebody.
pub(crate) async fn ask(
    routes: &Router,
    caller: &Caller,
    method: Method,
    path: &str,
    tag: Option<&str>,
    body: &Value,
) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "test")
        .header("content-type", "application/json");
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = request.body(body).unwrap();
    let uri = request.uri().clone();
    let router = routes.clone().layer(Extension(caller.clone()));
    let mut response = router.oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    if let Some(Unrendered(failure)) = response.extensions_mut().remove::<Unrendered>() {
        // The outermost layer, which is not here, would do this.
        let body = Value::from(failure.problem(&uri, "http://test", "T"));
        return Answer { status, headers, body };
    }
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
}

/// Somebody with these roles everywhere.
pub(crate) fn somebody(roles: &[&str]) -> Caller {
    let bindings: Vec<Binding> = roles.iter().map(|it| Binding::everywhere(it)).collect();
    let grants = RoleBook::new([]).grants(&bindings, DEPLOYMENT, &Rules::default());
    Caller::new("user:somebody", TENANT, SERVICE, grants)
}

struct Server {
    router: Router,
    roles: Roles,
}

impl Server {
    fn new(database: &TestDatabase) -> Self {
        let roles = Roles::new(database.db.clone(), database.clock.clone());
        let (router, _) = roles.part().routes.split_for_parts();
        Self { router, roles }
    }

    async fn call(&self, caller: &Caller, method: Method, path: &str, body: Value) -> Answer {
        ask(&self.router, caller, method, &format!("/api/v1/roles{path}"), None, &body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(&test_caller(), Method::GET, path, Value::Null).await
    }

    async fn create(&self, caller: &Caller, body: Value) -> Answer {
        self.call(caller, Method::POST, "", body).await
    }

    async fn put(&self, caller: &Caller, path: &str, body: Value) -> Answer {
        self.call(caller, Method::PUT, path, body).await
    }

    async fn delete(&self, caller: &Caller, path: &str) -> Answer {
        self.call(caller, Method::DELETE, path, Value::Null).await
    }

    async fn bind(&self, caller: &Caller, subject: &str, roles: &[&str]) -> Answer {
        let roles: Vec<Value> = roles.iter().map(|it| json!({"role": it})).collect();
        self.put(caller, &format!("/$bindings/{subject}"), Value::Array(roles)).await
    }
}

fn forecaster() -> Value {
    json!({"name": "forecaster", "description": "Predicts.", "permissions": ["ml:predict"],
        "inherits": ["viewer"]})
}

on_both_databases! {
    async fn a_role_is_made_changed_and_deleted(database: TestDatabase) {
        let (it, root) = (Server::new(&database), test_caller());
        let made = it.create(&root, forecaster()).await;
        assert_eq!(made.header("location"), "http://test/api/v1/roles/forecaster");
        let tag = made.header("etag");
        assert_eq!(made.expect(201), json!({"name": "forecaster", "description": "Predicts.",
            "permissions": ["ml:predict"], "inherits": ["viewer"], "built_in": false,
            "created_at": "2026-09-01T00:00:00.000000Z", "updated_at": "2026-09-01T00:00:00.000000Z"}));
        assert_eq!(it.create(&root, forecaster()).await.code(409), "role_taken");
        let mut viewer = forecaster();
        viewer["name"] = json!("viewer");
        assert_eq!(it.create(&root, viewer).await.code(409), "role_taken");

        let all = it.get("").await.expect(200);
        let names: Vec<&str> =
            all.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["viewer", "user", "operator", "tenant-admin", "system-admin", "forecaster"]);

        let change = json!({"permissions": ["ml:*"]});
        let changed = it.put(&root, "/forecaster", change).await.expect(200);
        assert_eq!(changed["permissions"], json!(["ml:*"]));
        assert_eq!(changed["inherits"], json!([]));
        let path = "/api/v1/roles/forecaster";
        let late = ask(&it.router, &root, Method::DELETE, path, Some(&tag), &Value::Null).await;
        assert_eq!(late.code(412), "precondition_failed");
        it.delete(&root, "/forecaster").await.expect(204);
        assert_eq!(it.get("/forecaster").await.code(404), "role_missing");
        assert_eq!(it.delete(&root, "/forecaster").await.code(404), "role_missing");
    }

    async fn roles_of_the_program_stay_as_they_are(database: TestDatabase) {
        let (it, root) = (Server::new(&database), test_caller());
        for role in built_in() {
            let path = format!("/{}", role.name);
            assert_eq!(it.get(&path).await.expect(200)["built_in"], true);
            assert_eq!(it.put(&root, &path, json!({})).await.code(409), "role_built_in");
            assert_eq!(it.delete(&root, &path).await.code(409), "role_built_in");
        }
    }

    async fn what_is_wrong_with_a_role_is_told(database: TestDatabase) {
        let (it, root) = (Server::new(&database), test_caller());
        let long = "a".repeat(65);
        for name in ["", "Upper", "two--hyphens", "-a", "a b", "admin", "$bindings", &long] {
            let body = json!({"name": name});
            assert_eq!(it.create(&root, body).await.code(422), "validation_failed", "{name}");
        }
        for pattern in ["ml:fly", "nothing:*", "-ml:train", "ml", "", "*:fly", "**"] {
            let body = json!({"name": "a", "permissions": [pattern]});
            assert_eq!(it.create(&root, body).await.code(422), "validation_failed", "{pattern}");
        }
        let body = json!({"name": "a", "inherits": ["gone"]});
        let refused = it.create(&root, body).await.expect(422);
        assert_eq!(refused["errors"], json!([{"type": "value_error", "loc": ["body", "inherits"],
            "msg": "Value error, There is no role `gone`", "input": "gone", "ctx": {"error": {}}}]));
        let body = json!({"name": "a", "inherits": ["a"]});
        assert_eq!(it.create(&root, body).await.code(422), "validation_failed");

        // Whatever is wrong is told at once.
        let body = json!({"name": 7, "permissions": ["x:y", "y:z"], "inherits": "viewer"});
        let refused = it.create(&root, body).await.expect(422);
        assert_eq!(refused["errors"].as_array().unwrap().len(), 4, "{refused}");
        it.create(&root, forecaster()).await.expect(201);
        let renamed = json!({"name": "other"});
        assert_eq!(it.put(&root, "/forecaster", renamed).await.code(422), "validation_failed");
    }

    async fn roles_do_not_inherit_from_themselves(database: TestDatabase) {
        let (it, root) = (Server::new(&database), test_caller());
        for (name, parent) in [("a", "viewer"), ("b", "a"), ("c", "b")] {
            it.create(&root, json!({"name": name, "inherits": [parent]})).await.expect(201);
        }
        for parent in ["a", "b", "c"] {
            let body = json!({"inherits": [parent]});
            assert_eq!(it.put(&root, "/a", body).await.code(422), "validation_failed", "{parent}");
        }
        it.put(&root, "/a", json!({"inherits": ["user"]})).await.expect(200);
        let book = it.roles.book_of(TENANT).await.unwrap();
        assert!(book.patterns(["c"]).contains("ml:train"));
    }

    async fn a_role_in_use_is_not_deleted(database: TestDatabase) {
        let (it, root) = (Server::new(&database), test_caller());
        it.create(&root, forecaster()).await.expect(201);
        it.create(&root, json!({"name": "heir", "inherits": ["forecaster"]})).await.expect(201);
        assert_eq!(it.delete(&root, "/forecaster").await.code(409), "role_inherited");
        it.delete(&root, "/heir").await.expect(204);
        it.bind(&root, ANNA, &["forecaster"]).await.expect(200);
        assert_eq!(it.delete(&root, "/forecaster").await.code(409), "role_bound");
        it.bind(&root, ANNA, &[]).await.expect(200);
        it.delete(&root, "/forecaster").await.expect(204);
    }

    async fn the_roles_of_a_subject_are_replaced(database: TestDatabase) {
        let (it, root) = (Server::new(&database), test_caller());
        let path = format!("/$bindings/{ANNA}");
        assert_eq!(it.get(&path).await.expect(200), json!([]));
        let body = json!([{"role": "user", "applies_to": "dengue"}, {"role": "viewer"},
            {"role": "viewer", "applies_to": "*"}]);
        let both = json!([{"role": "user", "applies_to": "dengue"}, {"role": "viewer", "applies_to": "*"}]);
        assert_eq!(it.put(&root, &path, body).await.expect(200), both);
        assert_eq!(it.get(&path).await.expect(200), both);
        assert_eq!(it.bind(&root, ANNA, &["operator"]).await.expect(200),
            json!([{"role": "operator", "applies_to": "*"}]));
        assert_eq!(it.get(&format!("/$bindings/{BERT}")).await.expect(200), json!([]));

        for (body, code, status) in [
            (json!([{"role": "gone"}]), "validation_failed", 422),
            (json!([{"role": "user", "applies_to": "@"}]), "validation_failed", 422),
            (json!([{"applies_to": "*"}]), "validation_failed", 422),
            (json!({"role": "user"}), "validation_failed", 422),
        ] {
            assert_eq!(it.put(&root, &path, body).await.code(status), code);
        }
        assert_eq!(it.get("/$bindings/nobody").await.code(400), "invalid_ulid");
    }

    async fn nobody_gives_or_changes_more_than_they_have(database: TestDatabase) {
        let (it, root, admin) = (Server::new(&database), test_caller(), somebody(&["tenant-admin"]));
        let beyond = "role_beyond_yours";

        // Roles.
        for body in [
            json!({"name": "a", "permissions": ["*"]}),
            json!({"name": "a", "permissions": ["*:read"]}),
            json!({"name": "a", "permissions": ["ml:*"]}),
            json!({"name": "a", "inherits": ["system-admin"]}),
        ] {
            assert_eq!(it.create(&admin, body.clone()).await.code(403), beyond, "{body}");
        }
        it.create(&admin, json!({"name": "a", "inherits": ["tenant-admin"]})).await.expect(201);
        it.create(&root, json!({"name": "strong", "permissions": ["ml:*"]})).await.expect(201);
        for body in [json!({"permissions": ["*"]}), json!({"inherits": ["strong"]})] {
            assert_eq!(it.put(&admin, "/a", body.clone()).await.code(403), beyond, "{body}");
        }
        // What is stronger cannot be weakened either.
        assert_eq!(it.put(&admin, "/strong", json!({})).await.code(403), beyond);

        // Bindings.
        assert_eq!(it.bind(&admin, ANNA, &["system-admin"]).await.code(403), beyond);
        assert_eq!(it.bind(&admin, ANNA, &["viewer", "strong"]).await.code(403), beyond);
        let in_one = json!([{"role": "system-admin", "applies_to": "dengue"}]);
        let path = format!("/$bindings/{ANNA}");
        assert_eq!(it.put(&admin, &path, in_one).await.code(403), beyond);
        assert_eq!(it.get(&path).await.expect(200), json!([]), "nothing of it was done");
        it.bind(&admin, ANNA, &["tenant-admin", "a"]).await.expect(200);

        // What somebody has from others stays, and is not theirs to take.
        it.bind(&root, ANNA, &["strong"]).await.expect(200);
        assert_eq!(it.bind(&admin, ANNA, &[]).await.code(403), beyond);
        it.bind(&admin, ANNA, &["strong", "viewer"]).await.expect(200);
    }

    async fn a_name_that_a_service_s_rules_know_is_given_by_who_may_what_they_say(database: TestDatabase) {
        let it = Server::new(&database);
        let rule = ("ml:train".to_owned(), vec!["scientist".to_owned()]);
        it.roles.heed(Rules::new([rule].into()));
        let grants = Grants::Only(["roles:write".to_owned()].into());
        let some = Caller::new("user:some", TENANT, SERVICE, grants);
        let empty = |name: &str| json!({"name": name});
        let beyond = "role_beyond_yours";
        assert_eq!(it.create(&some, empty("scientist")).await.code(403), beyond);
        it.create(&somebody(&["tenant-admin"]), empty("scientist")).await.expect(201);
        assert_eq!(it.bind(&some, ANNA, &["scientist"]).await.code(403), beyond);
        let heir = json!({"name": "heir", "inherits": ["scientist"]});
        assert_eq!(it.create(&some, heir).await.code(403), beyond);
        it.create(&some, empty("another")).await.expect(201);
        it.bind(&some, ANNA, &["another"]).await.expect(200);
        it.bind(&somebody(&["tenant-admin"]), BERT, &["scientist"]).await.expect(200);
    }

    async fn what_is_taken_back_is_not_given(database: TestDatabase) {
        let it = Server::new(&database);
        let names = ["*", "-ml:train"].map(str::to_owned);
        let caller = Caller::new("user:a", TENANT, SERVICE, Grants::Only(names.into()));
        assert_eq!(it.bind(&caller, ANNA, &["user"]).await.code(403), "role_beyond_yours");
        it.bind(&caller, ANNA, &["viewer"]).await.expect(200);
    }

    async fn what_one_has_in_a_service_one_cannot_give(database: TestDatabase) {
        let it = Server::new(&database);
        let names = ["roles:write".to_owned()];
        let caller = Caller::new("user:a", TENANT, SERVICE, Grants::All)
            .with_deployment_grants(Grants::Only(names.into()));
        assert_eq!(it.bind(&caller, ANNA, &["viewer"]).await.code(403), "role_beyond_yours");
        let caller = Caller::new("user:a", TENANT, SERVICE, Grants::All)
            .with_deployment_grants(Grants::none());
        assert_eq!(it.bind(&caller, ANNA, &["viewer"]).await.code(403), "permission_denied");
    }

    async fn somebody_stays_system_admin(database: TestDatabase) {
        let (it, root) = (Server::new(&database), test_caller());
        it.bind(&root, ANNA, &["system-admin"]).await.expect(200);
        // One in a service does not count.
        let in_one = json!([{"role": "system-admin", "applies_to": "dengue"}]);
        it.put(&root, &format!("/$bindings/{BERT}"), in_one).await.expect(200);
        assert_eq!(it.bind(&root, ANNA, &["viewer"]).await.code(409), "last_admin");
        it.bind(&root, ANNA, &["system-admin", "viewer"]).await.expect(200);
        let (anna, scope) = (Ulid::read(ANNA).unwrap(), root.permit_in_deployment(WRITE).unwrap());
        let mut conn = database.db.conn().await.unwrap();
        let refused = it.roles.unbind_all(&mut conn, scope, anna).await.unwrap_err();
        assert_eq!(refused.code(), "last_admin");
        drop(conn);
        // Neither does one who cannot come in: who is not there, was never there, or is disabled.
        let bert = People::add(&database, "bert@example.org", "active").await.to_string();
        let disabled = People::add(&database, "carl@example.org", "disabled").await.to_string();
        let invited = People::add(&database, "dora@example.org", "invited").await.to_string();
        for subject in [BERT, disabled.as_str(), invited.as_str()] {
            it.bind(&root, subject, &["system-admin"]).await.expect(200);
            assert_eq!(it.bind(&root, ANNA, &["viewer"]).await.code(409), "last_admin");
        }
        // Nor a key after its end.
        let (db, clock, background) =
            (database.db.clone(), database.clock.clone(), Background::default());
        let keys = Keys::new(db, clock, it.roles.clone(), &background);
        let new = NewKey {
            name: "k".to_owned(),
            roles: vec![Binding::everywhere(SYSTEM_ADMIN)],
            scopes: Vec::new(),
            addresses: Vec::new(),
            per_minute: None,
            expires_at: Some(database.clock.now().after(Duration::from_secs(60))),
        };
        let (key, _) = keys.create(&root, new).await.unwrap();
        it.bind(&root, ANNA, &["viewer"]).await.expect(200);
        it.bind(&root, ANNA, &["system-admin", "viewer"]).await.expect(200);
        database.clock.advance(Duration::from_secs(60));
        assert_eq!(it.bind(&root, ANNA, &["viewer"]).await.code(409), "last_admin");

        it.bind(&root, &bert, &["system-admin"]).await.expect(200);
        it.bind(&root, &key.id.to_string(), &["viewer"]).await.expect(200);
        it.bind(&root, ANNA, &["viewer"]).await.expect(200);
        assert_eq!(it.bind(&root, &bert, &[]).await.code(409), "last_admin");
    }

    async fn of_two_admins_who_leave_at_once_one_stays(database: TestDatabase) {
        let (it, root) = (Server::new(&database), test_caller());
        let anna = People::add(&database, "anna@example.org", "active").await.to_string();
        let bert = People::add(&database, "bert@example.org", "active").await.to_string();
        it.bind(&root, &anna, &["system-admin"]).await.expect(200);
        it.bind(&root, &bert, &["system-admin"]).await.expect(200);
        let both = [it.bind(&root, &anna, &[]), it.bind(&root, &bert, &[])];
        let mut both: Vec<u16> =
            futures_util::future::join_all(both).await.iter().map(|it| it.status).collect();
        both.sort_unstable();
        assert_eq!(both, [200, 409]);
    }

    async fn two_who_give_a_role_at_the_same_time_both_do(database: TestDatabase) {
        let (roles, subject) = (Roles::new(database.db.clone(), database.clock.clone()), Ulid::read(ANNA).unwrap());
        let admin = test_caller();
        let names = ["viewer", "user", "operator", "tenant-admin"];
        let add = |name: &'static str| roles.add_binding(&admin, subject, Binding::everywhere(name));
        let (a, b, c, d) = tokio::join!(add(names[0]), add(names[1]), add(names[2]), add(names[3]));
        for added in [a, b, c, d] {
            added.unwrap();
        }
        assert_eq!(roles.bindings(&admin, subject).await.unwrap().len(), names.len());
        let again = add(names[0]).await.unwrap();
        assert_eq!(again.len(), names.len());
        let take = |name| roles.remove_binding(&admin, subject, Binding::everywhere(name));
        let (a, b) = tokio::join!(take(names[0]), take(names[1]));
        a.unwrap();
        b.unwrap();
        assert_eq!(roles.bindings(&admin, subject).await.unwrap().len(), names.len() - 2);
    }

    async fn who_may_not_hears_nothing(database: TestDatabase) {
        let it = Server::new(&database);
        let viewer = somebody(&["viewer"]);
        for (method, path, body) in [
            (Method::GET, "", Value::Null),
            (Method::POST, "", json!({"name": 7})),
            (Method::GET, "/viewer", Value::Null),
            (Method::GET, "/nothing", Value::Null),
            (Method::PUT, "/nothing", json!({"name": 7})),
            (Method::DELETE, "/nothing", Value::Null),
            (Method::PUT, "/$bindings/nobody", json!({})),
        ] {
            let answer = it.call(&viewer, method.clone(), path, body).await;
            assert_eq!(answer.code(403), "permission_denied", "{method} {path}");
        }
    }

    async fn tenants_keep_apart(database: TestDatabase) {
        let (it, root) = (Server::new(&database), test_caller());
        it.create(&root, forecaster()).await.expect(201);
        it.bind(&root, ANNA, &["forecaster"]).await.expect(200);
        let other = Caller::system("other", "other", SERVICE);
        let path = format!("/$bindings/{ANNA}");
        let of_other = it.call(&other, Method::GET, &path, Value::Null).await;
        assert_eq!(of_other.expect(200), json!([]));
        let of_other = it.call(&other, Method::GET, "/forecaster", Value::Null).await;
        assert_eq!(of_other.code(404), "role_missing");
        assert!(!it.roles.book_of("other").await.unwrap().has("forecaster"));
        assert!(it.roles.book_of(TENANT).await.unwrap().has("forecaster"));
    }
}

#[test]
fn every_permission_of_the_program_is_known() {
    let mut found = BTreeSet::new();
    let mut directories = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
    while let Some(directory) = directories.pop() {
        for entry in fs_err::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("tests") {
                directories.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs_err::read_to_string(&path).unwrap();
                for line in text.lines().filter(|it| it.contains("const ")) {
                    let name = line.split_once("Permission = Permission(\"");
                    let name = name.and_then(|it| it.1.split('"').next());
                    found.extend(name.map(str::to_owned));
                }
            }
        }
    }
    assert!(found.remove("account:own"), "nobody needs a role for what is their own");
    let known = PERMISSIONS.map(str::to_owned).into_iter().collect();
    let unknown: Vec<_> = found.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?} are missing in PERMISSIONS");
    assert!(found.len() > 15 && Grants::All.allow(Permission("roles:read")));
}
