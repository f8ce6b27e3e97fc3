//! Every route, asked by everybody: who may come in comes in, and nobody else.

use std::time::Duration;

use http::Method;
use modelyard::permissions::{self, Need};
use modelyard_access::session::SessionKind;
use modelyard_kernel::Clock;
use modelyard_testkit::{TestDatabase, on_both_databases};
use serde_json::{Value, json};

use super::{ENDLESS, LADDER, granted};
use crate::support::house::{House, Shown, bearer, key};

/// An id that nothing has.
const NOBODY: &str = "01JCSEED000000000000000000";

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Somebody who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Nobody who is known, or is any more.
    Stranger,
    /// Somebody with a role everywhere, or none.
    Role(&'static str),
    /// An operator of another service.
    Elsewhere,
    /// An operator by a key that is limited to predictions.
    Limited,
}

/// What somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Key,
    User,
}

/// What an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// 401.
    Unknown,
    /// 403 with `permission_denied`.
    Denied,
    /// 403 with `step_up_required`: a key cannot show anew who it is.
    StepUp,
    /// Neither, and no defect.
    LetIn,
}

/// Routes that want a fresh proof before they look at anything else.
const DELICATE: [(&str, &str); 1] = [("DELETE", "/api/v1/users/{id}/factor")];

fn expected(route: (&str, &str), who: Who, by: By) -> Expected {
    let need = permissions::need(&route.0.parse().unwrap(), route.1).unwrap();
    let may = match (need, who) {
        (Need::Open, _) => true,
        (_, Who::Stranger) => return Expected::Unknown,
        // What is one's own is a user's.
        (Need::Known, _) => by == By::User,
        (Need::Service(it) | Need::Deployment(it), Who::Role(role)) => granted(role).contains(it.0),
        (_, Who::Elsewhere) => false,
        (Need::Service(it) | Need::Deployment(it), Who::Limited) => it.0 == "ml:predict",
    };
    match may {
        true if by == By::Key && DELICATE.contains(&route) => Expected::StepUp,
        true => Expected::LetIn,
        false => Expected::Denied,
    }
}

/// Routes after which what was shown is of no use.
const ENDING: [&str; 2] = ["/api/v1/auth/logout", "/api/v1/auth/logout-all"];

/// Asks a route with what is shown, in a way that would do nothing.
async fn probe(house: &House, method: &str, path: &str, shown: &Shown) -> (u16, Value) {
    let path: Vec<&str> =
        path.split('/').map(|it| if it.starts_with('{') { NOBODY } else { it }).collect();
    let path = path.join("/");
    if path == ENDLESS {
        let path = format!("/services/first{path}");
        let mut request = house.client.request(Method::GET, &path);
        for (name, value) in shown {
            request = request.header(name, value);
        }
        let stream = request.open().await;
        let code = if stream.status == 403 { "permission_denied" } else { "" };
        return (stream.status.as_u16(), json!({"code": code}));
    }
    let answer = house.ask(method, &path, shown, json!({})).await;
    (answer.status.as_u16(), answer.body)
}

fn assert_is(route: &str, who: &str, expected: Expected, (status, body): &(u16, Value)) {
    let is_so = match expected {
        Expected::Unknown => *status == 401,
        Expected::Denied => *status == 403 && body["code"] == "permission_denied",
        Expected::StepUp => *status == 403 && body["code"] == "step_up_required",
        Expected::LetIn => !matches!(status, 401 | 403 | 500..),
    };
    assert!(is_so, "{who} at {route}: expected {expected:?}, got {status} {body}");
}

/// Everybody, with what they show.
async fn everybody(house: &House) -> Vec<(Who, By, String, Shown)> {
    let mut all = Vec::new();
    for (name, shown) in strangers(house).await {
        all.push((Who::Stranger, By::User, name.to_owned(), shown));
    }
    for (role, _) in LADDER {
        let roles = json!([{"role": role}]);
        let (_, text) = house.key(json!({"name": role, "roles": roles})).await;
        all.push((Who::Role(role), By::Key, format!("{role} by key"), key(&text)));
        all.push((Who::Role(role), By::Key, format!("{role} by key as bearer"), bearer(&text)));
        let email = format!("{role}@example.org");
        house.user(&email, roles).await;
        let tokens = house.login(&email, false).await;
        all.push((Who::Role(role), By::User, format!("{role} by token"), tokens));
        let cookie = house.login(&email, true).await;
        all.push((Who::Role(role), By::User, format!("{role} by cookie"), cookie));
    }
    house.user("none@example.org", json!([])).await;
    let none = house.login("none@example.org", false).await;
    all.push((Who::Role("none"), By::User, "nobody in particular".to_owned(), none));
    let roles = json!([{"role": "operator", "applies_to": "second"}]);
    let (_, text) = house.key(json!({"name": "x", "roles": roles})).await;
    all.push((Who::Elsewhere, By::Key, "a key of the other service".to_owned(), key(&text)));
    house.user("other@example.org", roles).await;
    let other = house.login("other@example.org", true).await;
    all.push((Who::Elsewhere, By::User, "a user of the other service".to_owned(), other));
    let limited = json!({"name": "y", "roles": [{"role": "operator"}], "scopes": ["ml:predict"]});
    let (_, text) = house.key(limited).await;
    all.push((Who::Limited, By::Key, "a limited key".to_owned(), key(&text)));
    all
}

