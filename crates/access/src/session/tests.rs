//! Through the routes, on both databases, behind a gate as the assembly has one.

use std::collections::HashSet;

use ::http::{Method, Request, header};
use axum::Router;
use axum::body::{Body, to_bytes};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use modelyard_kernel::db::{Row, Value as Stored, query};
use modelyard_kernel::failure::Unrendered;
use modelyard_kernel::{Grants, Proof};
use modelyard_testkit::{TENANT, TestDatabase, on_both_databases};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::lockout::FORGOTTEN;
use crate::notice::{AfterCommit, Notice, Notices};
use crate::password::{self, Cost, Passwords};
use crate::role::{Binding, EVERYWHERE, Roles, Rules};
use crate::secret::Secret;
use crate::token::{self, Tokens};
use crate::user::{NewUser, User};

pub(crate) const ADA: &str = "ada@example.org";
pub(crate) const PASSWORD: &str = "plover quartz 71 lantern";

/// Codes that are right once, of users who have a factor.
#[derive(Default)]
pub(crate) struct Codes(Mutex<HashSet<(Ulid, String)>>);

impl SecondFactor for Codes {
    fn check<'a>(
        &'a self,
        _: &'a Scope,
        user: Ulid,
        code: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FactorOutcome>> {
        let mut codes = self.0.lock();
        let outcome = match code {
            _ if codes.iter().all(|it| it.0 != user) => FactorOutcome::NotSet,
            None => FactorOutcome::Missing,
            Some(code) if codes.remove(&(user, code.to_owned())) => {
                FactorOutcome::Right(TestDatabase::start())
            }
            Some(_) => FactorOutcome::Wrong,
        };
        Box::pin(async move { Ok(outcome) })
    }
}

/// What users were told, and how often something was done after the commit.
#[derive(Debug, Default)]
pub(crate) struct Told(pub(crate) Mutex<Vec<(String, Notice)>>, Arc<Mutex<usize>>);

impl Notices for Told {
    fn tell<'c>(
        &'c self,
        _: &'c mut Conn,
        _: &'c Scope,
        user: &'c User,
        notice: Notice,
    ) -> BoxFuture<'c, Result<Option<AfterCommit>>> {
        self.0.lock().push((user.email.to_string(), notice));
        let count = Arc::clone(&self.1);
        let after: AfterCommit = Box::new(move || *count.lock() += 1);
        Box::pin(async { Ok(Some(after)) })
    }
}

/// The slices as an assembly puts them together.
pub(crate) struct Server {
    router: Router,
    clock: Clock,
    db: Db,
    pub(crate) users: Users,
    pub(crate) sessions: Sessions,
    pub(crate) passwords: Passwords,
    roles: Roles,
    codes: Arc<Codes>,
    pub(crate) told: Arc<Told>,
    client: Client,
}

/// What came back.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) cookie: Option<String>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.body
        );
    }
}

/// What a request shows.
#[derive(Clone)]
pub(crate) enum Shown {
    Nothing,
    Bearer(String),
    /// A cookie, and the CSRF token of its session.
    Cookie(String, String),
}

impl Server {
    pub(crate) fn new(database: &TestDatabase) -> Self {
        Self::with(database, password::cheap(), Options::default())
    }

    fn with(database: &TestDatabase, passwords: Passwords, options: Options) -> Self {
        let (db, clock) = (database.db.clone(), database.clock.clone());
        let roles = Roles::new(db.clone(), clock.clone());
        let users = Users::new(db.clone(), clock.clone(), roles.clone(), passwords.clone(), TENANT);
        let told = Arc::new(Told::default());
        let users = users.with_notices(Arc::clone(&told) as Arc<dyn Notices>);
        let secret = Secret::read(&STANDARD.encode([7; 32])).unwrap();
        let tokens =
            Tokens::new(db.clone(), clock.clone(), secret, TENANT, token::Options::default());
        let codes = Arc::new(Codes::default());
        let factor = Arc::clone(&codes) as Arc<dyn SecondFactor>;
        let sessions = Sessions::new(
            db.clone(),
            clock.clone(),
            users.clone(),
            tokens.clone(),
            factor,
            options,
        );
        let routes = users.part().routes.merge(sessions.part().routes).merge(tokens.part().routes);
        let (router, _) = routes.split_for_parts();
        let client = Client { address: Some([203, 0, 113, 7].into()), secure: false };
        Self { router, clock, db, users, sessions, passwords, roles, codes, told, client }
    }

    /// Whoever may do everything, and is no user.
    #[expect(clippy::unused_self, reason = "it is the server's")]
    pub(crate) fn system(&self) -> Caller {
        Caller::system("test", TENANT, DEPLOYMENT)
    }

    pub(crate) async fn user(&self, email: &str) -> User {
        let new = NewUser {
            email: crate::user::Email::read(email).unwrap(),
            name: "Somebody".to_owned(),
            password: Some(Password::new(PASSWORD)),
            factor_required: false,
        };
        self.users.create(&self.system(), new).await.unwrap()
    }

    pub(crate) async fn give(&self, user: &User, role: &str) {
        let mut conn = self.db.conn().await.unwrap();
        let binding = Binding { role: role.to_owned(), applies_to: EVERYWHERE.to_owned() };
        self.roles.bind(&mut conn, self.users.scope(), user.id.0, &binding).await.unwrap();
    }

    fn code(&self, user: &User, code: &str) {
        self.codes.0.lock().insert((user.id.0, code.to_owned()));
    }

    /// As the gate does it.
    async fn caller(
        &self,
        method: &Method,
        headers: &::http::HeaderMap,
        shown: &Shown,
    ) -> Result<Option<Caller>> {
        let presented = match shown {
            Shown::Nothing => return Ok(None),
            Shown::Bearer(token) => Presented::AccessToken(token),
            Shown::Cookie(cookie, _) => Presented::Cookie(cookie),
        };
        let identity = self.sessions.identify(presented).await?;
        if let Shown::Cookie(cookie, _) = shown {
            let session = identity.session;
            self.sessions.allow_unsafe(method, headers, cookie, session)?;
        }
        let scope = scope_of(&identity.tenant);
        let bound = self.roles.of(&mut self.db.conn().await?, &scope, identity.user).await?;
        let grants = match identity.limited {
            true => Grants::none(),
            false => self.roles.book(&scope).await?.grants(&bound, DEPLOYMENT, &Rules::default()),
        };
        let caller = Caller::new(&identity.email, &identity.tenant, "s", Grants::none());
        let caller = caller.with_deployment_grants(grants);
        Ok(Some(caller.with_proof(identity.proof(), Some(identity.user))))
    }

