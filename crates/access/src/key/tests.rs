//! Through the routes and the handle, on both databases, with a clock that stands still.

use ::http::Method;
use axum::Router;
use modelyard_kernel::db::{Row, query};
use modelyard_testkit::{SERVICE, TENANT, TestDatabase, on_both_databases, test_caller};
use serde_json::{Value, json};

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::gate::Gate;
use crate::password;
use crate::role::Binding;
use crate::role::tests::{Answer, ask, somebody};
use crate::secret::Secret;
use crate::session::{self, NoFactors, Sessions};
use crate::token::{self, Tokens};
use crate::user::Users;

pub(crate) struct Server {
    router: Router,
    pub(crate) keys: Keys,
    pub(crate) roles: Roles,
    pub(crate) gate: Gate,
    background: Background,
}

impl Server {
    pub(crate) fn new(database: &TestDatabase) -> Self {
        Self::with(database.db.clone(), database.clock.clone())
    }

    pub(crate) fn with(db: Db, clock: Clock) -> Self {
        let (roles, background) = (Roles::new(db.clone(), clock.clone()), Background::default());
        let keys = Keys::new(db.clone(), clock.clone(), roles.clone(), &background);
        let users = Users::new(db.clone(), clock.clone(), roles.clone(), password::cheap(), TENANT);
        let secret = Secret::read(&STANDARD.encode([7; 32])).unwrap();
        let tokens =
            Tokens::new(db.clone(), clock.clone(), secret, TENANT, token::Options::default());
        let sessions = Sessions::new(
            db.clone(),
            clock.clone(),
            users,
            tokens,
            Arc::new(NoFactors),
            session::Options::default(),
        );
        let gate = Gate::new(db, keys.clone(), sessions, roles.clone(), clock);
        let routes = keys.part().routes.merge(roles.part().routes);
        let (router, _) = routes.split_for_parts();
        Self { router, keys, roles, gate, background }
    }

