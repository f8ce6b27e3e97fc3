//! Who may what, and until when, through the whole server: power that was taken away is gone at once, and
//! does not outlive whoever had it.

use http::Method;
use modelyard_kernel::Time;
use modelyard_kernel::db::query;
use modelyard_testkit::{TestClient, TestResponse, on_both_databases};
use serde_json::{Value, json};

use super::canaries::code;
use super::login::{EMAIL, PASSWORD, get, known, login, send};
use crate::support::{text, until};

const USERS: &str = "/api/v1/users";
const KEYS: &str = "/api/v1/keys";
const BO: &str = "bo@example.org";

/// Bo, with these roles everywhere: its id and its token.
async fn bo(client: &TestClient, admin: &str, roles: &[&str]) -> (String, String) {
    let user = json!({"email": BO, "name": "Bo", "password": PASSWORD});
    let user = send(client, Method::POST, USERS, admin, user).await.expect(201);
    let id = text(&user.body["id"]);
    bind(client, admin, &id, roles).await.expect(200);
    let token = login(client, BO, json!({})).await.expect(200);
    (id, text(&token.body["access_token"]))
}

async fn bind(client: &TestClient, token: &str, subject: &str, roles: &[&str]) -> TestResponse {
    let roles: Vec<Value> = roles.iter().map(|it| json!({ "role": it })).collect();
    let path = format!("/api/v1/roles/$bindings/{subject}");
    send(client, Method::PUT, &path, token, json!(roles)).await
}

async fn post(client: &TestClient, path: &str, token: &str) -> TestResponse {
    send(client, Method::POST, path, token, json!({})).await
}