    pub(crate) async fn send(&self, mut request: Request<Body>, shown: &Shown) -> Answer {
        let uri = request.uri().clone();
        if request.extensions().get::<Client>().is_none() {
            request.extensions_mut().insert(self.client);
        }
        let (method, headers) = (request.method().clone(), request.headers().clone());
        let response = match self.caller(&method, &headers, shown).await {
            Err(failure) => axum::response::IntoResponse::into_response(failure),
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                self.router.clone().oneshot(request).await.unwrap()
            }
        };
        let status = response.status().as_u16();
        if let Some(Unrendered(failure)) = response.extensions().get::<Unrendered>() {
            // The outermost layer, which is not here, would do this.
            let body = Value::from(failure.problem(&uri, "http://test", "T"));
            return Answer { status, body, cookie: None };
        }
        let cookie = response.headers().get(header::SET_COOKIE);
        let cookie = cookie.map(|it| it.to_str().unwrap().to_owned());
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status, body, cookie }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Value,
        shown: &Shown,
    ) -> Answer {
        let request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        let mut request = request.header("content-type", "application/json");
        if let Shown::Cookie(cookie, csrf) = shown {
            request = request.header("cookie", format!("modelyard={cookie}"));
            request = request.header("x-csrf-token", csrf);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(request.body(Body::from(body)).unwrap(), shown).await
    }

    pub(crate) async fn get(&self, path: &str, shown: &Shown) -> Answer {
        self.call(Method::GET, path, Value::Null, shown).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value, shown: &Shown) -> Answer {
        self.call(Method::POST, path, body, shown).await
    }

    pub(crate) async fn login(&self, email: &str, password: &str) -> Answer {
        let body = json!({"email": email, "password": password});
        self.post("/auth/login", body, &Shown::Nothing).await
    }

    /// A program that is logged in: its access token, and its refresh token.
    pub(crate) async fn program(&self, email: &str) -> (Shown, String) {
        let body = self.login(email, PASSWORD).await.expect(200);
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        (Shown::Bearer(text("access_token")), text("refresh_token"))
    }

    /// A browser that is logged in.
    pub(crate) async fn browser(&self, email: &str) -> Shown {
        // On the same machine, since there is no TLS.
        let answer = self.cookie(email, "127.0.0.1").await;
        let cookie = answer.cookie.clone().unwrap();
        let csrf = answer.expect(200)["csrf_token"].as_str().unwrap().to_owned();
        let value = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
        Shown::Cookie(value, csrf)
    }

    /// A browser that logs in at an address.
    async fn cookie(&self, email: &str, address: &str) -> Answer {
        let body = json!({"email": email, "password": PASSWORD, "cookie": true}).to_string();
        let request =
            Request::post("/api/v1/auth/login").header("content-type", "application/json");
        let client = Client { address: Some(address.parse().unwrap()), ..self.client };
        let request = request.extension(client).body(Body::from(body)).unwrap();
        self.send(request, &Shown::Nothing).await
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.post("/auth/refresh", json!({"refresh_token": token}), &Shown::Nothing).await
    }
}

