//! Logging in, through the whole server: who may come in, with what, and for how long.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use http::Method;
use modelyard::access::Deployment;
use modelyard::settings::Settings;
use modelyard_access::password::Password;
use modelyard_kernel::db::Dialect;
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, on_both_databases};
use serde_json::{Value, json};

use crate::support::{service, settings, start, text, until};

pub(super) const EMAIL: &str = "ada@example.org";
pub(super) const PASSWORD: &str = "nine correct horses with batteries";
const CONFIGS: &str = "/api/v1/configs";

/// The first administrator, as the command line makes it while the service runs.
async fn admin(settings: &Settings) {
    let deployment = Deployment::open(settings).await.unwrap();
    let password = Password::new(PASSWORD);
    deployment.access.users().create_first_admin(EMAIL, "Ada", password).await.unwrap();
    deployment.close().await;
}

pub(super) async fn login(client: &TestClient, email: &str, more: Value) -> TestResponse {
    let mut body = json!({"email": email, "password": PASSWORD});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.post("/api/v1/auth/login", &body).await
}

async fn ask(
    client: &TestClient,
    method: Method,
    path: &str,
    shown: &[(&str, &str)],
) -> TestResponse {
    let mut request = client.request(method.clone(), path);
    for (name, value) in shown {
        request = request.header(name, value);
    }
    if method == Method::POST {
        request = request.json(&json!({"name": "a", "data": {}}));
    }
    request.send().await
}

pub(super) async fn get(client: &TestClient, path: &str, token: &str) -> TestResponse {
    ask(client, Method::GET, path, &[("authorization", &format!("Bearer {token}"))]).await
}

pub(super) async fn send(
    client: &TestClient,
    method: Method,
    path: &str,
    token: &str,
    body: Value,
) -> TestResponse {
    let bearer = format!("Bearer {token}");
    client.request(method, path).header("authorization", &bearer).json(&body).send().await
}

/// A server that knows its first administrator, and its token.
pub(super) async fn known(database: &TestDatabase) -> (modelyard::Server, TestClient, String) {
    let settings = settings(database);
    let (server, client) = start(service("behaviour"), settings.clone()).await;
    client.get(CONFIGS).await.expect(200);
    admin(&settings).await;
    until("nobody comes in unknown", async || client.get(CONFIGS).await.status == 401).await;
    let token = text(&login(&client, EMAIL, json!({})).await.expect(200).body["access_token"]);
    (server, client, token)
}

