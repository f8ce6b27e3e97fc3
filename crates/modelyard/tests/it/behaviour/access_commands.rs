//! `modelyard admin`, `user`, `key` and `role`, typed while a service runs.

use http::Method;
use modelyard::Server;
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, on_both_databases};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::program::{BINARY, plain};
use crate::support::{SECRET, service, settings, start, stored_in, text, until};

const PASSWORD: &str = "nine correct horses with batteries";
const CONFIGS: &str = "/api/v1/configs";

/// Somebody with the database, a service of it, and a shell.
struct Operator<'a> {
    database: &'a TestDatabase,
    server: Server,
    client: TestClient,
}

impl<'a> Operator<'a> {
    async fn new(database: &'a TestDatabase) -> Self {
        fs_err::write(database.dir().join("password"), format!("{PASSWORD}\n")).unwrap();
        let (server, client) = start(service("behaviour"), settings(database)).await;
        Self { database, server, client }
    }

    fn command(&self, arguments: &str) -> Command {
        command(self.database, arguments)
    }

    /// What a command prints that succeeds.
    async fn types(&self, arguments: &str) -> String {
        let output = self.command(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    async fn reads(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.types(&format!("{arguments} --json")).await).unwrap()
    }

    /// What a command complains of, which does nothing.
    async fn is_told(&self, arguments: &str) -> String {
        let output = self.command(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {output:?}");
        assert_eq!(output.stdout, b"", "{arguments}");
        String::from_utf8(output.stderr).unwrap()
    }

    async fn login(&self, email: &str) -> TestResponse {
        let body = json!({"email": email, "password": PASSWORD});
        self.client.post("/api/v1/auth/login", &body).await
    }

    async fn status(&self, method: Method, header: &str, value: &str) -> u16 {
        let mut request = self.client.request(method.clone(), CONFIGS).header(header, value);
        if method == Method::POST {
            request = request.json(&json!({"name": "a", "data": {}}));
        }
        request.send().await.status.as_u16()
    }
}

fn command(database: &TestDatabase, arguments: &str) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments.split_whitespace()).current_dir(database.dir());
    command.args(["--data-dir", "data", "--database", &database.url]);
    let mut command = plain(command);
    command.env("MODELYARD_ACCESS__SECRET", SECRET);
    command
}

#[track_caller]
fn has(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "no {part} in {told}");
    }
}

