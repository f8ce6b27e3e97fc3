//! Second factors, keys and the rules of a service, through the whole server.

use modelyard::{Service, ServiceInfo};
use modelyard_kernel::Clock;
use modelyard_testkit::{TestResponse, on_both_databases};
use ring::hmac;
use serde_json::{Value, json};

use crate::support::house::{House, PASSWORD, Shown, bearer, key};
use crate::support::{text, until};

const FACTOR: &str = "/api/v1/account/factor";
const CONFIGS: &str = "/api/v1/configs";

/// What an authenticator shows so many steps from now, as RFC 6238 has it.
fn code(secret: &str, steps: u64) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut bytes, mut rest, mut bits) = (Vec::new(), 0_u32, 0);
    for letter in secret.bytes() {
        let value = ALPHABET.iter().position(|it| *it == letter).unwrap();
        rest = (rest << 5 | u32::try_from(value).unwrap()) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((rest >> bits) & 0xff).unwrap());
        }
    }
    let now = u64::try_from(Clock::system().now().micros()).unwrap() / 1_000_000;
    let step = now / 30 + steps;
    let secret = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &bytes);
    let tag = hmac::sign(&secret, &step.to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 0xf);
    let four: [u8; 4] = tag.as_ref()[at..at + 4].try_into().unwrap();
    format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
}

async fn login(house: &House, email: &str, code: Option<&str>) -> TestResponse {
    let body = json!({"email": email, "password": PASSWORD, "code": code});
    house.ask("POST", "/api/v1/auth/login", &Vec::new(), body).await
}

/// Sets a second factor: its secret, and the recovery codes. The code of now is used.
async fn set_factor(house: &House, shown: &Shown) -> (String, Vec<String>) {
    let setup = house.ask("POST", FACTOR, shown, Value::Null).await.expect(200).body;
    assert!(text(&setup["uri"]).starts_with("otpauth://totp/"), "{setup}");
    assert!(text(&setup["qr"]).contains("<svg"), "{setup}");
    let secret = text(&setup["secret"]);
    let path = format!("{FACTOR}/$confirm");
    house.ask("POST", &path, shown, json!({"code": "000"})).await.expect(400);
    let confirmed = json!({"code": code(&secret, 0)});
    let confirmed = house.ask("POST", &path, shown, confirmed).await.expect(200).body;
    let codes = confirmed["recovery_codes"].as_array().unwrap().iter().map(text).collect();
    (secret, codes)
}

/// The code of a refusal.
fn refused(answer: &TestResponse, status: u16) -> &str {
    assert_eq!(answer.status, status, "{}", answer.body);
    answer.body["code"].as_str().unwrap()
}