on_both_databases! {
    async fn where_nobody_is_known_whatever_is_shown_is_nothing(database: TestDatabase) {
        let settings = settings(&database);
        let (server, client) = start(service("behaviour"), settings.clone()).await;
        assert!(server.greeting().contains("Nobody has to log in"));
        let key = format!("mk_{}", "a".repeat(60));
        let old = [("x-api-key", "old"), ("x-api-key", key.as_str()), ("authorization", "Bearer a.b.c")];
        for shown in old {
            ask(&client, Method::GET, CONFIGS, &[shown]).await.expect(200);
        }
        admin(&settings).await;
        for shown in old {
            let refused = async || ask(&client, Method::GET, CONFIGS, &[shown]).await.status == 401;
            until("it is of no use", refused).await;
        }
        server.stop().await;
        let (server, _) = start(service("behaviour"), settings).await;
        assert!(!server.greeting().contains("Nobody has to log in"));
        server.stop().await;
    }

    async fn a_data_directory_that_a_command_makes_is_its_owner_s_only(database: TestDatabase) {
        let mut settings = settings(&database);
        settings.data.dir = database.dir().join("new/data");
        admin(&settings).await;
        let mode = fs_err::metadata(&settings.data.dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    async fn once_there_is_a_user_nobody_comes_in_who_is_not_known(database: TestDatabase) {
        let (server, client, token) = known(&database).await;
        client.get("/health").await.expect(200);
        get(&client, CONFIGS, &token).await.expect(200);
        let account = get(&client, "/api/v1/account", &token).await.expect(200).body;
        assert_eq!(account["email"], EMAIL);
        for wrong in ["", "x", "x.y.z", &format!("{token}x"), &token[..token.len() - 2]] {
            get(&client, CONFIGS, wrong).await.expect(401);
        }
        for body in [json!({"password": "wrong"}), json!({"email": "nobody@example.org"})] {
            let refused = login(&client, EMAIL, body).await.expect(401);
            assert!(!refused.body.to_string().contains(PASSWORD), "{}", refused.body);
        }
        server.stop().await;
    }

    async fn a_user_may_what_its_roles_say_in_the_services_that_they_say(database: TestDatabase) {
        let (server, client, admin) = known(&database).await;
        let user = json!({"email": "bo@example.org", "name": "Bo", "password": PASSWORD});
        let user = send(&client, Method::POST, "/api/v1/users", &admin, user).await.expect(201);
        let token = login(&client, "bo@example.org", json!({})).await.expect(200);
        let token = text(&token.body["access_token"]);
        get(&client, CONFIGS, &token).await.expect(403);

        let bindings = format!("/api/v1/roles/$bindings/{}", text(&user.body["id"]));
        let bind = async |role: &str, applies_to: &str| {
            let roles = json!([{"role": role, "applies_to": applies_to}]);
            send(&client, Method::PUT, &bindings, &admin, roles).await.expect(200);
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let config = json!({"name": "a", "data": {}});
        bind("viewer", "*").await;
        get(&client, CONFIGS, &token).await.expect(200);
        send(&client, Method::POST, CONFIGS, &token, config.clone()).await.expect(403);
        get(&client, "/api/v1/users", &token).await.expect(403);
        bind("user", "another-service").await;
        get(&client, CONFIGS, &token).await.expect(403);
        bind("user", "behaviour").await;
        send(&client, Method::POST, CONFIGS, &token, config).await.expect(201);
        // What it may in a service it may not in the deployment.
        bind("tenant-admin", "behaviour").await;
        get(&client, "/api/v1/users", &token).await.expect(403);
        server.stop().await;
    }

    async fn who_may_not_come_in_any_more_follows_nothing_any_more(database: TestDatabase) {
        let (server, client, admin) = known(&database).await;
        let key = json!({"name": "k", "roles": [{"role": "viewer"}]});
        let key = send(&client, Method::POST, "/api/v1/keys", &admin, key).await.expect(201).body;
        let shown = text(&key["key"]);
        let path = "/health/$stream?poll_interval=0.1";
        let follow = async |name: &str, value: &str| {
            let mut stream = client.request(Method::GET, path).header(name, value).open().await;
            assert!(stream.next_event().await.is_some());
            stream
        };
        let mut others = follow("authorization", &format!("Bearer {admin}")).await;
        let mut stream = follow("x-api-key", &shown).await;
        let revoke = format!("/api/v1/keys/{}", text(&key["id"]));
        send(&client, Method::DELETE, &revoke, &admin, Value::Null).await.expect(204);
        let left = async { while stream.next_event().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(5), left).await.unwrap();
        // Whoever still may goes on.
        for _ in 0..30 {
            assert!(others.next_event().await.is_some());
        }
        server.stop().await;
    }

    async fn who_comes_in_is_asked_how_and_nobody_keeps_what_is_about_people(database: TestDatabase) {
        let (server, client, token) = known(&database).await;
        let refused = client.get(CONFIGS).await.expect(401);
        let offered: Vec<_> = refused.headers.get_all("www-authenticate").iter().collect();
        assert_eq!(offered, ["ApiKey header=\"X-API-Key\"", "Bearer"]);
        let account = get(&client, "/api/v1/account", &token).await.expect(200);
        assert_eq!(account.header("cache-control"), Some("no-store"));
        assert!(account.header("etag").is_some());
        let users = get(&client, "/api/v1/users", &token).await.expect(200);
        assert_eq!(users.header("cache-control"), Some("no-store"));
        let logout = send(&client, Method::POST, "/api/v1/auth/logout", &token, Value::Null).await;
        assert_eq!(logout.header("clear-site-data"), Some("\"cookies\", \"storage\""));
        server.stop().await;
    }

    async fn a_browser_changes_something_only_from_pages_of_ours(database: TestDatabase) {
        let (server, client, _) = known(&database).await;
        let answer = login(&client, EMAIL, json!({"cookie": true})).await.expect(200);
        let set = answer.header("set-cookie").unwrap().to_owned();
        assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax"), "{set}");
        let cookie = set.split(';').next().unwrap().to_owned();
        let csrf = text(&answer.body["csrf_token"]);
        let shown = [("cookie", cookie.as_str())];
        ask(&client, Method::GET, CONFIGS, &shown).await.expect(200);
        let forged = ask(&client, Method::POST, CONFIGS, &shown).await.expect(403);
        assert_eq!(forged.body["code"], "csrf_refused");
        let wrong = [shown[0], ("x-csrf-token", "x")];
        ask(&client, Method::POST, CONFIGS, &wrong).await.expect(403);
        let right = [shown[0], ("x-csrf-token", csrf.as_str())];
        ask(&client, Method::POST, CONFIGS, &right).await.expect(201);
        let logout = client.request(Method::POST, "/api/v1/auth/logout");
        let logout = logout.header("cookie", &cookie).header("x-csrf-token", &csrf);
        assert!(logout.send().await.status.is_success());
        until("the cookie is of no use", async || {
            ask(&client, Method::GET, CONFIGS, &shown).await.status == 401
        }).await;
        server.stop().await;
    }

    async fn a_refresh_token_that_comes_again_ends_its_session(database: TestDatabase) {
        let (server, client, _) = known(&database).await;
        let first = login(&client, EMAIL, json!({})).await.expect(200).body;
        let refresh = async |token: &Value| {
            client.post("/api/v1/auth/refresh", &json!({"refresh_token": token})).await
        };
        let second = refresh(&first["refresh_token"]).await.expect(200).body;
        let token = text(&second["access_token"]);
        get(&client, CONFIGS, &token).await.expect(200);
        refresh(&first["refresh_token"]).await.expect(401);
        let began = Instant::now();
        until("the session has ended", async || get(&client, CONFIGS, &token).await.status == 401)
            .await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        refresh(&second["refresh_token"]).await.expect(401);
        server.stop().await;
    }

    async fn what_one_node_revokes_the_other_refuses_within_a_second(database: TestDatabase) {
        let (server, client, admin) = known(&database).await;
        if database.db.dialect() == Dialect::Sqlite {
            // Its file has one process.
            server.stop().await;
            return;
        }
        let mut settings = settings(&database);
        settings.data.dir = database.dir().join("data-2");
        settings.blobs.url = format!("file://{}", database.dir().join("data/blobs").display());
        let (other_server, other) = start(service("behaviour"), settings).await;
        let key = json!({"name": "k", "roles": [{"role": "viewer"}]});
        let key = send(&client, Method::POST, "/api/v1/keys", &admin, key).await.expect(201).body;
        let shown = text(&key["key"]);
        let session = login(&client, EMAIL, json!({})).await.expect(200).body;
        let token = text(&session["access_token"]);
        let with_key = async || {
            other.request(Method::GET, CONFIGS).header("x-api-key", &shown).send().await.status
        };
        for _ in 0..3 {
            assert_eq!(with_key().await, 200);
            get(&other, CONFIGS, &token).await.expect(200);
        }
        let path = format!("/api/v1/keys/{}", text(&key["id"]));
        send(&client, Method::DELETE, &path, &admin, Value::Null).await.expect(204);
        let revoked = Instant::now();
        until("the key is refused elsewhere", async || with_key().await == 401).await;
        assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
        let logout = send(&client, Method::POST, "/api/v1/auth/logout", &token, Value::Null).await;
        assert!(logout.status.is_success(), "{}", logout.body);
        let revoked = Instant::now();
        until("the token is refused elsewhere", async || {
            get(&other, CONFIGS, &token).await.status == 401
        }).await;
        assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
        other_server.stop().await;
        server.stop().await;
    }
}