    async fn call(&self, caller: &Caller, method: Method, path: &str, body: Value) -> Answer {
        ask(&self.router, caller, method, &format!("/api/v1/keys{path}"), None, &body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(&test_caller(), Method::GET, path, Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(&test_caller(), Method::POST, path, body).await
    }

    async fn patch(&self, id: &str, body: Value) -> Answer {
        self.call(&test_caller(), Method::PATCH, &format!("/{id}"), body).await
    }

    pub(crate) async fn revoke(&self, id: &str) -> Answer {
        self.call(&test_caller(), Method::DELETE, &format!("/{id}"), Value::Null).await
    }

    /// A new key: its id and its text.
    pub(crate) async fn create(&self, more: Value) -> (String, String) {
        let mut body = json!({"name": "nightly", "roles": [{"role": "user"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = self.post("", body).await.expect(201);
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    }

    /// Whether a key is let in from somewhere.
    async fn lets_in(&self, text: &str, from: &str) -> bool {
        match self.keys.identify(text, Some(from.parse().unwrap())).await {
            Ok(_) => true,
            Err(failure) => {
                assert_refused(&failure);
                false
            }
        }
    }
}

/// Every refusal sounds like every other.
#[track_caller]
pub(crate) fn assert_refused(failure: &Failure) {
    assert_eq!(failure.status().as_u16(), 401);
    assert_eq!((failure.code(), failure.detail()), ("unauthenticated", "Invalid API key"));
    assert!(!failure.is_for_the_log());
}

/// A key that was never made.
pub(crate) fn unknown_key() -> KeyText {
    KeyText::of(&[7; 38])
}

const HERE: &str = "10.1.2.3";

/// Waits until something has happened, which others do meanwhile.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

on_both_databases! {
    async fn a_key_is_shown_once(database: TestDatabase) {
        let it = Server::new(&database);
        let body = json!({"name": "  nightly ", "roles": [{"role": "user"}], "scopes": ["ml:*"],
            "addresses": ["10.1.2.3/8", "::1"], "per_minute": 60, "expires_at": "2027-01-01"});
        let answer = it.post("", body).await;
        assert_eq!(answer.header("cache-control"), "no-store");
        let (place, tag) = (answer.header("location"), answer.header("etag"));
        let mut made = answer.expect(201);
        let text = made["key"].as_str().unwrap().to_owned();
        let id = made["id"].as_str().unwrap().to_owned();
        assert_eq!(place, format!("http://test/api/v1/keys/{id}"));
        assert_eq!(made["prefix"], text[..11]);
        assert!(is_well_formed(&text));
        made.as_object_mut().unwrap().remove("key");
        let expected = json!({"id": id, "created_at": "2026-09-01T00:00:00.000000Z",
            "updated_at": "2026-09-01T00:00:00.000000Z", "name": "nightly", "prefix": text[..11],
            "roles": [{"role": "user", "applies_to": "*"}], "scopes": ["ml:*"],
            "addresses": ["10.0.0.0/8", "::1/128"], "per_minute": 60, "created_by": "test",
            "expires_at": "2027-01-01T00:00:00.000000Z", "revoked_at": null, "last_used_at": null});
        assert_eq!(made, expected);
        let one = it.get(&format!("/{id}")).await;
        assert_eq!(one.header("etag"), tag);
        assert_eq!(one.expect(200), expected);
        assert_eq!(it.get("").await.expect(200), json!([expected]));
        assert_eq!(it.get("?fields=name,roles&name=nightly").await.expect(200),
            json!([{"name": "nightly", "roles": [{"role": "user", "applies_to": "*"}]}]));
    }

    async fn a_key_shows_who_it_is(database: TestDatabase) {
        let it = Server::new(&database);
        let (id, text) = it.create(json!({"scopes": ["ml:*"], "per_minute": 5})).await;
        let found = it.keys.identify(&text, None).await.unwrap();
        assert_eq!((found.tenant.as_str(), found.subject), (TENANT, format!("key:{id}")));
        assert_eq!((found.proof, found.user), (Proof::Key { id: found.id }, None));
        assert_eq!(found.id.to_string(), id);
        assert_eq!(found.bindings, [Binding::everywhere("user")]);
        assert_eq!((found.scopes, found.per_minute), (vec!["ml:*".to_owned()], Some(5)));
    }

    async fn whoever_is_refused_hears_the_same(database: TestDatabase) {
        let it = Server::new(&database);
        let (_, text) = it.create(json!({})).await;
        assert!(it.lets_in(&text, HERE).await);
        let last = if text.ends_with('0') { '1' } else { '0' };
        let unknown = unknown_key();
        let wrong = [
            format!("{}{last}", &text[..60]),
            text[..60].to_owned(),
            format!("{text}0"),
            text.replace("mk_", "MK_"),
            format!("{text}{}", "0".repeat(1 << 20)),
            String::new(),
            "mk_".to_owned(),
            "x' OR '1'='1".to_owned(),
            unknown.text().to_owned(),
        ];
        for text in wrong {
            assert!(!it.lets_in(&text, HERE).await, "{text:.80}");
        }
    }

    async fn a_revoked_key_stays_in_lists(database: TestDatabase) {
        let it = Server::new(&database);
        let (id, text) = it.create(json!({})).await;
        it.revoke(&id).await.expect(204);
        assert!(!it.lets_in(&text, HERE).await);
        let listed = it.get("?revoked_at[gte]=2026-01-01").await.expect(200);
        assert_eq!(listed[0]["revoked_at"], "2026-09-01T00:00:00.000000Z");
        assert_eq!(listed[0]["roles"], json!([]));
        database.clock.advance(Duration::from_secs(60));
        it.revoke(&id).await.expect(204);
        let one = it.get(&format!("/{id}")).await.expect(200);
        assert_eq!(one["revoked_at"], "2026-09-01T00:00:00.000000Z", "it is for good");
        assert_eq!(it.patch(&id, json!({"name": "a"})).await.code(409), "key_ended");
        assert_eq!(it.post(&format!("/{id}/$rotate"), Value::Null).await.code(409), "key_ended");
        assert!(!it.lets_in(&text, HERE).await);
    }

    async fn a_key_ends_in_its_time(database: TestDatabase) {
        let it = Server::new(&database);
        let (_, text) = it.create(json!({"expires_at": "2026-09-01T00:01:00Z"})).await;
        database.clock.advance(Duration::from_secs(59));
        assert!(it.lets_in(&text, HERE).await);
        database.clock.advance(Duration::from_secs(1));
        assert!(!it.lets_in(&text, HERE).await);
    }

    async fn a_key_is_of_use_in_its_networks(database: TestDatabase) {
        let it = Server::new(&database);
        let (id, text) = it.create(json!({"addresses": ["10.0.0.0/8", "2001:db8::/32"]})).await;
        for (address, is) in [(HERE, true), ("::ffff:10.0.0.1", true), ("2001:db8::5", true),
            ("11.0.0.1", false), ("::1", false)] {
            assert_eq!(it.lets_in(&text, address).await, is, "{address}");
        }
        assert_refused(&it.keys.identify(&text, None).await.unwrap_err());
        it.patch(&id, json!({"addresses": null})).await.expect(200);
        assert!(it.lets_in(&text, "11.0.0.1").await);
    }

    async fn settings_change_one_by_one(database: TestDatabase) {
        let it = Server::new(&database);
        let (id, _) = it.create(json!({"per_minute": 5, "expires_at": "2027-01-01"})).await;
        let tag = it.get(&format!("/{id}")).await.header("etag");
        let changed = it.patch(&id, json!({"scopes": ["jobs:read"], "name": "daily"})).await;
        let changed = changed.expect(200);
        assert_eq!((&changed["scopes"], &changed["name"]), (&json!(["jobs:read"]), &json!("daily")));
        assert_eq!(changed["per_minute"], 5);
        assert_eq!(changed["roles"], json!([{"role": "user", "applies_to": "*"}]));
        let changed = it.patch(&id, json!({"per_minute": null, "expires_at": null})).await.expect(200);
        assert_eq!((&changed["per_minute"], &changed["expires_at"]), (&Value::Null, &Value::Null));
        assert_eq!(changed["scopes"], json!(["jobs:read"]));
        let (path, root) = (format!("/api/v1/keys/{id}"), test_caller());
        let late = ask(&it.router, &root, Method::PATCH, &path, Some(&tag), &json!({})).await;
        assert_eq!(late.code(412), "precondition_failed");
    }

    async fn what_is_wrong_with_a_key_is_told(database: TestDatabase) {
        let it = Server::new(&database);
        for (wrong, count) in [
            (json!({}), 1),
            (json!({"name": "a\nb"}), 1),
            (json!({"name": "a", "scopes": ["ml:fly", "-ml:train"]}), 2),
            (json!({"name": "a", "addresses": ["10.0.0.0/33", "here", "10.0.0.1"]}), 2),
            (json!({"name": "a", "per_minute": 0}), 1),
            (json!({"name": "a", "expires_at": "2026-09-01T00:00:00Z"}), 1),
            (json!({"name": "a", "roles": [{"role": "gone"}]}), 1),
            (json!({"name": 1, "scopes": 2, "addresses": 3, "per_minute": "x", "roles": 5}), 5),
        ] {
            let refused = it.post("", wrong.clone()).await.expect(422);
            assert_eq!(refused["errors"].as_array().unwrap().len(), count, "{wrong} {refused}");
        }
        assert_eq!(it.get("").await.expect(200), json!([]));
        let (id, _) = it.create(json!({})).await;
        for wrong in [json!({"name": null, "per_minute": -1}), json!({"addresses": ["x"]})] {
            assert_eq!(it.patch(&id, wrong).await.code(422), "validation_failed");
        }
        let body = json!({"overlap_seconds": -1});
        assert_eq!(it.post(&format!("/{id}/$rotate"), body).await.code(422), "validation_failed");
        let gone = "/01JCSEED000000000000000AAA";
        assert_eq!(it.get(gone).await.code(404), "key_missing");
        assert_eq!(it.revoke(&gone[1..]).await.code(404), "key_missing");
    }

    async fn a_key_is_rotated_once(database: TestDatabase) {
        let it = Server::new(&database);
        let (id, text) = it.create(json!({"expires_at": null})).await;
        let second = it.post(&format!("/{id}/$rotate"), Value::Null).await.expect(201);
        // An answer that was lost: asked again, it would be a key that ends with the overlap.
        assert_eq!(it.post(&format!("/{id}/$rotate"), Value::Null).await.code(409), "key_rotated");
        assert!(it.lets_in(&text, "10.0.0.1").await);
        assert_eq!(second["expires_at"], Value::Null);
        let second = second["id"].as_str().unwrap();
        it.post(&format!("/{second}/$rotate"), Value::Null).await.expect(201);
    }

    async fn a_key_is_rotated_with_an_overlap(database: TestDatabase) {
        let it = Server::new(&database);
        let (id, old) = it.create(json!({"scopes": ["ml:*"], "per_minute": 7,
            "addresses": ["10.0.0.0/8"]})).await;
        database.clock.advance(Duration::from_secs(5));
        let answer = it.post(&format!("/{id}/$rotate"), Value::Null).await;
        let place = answer.header("location");
        let made = answer.expect(201);
        let new = made["key"].as_str().unwrap().to_owned();
        assert_ne!(old, new);
        assert_eq!(place, format!("http://test/api/v1/keys/{}", made["id"].as_str().unwrap()));
        for (key, value) in [("scopes", json!(["ml:*"])), ("per_minute", json!(7)),
            ("addresses", json!(["10.0.0.0/8"])), ("name", json!("nightly")),
            ("expires_at", Value::Null), ("roles", json!([{"role": "user", "applies_to": "*"}]))] {
            assert_eq!(made[key], value, "{key}");
        }
        let shown = it.get(&format!("/{id}")).await.expect(200);
        assert_eq!(shown["expires_at"], "2026-09-01T01:00:05.000000Z");
        assert!(it.lets_in(&old, HERE).await && it.lets_in(&new, HERE).await);
        database.clock.advance(Duration::from_secs(3600));
        assert!(!it.lets_in(&old, HERE).await && it.lets_in(&new, HERE).await);
        assert_eq!(it.post(&format!("/{id}/$rotate"), Value::Null).await.code(409), "key_ended");

        // At once; and an old one that would end sooner does.
        let (id, old) = it.create(json!({})).await;
        it.post(&format!("/{id}/$rotate"), json!({"overlap_seconds": 0})).await.expect(201);
        assert!(!it.lets_in(&old, HERE).await);
        let (id, _) = it.create(json!({"expires_at": "2026-09-01T02:00:00Z"})).await;
        let body = json!({"overlap_seconds": 86_400});
        let made = it.post(&format!("/{id}/$rotate"), body).await.expect(201);
        let shown = it.get(&format!("/{id}")).await.expect(200);
        assert_eq!(shown["expires_at"], "2026-09-01T02:00:00.000000Z");
        assert_eq!(made["expires_at"], shown["expires_at"]);
    }

    async fn nobody_makes_or_takes_over_a_key_with_more_than_they_have(database: TestDatabase) {
        let (it, admin) = (Server::new(&database), somebody(&["tenant-admin"]));
        let beyond = "role_beyond_yours";
        for role in [json!({"role": "system-admin"}),
            json!({"role": "system-admin", "applies_to": "dengue"})] {
            // Scopes can be taken away later.
            let body = json!({"name": "a", "roles": [role], "scopes": ["configs:read"]});
            assert_eq!(it.call(&admin, Method::POST, "", body).await.code(403), beyond);
        }
        assert_eq!(it.get("").await.expect(200), json!([]), "nothing of it was done");

        let (id, _) = it.create(json!({"roles": [{"role": "system-admin"}]})).await;
        let rotate = format!("/{id}/$rotate");
        assert_eq!(it.call(&admin, Method::POST, &rotate, Value::Null).await.code(403), beyond);
        let body = json!({"addresses": []});
        let path = format!("/{id}");
        assert_eq!(it.call(&admin, Method::PATCH, &path, body).await.code(403), beyond);
        // Whoever finds a stolen key can stop it, even the last that is an administrator.
        it.call(&admin, Method::DELETE, &path, Value::Null).await.expect(204);

        let body = json!({"name": "a", "roles": [{"role": "tenant-admin"}]});
        it.call(&admin, Method::POST, "", body).await.expect(201);
        let operator = somebody(&["operator"]);
        for (method, path) in [(Method::GET, ""), (Method::POST, ""), (Method::DELETE, &*path)] {
            let answer = it.call(&operator, method, path, json!({})).await;
            assert_eq!(answer.code(403), "permission_denied");
        }
    }

    async fn a_limited_key_makes_none(database: TestDatabase) {
        let it = Server::new(&database);
        let asks = async |limit: Value| {
            let mut new = limit;
            new["roles"] = json!([{"role": "system-admin"}]);
            let (_, text) = it.create(new).await;
            let found = it.keys.identify(&text, Some("10.0.0.1".parse().unwrap())).await.unwrap();
            let book = it.roles.book_of(TENANT).await.unwrap();
            let caller = found.caller(&book, SERVICE, &crate::role::Rules::default());
            (it.call(&caller, Method::POST, "", json!({"name": "a"})).await, found.subject)
        };
        for limit in [
            json!({"scopes": ["keys:*", "jobs:read"]}),
            json!({"addresses": ["10.0.0.0/8"]}),
            json!({"per_minute": 60}),
            json!({"expires_at": "2099-01-01T00:00:00Z"}),
        ] {
            assert_eq!(asks(limit).await.0.code(403), "key_limited");
        }
        let (made, subject) = asks(json!({})).await;
        assert_eq!(made.expect(201)["created_by"], subject);
    }

    async fn tenants_keep_apart(database: TestDatabase) {
        let it = Server::new(&database);
        let (id, _) = it.create(json!({})).await;
        let other = Caller::system("other", "other", SERVICE);
        assert_eq!(it.call(&other, Method::GET, "", Value::Null).await.expect(200), json!([]));
        let path = format!("/{id}");
        for method in [Method::GET, Method::DELETE, Method::PATCH] {
            let answer = it.call(&other, method, &path, json!({})).await;
            assert_eq!(answer.code(404), "key_missing");
        }
        let body = json!({"name": "a", "roles": [{"role": "user"}]});
        let made = it.call(&other, Method::POST, "", body).await.expect(201);
        let found = it.keys.identify(made["key"].as_str().unwrap(), None).await.unwrap();
        assert_eq!((found.tenant.as_str(), found.bindings.len()), ("other", 1));
    }

    async fn the_last_use_is_known_to_the_minute(database: TestDatabase) {
        let it = Server::new(&database);
        let (id, text) = it.create(json!({"addresses": ["10.0.0.0/8"]})).await;
        let path = format!("/{id}");
        let last = async || it.get(&path).await.expect(200)["last_used_at"].clone();
        assert!(!it.lets_in(&text, "11.0.0.1").await);
        assert!(it.lets_in(&text, HERE).await);
        until("the first use", async || last().await == "2026-09-01T00:00:00.000000Z").await;
        database.clock.advance(Duration::from_secs(59));
        assert!(it.lets_in(&text, HERE).await);
        database.clock.advance(Duration::from_secs(1));
        assert!(it.lets_in(&text, HERE).await);
        until("the next use", async || last().await == "2026-09-01T00:01:00.000000Z").await;
        assert!(it.background.shutdown(Duration::from_secs(5)).await, "the task ends");
    }

    async fn the_text_of_a_key_is_kept_nowhere(database: TestDatabase) {
        let it = Server::new(&database);
        let new = NewKey { name: "canary".to_owned(), roles: vec![Binding::everywhere("user")],
            ..NewKey::default() };
        let (key, text) = it.keys.create(&test_caller(), new).await.unwrap();
        let found = it.keys.identify(text.text(), None).await.unwrap();
        let presented = it.keys.find(text.text()).await.unwrap();
        let gate = &it.gate;
        let admitted = gate.admit(text.text(), None).await.unwrap();
        let shown = format!("{key:?} {text:?} {found:?} {presented:?} {gate:?} {admitted:?} {:?}",
            it.keys);
        let mut dumped = String::new();
        let mut conn = database.db.conn().await.unwrap();
        for table in modelyard_schema::TABLES.iter().chain(modelyard_schema::PASSING) {
            let rows = query(format!("SELECT * FROM {table}")).with_names();
            for row in rows.fetch_all::<Row>(&mut conn).await.unwrap() {
                for (name, value) in row.into_columns() {
                    dumped.push_str(&format!("{name} {value:?}\n"));
                    if let modelyard_kernel::db::Value::Bytes(bytes) = value {
                        dumped.push_str(&String::from_utf8_lossy(&bytes));
                    }
                }
            }
        }
        assert!(dumped.contains("canary") && dumped.contains(text.prefix()));
        for place in [&shown, &dumped] {
            // Neither it nor the half of its random characters.
            assert!(!place.contains(text.text()) && !place.contains(&text.text()[12..34]));
            assert!(!place.contains(&text.text()[34..]));
        }
    }
}