on_both_databases! {
    async fn who_has_a_second_factor_shows_it_at_each_login(database: TestDatabase) {
        let house = House::open(database, |_| {}).await;
        let email = "ada@example.org";
        house.user(email, json!([{"role": "viewer"}])).await;
        let shown = house.login(email, false).await;
        let (secret, recovery) = set_factor(&house, &shown).await;
        assert_eq!(recovery.len(), 10);
        assert_eq!(refused(&login(&house, email, None).await, 401), "factor_required");
        // It was right once, when it was set.
        let used = code(&secret, 0);
        assert_eq!(refused(&login(&house, email, Some(&used)).await, 401), "factor_wrong");
        let next = code(&secret, 1);
        let token = login(&house, email, Some(&next)).await.expect(200);
        let shown = bearer(&text(&token.body["access_token"]));
        house.ask("GET", CONFIGS, &shown, Value::Null).await.expect(200);
        assert_eq!(refused(&login(&house, email, Some(&next)).await, 401), "factor_wrong");

        login(&house, email, Some(&recovery[3])).await.expect(200);
        assert_eq!(refused(&login(&house, email, Some(&recovery[3])).await, 401), "factor_wrong");
        login(&house, email, Some(&recovery[4])).await.expect(200);
        let state = house.ask("GET", FACTOR, &shown, Value::Null).await.expect(200).body;
        assert_eq!(state["recovery_codes_left"], 8, "{state}");
        house.stop().await;
    }

    async fn who_needs_a_second_factor_does_nothing_before_it_is_set(database: TestDatabase) {
        let house = House::open(database, |_| {}).await;
        let email = "ada@example.org";
        let id = house.user(email, json!([{"role": "viewer"}])).await;
        let path = format!("/api/v1/users/{id}");
        let change = json!({"name": "Ada", "factor_required": true});
        house.admin("PUT", &path, change).await.expect(200);
        let first = login(&house, email, None).await.expect(200).body;
        assert_eq!(first["limited"], true);
        let shown = bearer(&text(&first["access_token"]));
        let denied = house.ask("GET", CONFIGS, &shown, Value::Null).await;
        assert_eq!(refused(&denied, 403), "permission_denied");
        house.ask("GET", "/api/v1/account", &shown, Value::Null).await.expect(200);
        let (secret, _) = set_factor(&house, &shown).await;
        let second = login(&house, email, Some(&code(&secret, 1))).await.expect(200).body;
        assert_eq!(second["limited"], false);
        let shown = bearer(&text(&second["access_token"]));
        house.ask("GET", CONFIGS, &shown, Value::Null).await.expect(200);
        house.stop().await;
    }

    async fn a_key_is_used_as_often_as_it_may_be(database: TestDatabase) {
        let house = House::open(database, |_| {}).await;
        let viewer = json!([{"role": "viewer"}]);
        let bounded = json!({"name": "b", "roles": viewer, "per_minute": 3});
        let bounded = key(&house.key(bounded).await.1);
        let other = key(&house.key(json!({"name": "o", "roles": viewer})).await.1);
        let mut answered = 0;
        let last = loop {
            let answer = house.ask("GET", CONFIGS, &bounded, Value::Null).await;
            if answer.status != 200 {
                break answer;
            }
            answered += 1;
            assert!(answered <= 3, "it is asked more often than it may be");
        };
        assert!(answered >= 1);
        assert_eq!(last.status, 429, "{}", last.body);
        let wait: u64 = last.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        house.ask("GET", CONFIGS, &other, Value::Null).await.expect(200);
        house.stop().await;
    }

    async fn a_key_that_is_replaced_goes_on_for_a_while(database: TestDatabase) {
        let house = House::open(database, |_| {}).await;
        let body = json!({"name": "k", "roles": [{"role": "viewer"}]});
        let (id, old) = house.key(body).await;
        let old = key(&old);
        let path = format!("/api/v1/keys/{id}/$rotate");
        let new = house.admin("POST", &path, json!({"overlap_seconds": 2})).await;
        assert!(new.status.is_success(), "{}", new.body);
        let (new_id, new) = (text(&new.body["id"]), key(&text(&new.body["key"])));
        assert!(new_id != id && new != old);
        for shown in [&old, &new] {
            house.ask("GET", CONFIGS, shown, Value::Null).await.expect(200);
        }
        house.until_known(&old, false).await;
        house.ask("GET", CONFIGS, &new, Value::Null).await.expect(200);

        let path = format!("/api/v1/keys/{new_id}/$rotate");
        let third = house.admin("POST", &path, json!({"overlap_seconds": 0})).await;
        assert!(third.status.is_success(), "{}", third.body);
        let third_id = text(&third.body["id"]);
        let third = key(&text(&third.body["key"]));
        house.until_known(&new, false).await;
        house.ask("GET", CONFIGS, &third, Value::Null).await.expect(200);
        house.admin("DELETE", &format!("/api/v1/keys/{third_id}"), Value::Null).await.expect(204);
        house.until_known(&third, false).await;
        house.stop().await;
    }

    async fn a_service_says_who_may_do_what_in_it(database: TestDatabase) {
        let train = async |_: (), it: modelyard::TrainData| -> Result<usize, modelyard::ModelError> {
            Ok(it.data.rows())
        };
        let predict = async |_: (), _: usize, it: modelyard::PredictData| {
            Ok::<_, modelyard::ModelError>(it.future)
        };
        let strict = Service::builder(ServiceInfo::new("first", "First"))
            .runner(modelyard::functions(train, predict))
            .with_permissions([("ml:train", vec!["admin"]), ("ml:predict", vec!["user", "admin"])])
            .build()
            .unwrap();
        let services = vec![strict, crate::support::service("second")];
        let house = House::of(services, database, |_| {}).await;
        let mut shown = Vec::new();
        for role in ["viewer", "user", "tenant-admin"] {
            let body = json!({"name": role, "roles": [{"role": role}]});
            shown.push(key(&house.key(body).await.1));
        }
        // Whoever may hears what is wrong with the body.
        for (path, expected) in [
            ("/services/first/api/v1/ml/$train", [false, false, true]),
            ("/services/first/api/v1/ml/$predict", [false, true, true]),
            ("/services/second/api/v1/ml/$train", [false, true, true]),
        ] {
            for (shown, may) in shown.iter().zip(expected) {
                let answer = house.ask_front("POST", path, shown, json!({})).await;
                assert_eq!(answer.status != 403, may, "{path}: {}", answer.body);
                assert!(answer.status.is_client_error(), "{path}: {}", answer.body);
            }
        }
        until("it is still so when it is remembered", async || {
            let path = "/services/first/api/v1/ml/$train";
            house.ask_front("POST", path, &shown[1], json!({})).await.status == 403
        })
        .await;
        house.stop().await;
    }
}
