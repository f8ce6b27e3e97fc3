//! Through the routes, with real mails. The users are rows, over which the fake writes what the slice of
//! users would.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use ::http::{Method, Request};
use axum::body::Body;
use axum::{Extension, Router};
use futures_util::future::join_all;
use modelyard_kernel::db::{query, scoped};
use modelyard_kernel::failure::Unrendered;
use modelyard_kernel::{DEPLOYMENT, Grants};
use modelyard_testkit::{TENANT, TestDatabase, on_both_databases};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::*;
use crate::mail::tests::{Post, dump, scope, system, warm};

/// Writes what the slice of users would.
#[derive(Debug, Default)]
pub(crate) struct People {
    /// How many passwords were hashed.
    pub(crate) hashed: AtomicUsize,
}

impl People {
    async fn select(
        conn: &mut Conn,
        scope: &Scope,
        column: &str,
        value: String,
    ) -> Result<Option<Account>> {
        let sql = format!(
            "SELECT id, email || ' ' || name, status FROM users
             WHERE tenant_id = $1 AND service_id = $2 AND {column} = $3"
        );
        let found: Option<(Ulid, String, String)> =
            scoped(scope, sql).bind(value).fetch_optional(conn).await?;
        Ok(found.map(|(id, who, status)| {
            let (email, name) = who.split_once(' ').unwrap();
            let standing = match status.as_str() {
                "invited" => Standing::Invited,
                "active" => Standing::Active,
                _ => Standing::Disabled,
            };
            Account { id, email: email.to_owned(), name: name.to_owned(), standing }
        }))
    }

    /// Makes a user.
    pub(crate) async fn add(database: &TestDatabase, email: &str, status: &str) -> Ulid {
        let id = database.clock.ulid();
        let sql = "INSERT INTO users
                 (tenant_id, service_id, id, email, name, status, revision, created_at, updated_at)
             VALUES ($1, $2, $3, $4, 'Ada', $5, 1, $6, $6)";
        let query = scoped(&scope(), sql).bind(id).bind(email).bind(status);
        let mut conn = database.db.conn().await.unwrap();
        query.bind(database.clock.now()).execute(&mut conn).await.unwrap();
        let sql =
            "INSERT INTO sessions (tenant_id, service_id, id, user_id, kind, address, user_agent,
                 proved_at, last_seen_at, expires_at, created_at)
             VALUES ($1, $2, $4, $3, 'cookie', '', '', $5, $5, $5, $5)";
        let query = scoped(&scope(), sql).bind(id).bind(database.clock.ulid());
        query.bind(database.clock.now()).execute(&mut conn).await.unwrap();
        id
    }
}

#[async_trait]
impl Accounts for People {
    async fn find_by_email(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        email: &str,
    ) -> Result<Option<Account>> {
        Self::select(conn, scope, "email", email.to_owned()).await
    }