/// A new key: its id and its text.
async fn key(client: &TestClient, token: &str, more: Value) -> (String, String) {
    let mut body = json!({"name": "k", "roles": [{"role": "tenant-admin"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = send(client, Method::POST, KEYS, token, body).await.expect(201).body;
    (text(&made["id"]), text(&made["key"]))
}

async fn status(client: &TestClient, key: &str) -> u16 {
    get(client, USERS, key).await.status.as_u16()
}

on_both_databases! {
    async fn whoever_loses_a_role_does_not_give_it_back(database: TestDatabase) {
        let (server, client, root) = known(&database).await;
        let (id, token) = bo(&client, &root, &["tenant-admin"]).await;
        get(&client, USERS, &token).await.expect(200);
        bind(&client, &root, &id, &[]).await.expect(200);
        // The gate believes what it knows for a while.
        bind(&client, &token, &id, &["tenant-admin"]).await.expect(403);
        let bindings = format!("/api/v1/roles/$bindings/{id}");
        assert_eq!(get(&client, &bindings, &root).await.expect(200).body, json!([]));
        server.stop().await;
    }

    async fn whoever_was_disabled_gives_nothing_any_more(database: TestDatabase) {
        let (server, client, root) = known(&database).await;
        let (id, token) = bo(&client, &root, &["tenant-admin"]).await;
        let other = json!({"email": "cy@example.org", "name": "Cy"});
        let other = send(&client, Method::POST, USERS, &root, other).await.expect(201).body;
        let other = text(&other["id"]);
        get(&client, USERS, &token).await.expect(200);
        post(&client, &format!("{USERS}/{id}/$disable"), &root).await.expect(200);
        let user = json!({"email": "mole@example.org", "name": "M", "password": PASSWORD});
        let role = json!({"name": "mole", "permissions": ["users:*"]});
        let asked = [
            send(&client, Method::POST, KEYS, &token, json!({"name": "mole"})).await,
            send(&client, Method::POST, "/api/v1/roles", &token, role).await,
            bind(&client, &token, &other, &["viewer"]).await,
            post(&client, &format!("{USERS}/{other}/$invite"), &token).await,
            send(&client, Method::PUT, &format!("{USERS}/{other}"), &token, json!({"name": "C"})).await,
            post(&client, &format!("{USERS}/{id}/$enable"), &token).await,
            // Takes the longest, since a password is hashed.
            send(&client, Method::POST, USERS, &token, user).await,
        ];
        for answer in asked {
            assert!([401, 403].contains(&answer.status.as_u16()), "{}: {}", answer.status, answer.body);
        }
        assert_eq!(get(&client, KEYS, &root).await.expect(200).body, json!([]));
        server.stop().await;
    }

    async fn a_key_may_what_its_maker_may_and_ends_with_it(database: TestDatabase) {
        let (server, client, root) = known(&database).await;
        let (id, token) = bo(&client, &root, &["tenant-admin"]).await;
        let (parent, first) = key(&client, &token, json!({})).await;
        // A key that a key has made is its user's as well.
        let (child, second) = key(&client, &first, json!({})).await;
        let both = async |wanted: u16| {
            let what = format!("both keys are answered {wanted}");
            until(&what, async || {
                status(&client, &first).await == wanted && status(&client, &second).await == wanted
            }).await;
        };
        both(200).await;
        bind(&client, &root, &id, &["viewer"]).await.expect(200);
        both(403).await;
        get(&client, "/api/v1/configs", &second).await.expect(200);
        bind(&client, &root, &id, &["tenant-admin"]).await.expect(200);
        both(200).await;
        post(&client, &format!("{USERS}/{id}/$disable"), &root).await.expect(200);
        both(401).await;
        post(&client, &format!("{USERS}/{id}/$enable"), &root).await.expect(200);
        both(200).await;
        send(&client, Method::DELETE, &format!("{USERS}/{id}"), &root, Value::Null).await.expect(204);
        both(401).await;
        for id in [parent, child] {
            let key = get(&client, &format!("{KEYS}/{id}"), &root).await.expect(200).body;
            assert!(key["revoked_at"].is_string() && key["roles"] == json!([]), "{key}");
        }
        server.stop().await;
    }

    async fn a_limited_key_gives_nothing_without_its_limits(database: TestDatabase) {
        let (server, client, root) = known(&database).await;
        for limit in [
            json!({"addresses": ["127.0.0.0/8", "::1"]}),
            json!({"per_minute": 1000}),
            json!({"expires_at": "2099-01-01T00:00:00Z"}),
            json!({"scopes": ["keys:*", "roles:*", "users:*"]}),
        ] {
            let (id, shown) = key(&client, &root, limit).await;
            let (other, _) = key(&client, &root, json!({})).await;
            let paths = [format!("{KEYS}/{id}"), format!("{KEYS}/{other}")];
            let more = json!({"addresses": null, "expires_at": null, "per_minute": null});
            let asked = [
                send(&client, Method::POST, KEYS, &shown, json!({"name": "child"})).await,
                send(&client, Method::PATCH, &paths[0], &shown, more.clone()).await,
                send(&client, Method::PATCH, &paths[1], &shown, more).await,
                post(&client, &format!("{}/$rotate", paths[0]), &shown).await,
                post(&client, &format!("{}/$rotate", paths[1]), &shown).await,
                bind(&client, &shown, &other, &["viewer"]).await,
            ];
            for answer in asked {
                assert_eq!(answer.expect(403).body["code"], "key_limited");
            }
            send(&client, Method::DELETE, &paths[0], &shown, Value::Null).await.expect(204);
        }
        let (id, shown) = key(&client, &root, json!({})).await;
        let path = format!("{KEYS}/{id}");
        let asked = [
            send(&client, Method::PATCH, &path, &shown, json!({"name": "x"})).await,
            post(&client, &format!("{path}/$rotate"), &shown).await,
            bind(&client, &shown, &id, &["viewer"]).await,
        ];
        for answer in asked {
            assert_eq!(answer.expect(409).body["code"], "key_is_you");
        }
        server.stop().await;
    }

    async fn a_factor_ends_other_sessions_and_is_forgotten_when_it_goes(database: TestDatabase) {
        let (server, client, root) = known(&database).await;
        let (id, _) = bo(&client, &root, &["tenant-admin"]).await;
        let user = format!("{USERS}/{id}");
        let required = json!({"factor_required": true});
        send(&client, Method::PUT, &user, &root, required).await.expect(200);
        let logged_in = async |code: Option<String>| {
            let answer = login(&client, BO, json!({"code": code})).await.expect(200).body;
            (text(&answer["access_token"]), answer["limited"] == true)
        };
        let ((token, limited), (other, _)) = (logged_in(None).await, logged_in(None).await);
        assert!(limited);
        get(&client, USERS, &token).await.expect(403);
        let own = "/api/v1/account/factor";
        let setup = post(&client, own, &token).await.expect(200).body;
        let secret = text(&setup["secret"]);
        let confirm = json!({"code": code(&secret, 0)});
        send(&client, Method::POST, &format!("{own}/$confirm"), &token, confirm).await.expect(200);
        // It need not log in once more, and whoever has logged in without the factor has to.
        until("the session may", async || get(&client, USERS, &token).await.status == 200).await;
        until("others are over", async || get(&client, own, &other).await.status == 401).await;
        send(&client, Method::DELETE, &format!("{user}/factor"), &root, Value::Null).await.expect(204);
        until("it is limited", async || get(&client, USERS, &token).await.status == 403).await;
        get(&client, own, &token).await.expect(200);
        server.stop().await;
    }

    async fn whoever_is_deleted_and_invited_at_once_is_gone(database: TestDatabase) {
        let (server, client, root) = known(&database).await;
        for n in 0..10 {
            let user = json!({"email": format!("{n}@example.org"), "name": "N"});
            let user = send(&client, Method::POST, USERS, &root, user).await.expect(201).body;
            let path = format!("{USERS}/{}", text(&user["id"]));
            let invite = format!("{path}/$invite");
            let (deleted, invited) = tokio::join!(
                send(&client, Method::DELETE, &path, &root, Value::Null),
                post(&client, &invite, &root),
            );
            deleted.expect(204);
            assert!([202, 404].contains(&invited.status.as_u16()), "{}", invited.body);
        }
        server.stop().await;
    }

    async fn what_lasts_wants_a_login_of_a_moment_ago(database: TestDatabase) {
        let (server, client, root) = known(&database).await;
        let (id, _) = bo(&client, &root, &[]).await;
        let (key, _) = key(&client, &root, json!({})).await;
        let mut conn = database.db.conn().await.unwrap();
        let long_ago = Time::from_micros(1_000_000);
        query("UPDATE sessions SET proved_at = $1").bind(long_ago).execute(&mut conn).await.unwrap();
        drop(conn);
        let user = format!("{USERS}/{id}");
        let new = json!({"email": "cy@example.org", "name": "Cy", "password": PASSWORD});
        let roles = json!([{"role": "viewer"}]);
        let wanted = [
            (Method::POST, KEYS.to_owned(), json!({"name": "k"}), 201),
            (Method::PATCH, format!("{KEYS}/{key}"), json!({"name": "x"}), 200),
            (Method::POST, format!("{KEYS}/{key}/$rotate"), json!({}), 201),
            (Method::POST, "/api/v1/roles".to_owned(), json!({"name": "r"}), 201),
            (Method::PUT, "/api/v1/roles/r".to_owned(), json!({"description": "d"}), 200),
            (Method::DELETE, "/api/v1/roles/r".to_owned(), Value::Null, 204),
            (Method::PUT, format!("/api/v1/roles/$bindings/{id}"), roles, 200),
            (Method::POST, USERS.to_owned(), new, 201),
            (Method::PUT, user.clone(), json!({"factor_required": false}), 200),
            (Method::POST, format!("{user}/$disable"), json!({}), 200),
            (Method::DELETE, user, Value::Null, 204),
            (Method::POST, "/api/v1/auth/$rotate-signing-keys".to_owned(), json!({}), 204),
        ];
        for (method, path, body, _) in wanted.clone() {
            let answer = send(&client, method.clone(), &path, &root, body).await;
            assert_eq!(answer.body["code"], "step_up_required", "{method} {path}: {}", answer.body);
        }
        // Neither a look nor what ends something.
        get(&client, USERS, &root).await.expect(200);
        let step_up = json!({"password": PASSWORD});
        send(&client, Method::POST, "/api/v1/auth/$step-up", &root, step_up).await.expect(200);
        for (method, path, body, status) in wanted {
            let answer = send(&client, method.clone(), &path, &root, body).await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        }
        login(&client, EMAIL, json!({})).await.expect(200);
        server.stop().await;
    }
}
