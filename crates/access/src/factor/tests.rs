//! Through the routes and the handle, on both databases, with a clock that stands still.

use std::time::Duration;

use ::http::Method;
use axum::Router;
use futures_util::future::join_all;
use modelyard_kernel::{DEPLOYMENT, Grants, Time};
use modelyard_testkit::{TENANT, TestDatabase, on_both_databases};
use serde_json::{Value, json};

use super::model::code_at;
use super::*;
use crate::link::tests::{People, call, may_users};
use crate::mail::tests::{Post, dump, scope, system, warm};

struct Server {
    router: Router,
    factors: Factors,
    post: Post,
    user: Ulid,
    clock: Clock,
}

/// What somebody knows who has set a second factor.
struct Known {
    secret: Vec<u8>,
    base32: String,
    recovery_codes: Vec<String>,
}

const HALF_A_MINUTE: Duration = Duration::from_secs(30);

impl Server {
    async fn new(database: &TestDatabase) -> Self {
        let post = Post::new(database, database.clock.clone()).await;
        let (db, clock) = (database.db.clone(), database.clock.clone());
        let (secret, accounts) = (post.secret.clone(), Arc::<People>::default());
        let factors = Factors::new(db, clock.clone(), secret, accounts, post.mails.clone());
        let (router, _) = factors.part().routes.split_for_parts();
        let user = People::add(database, "ada@example.org", "active").await;
        Self { router, factors, post, user, clock }
    }

    /// The user, logged in since `proved_at`.
    fn logged_in(&self, proved_at: Time) -> Caller {
        let proof = Proof::Session { id: self.user, proved_at, factor_at: None };
        Caller::new("ada", TENANT, DEPLOYMENT, Grants::none()).with_proof(proof, Some(self.user))
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let path = format!("/api/v1/account/factor{path}");
        call(&self.router, self.logged_in(self.clock.now()), method, &path, body).await
    }

    async fn get(&self) -> Value {
        self.call(Method::GET, "", &Value::Null).await.1
    }

    async fn check(&self, code: &str) -> Result<FactorOutcome> {
        self.factors.check(&scope(), self.user, Some(code)).await
    }

    fn code(&self, known: &Known) -> String {
        code_at(&known.secret, DIGITS, self.clock.now())
    }

    async fn begin(&self) -> Known {
        let (status, setup) = self.call(Method::POST, "", &Value::Null).await;
        assert_eq!(status, 200, "{setup}");
        let base32 = setup["secret"].as_str().unwrap().to_owned();
        let secret = totp_rs::Secret::try_from_base32(&base32).unwrap().as_bytes().to_vec();
        assert_eq!(secret.len(), 20);
        Known { secret, base32, recovery_codes: Vec::new() }
    }

    /// Sets a second factor, and waits until its first code is of no use any more.
    async fn set(&self) -> Known {
        let known = self.begin().await;
        let body = json!({"code": self.code(&known)});
        let (status, codes) = self.call(Method::POST, "/$confirm", &body).await;
        assert_eq!(status, 200, "{codes}");
        self.clock.advance(HALF_A_MINUTE * 2);
        let codes = codes["recovery_codes"].as_array().unwrap().iter();
        Known { recovery_codes: codes.map(|it| it.as_str().unwrap().to_owned()).collect(), ..known }
    }
}

fn code_of(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap())
}