on_both_databases! {
    async fn a_user_is_made_and_is_let_in_as_long_as_the_operator_says(database: TestDatabase) {
        let it = Operator::new(&database).await;
        let create = "user create --email ada@example.org --name Ada --password-file password";
        let id = it.types(&format!("{create} --role user --role user --service behaviour")).await;
        let users = it.reads("user list").await;
        assert_eq!((&users[0]["id"], &users[0]["status"]), (&json!(id), &json!("active")));
        let bound = json!([{"role": "user", "applies_to": "behaviour"}]);
        assert_eq!(it.reads("role bindings Ada@Example.org").await, bound);

        let token = text(&it.login("ada@example.org").await.expect(200).body["access_token"]);
        let bearer = format!("Bearer {token}");
        let status = async || it.status(Method::GET, "authorization", &bearer).await;
        assert_eq!(status().await, 200);
        let sessions = it.reads("user sessions ada@example.org").await;
        assert_eq!(sessions.as_array().unwrap().len(), 1, "{sessions}");
        assert_eq!(sessions[0]["kind"], "token");
        it.types("user logout ada@example.org").await;
        until("the session has ended", async || status().await == 401).await;
        assert_eq!(it.reads(&format!("user sessions {id}")).await, json!([]));

        let token = text(&it.login("ada@example.org").await.expect(200).body["access_token"]);
        let client = it.client.clone().with_header("authorization", &format!("Bearer {token}"));
        client.post("/api/v1/account/factor", &json!({})).await.expect(200);
        let is_set_up = async || client.get("/api/v1/account/factor").await.body["pending"].clone();
        assert_eq!(is_set_up().await, true);
        it.types("user reset-factor ada@example.org").await;
        assert_eq!(is_set_up().await, false);

        it.types(&format!("user disable {id}")).await;
        it.login("ada@example.org").await.expect(401);
        it.types("user enable ada@example.org").await;
        it.login("ada@example.org").await.expect(200);
        has(&it.types("user list").await, &[&id, "active", "ada@example.org"]);
        it.types("user delete ada@example.org").await;
        it.login("ada@example.org").await.expect(401);
        assert_eq!(it.reads("user list").await, json!([]));
        it.server.stop().await;
    }

    async fn a_user_that_cannot_be_made_is_not_made(database: TestDatabase) {
        let it = Operator::new(&database).await;
        fs_err::write(database.dir().join("short"), "sesame\n").unwrap();
        let ada = "user create --name Ada --email ada@example.org";
        for (arguments, parts) in [
            ("--password-file short", ["at least 12 characters", "take some words"]),
            ("--password-file gone", ["the password cannot be read", "gone"]),
            ("--password-file password --role none", ["there is no role `none`", "role list"]),
            ("--password-file password --role user --service A*", ["--service", "service id"]),
            ("--invite", ["`mail.host`", "`--password-file`"]),
        ] {
            has(&it.is_told(&format!("{ada} {arguments}")).await, &parts);
        }
        let wrong = it.is_told("user create --name Ada --email ada --password-file password").await;
        has(&wrong, &["--email: ", "ada@example.org"]);
        assert_eq!(it.reads("user list").await, json!([]));
        assert_eq!(stored_in(&database, "users").await, 0);

        it.types(&format!("{ada} --password-file password")).await;
        let taken = it.is_told(&format!("{ada} --password-file password")).await;
        has(&taken, &["the address ada@example.org already", "`modelyard user list`"]);
        let admin = "admin create --email bo@example.org --password-file password";
        has(&it.is_told(admin).await, &["there are users already", "`modelyard user create`"]);
        for (arguments, parts) in [
            ("user disable bo@example.org", ["address bo@example.org", "`modelyard user list`"]),
            ("user disable bo@", ["`bo@` is no e-mail address", "ada@example.org"]),
            ("user disable bo", ["`bo` is neither", "`modelyard user list`"]),
            ("user delete 01M80K0000SZCEB0G592J0SM0X", ["no user 01M80K", "`modelyard user list`"]),
            ("user reset-factor ada@example.org", ["no second factor", "nothing to take away"]),
            ("user invite ada@example.org", ["`mail.host`", "`--password-file`"]),
        ] {
            has(&it.is_told(arguments).await, &parts);
        }
        it.server.stop().await;
    }

    async fn an_invitation_is_a_job_of_the_service(database: TestDatabase) {
        let it = Operator::new(&database).await;
        let invite = async |arguments: &str| {
            let mut command = it.command(arguments);
            command.env("MODELYARD_MAIL__HOST", "mail.example.org");
            let output = command.output().await.unwrap();
            (output.status.success(), String::from_utf8(output.stderr).unwrap())
        };
        let create = "user create --email ada@example.org --name Ada --role viewer --invite";
        let (done, told) = invite(create).await;
        assert!(done && told.contains("is invited until"), "{told}");
        assert_eq!(it.reads("user list").await[0]["status"], "invited");
        let (again, told) = invite("user invite ada@example.org").await;
        assert!(again, "{told}");
        assert_eq!(stored_in(&database, "jobs WHERE kind LIKE 'mail.%'").await, 2);

        let bo = "user create --email bo@example.org --name Bo --password-file password";
        it.types(bo).await;
        let (done, told) = invite("user invite bo@example.org").await;
        assert!(!done, "{told}");
        has(&told, &["has come in already", "`modelyard user list`"]);
        it.server.stop().await;
    }

    async fn a_key_is_limited_as_was_said(database: TestDatabase) {
        let it = Operator::new(&database).await;
        let key = it
            .types(
                "key create --name nightly --role user --service behaviour --scope configs:read \
                 --scope ml:* --address 127.0.0.0/8 --address ::1 --per-minute 600 --expires-in 90d",
            )
            .await;
        assert!(key.starts_with("mk_"), "{key}");
        assert_eq!(it.status(Method::GET, "x-api-key", &key).await, 200);
        // Its role would let it, its scopes do not.
        assert_eq!(it.status(Method::POST, "x-api-key", &key).await, 403);
        let listed = it.reads("key list").await[0].clone();
        assert_eq!(listed["roles"], json!([{"role": "user", "applies_to": "behaviour"}]));
        assert_eq!(listed["addresses"], json!(["127.0.0.0/8", "::1/128"]));
        assert_eq!((&listed["per_minute"], listed["expires_at"].is_string()), (&json!(600), true));
        has(&it.types("key list").await, &[&text(&listed["id"]), "nightly", &key[..11], "user in behaviour"]);

        let mut elsewhere = Vec::new();
        for limit in ["--service another", "--address 192.0.2.7"] {
            let key = format!("key create --name elsewhere --role user {limit}");
            let key = it.reads(&key).await["key"].clone();
            elsewhere.push(it.status(Method::GET, "x-api-key", &text(&key)).await);
        }
        assert_eq!(elsewhere, [403, 401]);

        let wrong = "key create --name k --role user --scope ml:fly --address x --per-minute -1";
        let told = it.is_told(wrong).await;
        has(&told, &["--scope: ", "`ml:fly`", "--address: ", "`x`", "--per-minute: "]);
        has(&it.is_told("key create --name k --role none").await, &["There is no role `none`"]);
        assert_eq!(stored_in(&database, "api_keys").await, 3);
        it.server.stop().await;
    }

    async fn a_key_is_rotated_and_revoked(database: TestDatabase) {
        let it = Operator::new(&database).await;
        let made = it.reads("key create --name k --role viewer").await;
        let (id, first) = (text(&made["id"]), text(&made["key"]));
        let status = async |key: &str| it.status(Method::GET, "x-api-key", key).await;
        let second = it.types(&format!("key rotate {id}")).await;
        assert_eq!((status(&first).await, status(&second).await), (200, 200));
        let keys = it.reads("key list").await;
        assert_eq!(keys[1]["roles"], json!([{"role": "viewer", "applies_to": "*"}]));
        assert!(keys[0]["expires_at"].is_string() && keys[1]["expires_at"].is_null(), "{keys}");
        let rotate = format!("key rotate {} --overlap 0 --json", text(&keys[1]["id"]));
        let third: Value = serde_json::from_str(&it.types(&rotate).await).unwrap();
        until("the old key is refused", async || status(&second).await == 401).await;
        let (third, last) = (text(&third["key"]), text(&third["id"]));
        assert_eq!(status(&third).await, 200);
        it.types(&format!("key revoke {last}")).await;
        until("the key is refused", async || status(&third).await == 401).await;
        let told = it.is_told(&format!("key rotate {last}")).await;
        has(&told, &[&format!("the key {last} has ended"), "create a new one"]);
        let gone = it.is_told("key revoke 01M80K0000SZCEB0G592J0SM0X").await;
        has(&gone, &["no key 01M80K", "`modelyard key list`"]);
        has(&it.is_told("key revoke mk_x").await, &["Invalid ULID", "`modelyard key list`"]);
        for (argument, wrong) in [("--overlap", "32d"), ("--overlap", "soon")] {
            let output = it.command(&format!("key rotate {last} {argument} {wrong}"));
            let output = { output }.output().await.unwrap();
            assert_eq!(output.status.code(), Some(2), "{output:?}");
        }
        it.server.stop().await;
    }

    async fn a_role_is_made_given_and_taken(database: TestDatabase) {
        let it = Operator::new(&database).await;
        it.types("admin create --email root@example.org --password-file password").await;
        it.types("role create forecaster --permission ml:predict --inherits viewer").await;
        let role = it.reads("role show forecaster").await;
        assert_eq!((&role["permissions"], &role["inherits"]), (&json!(["ml:predict"]), &json!(["viewer"])));
        has(&it.types("role list").await, &["system-admin", "forecaster", "ml:predict"]);
        has(&it.types("role show viewer").await, &["configs:read", "built in     true"]);
        let made = it.reads("key create --name k --role user").await;
        let (id, key) = (text(&made["id"]), text(&made["key"]));

        it.types(&format!("role bind {id} forecaster --service behaviour")).await;
        it.types(&format!("role bind {id} forecaster --service behaviour")).await;
        let both = json!([{"role": "forecaster", "applies_to": "behaviour"}, {"role": "user", "applies_to": "*"}]);
        assert_eq!(it.reads(&format!("role bindings {id}")).await, both);
        it.types(&format!("role unbind {id} user")).await;
        until("it writes no more", async || {
            it.status(Method::POST, "x-api-key", &key).await == 403
        }).await;
        assert_eq!(it.status(Method::GET, "x-api-key", &key).await, 200);

        for (arguments, parts) in [
            ("role create forecaster", ["a role `forecaster` already", "role delete"]),
            ("role create fore-- --permission a", ["the name: ", "--permission: "]),
            ("role create other --inherits none", ["--inherits: ", "no role `none`"]),
            ("role delete forecaster", ["somebody has this role", "`modelyard role unbind`"]),
            ("role delete viewer", ["`viewer`", "comes with the program"]),
            ("role show none", ["no role `none`", "`modelyard role list`"]),
            ("role bind root@example.org none", ["no role `none`", ""]),
            ("role unbind root@example.org user", ["no role `user` everywhere", "role bindings root"]),
            ("role unbind root@example.org system-admin", ["nobody else", "`system-admin`"]),
            ("role bind 01M80K0000SZCEB0G592J0SM0X user", ["no user and of no key", "key list"]),
        ] {
            has(&it.is_told(arguments).await, &parts);
        }
        it.types(&format!("role unbind {id} forecaster --service behaviour")).await;
        it.types("role delete forecaster").await;
        assert_eq!(it.reads(&format!("role bindings {id}")).await, json!([]));
        it.server.stop().await;
    }

    async fn a_lost_secret_is_given_up(database: TestDatabase) {
        const OTHER: &str = "OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEwOTg=";
        let it = Operator::new(&database).await;
        it.types("admin create --email root@example.org --password-file password").await;
        it.login("root@example.org").await.expect(200);
        let types = async |arguments: &str, secret: &str| {
            let mut command = command(&database, arguments);
            let output = command.env("MODELYARD_ACCESS__SECRET", secret).output().await.unwrap();
            (output.status.success(), String::from_utf8(output.stderr).unwrap())
        };
        let (done, told) = types("user list", OTHER).await;
        assert!(!done, "{told}");
        has(&told, &["another secret", "`modelyard secret reset`"]);
        assert!(!types("secret reset --yes", OTHER).await.0, "the server goes on with the secret it has");
        it.server.stop().await;
        let (done, told) = types("secret reset --yes", OTHER).await;
        assert!(done, "{told}");
        for (secret, works) in [(OTHER, true), (SECRET, false)] {
            assert_eq!(types("user list", secret).await.0, works);
        }

        let mut settings = settings(&database);
        settings.access.secret = Some(OTHER.to_owned());
        let (server, client) = start(service("behaviour"), settings).await;
        let body = json!({"email": "root@example.org", "password": PASSWORD});
        let token = text(&client.post("/api/v1/auth/login", &body).await.expect(200).body["access_token"]);
        let bearer = format!("Bearer {token}");
        client.request(Method::GET, CONFIGS).header("authorization", &bearer).send().await.expect(200);
        server.stop().await;
    }
}
