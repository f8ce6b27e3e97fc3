//! Two services with somebody of every kind, and what they show.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use modelyard::access::Deployment;
use modelyard::settings::Settings;
use modelyard::{Server, Service};
use modelyard_access::password::{self, Password, Passwords};
use modelyard_access::role::Roles;
use modelyard_access::secret::Secret;
use modelyard_access::session::{
    Client, Credential, Login, NoFactors, PLAIN_COOKIE, SessionKind, Sessions,
};
use modelyard_access::token::{self, Tokens};
use modelyard_access::user::Users;
use modelyard_kernel::Clock;
use modelyard_testkit::{TENANT, TestClient, TestDatabase, TestResponse};
use serde_json::{Value, json};

use super::{SECRET, service, settings, text, until};

pub const PASSWORD: &str = "nine correct horses with batteries";

/// What somebody shows: headers.
pub type Shown = Vec<(&'static str, String)>;

/// A server of the services `first` and `second`, which has an administrator.
#[derive(Debug)]
pub struct House {
    pub server: Server,
    /// Speaks to the whole server.
    pub client: TestClient,
    admin: Shown,
    database: TestDatabase,
}

impl House {
    pub async fn open(database: TestDatabase, change: impl FnOnce(&mut Settings)) -> Self {
        Self::of(vec![service("first"), service("second")], database, change).await
    }

    /// The same with other services of these names.
    pub async fn of(
        services: Vec<Service>,
        database: TestDatabase,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = settings(&database);
        change(&mut settings);
        let deployment = Deployment::open(&settings).await.unwrap();
        let users = deployment.access.users();
        let password = Password::new(PASSWORD);
        users.create_first_admin("root@example.org", "Root", password).await.unwrap();
        deployment.close().await;
        let server = Server::start(services, settings).await.unwrap();
        let client = TestClient::new(format!("http://{}", server.address()));
        let mut it = Self { server, client, admin: Vec::new(), database };
        it.admin = it.login("root@example.org", false).await;
        it
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }

    /// Asks something of the first service.
    pub async fn ask(&self, method: &str, path: &str, shown: &Shown, body: Value) -> TestResponse {
        // The page of a service is at its address without a slash.
        let path = if path == "/" { "" } else { path };
        self.ask_front(method, &format!("/services/first{path}"), shown, body).await
    }

    /// Asks something of the whole server.
    pub async fn ask_front(
        &self,
        method: &str,
        path: &str,
        shown: &Shown,
        body: Value,
    ) -> TestResponse {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, path);
        for (name, value) in shown {
            request = request.header(name, value);
        }
        if body.is_null() { request.send().await } else { request.json(&body).send().await }
    }

    pub async fn admin(&self, method: &str, path: &str, body: Value) -> TestResponse {
        self.ask(method, path, &self.admin, body).await
    }

    /// A new key: its id, and what it shows.
    pub async fn key(&self, body: Value) -> (String, String) {
        let made = self.admin("POST", "/api/v1/keys", body).await.expect(201).body;
        (text(&made["id"]), text(&made["key"]))
    }

    /// A new user with roles.
    pub async fn user(&self, email: &str, roles: Value) -> String {
        let body = json!({"email": email, "name": email, "password": PASSWORD});
        let made = self.admin("POST", "/api/v1/users", body).await.expect(201).body;
        let id = text(&made["id"]);
        self.admin("PUT", &format!("/api/v1/roles/$bindings/{id}"), roles).await.expect(200);
        id
    }

    pub async fn login(&self, email: &str, cookie: bool) -> Shown {
        let body = json!({"email": email, "password": PASSWORD, "cookie": cookie});
        let answer = self.ask("POST", "/api/v1/auth/login", &Vec::new(), body).await.expect(200);
        if !cookie {
            return bearer(&text(&answer.body["access_token"]));
        }
        let set = answer.header("set-cookie").unwrap();
        let cookie = set.split(';').next().unwrap().to_owned();
        vec![("cookie", cookie), ("x-csrf-token", text(&answer.body["csrf_token"]))]
    }

    /// What a login of some time ago shows. Its token is over, but not its session.
    pub async fn login_before(&self, before: Duration, kind: SessionKind) -> Shown {
        let now = Clock::system().now();
        let (db, clock) = (self.database.db.clone(), Clock::fixed(now.before(before)));
        let roles = Roles::new(db.clone(), clock.clone());
        let passwords = Passwords::new(password::Options::default()).unwrap();
        let users = Users::new(db.clone(), clock.clone(), roles, passwords, TENANT);
        let secret = Secret::read(SECRET).unwrap();
        let options = token::Options::default();
        let tokens = Tokens::new(db.clone(), clock.clone(), secret, TENANT, options);
        let sessions =
            Sessions::new(db, clock, users, tokens, Arc::new(NoFactors), Default::default());
        let login = Login {
            email: "root@example.org".to_owned(),
            password: Password::new(PASSWORD),
            code: None,
            kind,
        };
        let done = sessions.login(login, Client::default(), None).await.unwrap();
        match done.credential {
            Credential::Tokens { access_token, .. } => bearer(access_token.as_str()),
            Credential::Cookie { cookie, csrf_token } => vec![
                ("cookie", format!("{PLAIN_COOKIE}={}", cookie.as_str())),
                ("x-csrf-token", csrf_token.as_str().to_owned()),
            ],
        }
    }

    /// Waits until somebody is known in the first service, or no more.
    pub async fn until_known(&self, shown: &Shown, known: bool) {
        until("the server has heard of it", async || {
            let answer = self.ask("GET", "/api/v1/info", shown, Value::Null).await;
            (answer.status != 401) == known
        })
        .await;
    }
}

pub fn bearer(text: &str) -> Shown {
    vec![("authorization", format!("Bearer {text}"))]
}

pub fn key(text: &str) -> Shown {
    vec![("x-api-key", text.to_owned())]
}