on_both_databases! {
    async fn a_factor_is_set_with_an_authenticator(database: TestDatabase) {
        let server = Server::new(&database).await;
        let off = json!({"enabled": false, "pending": false, "confirmed_at": null,
            "recovery_codes_left": 0});
        assert_eq!(server.get().await, off);
        let abandoned = server.begin().await;
        let known = server.begin().await;
        assert_ne!(abandoned.secret, known.secret);
        assert_eq!(server.get().await["pending"], true);
        assert_eq!(server.check("000000").await.unwrap(), FactorOutcome::NotSet);
        let old = json!({"code": server.code(&abandoned)});
        let refused = server.call(Method::POST, "/$confirm", &old).await;
        assert_eq!(code_of(&refused), (400, "code_wrong"));

        let code = json!({"code": server.code(&known)});
        let (status, codes) = server.call(Method::POST, "/$confirm", &code).await;
        assert_eq!((status, codes["recovery_codes"].as_array().unwrap().len()), (200, 10));
        let state = server.get().await;
        assert_eq!((&state["enabled"], &state["recovery_codes_left"]), (&json!(true), &json!(10)));
        let mail = server.post.sink.wait_for(1).await.remove(0);
        assert!(mail.text().contains("is now asked for"), "{}", mail.text());
        // The code that set it is used.
        assert_eq!(server.check(&server.code(&known)).await.unwrap(), FactorOutcome::Wrong);
        for (path, body) in [("", &Value::Null), ("/$confirm", &code)] {
            let refused = server.call(Method::POST, path, body).await;
            assert_eq!(code_of(&refused), (409, "factor_taken"));
        }
        server.post.stop().await;
    }

    async fn of_twenty_that_have_one_code_one_comes_in(database: TestDatabase) {
        let server = Server::new(&database).await;
        let known = server.set().await;
        warm(&database.db).await;
        for _ in 0..3 {
            let code = server.code(&known);
            let outcomes = join_all((0..20).map(|_| server.check(&code))).await;
            let right = |it: &&Result<FactorOutcome>| matches!(it, Ok(FactorOutcome::Right(_)));
            let refused = outcomes.iter().filter_map(|it| it.as_ref().err()).map(Failure::code);
            assert!(refused.into_iter().all(|it| it == "codes_refused"));
            assert_eq!(outcomes.iter().filter(right).count(), 1, "{outcomes:?}");
            // Until wrong ones are forgotten.
            server.clock.advance(Duration::from_secs(3 * 60 * 60));
        }
        server.post.stop().await;
    }

    async fn a_step_is_used_once_however_many_try(database: TestDatabase) {
        let server = Server::new(&database).await;
        server.set().await;
        let step = i64::MAX;
        warm(&database.db).await;
        let uses = join_all((0..20).map(|_| async {
            let mut conn = database.db.conn().await.unwrap();
            store::use_step(&mut conn, &scope(), server.user, step).await.unwrap()
        }));
        assert_eq!(uses.await.into_iter().filter(|it| *it).count(), 1);
        server.post.stop().await;
    }

    async fn codes_are_good_for_a_step_to_either_side_and_never_again(database: TestDatabase) {
        let server = Server::new(&database).await;
        let known = server.set().await;
        let [old, early, now, late] = [-60_i64, -30, 0, 30].map(|it| {
            let time = Time::from_micros(server.clock.now().micros() + it * 1_000_000);
            code_at(&known.secret, DIGITS, time)
        });
        let right = FactorOutcome::Right(server.clock.now());
        assert_eq!(server.check(&old).await.unwrap(), FactorOutcome::Wrong);
        assert_eq!(server.check(&early).await.unwrap(), right);
        assert_eq!(server.check(&format!(" {} {} ", &late[..3], &late[3..])).await.unwrap(), right);
        // Those before the one that was used last are used with it.
        assert_eq!(server.check(&now).await.unwrap(), FactorOutcome::Wrong);
        for code in [None, Some(""), Some(" - ")] {
            let outcome = server.factors.check(&scope(), server.user, code).await.unwrap();
            assert_eq!(outcome, FactorOutcome::Missing);
        }
        server.post.stop().await;
    }

    async fn each_recovery_code_is_good_once(database: TestDatabase) {
        let server = Server::new(&database).await;
        let known = server.set().await;
        let right = FactorOutcome::Right(server.clock.now());
        assert_eq!(server.check(&known.recovery_codes[0].to_lowercase()).await.unwrap(), right);
        assert_eq!(server.check(&known.recovery_codes[0]).await.unwrap(), FactorOutcome::Wrong);
        let second = &known.recovery_codes[1];
        warm(&database.db).await;
        let outcomes = join_all((0..4).map(|_| server.check(second))).await;
        assert_eq!(outcomes.iter().filter(|it| matches!(it, Ok(it) if *it == right)).count(), 1);
        assert_eq!(server.get().await["recovery_codes_left"], 8);

        let (_, renewed) = server.call(Method::POST, "/$recovery-codes", &Value::Null).await;
        assert_eq!(server.get().await["recovery_codes_left"], 10);
        assert_eq!(server.check(&known.recovery_codes[2]).await.unwrap(), FactorOutcome::Wrong);
        let new = renewed["recovery_codes"][0].as_str().unwrap();
        assert_eq!(server.check(new).await.unwrap(), right);
        server.post.stop().await;
    }

    async fn after_five_wrong_codes_right_ones_are_refused_for_a_while(database: TestDatabase) {
        let server = Server::new(&database).await;
        let known = server.set().await;
        for _ in 0..5 {
            assert_eq!(server.check("NOPE").await.unwrap(), FactorOutcome::Wrong);
        }
        let refused = server.check(&server.code(&known)).await.unwrap_err();
        assert_eq!((refused.code(), refused.status().as_u16()), ("codes_refused", 429));
        server.clock.advance(Duration::from_secs(5 * 60));
        let right = FactorOutcome::Right(server.clock.now());
        assert_eq!(server.check(&server.code(&known)).await.unwrap(), right);
        server.post.stop().await;
    }

    async fn wrong_codes_of_a_setup_keep_nobody_from_logging_in(database: TestDatabase) {
        let server = Server::new(&database).await;
        let confirm = async || {
            let answer = server.call(Method::POST, "/$confirm", &json!({"code": "NOPE"})).await;
            let (status, code) = code_of(&answer);
            (status, code.to_owned())
        };
        for _ in 0..10 {
            assert_eq!(confirm().await, (404, "factor_missing".to_owned()));
        }
        server.begin().await;
        for _ in 0..5 {
            assert_eq!(confirm().await, (400, "code_wrong".to_owned()));
        }
        assert_eq!(confirm().await, (429, "codes_refused".to_owned()));
        server.clock.advance(Duration::from_secs(5 * 60));
        let known = server.set().await;
        for _ in 0..10 {
            assert_eq!(confirm().await, (409, "factor_taken".to_owned()));
        }
        server.clock.advance(HALF_A_MINUTE);
        let right = FactorOutcome::Right(server.clock.now());
        assert_eq!(server.check(&server.code(&known)).await.unwrap(), right);
        server.post.stop().await;
    }

    async fn what_is_sensitive_needs_a_fresh_proof(database: TestDatabase) {
        let server = Server::new(&database).await;
        server.set().await;
        let stale = server.logged_in(server.clock.now().before(Duration::from_secs(301)));
        let (path, none) = ("/api/v1/account/factor", Value::Null);
        let by_key = stale.clone().with_proof(Proof::Setting, Some(server.user));
        for caller in [&stale, &by_key] {
            for (method, path) in [
                (Method::POST, path.to_owned()),
                (Method::POST, format!("{path}/$recovery-codes")),
                (Method::DELETE, path.to_owned()),
            ] {
                let refused = call(&server.router, caller.clone(), method, &path, &none).await;
                assert_eq!(code_of(&refused), (403, "step_up_required"), "{path}");
            }
        }
        assert_eq!(server.call(Method::DELETE, "", &none).await, (204, Value::Null));
        assert_eq!(server.get().await["enabled"], false);
        let gone = server.call(Method::DELETE, "", &none).await;
        assert_eq!(code_of(&gone), (404, "factor_missing"));
        let mail = server.post.sink.wait_for(2).await.remove(1);
        assert!(mail.text().contains("was removed"), "{}", mail.text());
        server.post.stop().await;
    }

    async fn an_administrator_takes_the_factor_of_who_has_lost_it(database: TestDatabase) {
        let server = Server::new(&database).await;
        server.set().await;
        let (path, none) = (format!("/api/v1/users/{}/factor", server.user), Value::Null);
        let (id, now) = (server.clock.ulid(), server.clock.now());
        let session = |proved_at| Proof::Session { id, proved_at, factor_at: None };
        let admin = may_users();
        let stale = session(now.before(Duration::from_secs(301)));
        for (caller, code) in [
            (server.logged_in(now), "permission_denied"),
            (admin.clone().with_proof(stale, Some(id)), "step_up_required"),
            (admin.clone().with_proof(Proof::Setting, None), "step_up_required"),
        ] {
            let refused = call(&server.router, caller, Method::DELETE, &path, &none).await;
            assert_eq!(code_of(&refused), (403, code));
        }
        let admin = admin.with_proof(session(now), Some(id));
        assert_eq!(call(&server.router, admin, Method::DELETE, &path, &none).await.0, 204);
        assert_eq!(server.check("000000").await.unwrap(), FactorOutcome::NotSet);
        // Who may do more is not to be changed by who may do less.
        let root = People::add(&database, "root@example.org", "active").await;
        let fresh = may_users().with_proof(session(server.clock.now()), Some(id));
        let path = format!("/api/v1/users/{root}/factor");
        let refused = call(&server.router, fresh, Method::DELETE, &path, &none).await;
        assert_eq!(code_of(&refused), (403, "permission_denied"));
        // The command line is the service itself.
        server.set().await;
        server.factors.reset(&system(), server.user).await.unwrap();
        server.post.stop().await;
    }

    async fn only_users_have_factors(database: TestDatabase) {
        let server = Server::new(&database).await;
        let refused = call(&server.router, system(), Method::GET, "/api/v1/account/factor", &Value::Null);
        assert_eq!(code_of(&refused.await), (403, "permission_denied"));
        server.post.stop().await;
    }

    async fn the_database_has_neither_secret_nor_codes(database: TestDatabase) {
        let server = Server::new(&database).await;
        let known = server.set().await;
        server.check(&server.code(&known)).await.unwrap();
        let dump = dump(&database.db).await;
        assert!(dump.contains("factors.secret=") && dump.contains("recovery_codes.hash="));
        let secret = String::from_utf8_lossy(&known.secret).into_owned();
        let plain = known.recovery_codes.iter().map(|it| model::plain(it).to_string());
        for canary in known.recovery_codes.iter().cloned().chain(plain).chain([known.base32, secret]) {
            assert!(!dump.contains(&canary), "{canary}");
        }
        let body = json!({"codes": "canary-code"});
        let (status, problem) = server.call(Method::POST, "/$confirm", &body).await;
        assert!(status == 422 && !problem.to_string().contains("canary"), "{problem}");
        server.post.stop().await;
    }

    async fn a_secret_is_of_no_use_to_another_user(database: TestDatabase) {
        let server = Server::new(&database).await;
        let known = server.set().await;
        let eve = People::add(&database, "eve@example.org", "active").await;
        let mut conn = database.db.conn().await.unwrap();
        let copy = "INSERT INTO factors (tenant_id, service_id, user_id, secret, confirmed_at, created_at)
             SELECT tenant_id, service_id, $3, secret, confirmed_at, created_at FROM factors
             WHERE tenant_id = $1 AND service_id = $2";
        modelyard_kernel::db::scoped(&scope(), copy).bind(eve).execute(&mut conn).await.unwrap();
        drop(conn);
        let code = server.code(&known);
        assert!(server.factors.check(&scope(), eve, Some(&code)).await.is_err());
        server.post.stop().await;
    }
}
