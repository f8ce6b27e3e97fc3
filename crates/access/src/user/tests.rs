//! Through the routes, on both databases.

use ::http::Method;
use modelyard_testkit::on_both_databases;
use serde_json::{Value, json};

use super::*;
use crate::session::tests::{ADA, PASSWORD, Server, Shown};

const OTHER: &str = "copper violin 38 hedgehog";

/// Whoever manages the users of the tenant.
async fn admin(server: &Server) -> Shown {
    let user = server.user("admin@example.org").await;
    server.give(&user, "tenant-admin").await;
    server.program("admin@example.org").await.0
}

on_both_databases! {
    async fn users_are_managed_by_those_who_may(database: TestDatabase) {
        let server = Server::new(&database);
        let admin = admin(&server).await;
        let new = json!({"email": "Ada@Example.org", "name": " Ada ", "password": PASSWORD});
        let user = server.post("/users", new.clone(), &admin).await.expect(201);
        assert_eq!((&user["email"], &user["name"], &user["status"]), (&json!(ADA), &json!("Ada"), &json!("active")));
        assert_eq!(user.as_object().unwrap().len(), 8);
        server.post("/users", new.clone(), &admin).await.refused(409, "email_taken");
        let path = format!("/users/{}", user["id"].as_str().unwrap());
        assert_eq!(server.get(&path, &admin).await.expect(200), user);
        let list = server.get("/users?sort=email&fields=email", &admin).await.expect(200);
        assert_eq!(list, json!([{"email": ADA}, {"email": "admin@example.org"}]));
        let change = json!({"factor_required": true});
        let changed = server.call(Method::PUT, &path, change, &admin).await.expect(200);
        assert_eq!((&changed["name"], &changed["factor_required"]), (&json!("Ada"), &json!(true)));

        let invited = json!({"email": "new@example.org", "name": "New"});
        let invited = server.post("/users", invited, &admin).await.expect(201);
        assert_eq!(invited["status"], "invited");

        // Who has no role may do none of it.
        let (ada, _) = server.program(ADA).await;
        for (method, path, body) in [
            (Method::GET, "/users".to_owned(), Value::Null),
            (Method::POST, "/users".to_owned(), new),
            (Method::GET, path.clone(), Value::Null),
            (Method::PUT, path.clone(), json!({"name": "x"})),
            (Method::POST, format!("{path}/$disable"), Value::Null),
            (Method::POST, format!("{path}/$enable"), Value::Null),
            (Method::POST, format!("{path}/$end-sessions"), Value::Null),
            (Method::DELETE, path.clone(), Value::Null),
        ] {
            server.call(method, &path, body, &ada).await.refused(403, "permission_denied");
        }
        server.get(&path, &Shown::Nothing).await.refused(401, "unauthenticated");

        server.post(&format!("{path}/$end-sessions"), Value::Null, &admin).await.expect(204);
        server.get("/account", &ada).await.refused(401, "unauthenticated");
        let disabled = server.post(&format!("{path}/$disable"), Value::Null, &admin).await;
        assert_eq!(disabled.expect(200)["status"], "disabled");
        server.login(ADA, PASSWORD).await.refused(401, "login_refused");
        let enabled = server.post(&format!("{path}/$enable"), Value::Null, &admin).await;
        assert_eq!(enabled.expect(200)["status"], "active");
        server.login(ADA, PASSWORD).await.expect(200);
        server.call(Method::DELETE, &path, Value::Null, &admin).await.expect(204);
        server.get(&path, &admin).await.refused(404, "user_missing");
    }

    async fn a_user_that_is_wrong_is_refused(database: TestDatabase) {
        let server = Server::new(&database);
        let admin = admin(&server).await;
        for (body, field) in [
            (json!({"email": "x", "name": "N"}), "email"),
            (json!({"email": ADA, "name": ""}), "name"),
            (json!({"email": ADA, "name": "a\u{0}b"}), "name"),
            (json!({"email": ADA, "name": "N", "password": 1}), "password"),
            (json!({"email": ADA, "name": "N", "password": "short"}), "password"),
            (json!({"email": ADA, "name": "N", "password": "password12345"}), "password"),
            (json!({"email": ADA, "name": "N", "password": ADA}), "password"),
        ] {
            let body = server.post("/users", body, &admin).await.expect(422);
            assert_eq!(body["errors"][0]["loc"], json!(["body", field]), "{body}");
            assert_eq!(body["errors"][0]["input"], Value::Null);
        }
    }

    async fn a_tenant_s_administrator_does_not_touch_the_system_s(database: TestDatabase) {
        let server = Server::new(&database);
        let root = server.user("root@example.org").await;
        server.give(&root, SYSTEM_ADMIN).await;
        let second = server.user("second@example.org").await;
        server.give(&second, SYSTEM_ADMIN).await;
        let admin = admin(&server).await;
        let path = format!("/users/{}", root.id);
        for (method, suffix) in [
            (Method::POST, "/$disable"),
            (Method::POST, "/$end-sessions"),
            (Method::DELETE, ""),
        ] {
            let path = format!("{path}{suffix}");
            server.call(method, &path, Value::Null, &admin).await.refused(403, "role_beyond_yours");
        }
        let (shown, _) = server.program("root@example.org").await;
        server.post(&format!("{path}/$disable"), Value::Null, &shown).await.refused(409, "user_is_you");
        server.call(Method::DELETE, &path, Value::Null, &shown).await.refused(409, "user_is_you");
        let path = format!("/users/{}/$disable", second.id);
        server.post(&path, Value::Null, &shown).await.expect(200);
    }

    async fn nobody_changes_whoever_may_more(database: TestDatabase) {
        let server = Server::new(&database);
        let root = server.user("root@example.org").await;
        let (permissions, system) = (vec!["*".to_owned()], server.system());
        let all = crate::role::NewRole {
            name: "all".to_owned(), description: String::new(), permissions, inherits: Vec::new(),
        };
        let roles = Roles::new(database.db.clone(), database.clock.clone());
        roles.create(&system, all).await.unwrap();
        let helpdesk = crate::role::NewRole {
            name: "helpdesk".to_owned(),
            description: String::new(),
            permissions: vec!["users:write".to_owned()],
            inherits: Vec::new(),
        };
        roles.create(&system, helpdesk).await.unwrap();
        server.give(&root, "all").await;
        let help = server.user("help@example.org").await;
        server.give(&help, "helpdesk").await;
        let (help_shown, _) = server.program("help@example.org").await;
        let admin_shown = admin(&server).await;
        let admin = server.users.list(&system, &ListQuery::all(&http::FIELDS)).await.unwrap();
        let admin = admin.into_items().into_iter().find(|it| it.email.as_str() == "admin@example.org");
        let admin = admin.unwrap();
        for (shown, id) in [(&admin_shown, root.id), (&help_shown, admin.id)] {
            let path = format!("/users/{id}");
            let change = json!({"factor_required": true});
            for (method, suffix, body) in [
                (Method::PUT, "", change),
                (Method::POST, "/$disable", Value::Null),
                (Method::POST, "/$enable", Value::Null),
                (Method::POST, "/$end-sessions", Value::Null),
                (Method::DELETE, "", Value::Null),
            ] {
                let refused = server.call(method, &format!("{path}{suffix}"), body, shown).await;
                refused.refused(403, "role_beyond_yours");
            }
        }
        // Whoever may no more is changed, and so is oneself.
        let path = format!("/users/{}", help.id);
        server.call(Method::PUT, &path, json!({"name": "H"}), &help_shown).await.expect(200);
        server.post(&format!("{path}/$disable"), Value::Null, &admin_shown).await.expect(200);
    }

    async fn a_password_is_not_changed_by_one_that_was_right_a_moment_ago(database: TestDatabase) {
        let server = Server::new(&database);
        let (users, id) = (server.users.clone(), server.user(ADA).await.id);
        let scope = users.scope().clone();
        let (proved, _) = users.prove(&scope, id, &Password::new(PASSWORD)).await.unwrap();
        database.clock.advance(std::time::Duration::from_millis(1));
        let set = async |proved: Option<Credentials>| {
            let (users, scope) = (users.clone(), scope.clone());
            let set = database.db.transaction(move |conn| {
                async move {
                    match &proved {
                        Some(proved) => users.replace_proved(conn, &scope, proved, "new", None).await,
                        None => users.set_password_in(conn, &scope, id.0, "reset").await,
                    }
                }
                .boxed()
            });
            set.await.map_err(|it| it.code().to_owned())
        };
        assert_eq!(set(None).await, Ok(()));
        assert_eq!(set(Some(proved)).await.unwrap_err(), "password_wrong");
        let mut conn = database.db.conn().await.unwrap();
        let now = store::credentials(&mut conn, &scope, id, "").await.unwrap().unwrap();
        assert_eq!(now.password_hash.as_deref(), Some("reset"));
        assert_eq!(set(Some(now)).await, Ok(()));
    }

    async fn two_who_disable_each_other_leave_one(database: TestDatabase) {
        let server = Server::new(&database);
        let mut shown = Vec::new();
        for name in ["one", "two"] {
            let user = server.user(&format!("{name}@example.org")).await;
            server.give(&user, SYSTEM_ADMIN).await;
            shown.push((server.program(user.email.as_str()).await.0, user.id));
        }
        let (one, two) = (&shown[0], &shown[1]);
        let paths = [format!("/users/{}/$disable", two.1), format!("/users/{}/$disable", one.1)];
        let both = tokio::join!(
            server.post(&paths[0], Value::Null, &one.0),
            server.post(&paths[1], Value::Null, &two.0),
        );
        let done = [both.0.status, both.1.status].iter().filter(|it| **it == 200).count();
        assert_eq!(done, 1, "{both:?}");
    }

    async fn a_change_to_what_was_not_seen_is_refused(database: TestDatabase) {
        let server = Server::new(&database);
        let user = server.user(ADA).await;
        let stale = Conditions::of(
            &[(::http::header::IF_MATCH, "\"other\"".parse().unwrap())].into_iter().collect(),
        );
        let system = server.system();
        let refused = server.users.update(&system, user.id, UserPatch::default(), &stale);
        assert_eq!(refused.await.unwrap_err().code(), "precondition_failed");
    }

    async fn everybody_has_an_account(database: TestDatabase) {
        let server = Server::new(&database);
        server.user(ADA).await;
        let (shown, _) = server.program(ADA).await;
        let other = server.browser(ADA).await;
        // Of the browser, which is elsewhere.
        server.told.0.lock().clear();
        let renamed = server.call(Method::PUT, "/account", json!({"name": "Ada King"}), &shown).await;
        assert_eq!(renamed.expect(200)["name"], "Ada King");
        assert_eq!(server.get("/account", &other).await.expect(200)["name"], "Ada King");

        let change = async |old: &str, new: &str| {
            let body = json!({"old_password": old, "new_password": new});
            server.post("/account/$change-password", body, &shown).await
        };
        change("wrong", OTHER).await.refused(403, "password_wrong");
        change(PASSWORD, "password12345").await.refused(422, "validation_failed");
        server.get("/account", &other).await.expect(200);
        assert!(server.told.0.lock().is_empty());
        change(PASSWORD, OTHER).await.expect(204);
        let told = server.told.0.lock().pop().unwrap();
        assert!(matches!(told.1, Notice::PasswordChanged { .. }));
        server.get("/account", &shown).await.expect(200);
        server.get("/account", &other).await.refused(401, "unauthenticated");
        server.login(ADA, PASSWORD).await.refused(401, "login_refused");
        server.login(ADA, OTHER).await.expect(200);
    }

    async fn the_first_administrator_is_made_once(database: TestDatabase) {
        let server = Server::new(&database);
        assert!(!server.users.any().await.unwrap());
        let create = |email, password| {
            server.users.create_first_admin(email, "Root", Password::new(password))
        };
        assert_eq!(create("x", PASSWORD).await.unwrap_err().code(), "email_invalid");
        let weak = create("root@example.org", "password12345").await.unwrap_err();
        assert_eq!(weak.code(), "password_weak");
        let both = tokio::join!(create("root@example.org", PASSWORD), create("b@example.org", PASSWORD));
        let refused: Vec<_> = [both.0, both.1].into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].code(), "users_exist");
        assert!(server.users.any().await.unwrap());
        let listed = server.users.list(&server.system(), &ListQuery::all(&http::FIELDS)).await;
        let Listed::All(all) = listed.unwrap() else { panic!("all") };
        let (shown, _) = server.program(all[0].email.as_str()).await;
        server.get("/users", &shown).await.expect(200);
        server.post("/auth/$rotate-signing-keys", Value::Null, &shown).await.expect(204);
    }

    async fn whoever_was_invited_is_active_with_a_password(database: TestDatabase) {
        let server = Server::new(&database);
        let new = NewUser {
            email: Email::read(ADA).unwrap(),
            name: "Ada".to_owned(),
            password: None,
            factor_required: false,
        };
        let user = server.users.create(&server.system(), new).await.unwrap();
        let hash = server.passwords.hash(&Password::new(PASSWORD)).await.unwrap();
        let set = async || {
            let mut conn = database.db.conn().await.unwrap();
            let (users, scope) = (&server.users, server.users.scope());
            users.set_password_in(&mut conn, scope, user.id.0, &hash).await.unwrap();
            users.find_in(&mut conn, scope, user.id).await.unwrap().unwrap().status
        };
        assert_eq!(set().await, UserStatus::Active);
        server.login(ADA, PASSWORD).await.expect(200);
        // Whoever is disabled stays so.
        server.users.disable(&server.system(), user.id).await.unwrap();
        assert_eq!(set().await, UserStatus::Disabled);
        server.login(ADA, PASSWORD).await.refused(401, "login_refused");
    }

    async fn users_of_another_tenant_are_not_seen(database: TestDatabase) {
        let server = Server::new(&database);
        let user = server.user(ADA).await;
        let elsewhere = Caller::system("test", "elsewhere", DEPLOYMENT);
        assert_eq!(server.users.get(&elsewhere, user.id).await.unwrap_err().code(), "user_missing");
        let disable = server.users.disable(&elsewhere, user.id).await;
        assert_eq!(disable.unwrap_err().code(), "user_missing");
    }
}