    async fn find(&self, conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<Option<Account>> {
        Self::select(conn, scope, "id", user.to_string()).await
    }

    async fn permit_change(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        caller: &Caller,
        user: Ulid,
    ) -> Result<()> {
        let account = self.find(conn, scope, user).await?;
        if account.is_some_and(|it| it.email.starts_with("root@")) {
            caller.permit_in_deployment(Permission("system:administer"))?;
        }
        Ok(())
    }

    async fn hash(&self, _: &Account, password: &str) -> Result<HashedPassword> {
        self.hashed.fetch_add(1, Ordering::SeqCst);
        if password.len() < 12 {
            return Err(Failure::bad_request("password_weak", "it is too short"));
        }
        Ok(HashedPassword(hashed(password)))
    }

    async fn set_password(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        user: Ulid,
        password: HashedPassword,
    ) -> Result<()> {
        let sql = "UPDATE users SET password_hash = $4
             WHERE tenant_id = $1 AND service_id = $2 AND id = $3";
        scoped(scope, sql).bind(user).bind(password.0).execute(conn).await?;
        Ok(())
    }

    async fn activate(&self, conn: &mut Conn, scope: &Scope, user: Ulid, name: &str) -> Result<()> {
        let sql = "UPDATE users SET status = 'active', name = $4
             WHERE tenant_id = $1 AND service_id = $2 AND id = $3";
        scoped(scope, sql).bind(user).bind(name).execute(conn).await?;
        Ok(())
    }

    async fn end_sessions(&self, conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<()> {
        let sql = "UPDATE sessions SET revoked_at = expires_at
             WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3";
        scoped(scope, sql).bind(user).execute(conn).await?;
        Ok(())
    }
}

fn hashed(password: &str) -> String {
    format!("{:02x?}", &Sha256::digest(password.as_bytes())[..])
}

struct Server {
    router: Router,
    links: Links,
    people: Arc<People>,
    post: Post,
    /// Where somebody has asked for a reset.
    places: AtomicU32,
}

/// A caller who may do nothing but what is its own.
fn nobody() -> Caller {
    Caller::new("somebody", TENANT, DEPLOYMENT, Grants::none())
}

/// A caller who may change users.
pub(crate) fn may_users() -> Caller {
    let grants = Grants::Only(["users:*".to_owned()].into());
    Caller::new("admin", TENANT, DEPLOYMENT, grants)
}

/// The answer to a request.
pub(crate) async fn call(
    router: &Router,
    caller: Caller,
    method: Method,
    path: &str,
    body: &Value,
) -> (u16, Value) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    // Nothing that is mailed believes what a request says of itself.
    let request = request.header("host", "evil.example").header("x-forwarded-host", "evil.example");
    let request = request.body(body).unwrap();
    let uri = request.uri().clone();
    let router = router.clone().layer(Extension(caller));
    let mut response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    if let Some(Unrendered(failure)) = response.extensions_mut().remove::<Unrendered>() {
        // The outermost layer, which is not here, would do this.
        return (status, Value::from(failure.problem(&uri, "http://test", "T")));
    }
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

impl Server {
    async fn new(database: &TestDatabase) -> Self {
        let post = Post::new(database, database.clock.clone()).await;
        let people = Arc::<People>::default();
        let (db, clock, accounts) =
            (database.db.clone(), database.clock.clone(), Arc::clone(&people));
        let links =
            Links::new(db, clock, &post.background, &system(), accounts, post.mails.clone());
        let links = links.unwrap();
        let (router, _) = links.part().routes.split_for_parts();
        Self { router, links, people, post, places: AtomicU32::new(1) }
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        call(&self.router, nobody(), Method::POST, &format!("/api/v1/{path}"), &body).await
    }

    /// Asks from a place where nobody has asked before.
    async fn forgot(&self, email: &str) -> (u16, Value) {
        let number = self.places.fetch_add(1, Ordering::SeqCst);
        self.forgot_from(Ipv4Addr::from_bits(0x0a00_0000 + number), email).await
    }

    async fn forgot_from(&self, address: Ipv4Addr, email: &str) -> (u16, Value) {
        let client = Client { address: Some(address.into()), secure: true };
        let router = self.router.clone().layer(Extension(client));
        let (path, body) = ("/api/v1/auth/$forgot-password", json!({"email": email}));
        call(&router, nobody(), Method::POST, path, &body).await
    }

    async fn reset(&self, token: &str, password: &str) -> (u16, Value) {
        self.post("auth/$reset-password", json!({"token": token, "password": password})).await
    }

    async fn accept(&self, token: &str, password: &str) -> (u16, Value) {
        let body = json!({"token": token, "name": "Ada L.", "password": password});
        self.post("auth/$accept-invitation", body).await
    }

    async fn invite(&self, user: Ulid) -> (u16, Value) {
        let path = format!("/api/v1/users/{user}/$invite");
        call(&self.router, system(), Method::POST, &path, &Value::Null).await
    }

    /// Waits until everything that was asked for was looked at.
    async fn settle(&self, database: &TestDatabase) {
        let last = format!("{}@last.example", database.clock.ulid()).to_lowercase();
        People::add(database, &last, "active").await;
        assert_eq!(self.forgot(&last).await.0, 202);
        for _ in 0..1000 {
            if self.post.sink.mails().iter().any(|it| it.to == [last.as_str()]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it was never looked at");
    }

    fn mails_to(&self, email: &str) -> usize {
        self.post.sink.mails().iter().filter(|it| it.to == [email]).count()
    }
}

async fn user(database: &TestDatabase, id: Ulid) -> (String, Option<String>, String) {
    let sql = "SELECT status, password_hash, name FROM users
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3";
    let mut conn = database.db.conn().await.unwrap();
    scoped(&scope(), sql).bind(id).fetch_one(&mut conn).await.unwrap()
}

async fn sessions_of(database: &TestDatabase, id: Ulid) -> i64 {
    let sql = "SELECT COUNT(*) FROM sessions
         WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3 AND revoked_at IS NULL";
    let mut conn = database.db.conn().await.unwrap();
    let (count,) = scoped(&scope(), sql).bind(id).fetch_one(&mut conn).await.unwrap();
    count
}

const ADA: &str = "ada@example.org";
const PASSWORD: &str = "correct horse battery";

on_both_databases! {
    async fn a_forgotten_password_is_set_with_a_mailed_link(database: TestDatabase) {
        let server = Server::new(&database).await;
        let ada = People::add(&database, ADA, "active").await;
        assert_eq!(server.forgot(" Ada@Example.org ").await, (202, Value::Null));
        let mail = server.post.sink.wait_for(1).await.remove(0);
        let token = mail.token();
        assert_eq!((mail.to.as_slice(), token.len()), (&[ADA.to_owned()][..], 43));
        let link = format!("https://models.example.org/yard/reset-password#token={token}");
        assert!(mail.text().contains(&link) && !mail.data.contains("evil.example"));

        let (status, problem) = server.reset(&token, "too short").await;
        assert_eq!((status, &problem["code"]), (400, &json!("password_weak")));
        assert_eq!(server.reset(&token, PASSWORD).await, (204, Value::Null));
        let (_, hash, _) = user(&database, ada).await;
        assert_eq!((hash, sessions_of(&database, ada).await), (Some(hashed(PASSWORD)), 0));
        let notice = server.post.sink.wait_for(2).await.remove(1);
        assert_eq!(notice.header("Subject").unwrap(), "Your password for Modelyard has changed");
        let (status, problem) = server.reset(&token, "another long password").await;
        assert_eq!((status, &problem["code"]), (400, &json!("link_invalid")));
        server.post.stop().await;
    }

    async fn of_five_uses_of_one_link_one_succeeds(database: TestDatabase) {
        let server = Server::new(&database).await;
        let ada = People::add(&database, ADA, "active").await;
        server.forgot(ADA).await;
        let token = server.post.sink.wait_for(1).await[0].token();
        let passwords: Vec<String> = (0..5).map(|it| format!("{PASSWORD} {it}")).collect();
        warm(&database.db).await;
        let answers = join_all(passwords.iter().map(|it| server.reset(&token, it))).await;
        let statuses: Vec<u16> = answers.iter().map(|it| it.0).collect();
        assert_eq!(statuses.iter().filter(|it| **it == 204).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|it| **it == 400).count(), 4, "{statuses:?}");
        let winner = statuses.iter().position(|it| *it == 204).unwrap();
        assert_eq!(user(&database, ada).await.1, Some(hashed(&passwords[winner])));
        server.post.stop().await;
    }

    async fn a_reset_is_good_for_an_hour_and_makes_others_useless(database: TestDatabase) {
        let server = Server::new(&database).await;
        People::add(&database, ADA, "active").await;
        for _ in 0..3 {
            server.forgot(ADA).await;
        }
        let mails = server.post.sink.wait_for(3).await;
        database.clock.advance(Duration::from_secs(60 * 60 - 1));
        assert_eq!(server.reset(&mails[1].token(), PASSWORD).await.0, 204);
        assert_eq!(server.reset(&mails[0].token(), PASSWORD).await.0, 400);
        server.forgot(ADA).await;
        server.settle(&database).await;
        // Three within an hour are all that there are, whatever became of them.
        assert_eq!(server.mails_to(ADA), 4, "three resets and a notice");
        database.clock.advance(Duration::from_secs(1));
        server.forgot(ADA).await;
        server.settle(&database).await;
        let fresh = server.post.sink.mails().into_iter().rfind(|it| it.to == [ADA]).unwrap();
        database.clock.advance(Duration::from_secs(60 * 60));
        assert_eq!(server.reset(&fresh.token(), PASSWORD).await.0, 400);
        server.post.stop().await;
    }

    async fn an_address_is_sent_three_resets_an_hour(database: TestDatabase) {
        let server = Server::new(&database).await;
        People::add(&database, ADA, "active").await;
        for _ in 0..5 {
            assert_eq!(server.forgot(ADA).await.0, 202);
        }
        server.settle(&database).await;
        assert_eq!(server.mails_to(ADA), 3);
        database.clock.advance(Duration::from_secs(60 * 60));
        server.forgot(ADA).await;
        server.settle(&database).await;
        assert_eq!(server.mails_to(ADA), 4);
        server.post.stop().await;
    }

    async fn two_nodes_together_send_as_many(database: TestDatabase) {
        let server = Server::new(&database).await;
        People::add(&database, ADA, "active").await;
        let (other, clock) = (database.reconnect().await, database.clock.clone());
        join_all([&database.db, &other].map(warm)).await;
        let accounts = Arc::clone(&server.people) as Arc<dyn Accounts>;
        let (background, mails) = (&server.post.background, server.post.mails.clone());
        let other = Links::new(other, clock, background, &system(), accounts, mails).unwrap();
        let nodes = [&server.links, &other];
        let reminded = (0..16).map(|it| nodes[it % 2].core.remind(ADA.to_owned()));
        for done in join_all(reminded).await {
            done.unwrap();
        }
        server.settle(&database).await;
        assert_eq!(server.mails_to(ADA), 3);
        server.post.stop().await;
    }

    async fn nobody_learns_who_has_an_account(database: TestDatabase) {
        let server = Server::new(&database).await;
        let known = [(ADA, "active"), ("new@example.org", "invited"), ("old@example.org", "disabled")];
        for (email, status) in known {
            People::add(&database, email, status).await;
        }
        let unknown = ["nobody@example.org", "no address"];
        for email in known.iter().map(|it| it.0).chain(unknown) {
            assert_eq!(server.forgot(email).await, (202, Value::Null), "{email}");
        }
        server.settle(&database).await;
        let to: Vec<_> = server.post.sink.mails().into_iter().flat_map(|it| it.to).collect();
        assert_eq!((to.len(), to[0].as_str()), (2, ADA), "{to:?}");
        let dump = dump(&database.db).await;
        assert!(!dump.contains("nobody@example.org") && dump.contains(ADA));
        assert_eq!(dump.matches("mailed_links.user_id=").count(), 2);
        assert_eq!(dump.matches("jobs.id=").count(), 2, "one of each mail");
    }

    async fn an_address_asks_for_as_many_resets_as_it_may_fail_to_log_in(database: TestDatabase) {
        let server = Server::new(&database).await;
        People::add(&database, ADA, "active").await;
        let (here, elsewhere) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let ask = async |number: usize| {
            let email = if number.is_multiple_of(2) { ADA } else { "nobody@example.org" };
            server.forgot_from(here, email).await
        };
        for number in 0..20 {
            assert_eq!(ask(number).await, (202, Value::Null), "{number}");
        }
        // The same for everybody, longer each time, and not for those who are elsewhere.
        for (number, seconds) in [(20, 1), (21, 2), (22, 4)] {
            for email in [ADA, "nobody@example.org"] {
                let (status, problem) = server.forgot_from(here, email).await;
                assert_eq!((status, &problem["code"]), (429, &json!("resets_exhausted")));
            }
            assert_eq!(server.forgot_from(elsewhere, ADA).await.0, 202);
            database.clock.advance(Duration::from_secs(seconds - 1));
            assert_eq!(ask(number).await.0, 429);
            database.clock.advance(Duration::from_secs(1));
            assert_eq!(ask(number).await.0, 202);
        }
        database.clock.advance(Duration::from_secs(60 * 60));
        assert_eq!(ask(0).await.0, 202);
        assert_eq!(ask(1).await.0, 202, "what was long ago is forgotten");
        server.post.stop().await;
    }

    async fn a_user_is_invited_three_times_an_hour(database: TestDatabase) {
        let server = Server::new(&database).await;
        let ada = People::add(&database, ADA, "invited").await;
        for _ in 0..3 {
            assert_eq!(server.invite(ada).await.0, 202);
        }
        let (status, problem) = server.invite(ada).await;
        assert_eq!((status, &problem["code"]), (429, &json!("invitations_exhausted")));
        // The last one is good all the same.
        let token = server.post.sink.wait_for(3).await[2].token();
        assert_eq!(server.accept(&token, PASSWORD).await.0, 204);
        let bo = People::add(&database, "bo@example.org", "invited").await;
        assert_eq!(server.invite(bo).await.0, 202);
        server.post.stop().await;
    }

    async fn what_is_of_no_use_any_more_is_removed_some_at_a_time(database: TestDatabase) {
        let server = Server::new(&database).await;
        let count = async || {
            let mut conn = database.db.conn().await.unwrap();
            let sql = "SELECT (SELECT COUNT(*) FROM mailed_links),
                     (SELECT COUNT(*) FROM reset_requests)";
            let counted: (i64, i64) = query(sql).fetch_one(&mut conn).await.unwrap();
            counted
        };
        for number in 0..3 {
            let email = format!("{number}@example.org");
            People::add(&database, &email, "active").await;
            server.forgot(&email).await;
        }
        let mails = server.post.sink.wait_for(3).await;
        assert_eq!(server.reset(&mails[0].token(), PASSWORD).await.0, 204);
        assert_eq!((count().await, server.links.sweep(10).await.unwrap()), ((3, 3), 0));
        database.clock.advance(Duration::from_secs(20 * 60));
        assert_eq!((server.links.sweep(2).await.unwrap(), count().await), (2, (3, 1)));
        assert_eq!((server.links.sweep(2).await.unwrap(), count().await), (1, (3, 0)));
        database.clock.advance(Duration::from_secs(40 * 60));
        assert_eq!((server.links.sweep(2).await.unwrap(), count().await), (2, (1, 0)));
        assert_eq!((server.links.sweep(2).await.unwrap(), count().await), (1, (0, 0)));
        server.post.stop().await;
    }

    async fn an_invitation_lets_its_user_in(database: TestDatabase) {
        let server = Server::new(&database).await;
        let ada = People::add(&database, ADA, "invited").await;
        let (status, body) = server.invite(ada).await;
        assert_eq!((status, &body), (202, &json!({"expires_at": "2026-09-08T00:00:00.000000Z"})));
        assert_eq!(server.invite(ada).await.0, 202);
        let mails = server.post.sink.wait_for(2).await;
        assert!(mails[1].text().contains("/yard/accept-invitation#token="));
        let [first, second] = [mails[0].token(), mails[1].token()];
        assert_eq!(server.accept(&first, PASSWORD).await.0, 400, "there is a later one");
        assert_eq!(server.reset(&second, PASSWORD).await.0, 400, "it is no reset");
        database.clock.advance(Duration::from_secs(7 * 24 * 60 * 60 - 1));
        assert_eq!(server.accept(&second, PASSWORD).await, (204, Value::Null));
        let expected = ("active".to_owned(), Some(hashed(PASSWORD)), "Ada L.".to_owned());
        assert_eq!(user(&database, ada).await, expected);
        assert_eq!(server.accept(&second, PASSWORD).await.1["code"], "link_invalid");
        let (status, problem) = server.invite(ada).await;
        assert_eq!((status, &problem["code"]), (409, &json!("user_active")));
        server.post.stop().await;
    }

    async fn an_invitation_is_good_for_a_week(database: TestDatabase) {
        let server = Server::new(&database).await;
        let ada = People::add(&database, ADA, "invited").await;
        server.invite(ada).await;
        let token = server.post.sink.wait_for(1).await[0].token();
        database.clock.advance(Duration::from_secs(7 * 24 * 60 * 60));
        assert_eq!(server.accept(&token, PASSWORD).await.1["code"], "link_invalid");
        assert_eq!(user(&database, ada).await.0, "invited");
        server.post.stop().await;
    }

    async fn a_link_of_somebody_who_was_disabled_is_useless(database: TestDatabase) {
        let server = Server::new(&database).await;
        let ada = People::add(&database, ADA, "active").await;
        server.forgot(ADA).await;
        let token = server.post.sink.wait_for(1).await[0].token();
        let sql = "UPDATE users SET status = 'disabled'
             WHERE tenant_id = $1 AND service_id = $2 AND id = $3";
        let mut conn = database.db.conn().await.unwrap();
        scoped(&scope(), sql).bind(ada).execute(&mut conn).await.unwrap();
        drop(conn);
        assert_eq!(server.reset(&token, PASSWORD).await.1["code"], "link_invalid");
        server.post.stop().await;
    }

    async fn only_who_may_invites(database: TestDatabase) {
        let server = Server::new(&database).await;
        let ada = People::add(&database, ADA, "invited").await;
        let (status, problem) = server.post(&format!("users/{ada}/$invite"), Value::Null).await;
        assert_eq!((status, &problem["code"]), (403, &json!("permission_denied")));
        let root = People::add(&database, "root@example.org", "invited").await;
        let path = format!("/api/v1/users/{root}/$invite");
        let answer = call(&server.router, may_users(), Method::POST, &path, &Value::Null).await;
        assert_eq!((answer.0, &answer.1["code"]), (403, &json!("permission_denied")));
        let path = format!("/api/v1/users/{ada}/$invite");
        let answer = call(&server.router, may_users(), Method::POST, &path, &Value::Null).await;
        assert_eq!(answer.0, 202);
        assert_eq!(server.invite(root).await.0, 202);
        let (status, problem) = server.invite(database.clock.ulid()).await;
        assert_eq!((status, &problem["code"]), (404, &json!("user_missing")));
        server.post.stop().await;
    }

    async fn tokens_are_neither_guessed_nor_stored_nor_repeated(database: TestDatabase) {
        let server = Server::new(&database).await;
        People::add(&database, ADA, "active").await;
        server.forgot(ADA).await;
        let token = server.post.sink.wait_for(1).await[0].token();
        let hashed_before = server.people.hashed.load(Ordering::SeqCst);
        for bad in ["x", &token[1..], &token.to_lowercase(), &format!("{token}A"), "é"] {
            assert_eq!(server.reset(bad, PASSWORD).await.1["code"], "link_invalid", "{bad}");
        }
        assert_eq!(server.people.hashed.load(Ordering::SeqCst), hashed_before);
        for body in [
            json!({"token": token}),
            json!({"token": 7, "password": PASSWORD}),
            json!({"token": token, "password": [PASSWORD]}),
            json!({"token": token.repeat(3), "password": PASSWORD.repeat(100)}),
            json!([token, PASSWORD]),
            json!(token),
        ] {
            for path in ["auth/$reset-password", "auth/$accept-invitation"] {
                let (status, problem) = server.post(path, body.clone()).await;
                assert_eq!((status, &problem["code"]), (422, &json!("validation_failed")));
                let problem = problem.to_string();
                assert!(!problem.contains(&token) && !problem.contains(PASSWORD), "{problem}");
            }
        }
        let text = Request::post("/api/v1/auth/$reset-password").body(Body::from(token.clone()));
        let answer = server.router.clone().oneshot(text.unwrap()).await.unwrap();
        let Unrendered(failure) = answer.extensions().get().unwrap();
        assert_eq!((failure.status().as_u16(), failure.code()), (415, "media_type_unsupported"));
        assert_eq!(server.reset(&token, PASSWORD).await.0, 204);
        let dump = dump(&database.db).await;
        assert!(!dump.contains(&token) && !dump.contains(PASSWORD));
        server.post.stop().await;
    }

    async fn too_many_requests_are_refused_whoever_asks(database: TestDatabase) {
        let server = Server::new(&database).await;
        let mut statuses = Vec::new();
        for index in 0..MOST_ASKS + 50 {
            statuses.push(server.forgot(&format!("{index}@example.org")).await.0);
        }
        assert_eq!((statuses[0], statuses.last()), (202, Some(&503)));
        server.post.stop().await;
    }
}