fn refresh_token(body: &Value) -> String {
    body["refresh_token"].as_str().unwrap().to_owned()
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

on_both_databases! {
    async fn a_program_logs_in_and_gets_new_tokens(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let body = server.login(" Ada@Example.org ", PASSWORD).await.expect(200);
        assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(600)));
        assert_eq!((&body["user"]["email"], &body["limited"]), (&json!(ADA), &json!(false)));
        assert_eq!(body["session"]["address"], "203.0.113.7");
        assert!(body["csrf_token"].is_null() && body["user"]["password_hash"].is_null());

        let shown = Shown::Bearer(body["access_token"].as_str().unwrap().to_owned());
        assert_eq!(server.get("/account", &shown).await.expect(200)["email"], ADA);
        let session = server.get("/auth/session", &shown).await.expect(200);
        assert_eq!(session["id"], body["session"]["id"]);

        database.clock.advance(Duration::from_secs(631));
        server.get("/account", &shown).await.refused(401, "unauthenticated");
        let body = server.refresh(&refresh_token(&body)).await.expect(200);
        let shown = Shown::Bearer(body["access_token"].as_str().unwrap().to_owned());
        server.get("/account", &shown).await.expect(200);
        server.refresh(&refresh_token(&body)).await.expect(200);
    }

    async fn a_refresh_token_that_comes_again_ends_its_session(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let (_, first) = server.program(ADA).await;
        let (other, _) = server.program(ADA).await;
        let body = server.refresh(&first).await.expect(200);
        let shown = Shown::Bearer(body["access_token"].as_str().unwrap().to_owned());
        server.get("/account", &shown).await.expect(200);

        server.refresh(&first).await.refused(401, "refresh_refused");
        server.get("/account", &shown).await.refused(401, "unauthenticated");
        server.refresh(&refresh_token(&body)).await.refused(401, "refresh_refused");
        // Another session of the same user goes on.
        server.get("/account", &other).await.expect(200);
    }

    async fn of_five_uses_at_once_one_succeeds_and_the_session_ends(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let (shown, first) = server.program(ADA).await;
        let all = futures_util::future::join_all((0..5).map(|_| server.refresh(&first))).await;
        let won: Vec<&Answer> = all.iter().filter(|it| it.status == 200).collect();
        assert_eq!(won.len(), 1, "{all:?}");
        assert_eq!(all.iter().filter(|it| it.status == 401).count(), 4, "{all:?}");
        let next = refresh_token(&won[0].body);
        server.refresh(&next).await.refused(401, "refresh_refused");
        server.get("/account", &shown).await.refused(401, "unauthenticated");
    }

    async fn refresh_tokens_that_are_none_are_refused(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let (shown, token) = server.program(ADA).await;
        let Shown::Bearer(access) = shown else { panic!("a program") };
        let bare = &token[4..];
        let other = format!("myr_{}", "A".repeat(43));
        for bad in ["", "x", bare, &other, &access, &format!("{token}="), &format!(" {token}")] {
            server.refresh(bad).await.refused(401, "refresh_refused");
        }
        database.clock.advance(30 * 24 * HOUR);
        server.refresh(&token).await.refused(401, "refresh_refused");
    }

    async fn an_account_is_locked_for_a_while_after_failures(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        server.user("bob@example.org").await;
        for _ in 0..5 {
            server.login(ADA, "wrong").await.refused(401, "login_refused");
        }
        // Also for the right password, but for nobody else.
        server.login(ADA, PASSWORD).await.refused(401, "login_refused");
        server.login("bob@example.org", PASSWORD).await.expect(200);
        // What comes meanwhile does not lengthen it.
        for _ in 0..3 {
            server.login(ADA, "wrong").await.refused(401, "login_refused");
        }
        database.clock.advance(SECOND);
        server.login(ADA, "wrong").await.refused(401, "login_refused");
        database.clock.advance(SECOND);
        server.login(ADA, PASSWORD).await.refused(401, "login_refused");
        database.clock.advance(SECOND);
        server.login(ADA, PASSWORD).await.expect(200);
        // All is forgotten then.
        for _ in 0..4 {
            server.login(ADA, "wrong").await.refused(401, "login_refused");
        }
        server.login(ADA, PASSWORD).await.expect(200);
    }

    async fn what_is_over_is_removed_some_at_a_time_whoever_it_is_of(database: TestDatabase) {
        let mut server = Server::new(&database);
        let (ada, bob) = (server.user(ADA).await, server.user("bob@example.org").await);
        for user in [&ada, &ada, &bob] {
            server.program(user.email.as_str()).await;
        }
        for last in 1..=3 {
            server.client.address = Some(std::net::Ipv4Addr::new(192, 0, 2, last).into());
            server.login(ADA, "wrong").await.refused(401, "login_refused");
        }
        let count = async || {
            let mut conn = database.db.conn().await.unwrap();
            let sql = "SELECT (SELECT COUNT(*) FROM sessions), (SELECT COUNT(*) FROM refresh_tokens),
                     (SELECT COUNT(*) FROM login_failures)";
            let counted: (i64, i64, i64) = query(sql).fetch_one(&mut conn).await.unwrap();
            counted
        };
        let sweep = async || server.sessions.sweep(2).await.unwrap();
        assert_eq!((sweep().await, count().await), (0, (3, 3, 6)));
        database.clock.advance(FORGOTTEN + SECOND);
        assert_eq!((sweep().await, count().await), (2, (3, 3, 4)));
        assert_eq!((sweep().await, count().await), (2, (3, 3, 2)));
        database.clock.advance(Options::default().absolute - FORGOTTEN - 2 * SECOND);
        assert_eq!((sweep().await, count().await), (2, (3, 3, 0)));
        database.clock.advance(SECOND);
        assert_eq!((sweep().await, count().await), (2, (1, 1, 0)));
        assert_eq!((sweep().await, count().await), (1, (0, 0, 0)));
        // Somebody who was here before is told all the same.
        server.client.address = Some(std::net::Ipv4Addr::new(192, 0, 2, 9).into());
        server.program(ADA).await;
        assert_eq!(server.told.0.lock().len(), 1);
    }

    async fn guesses_at_once_are_no_more_than_guesses_one_by_one(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let guesses = (0..12).map(|_| server.login(ADA, "wrong"));
        for answer in futures_util::future::join_all(guesses).await {
            assert!([401, 429].contains(&answer.status), "{answer:?}");
        }
        for _ in 0..6 {
            server.login(ADA, "wrong").await.refused(401, "login_refused");
        }
        assert_eq!(server.passwords.computed().get(), 1 + 5);
        server.login(ADA, PASSWORD).await.refused(401, "login_refused");
        database.clock.advance(SECOND);
        server.login(ADA, PASSWORD).await.expect(200);
    }

    async fn a_stranger_keeps_nobody_out_who_is_elsewhere(database: TestDatabase) {
        let mut server = Server::new(&database);
        server.user(ADA).await;
        let here = server.client;
        for last in 1..=3 {
            server.client.address = Some(std::net::Ipv4Addr::new(192, 0, 2, last).into());
            for _ in 0..10 {
                server.login(ADA, "wrong").await.refused(401, "login_refused");
            }
            server.login(ADA, PASSWORD).await.refused(401, "login_refused");
        }
        let there = std::mem::replace(&mut server.client, here);
        server.login(ADA, PASSWORD).await.expect(200);
        // Nobody waits longer for what was long ago.
        server.client = there;
        database.clock.advance(FORGOTTEN + SECOND);
        for _ in 0..4 {
            server.login(ADA, "wrong").await.refused(401, "login_refused");
        }
        server.login(ADA, PASSWORD).await.expect(200);
    }

    async fn who_hangs_up_has_guessed(database: TestDatabase) {
        let server = Server::with(
            &database,
            Passwords::new(password::Options::default()).unwrap(),
            Options::default(),
        );
        server.user(ADA).await;
        for _ in 0..5 {
            let before = server.passwords.computed().get();
            let mut login = Box::pin(server.login(ADA, "wrong"));
            while server.passwords.computed().get() == before {
                assert!(futures_util::poll!(login.as_mut()).is_pending());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        server.login(ADA, PASSWORD).await.refused(401, "login_refused");
        database.clock.advance(SECOND);
        server.login(ADA, PASSWORD).await.expect(200);
    }

    async fn whoever_logs_in_very_often_at_once_is_sent_away(database: TestDatabase) {
        let mut server = Server::with(
            &database,
            Passwords::new(password::Options::default()).unwrap(),
            Options::default(),
        );
        server.user(ADA).await;
        // From one address, whether there is such an account or not.
        for exists in [true, false] {
            let email = |n: usize| if exists { ADA.to_owned() } else { format!("{n}@example.org") };
            let logins = (0..20).map(|n| {
                let (server, email) = (&server, email(n));
                async move { server.login(&email, PASSWORD).await }
            });
            let all = futures_util::future::join_all(logins).await;
            let busy = all.iter().filter(|it| it.body["code"] == "logins_busy").collect::<Vec<_>>();
            assert!(busy.len() >= 12, "{all:?}");
            assert!(busy.iter().all(|it| it.status == 429));
            database.clock.advance(FORGOTTEN + SECOND);
        }
        // To one account, from wherever.
        server.client.address = None;
        let (lockout, scope) = (server.users.lockout(), server.users.scope());
        let mut held = Vec::new();
        for last in 1..=2 {
            let address = Some(std::net::Ipv4Addr::new(192, 0, 2, last).into());
            held.push(lockout.begin(scope, ADA, address).await.unwrap());
        }
        server.login(ADA, PASSWORD).await.refused(429, "logins_busy");
        drop(held);
        server.login(ADA, PASSWORD).await.expect(200);
    }

    async fn as_much_is_written_of_an_account_that_nobody_has(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let counted = async || {
            let mut conn = database.db.conn().await.unwrap();
            let sql = "SELECT COUNT(*), COALESCE(CAST(SUM(failures) AS BIGINT), 0) FROM login_failures
                 WHERE account <> ''";
            let counted: (i64, i64) = query(sql).fetch_one(&mut conn).await.unwrap();
            counted
        };
        for (nth, email) in [(1, ADA), (2, "nobody@example.org")] {
            for _ in 0..3 {
                server.login(email, "wrong").await.refused(401, "login_refused");
            }
            assert_eq!(counted().await, (nth, 3 * nth), "{email}");
        }
    }

    async fn used_refresh_tokens_and_sessions_do_not_pile_up(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let count = async |table: &str| {
            let mut conn = database.db.conn().await.unwrap();
            let sql = format!("SELECT COUNT(*) FROM {table}");
            let (count,): (i64,) = query(sql).fetch_one(&mut conn).await.unwrap();
            count
        };
        let (_, first) = server.program(ADA).await;
        let (mut shown, mut tokens) = (Shown::Nothing, vec![first]);
        for _ in 0..30 {
            database.clock.advance(SECOND);
            let body = server.refresh(tokens.last().unwrap()).await.expect(200);
            shown = Shown::Bearer(body["access_token"].as_str().unwrap().to_owned());
            tokens.push(refresh_token(&body));
        }
        assert_eq!(count("refresh_tokens").await, 20 + 1);
        // One that was used long ago is nothing, one of late ends the session.
        server.refresh(&tokens[0]).await.refused(401, "refresh_refused");
        server.get("/account", &shown).await.expect(200);
        server.refresh(&tokens[28]).await.refused(401, "refresh_refused");
        server.get("/account", &shown).await.refused(401, "unauthenticated");

        let (oldest, _) = server.program(ADA).await;
        for _ in 0..49 {
            server.program(ADA).await;
        }
        assert_eq!(count("sessions").await, 50);
        server.get("/account", &oldest).await.expect(200);
        server.program(ADA).await;
        assert_eq!(count("sessions").await, 50);
        server.get("/account", &oldest).await.refused(401, "unauthenticated");
    }

    async fn an_address_is_locked_for_a_while_after_failures(database: TestDatabase) {
        let mut server = Server::new(&database);
        server.user(ADA).await;
        for number in 0..20 {
            let email = format!("{number}@example.org");
            server.login(&email, "wrong").await.refused(401, "login_refused");
        }
        let hashes = server.passwords.computed().get();
        server.login(ADA, PASSWORD).await.refused(429, "logins_exhausted");
        assert_eq!(server.passwords.computed().get(), hashes);
        let here = server.client;
        server.client.address = Some([203, 0, 113, 8].into());
        server.login(ADA, PASSWORD).await.expect(200);
        server.client = here;
        database.clock.advance(SECOND);
        server.login(ADA, PASSWORD).await.expect(200);
        // A login that went well does not wash failures away, time does.
        server.login("x@example.org", "wrong").await.refused(401, "login_refused");
        server.login(ADA, PASSWORD).await.refused(429, "logins_exhausted");
        database.clock.advance(16 * 60 * SECOND);
        server.login("x@example.org", "wrong").await.refused(401, "login_refused");
        server.login(ADA, PASSWORD).await.expect(200);
    }

    async fn nobody_learns_of_an_account_by_logging_in(database: TestDatabase) {
        let mut server = Server::new(&database);
        server.user(ADA).await;
        let disabled = server.user("disabled@example.org").await;
        server.users.disable(&server.system(), disabled.id).await.unwrap();
        server.user("locked@example.org").await;
        for _ in 0..5 {
            server.login("locked@example.org", "wrong").await.refused(401, "login_refused");
        }
        let invited = json!({"email": "invited@example.org", "name": "I"});
        let invited = serde_json::from_value::<Value>(invited).unwrap();
        let report = modelyard_kernel::form::Report::new();
        let new = NewUser::read(modelyard_kernel::form::Node::body(&invited, &report)).unwrap();
        server.users.create(&server.system(), new).await.unwrap();

        for _ in 0..5 {
            server.login("waits@example.org", "wrong").await.refused(401, "login_refused");
        }
        let cases = [
            ("unknown@example.org", PASSWORD),
            ("no address at all \0", PASSWORD),
            (ADA, "wrong"),
            (ADA, ""),
            (ADA, &"x".repeat(100_000)),
            ("disabled@example.org", PASSWORD),
            ("disabled@example.org", "wrong"),
            ("invited@example.org", PASSWORD),
            ("invited@example.org", ""),
        ];
        // Whoever has to wait gets the same, without a hash, also where there is no such account.
        let waiting = ["locked@example.org", "waits@example.org"];
        let here = server.client;
        server.client.address = Some([203, 0, 113, 8].into());
        let mut answers = Vec::new();
        for (email, password) in cases {
            let before = server.passwords.computed().get();
            answers.push(server.login(email, password).await);
            // The same is computed for each: that is what takes the time.
            assert_eq!(server.passwords.computed().get() - before, 1, "{email}");
        }
        server.client = here;
        for email in waiting {
            let before = server.passwords.computed().get();
            answers.push(server.login(email, PASSWORD).await);
            assert_eq!(server.passwords.computed().get() - before, 0, "{email}");
        }
        for answer in &answers {
            assert_eq!(answer, &answers[0]);
        }
        assert_eq!((answers[0].status, &answers[0].body["code"]), (401, &json!("login_refused")));
    }

    async fn sessions_are_listed_and_ended(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        server.user("bob@example.org").await;
        let (one, _) = server.program(ADA).await;
        database.clock.advance(SECOND);
        let two = server.browser(ADA).await;
        let (bob, _) = server.program("bob@example.org").await;

        let list = server.get("/auth/sessions", &one).await.expect(200);
        let list = list.as_array().unwrap();
        let told: Vec<_> = list.iter().map(|it| (&it["kind"], &it["current"])).collect();
        assert_eq!(told, [(&json!("cookie"), &json!(false)), (&json!("token"), &json!(true))]);

        let path = format!("/auth/sessions/{}", list[0]["id"].as_str().unwrap());
        let delete = |shown| server.call(Method::DELETE, &path, Value::Null, shown);
        delete(&bob).await.refused(404, "session_missing");
        server.get("/account", &two).await.expect(200);
        delete(&one).await.expect(204);
        delete(&one).await.refused(404, "session_missing");
        server.get("/account", &two).await.refused(401, "unauthenticated");

        let three = server.browser(ADA).await;
        server.post("/auth/logout-all", Value::Null, &three).await.expect(204);
        for shown in [&one, &three] {
            server.get("/account", shown).await.refused(401, "unauthenticated");
        }
        let answer = server.post("/auth/logout", Value::Null, &bob).await;
        assert!(answer.cookie.as_ref().unwrap().starts_with("modelyard=; Path=/; Max-Age=0;"));
        answer.expect(204);
        server.get("/account", &bob).await.refused(401, "unauthenticated");
    }

    async fn another_node_learns_of_the_end_within_a_second(database: TestDatabase) {
        let (here, there) = (Server::new(&database), Server::new(&database));
        here.user(ADA).await;
        let (shown, _) = here.program(ADA).await;
        there.get("/account", &shown).await.expect(200);
        here.post("/auth/logout", Value::Null, &shown).await.expect(204);
        here.get("/account", &shown).await.refused(401, "unauthenticated");
        database.clock.advance(Duration::from_millis(900));
        there.get("/account", &shown).await.refused(401, "unauthenticated");
    }

    async fn who_is_disabled_or_deleted_has_no_session(database: TestDatabase) {
        let server = Server::new(&database);
        for end in ["disable", "delete", "password"] {
            let user = server.user(&format!("{end}@example.org")).await;
            let (shown, refresh) = server.program(user.email.as_str()).await;
            let cookie = server.browser(user.email.as_str()).await;
            server.get("/account", &shown).await.expect(200);
            server.get("/account", &cookie).await.expect(200);
            match end {
                "disable" => drop(server.users.disable(&server.system(), user.id).await.unwrap()),
                "delete" => {
                    let conditions = modelyard_kernel::reply::Conditions::default();
                    server.users.delete(&server.system(), user.id, &conditions).await.unwrap();
                }
                _ => {
                    let hash = server.passwords.hash(&Password::new("other")).await.unwrap();
                    let mut conn = database.db.conn().await.unwrap();
                    let (users, scope) = (&server.users, server.users.scope());
                    users.set_password_in(&mut conn, scope, user.id.0, &hash).await.unwrap();
                }
            }
            server.get("/account", &shown).await.refused(401, "unauthenticated");
            server.get("/account", &cookie).await.refused(401, "unauthenticated");
            server.refresh(&refresh).await.refused(401, "refresh_refused");
            let email = user.email.as_str();
            server.login(email, PASSWORD).await.refused(401, "login_refused");
        }
    }

    async fn a_browser_s_session_ends_when_nobody_is_there(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let shown = server.browser(ADA).await;
        for _ in 0..5 {
            database.clock.advance(7 * HOUR);
            server.get("/account", &shown).await.expect(200);
        }
        database.clock.advance(8 * HOUR);
        server.get("/account", &shown).await.refused(401, "unauthenticated");

        let shown = server.browser(ADA).await;
        for _ in 0..30 * 24 / 6 - 1 {
            database.clock.advance(6 * HOUR);
            server.get("/account", &shown).await.expect(200);
        }
        database.clock.advance(6 * HOUR);
        server.get("/account", &shown).await.refused(401, "unauthenticated");
        assert_eq!(server.sessions.list(&server.system()).await.unwrap_err().code(), "permission_denied");
    }

    async fn that_a_session_is_used_is_written_once_a_minute(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let shown = server.browser(ADA).await;
        let seen = |session: Value| session["last_seen_at"].as_str().unwrap().to_owned();
        let began = seen(server.get("/auth/session", &shown).await.expect(200));
        database.clock.advance(59 * SECOND);
        assert_eq!(seen(server.get("/auth/session", &shown).await.expect(200)), began);
        database.clock.advance(SECOND);
        assert_ne!(seen(server.get("/auth/session", &shown).await.expect(200)), began);
    }

    async fn a_hash_of_another_cost_is_made_anew_at_login(database: TestDatabase) {
        let server = Server::new(&database);
        let user = server.user(ADA).await;
        let hash = async || {
            let found = server.users.credentials(server.users.scope(), ADA).await.unwrap();
            found.unwrap().password_hash.unwrap()
        };
        let before = hash().await;
        server.login(ADA, PASSWORD).await.expect(200);
        assert_eq!(hash().await, before);
        let cost = Cost { memory_kib: 16, passes: 1, lanes: 1 };
        let options = password::Options { cost, ..password::Options::default() };
        let dearer =
            Server::with(&database, Passwords::new(options).unwrap(), Options::default());
        dearer.login(ADA, "wrong").await.refused(401, "login_refused");
        assert_eq!(hash().await, before);
        let (shown, _) = dearer.program(ADA).await;
        assert!(hash().await.contains("m=16,"));
        dearer.login(ADA, PASSWORD).await.expect(200);
        // It is still the same password: nothing else has changed for anybody.
        let account = dearer.get("/account", &shown).await.expect(200);
        assert_eq!(account["updated_at"], json!(user.updated_at));
    }

    async fn logins_at_once_are_none_the_worse_for_a_new_cost(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let cost = Cost { memory_kib: 16, passes: 1, lanes: 1 };
        let options = password::Options { cost, ..password::Options::default() };
        let dearer = Server::with(&database, Passwords::new(options).unwrap(), Options::default());
        let logins = (0..2).map(|_| dearer.login(ADA, PASSWORD));
        for answer in futures_util::future::join_all(logins).await {
            answer.expect(200);
        }
        dearer.login(ADA, PASSWORD).await.expect(200);
    }

    async fn what_changes_something_by_cookie_comes_from_a_page_of_ours(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let shown = server.browser(ADA).await;
        let Shown::Cookie(cookie, csrf) = &shown else { panic!("a browser") };
        let Shown::Cookie(_, foreign) = server.browser(ADA).await else { panic!("a browser") };
        let session = server.get("/auth/session", &shown).await.expect(200);
        assert_eq!(session["csrf_token"], json!(csrf));

        let put = async |headers: &[(&str, &str)]| {
            let mut request = Request::put("/api/v1/account").header("host", "here");
            request = request.header("content-type", "application/json");
            request = request.header("cookie", format!("modelyard={cookie}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let body = Body::from(json!({"name": "Ada"}).to_string());
            let answer = server.send(request.body(body).unwrap(), &shown).await;
            (answer.status, answer.body["code"].as_str().unwrap_or_default().to_owned())
        };
        let right = ("x-csrf-token", csrf.as_str());
        let (ok, no) = ((200, String::new()), (403, "csrf_refused".to_owned()));
        assert_eq!(put(&[right]).await, ok);
        assert_eq!(put(&[right, ("origin", "http://here")]).await, ok);
        assert_eq!(put(&[right, ("sec-fetch-site", "same-origin")]).await, ok);
        assert_eq!(put(&[]).await, no);
        assert_eq!(put(&[("x-csrf-token", "")]).await, no);
        assert_eq!(put(&[("x-csrf-token", &foreign)]).await, no);
        assert_eq!(put(&[("x-csrf-token", cookie)]).await, no);
        assert_eq!(put(&[right, right]).await, no);
        assert_eq!(put(&[right, ("origin", "https://evil.example")]).await, no);
        assert_eq!(put(&[right, ("origin", "null")]).await, no);
        assert_eq!(put(&[right, ("sec-fetch-site", "cross-site")]).await, no);
        assert_eq!(put(&[right, ("sec-fetch-site", "same-site")]).await, no);

        // Nobody is logged in as somebody else from a page of theirs.
        let login = Request::post("/api/v1/auth/login").header("host", "here");
        let login = login.header("content-type", "application/json");
        let login = login.header("origin", "https://evil.example");
        let body = json!({"email": ADA, "password": PASSWORD, "cookie": true}).to_string();
        let login = login.body(Body::from(body)).unwrap();
        server.send(login, &Shown::Nothing).await.refused(403, "csrf_refused");
    }

    async fn a_cookie_is_for_tls_where_there_is_tls(database: TestDatabase) {
        let mut server = Server::new(&database);
        server.user(ADA).await;
        let body = json!({"email": ADA, "password": PASSWORD, "cookie": true});
        // Nobody who listens is to have one; programs know what they do.
        let refused = server.post("/auth/login", body.clone(), &Shown::Nothing).await;
        assert_eq!(refused.cookie, None);
        refused.refused(403, "tls_required");
        server.login(ADA, PASSWORD).await.expect(200);
        let plain = server.cookie(ADA, "127.0.0.1").await.cookie.unwrap();
        assert!(plain.starts_with("modelyard=") && !plain.contains("Secure"), "{plain}");
        assert!(plain.ends_with("; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax"), "{plain}");
        server.client.secure = true;
        let tls = server.post("/auth/login", body.clone(), &Shown::Nothing).await.cookie.unwrap();
        assert!(tls.starts_with("__Host-modelyard=") && tls.ends_with("; Secure"), "{tls}");

        let options = Options { tls_by_proxy: true, ..Options::default() };
        let server = Server::with(&database, password::cheap(), options);
        let tls = server.post("/auth/login", body, &Shown::Nothing).await.cookie.unwrap();
        assert!(tls.starts_with("__Host-modelyard=") && tls.ends_with("; Secure"), "{tls}");
    }

    async fn a_cookie_is_no_token_and_a_token_no_cookie(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let Shown::Cookie(cookie, csrf) = server.browser(ADA).await else { panic!("a browser") };
        let (Shown::Bearer(access), refresh) = server.program(ADA).await else { panic!("tokens") };
        for wrong in [
            Shown::Bearer(cookie.clone()),
            Shown::Bearer(refresh.clone()),
            Shown::Bearer(String::new()),
            Shown::Cookie(access, csrf.clone()),
            Shown::Cookie(refresh[4..].to_owned(), csrf.clone()),
            Shown::Cookie("A".repeat(43), csrf.clone()),
            Shown::Cookie(String::new(), csrf),
        ] {
            server.get("/account", &wrong).await.refused(401, "unauthenticated");
        }
    }

    async fn a_second_factor_is_asked_for(database: TestDatabase) {
        let server = Server::new(&database);
        let user = server.user(ADA).await;
        server.code(&user, "kept");
        for code in ["1", "2", "3"] {
            server.code(&user, code);
        }
        let login = async |password: &str, code: Option<&str>| {
            let body = json!({"email": ADA, "password": password, "code": code});
            server.post("/auth/login", body, &Shown::Nothing).await
        };
        login(PASSWORD, None).await.refused(401, "factor_required");
        login("wrong", None).await.refused(401, "login_refused");
        login("wrong", Some("1")).await.refused(401, "login_refused");
        login(PASSWORD, Some("9")).await.refused(401, "factor_wrong");
        let body = login(PASSWORD, Some("1")).await.expect(200);
        assert!(body["session"]["factor_at"].is_string());
        login(PASSWORD, Some("1")).await.refused(401, "factor_wrong");
        // Codes are guessed no more often than passwords, and the right password between them changes
        // nothing.
        for _ in 0..4 {
            login(PASSWORD, Some("9")).await.refused(401, "factor_wrong");
            login(PASSWORD, None).await;
        }
        login(PASSWORD, Some("2")).await.refused(401, "login_refused");
        login(PASSWORD, None).await.refused(401, "login_refused");
        database.clock.advance(SECOND);
        login(PASSWORD, Some("2")).await.expect(200);
    }

    async fn who_needs_a_second_factor_sets_it_up_first(database: TestDatabase) {
        let server = Server::new(&database);
        let user = server.user(ADA).await;
        server.give(&user, "tenant-admin").await;
        let (shown, _) = server.program(ADA).await;
        server.get("/users", &shown).await.expect(200);
        let patch = crate::user::UserPatch { factor_required: Some(true), ..Default::default() };
        let conditions = modelyard_kernel::reply::Conditions::default();
        server.users.update(&server.system(), user.id, patch, &conditions).await.unwrap();
        // Also those who are logged in already.
        server.get("/users", &shown).await.refused(403, "permission_denied");
        server.get("/account", &shown).await.expect(200);
        assert_eq!(server.login(ADA, PASSWORD).await.expect(200)["limited"], true);

        let session = server.get("/auth/session", &shown).await.expect(200);
        let id = Ulid::read(session["id"].as_str().unwrap()).unwrap();
        let (mut conn, scope) = (database.db.conn().await.unwrap(), server.users.scope());
        note_factor_in(&mut conn, scope, id, server.clock.now()).await.unwrap();
        server.get("/users", &shown).await.expect(200);
    }

    async fn who_steps_up_is_proven_anew(database: TestDatabase) {
        let server = Server::new(&database);
        let user = server.user(ADA).await;
        let (shown, _) = server.program(ADA).await;
        let proved = async || {
            let Shown::Bearer(token) = &shown else { panic!("a program") };
            let identity = server.sessions.identify(Presented::AccessToken(token)).await.unwrap();
            assert!(matches!(identity.proof(), Proof::Session { .. }));
            (identity.proved_at, identity.factor_at)
        };
        let began = server.clock.now();
        database.clock.advance(60 * SECOND);
        assert_eq!(proved().await, (began, None));
        let step_up = async |password: &str, code: Option<&str>| {
            let body = json!({"password": password, "code": code});
            server.post("/auth/$step-up", body, &shown).await
        };
        step_up("wrong", None).await.refused(403, "password_wrong");
        assert_eq!(proved().await, (began, None));
        step_up(PASSWORD, None).await.expect(200);
        assert_eq!(proved().await, (server.clock.now(), None));

        server.code(&user, "kept");
        server.code(&user, "1");
        step_up(PASSWORD, None).await.refused(401, "factor_required");
        step_up(PASSWORD, Some("2")).await.refused(401, "factor_wrong");
        step_up(PASSWORD, Some("1")).await.expect(200);
        assert_eq!(proved().await.1, Some(TestDatabase::start()));

        // Nobody guesses there what they may not guess at the door.
        for _ in 0..4 {
            step_up("wrong", None).await.refused(403, "password_wrong");
        }
        step_up(PASSWORD, Some("1")).await.refused(403, "password_wrong");
    }

    async fn a_browser_that_steps_up_gets_another_cookie(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let old = server.browser(ADA).await;
        let answer = server.post("/auth/$step-up", json!({"password": PASSWORD}), &old).await;
        let cookie = answer.cookie.clone().unwrap();
        let csrf = answer.expect(200)["csrf_token"].as_str().unwrap().to_owned();
        let cookie = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
        let new = Shown::Cookie(cookie, csrf);
        server.get("/account", &old).await.refused(401, "unauthenticated");
        server.get("/account", &new).await.expect(200);
        server.call(Method::PUT, "/account", json!({"name": "Ada"}), &new).await.expect(200);
    }

    async fn tokens_are_looked_into_and_taken_back(database: TestDatabase) {
        let server = Server::new(&database);
        let admin = server.user(ADA).await;
        server.give(&admin, "tenant-admin").await;
        let bob = server.user("bob@example.org").await;
        let (admin, _) = server.program(ADA).await;
        let (shown, refresh) = server.program("bob@example.org").await;
        let Shown::Bearer(access) = &shown else { panic!("a program") };
        let look = async |token: &str, shown: &Shown| {
            server.post("/auth/introspect", json!({"token": token}), shown).await
        };
        look(access, &shown).await.refused(403, "permission_denied");
        let told = look(access, &admin).await.expect(200);
        assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!(bob.id)));
        assert_eq!((&told["token_type"], &told["username"]), (&json!("access_token"), &json!("bob@example.org")));
        let told = look(&refresh, &admin).await.expect(200);
        assert_eq!((&told["active"], &told["token_type"]), (&json!(true), &json!("refresh_token")));
        for bad in ["", "x", "a.b.c", &format!("{access}x")] {
            assert_eq!(look(bad, &admin).await.expect(200), json!({"active": false}));
        }

        // As the RFC has it: a form.
        let form = async |path: &str, token: &str, shown: &Shown| {
            let request = Request::post(format!("/api/v1/auth/{path}"));
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            let body = Body::from(format!("token={token}&token_type_hint=access_token"));
            server.send(request.body(body).unwrap(), shown).await
        };
        assert_eq!(form("introspect", access, &admin).await.expect(200)["active"], true);
        form("revoke", "nonsense", &Shown::Nothing).await.expect(200);
        server.get("/account", &shown).await.expect(200);
        form("revoke", &refresh, &Shown::Nothing).await.expect(200);
        server.get("/account", &shown).await.refused(401, "unauthenticated");
        for token in [access, &refresh] {
            assert_eq!(look(token, &admin).await.expect(200), json!({"active": false}));
        }
        server.refresh(&refresh).await.refused(401, "refresh_refused");

        let (shown, refresh) = server.program("bob@example.org").await;
        let Shown::Bearer(access) = &shown else { panic!("a program") };
        let body = json!({"token": access});
        server.post("/auth/revoke", body, &Shown::Nothing).await.expect(200);
        server.refresh(&refresh).await.refused(401, "refresh_refused");
    }

    async fn another_tenant_s_administrator_learns_nothing(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let (Shown::Bearer(access), _) = server.program(ADA).await else { panic!("a program") };
        let elsewhere = Caller::new("a", "elsewhere", DEPLOYMENT, Grants::All);
        let told = server.sessions.introspect(&elsewhere, &access).await.unwrap();
        assert!(!told.active && told.sub.is_none());
    }

    async fn no_secret_is_in_the_database_or_shown(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let body = server.login(ADA, PASSWORD).await.expect(200);
        let turned = server.refresh(&refresh_token(&body)).await.expect(200);
        let Shown::Cookie(cookie, csrf) = server.browser(ADA).await else { panic!("a browser") };
        let text = |body: &Value, name: &str| body[name].as_str().unwrap().to_owned();
        let canaries = [
            PASSWORD.to_owned(),
            cookie.clone(),
            csrf,
            text(&body, "access_token"),
            text(&body, "refresh_token"),
            text(&body, "refresh_token")[4..].to_owned(),
            text(&turned, "access_token"),
            text(&turned, "refresh_token"),
        ];
        let bits = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&cookie).unwrap();

        let mut conn = database.db.conn().await.unwrap();
        let (mut rows, tables) = (0, modelyard_schema::TABLES.iter());
        for table in tables.chain(modelyard_schema::PASSING) {
            let all = query(format!("SELECT * FROM {table}")).with_names();
            for row in all.fetch_all::<Row>(&mut conn).await.unwrap() {
                rows += 1;
                for (column, value) in row.into_columns() {
                    let bytes = match value {
                        Stored::Text(it) => it.into_bytes(),
                        Stored::Bytes(it) => it,
                        _ => continue,
                    };
                    let has = |it: &[u8]| bytes.windows(it.len()).any(|part| part == it);
                    for canary in &canaries {
                        assert!(!has(canary.as_bytes()), "{table}.{column} has a secret");
                    }
                    assert!(!has(&bits), "{table}.{column} has the bits of a cookie");
                }
            }
        }
        assert!(rows >= 6, "{rows} rows");

        let login = |password: &str| Login {
            email: ADA.to_owned(),
            password: Password::new(password),
            code: None,
            kind: SessionKind::Token,
        };
        let shown = format!("{:?}", login(PASSWORD));
        assert!(!shown.contains("plover"), "{shown}");
        for kind in [SessionKind::Token, SessionKind::Cookie] {
            let login = Login { kind, ..login(PASSWORD) };
            let done = server.sessions.login(login, server.client, None).await.unwrap();
            let shown = format!("{done:?}");
            match &done.credential {
                Credential::Cookie { cookie, csrf_token } => {
                    assert!(!shown.contains(cookie.as_str()) && !shown.contains(csrf_token.as_str()));
                }
                Credential::Tokens { access_token, refresh_token, .. } => {
                    assert!(!shown.contains(access_token.as_str()));
                    assert!(!shown.contains(refresh_token.as_str()));
                }
            }
        }
        let all = (&server.users, &server.sessions, &server.passwords, Presented::Cookie(&cookie));
        let shown = format!("{all:?}");
        assert!(canaries.iter().all(|it| !shown.contains(it.as_str())), "{shown}");
    }

    async fn a_request_that_is_wrong_is_not_repeated_to_its_sender(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let (shown, _) = server.program(ADA).await;
        let canary = "canary-7f3a91";
        for (path, body) in [
            ("/auth/login", json!({"password": canary})),
            ("/auth/login", json!({"email": [canary], "password": [canary], "code": [canary]})),
            ("/auth/login", json!([canary])),
            ("/auth/refresh", json!({"refresh_token": [canary]})),
            ("/auth/refresh", json!({"other": canary})),
            ("/auth/revoke", json!({"token": {"x": canary}})),
            ("/auth/$step-up", json!({"pass": canary})),
            ("/account/$change-password", json!({"old_password": canary})),
            ("/account/$change-password", json!({"old_password": PASSWORD, "new_password": "canary"})),
        ] {
            let answer = server.post(path, body, &shown).await;
            assert_eq!(answer.status, 422, "{path} {}", answer.body);
            assert!(!answer.body.to_string().contains("canary"), "{path} {}", answer.body);
        }
        // Neither when it is no JSON.
        let request = Request::post("/api/v1/auth/login").body(Body::from(canary)).unwrap();
        let answer = server.send(request, &Shown::Nothing).await;
        assert_eq!(answer.status, 415);
        assert!(!answer.body.to_string().contains("canary"), "{}", answer.body);
    }

    async fn a_user_is_told_of_a_login_from_another_place(database: TestDatabase) {
        let mut server = Server::new(&database);
        server.user(ADA).await;
        server.login(ADA, PASSWORD).await.expect(200);
        server.login(ADA, PASSWORD).await.expect(200);
        assert!(server.told.0.lock().is_empty());
        server.client.address = Some([203, 0, 113, 8].into());
        server.login(ADA, "wrong").await.refused(401, "login_refused");
        assert!(server.told.0.lock().is_empty());
        server.login(ADA, PASSWORD).await.expect(200);
        server.login(ADA, PASSWORD).await.expect(200);
        let (at, address) = (server.clock.now(), "203.0.113.8".to_owned());
        let notice = Notice::NewLogin { at, address, user_agent: String::new() };
        assert_eq!(*server.told.0.lock(), [(ADA.to_owned(), notice)]);
        assert_eq!(*server.told.1.lock(), 1);
    }
}