/// What of no use is shown, all of it once of a system administrator where it is over.
async fn strangers(house: &House) -> Vec<(&'static str, Shown)> {
    let admin = json!({"name": "a", "roles": [{"role": "system-admin"}]});
    let (id, revoked) = house.key(admin.clone()).await;
    house.until_known(&key(&revoked), true).await;
    house.admin("DELETE", &format!("/api/v1/keys/{id}"), Value::Null).await.expect(204);
    let mut short = admin;
    let end = Clock::system().now().after(Duration::from_millis(700));
    short["expires_at"] = json!(end.to_string());
    let (_, expired) = house.key(short).await;
    house.until_known(&key(&expired), true).await;
    house.until_known(&key(&expired), false).await;
    house.until_known(&key(&revoked), false).await;

    let (tokens, cookie) =
        (house.login("root@example.org", false).await, house.login("root@example.org", true).await);
    for it in [&tokens, &cookie] {
        house.until_known(it, true).await;
        house.ask("POST", "/api/v1/auth/logout", it, Value::Null).await.expect(204);
        house.until_known(it, false).await;
    }
    // The same an hour ago are good, as far as their time goes.
    let recent = house.login_before(HOUR, SessionKind::Cookie).await;
    house.until_known(&recent, true).await;
    let wrong = |name: &'static str, value: &str| vec![(name, value.to_owned())];
    vec![
        ("nothing", Vec::new()),
        ("a wrong key", wrong("x-api-key", "wrong")),
        ("a key that nobody has", key(&format!("mk_{}", "a".repeat(60)))),
        ("what is no token", bearer("wrong")),
        ("a wrong token", bearer("a.b.c")),
        ("another scheme", wrong("authorization", "Basic d3Jvbmc6d3Jvbmc=")),
        ("a wrong cookie", wrong("cookie", "modelyard=wrong")),
        ("a revoked key", key(&revoked)),
        ("a revoked key as bearer", bearer(&revoked)),
        ("an expired key", key(&expired)),
        ("an expired key as bearer", bearer(&expired)),
        ("a token whose session has ended", tokens),
        ("a cookie whose session has ended", cookie),
        ("an expired token", house.login_before(HOUR, SessionKind::Token).await),
        ("a cookie that nobody used", house.login_before(HOUR * 9, SessionKind::Cookie).await),
    ]
}

on_both_databases! {
    async fn everybody_may_come_exactly_where_they_may(database: TestDatabase) {
        let house = House::open(database, |_| {}).await;
        let everybody = everybody(&house).await;
        let mut seen = 0;
        for (method, path) in permissions::all() {
            let route = format!("{method} {path}");
            for (who, by, name, shown) in &everybody {
                let expected = expected((method, path), *who, *by);
                if ENDING.contains(&path) && expected == Expected::LetIn {
                    continue;
                }
                assert_is(&route, name, expected, &probe(&house, method, path, shown).await);
                seen += 1;
            }
        }
        for (who, by, name, shown) in &everybody {
            if *by == By::User && *who != Who::Stranger {
                for path in ENDING {
                    let again = house.ask("POST", path, shown, Value::Null).await;
                    // The first ends it, or one that was shown before has ended all.
                    assert!(matches!(again.status.as_u16(), 204 | 401), "{name} {path}: {}", again.body);
                    seen += 1;
                }
                house.until_known(shown, false).await;
            }
        }
        assert!(seen > 5000, "{seen} probes");
        house.stop().await;
    }

    async fn the_deployment_is_administered_from_its_networks_only(database: TestDatabase) {
        let house = House::open(database, |it| {
            it.server.admin_networks = vec!["192.0.2.0/24".parse().unwrap()];
            it.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        }).await;
        let body = json!({"name": "a", "roles": [{"role": "system-admin"}]});
        let (_, text) = house.key(body).await;
        let from = |address: &str| {
            let mut shown = key(&text);
            shown.push(("x-forwarded-for", address.to_owned()));
            shown
        };
        let (inside, outside) = (from("192.0.2.7"), from("198.51.100.7"));
        let mut hidden = 0;
        for (method, path) in permissions::all() {
            let need = permissions::need(&method.parse().unwrap(), path).unwrap();
            let route = format!("{method} {path}");
            let expected = expected((method, path), Who::Role("system-admin"), By::Key);
            assert_is(&route, "inside", expected, &probe(&house, method, path, &inside).await);
            let (status, body) = probe(&house, method, path, &outside).await;
            if matches!(need, Need::Deployment(_)) {
                let missing = house.ask(method, "/api/v1/nothing", &outside, json!({})).await;
                assert_eq!((status, &body["code"]), (missing.status.as_u16(), &missing.body["code"]),
                    "{route}: {body}");
                hidden += 1;
            } else {
                assert_is(&route, "outside", expected, &(status, body));
            }
        }
        assert!(hidden > 20, "{hidden}");
        house.stop().await;
    }
}

#[test]
fn pages_and_the_front_say_whom_they_want_too() {
    modelyard_testkit::run(async {
        let house = House::open(TestDatabase::sqlite().await, |_| {}).await;
        let nothing = Vec::new();
        let viewer = house.key(json!({"name": "v", "roles": [{"role": "viewer"}]})).await.1;
        let operator = house.key(json!({"name": "o", "roles": [{"role": "operator"}]})).await.1;
        for (path, shown, status) in [
            ("/", &nothing, 200),
            ("/health", &nothing, 200),
            ("/reset-password", &nothing, 200),
            ("/services/first", &nothing, 200),
            ("/services/first/docs", &nothing, 200),
            ("/services/first/docs/nothing.js", &nothing, 404),
            ("/services/first/docs/nothing/more", &nothing, 401),
            ("/services", &nothing, 401),
            ("/metrics", &nothing, 401),
            ("/metrics", &key(&viewer), 403),
            ("/metrics", &key(&operator), 200),
        ] {
            let answer = house.ask_front("GET", path, shown, Value::Null).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
        }
        house.stop().await;
    });
}
