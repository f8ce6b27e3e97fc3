//! How often somebody may ask, seen by who asks.

use std::time::Duration;

use modelyard::settings::{Options, Settings};
use modelyard::{RateLimiting, Server, Service, ServiceInfo};
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, run};
use serde_json::json;

use crate::support::redis::Redis;
use crate::support::{assert_problem, service, settings, start, until};

/// A service that holds configs.
fn plain(id: &str, limits: RateLimiting) -> Service {
    Service::builder(ServiceInfo::new(id, "Limited")).with_rate_limiting(limits).build().unwrap()
}

fn field<'a>(answer: &'a TestResponse, name: &str) -> &'a str {
    answer.header(name).unwrap_or_else(|| panic!("no {name} in {answer:?}"))
}

/// The value of a metric.
async fn counted(client: &TestClient, name: &str) -> u64 {
    let text = client.get("/metrics").await.expect(200).text();
    let line = text.lines().find(|it| it.starts_with(&format!("{name}{{")));
    line.map_or(0, |it| it.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn who_asks_too_often_is_told_when_to_come_again() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let limits = RateLimiting::new(["3/hour", "quota 1000/month"])
            .endpoint("/api/v1/configs/{id}", ["1/day burst 2"])
            .endpoint("/api/v1/info", Vec::<String>::new());
        let (server, client) = start(plain("limited", limits), settings(&database)).await;
        for left in [2, 1, 0] {
            let answer = client.get("/api/v1/configs").await.expect(200);
            let policy = "\"default\";q=3;w=3600, \"default-2\";q=1000;w=2678400";
            assert_eq!(field(&answer, "ratelimit-policy"), policy);
            assert!(field(&answer, "ratelimit").starts_with(&format!("\"default\";r={left};t=")));
            assert_eq!(field(&answer, "x-ratelimit-limit"), "3");
            assert_eq!(field(&answer, "x-ratelimit-remaining"), left.to_string());
            assert_eq!(answer.header("retry-after"), None);
        }
        let refused = client.get("/api/v1/configs").await.expect(429);
        assert_problem(&refused, &"a limit");
        assert_eq!(refused.body["code"], "rate_limited");
        let wait: u64 = field(&refused, "retry-after").parse().unwrap();
        assert!((1195..=1200).contains(&wait), "{wait}");
        let detail = format!("more than 3 an hour are not answered, try again in {wait} seconds");
        assert_eq!(refused.body["detail"], detail);
        assert!(field(&refused, "ratelimit").starts_with("\"default\";r=0;t=3"));
        let reset: u64 = field(&refused, "x-ratelimit-reset").parse().unwrap();
        assert!((3590..=3600).contains(&reset), "{reset}");
        // What is not there counts as well, and an endpoint has limits of its own, whatever the id.
        client.get("/api/v1/nothing").await.expect(429);
        for id in ["01K6ZSNMWZ5D2YVTV9H3Y4P7QX", "01K6ZSNMX01N3C9F8Q2R6B7V5D"] {
            client.get(&format!("/api/v1/configs/{id}")).await.expect(404);
        }
        let refused = client.get("/services/limited/api/v1/configs/x").await.expect(429);
        assert_eq!(field(&refused, "ratelimit-policy"), "\"endpoint\";q=1;w=86400");
        // A limit that is none, and what is never limited.
        for path in ["/api/v1/info", "/health", "/metrics"] {
            for _ in 0..6 {
                let answer = client.get(path).await.expect(200);
                assert_eq!(answer.header("ratelimit"), None, "{path}");
            }
        }
        assert_eq!(counted(&client, "rate_limit_refusals_total").await, 3);
        server.stop().await;
    });
}

#[test]
fn each_key_is_counted_by_itself_and_who_has_none_is_not_counted() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let service = Service::builder(ServiceInfo::new("limited", "Limited"))
            .with_auth(["one".to_owned(), "two".to_owned()])
            .with_rate_limiting(RateLimiting::new(["2/day"]))
            .build()
            .unwrap();
        let (server, client) = start(service, settings(&database)).await;
        let (one, two) = (
            client.clone().with_header("x-api-key", "one"),
            client.clone().with_header("x-api-key", "two"),
        );
        for key in [&one, &two] {
            for _ in 0..2 {
                key.get("/api/v1/configs").await.expect(200);
            }
            key.get("/api/v1/configs").await.expect(429);
        }
        for _ in 0..4 {
            client.get("/api/v1/configs").await.expect(401);
        }
        server.stop().await;
    });
}

#[test]
fn settings_are_better_than_what_a_service_says() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.rate_limits.limits = RateLimiting::new(["1/day"]);
        let own = RateLimiting::new(["5/day"]).endpoint("/api/v1/system", ["2/day"]);
        let services = vec![plain("one", own), plain("two", RateLimiting::default())];
        let server = Server::start(services, settings).await.unwrap();
        let client = TestClient::new(format!("http://{}", server.address()));
        for service in ["one", "two"] {
            let configs = format!("/services/{service}/api/v1/configs");
            client.get(&configs).await.expect(200);
            client.get(&configs).await.expect(429);
        }
        for _ in 0..2 {
            client.get("/services/one/api/v1/system").await.expect(200);
        }
        client.get("/services/one/api/v1/system").await.expect(429);
        client.get("/services/one/health").await.expect(200);
        client.get("/").await.expect(200);
        client.get("/").await.expect(429);
        server.stop().await;
    });
}

#[test]
fn limits_that_cannot_be_are_refused_before_anything_starts() {
    let build = |limits| {
        let info = ServiceInfo::new("limited", "Limited");
        Service::builder(info).with_rate_limiting(limits).build().unwrap_err().to_string()
    };
    assert_eq!(
        build(RateLimiting::new(["1/day"]).endpoint("/api/v1/ml/$trian", ["1/day"])),
        "there is no endpoint `/api/v1/ml/$trian` to limit, did you mean `/api/v1/ml/$train`?"
    );
    assert!(build(RateLimiting::new(["many"])).starts_with("`many` of `default` is no limit"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("modelyard.toml");
    let text = "[rate_limits]\ndefault = [\"100/fortnight\"]\nper = \"planet\"\n\n\
                [rate_limits.endpoints]\n\"/api/v1/ml/$trian\" = [\"1/day\"]\n\
                \"/health\" = [\"1/day\"]\n\"/api/v1/jobs\" = \"1/day\"\n";
    fs_err::write(&file, text).unwrap();
    let options = Options { file: Some(file), ..Options::default() };
    let error = Settings::load(&options).unwrap_err().to_string();
    let problems: Vec<&str> = error.lines().map(|it| it.split_once("toml:").unwrap().1).collect();
    assert_eq!(
        problems,
        [
            "2: `rate_limits.default` is a list of limits such as [\"100/minute\"]; of \
             `100/fortnight`: its period is not `second`, `minute`, `hour`, `day` or `month`; a \
             limit is written as `100/minute`, `100/minute burst 20` or `quota 5000/month`",
            "3: `rate_limits.per` is `caller`, `user`, `key`, `tenant` or `address`",
            "6: `rate_limits.endpoints./api/v1/ml/$trian` is no endpoint, did you mean \
             `/api/v1/ml/$train`?",
            "7: `rate_limits.endpoints./health` is no limit: `/health` is never limited: those who \
             watch over a service must reach it",
            "8: `rate_limits.endpoints./api/v1/jobs` is a list of limits such as [\"100/minute\"]",
        ]
    );
}

/// A server whose limits are in a Redis.
async fn shared(redis: &Redis, on_failure: &str, database: &TestDatabase) -> (Server, TestClient) {
    let program =
        [("rate_limits.redis_url", redis.url()), ("rate_limits.on_failure", on_failure.to_owned())];
    let options = Options {
        program: program.map(|(key, value)| (key.to_owned(), value)).to_vec(),
        port: Some(0),
        data_dir: Some(database.dir().join("data")),
        database: Some(database.url.clone()),
        ..Options::default()
    };
    let mut settings = Settings::with_options(&options).unwrap();
    settings.server.drain = Duration::from_millis(100);
    start(plain("limited", RateLimiting::new(["5/day"])), settings).await
}

#[test]
fn two_servers_count_together_in_redis() {
    run(async {
        let redis = Redis::start().await;
        let databases = [TestDatabase::sqlite().await, TestDatabase::sqlite().await];
        let (one, first) = shared(&redis, "closed", &databases[0]).await;
        let (two, second) = shared(&redis, "closed", &databases[1]).await;
        for left in [4, 3, 2, 1, 0] {
            let client = if left % 2 == 0 { &first } else { &second };
            let answer = client.get("/api/v1/configs").await.expect(200);
            assert_eq!(field(&answer, "x-ratelimit-remaining"), left.to_string());
        }
        first.get("/api/v1/configs").await.expect(429);
        second.get("/api/v1/configs").await.expect(429);
        one.stop().await;
        two.stop().await;
    });
}

/// Kills Redis while somebody asks, and gives every status that was answered from then on, until it is
/// back and has counted again.
async fn statuses_around_a_crash(on_failure: &str) -> Vec<u16> {
    let mut redis = Redis::start().await;
    let database = TestDatabase::sqlite().await;
    let (server, client) = shared(&redis, on_failure, &database).await;
    for _ in 0..5 {
        client.get("/api/v1/configs").await.expect(200);
    }
    client.get("/api/v1/configs").await.expect(429);
    let asking = client.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let asks = async move {
        let mut statuses = Vec::new();
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            let answer = asking.get("/api/v1/configs").await;
            let status = answer.status.as_u16();
            if status == 503 {
                assert_eq!(answer.body["code"], "rate_limits_unavailable");
                assert_eq!(field(&answer, "retry-after"), "1");
            }
            statuses.push(status);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        statuses
    };
    let happens = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        redis.kill().await;
        until("requests go uncounted", async || {
            counted(&client, "rate_limit_failures_total").await > 20
        })
        .await;
        client.get("/health").await.expect(200);
        redis.revive().await;
        // It has forgotten, as one without a disk does, and counts from the beginning.
        until("it counts again", async || {
            client.get("/api/v1/configs").await.header("x-ratelimit-remaining").is_some()
        })
        .await;
        until("it refuses again", async || client.get("/api/v1/configs").await.status == 429).await;
        stop.send(()).unwrap();
    };
    let (statuses, ()) = tokio::join!(asks, happens);
    server.stop().await;
    statuses
}

#[test]
fn requests_go_on_while_redis_is_gone() {
    run(async {
        let statuses = statuses_around_a_crash("open").await;
        assert!(statuses.iter().all(|it| matches!(it, 200 | 429)), "{statuses:?}");
        assert!(statuses.iter().filter(|it| **it == 200).count() > 10, "{statuses:?}");
    });
}

#[test]
fn requests_are_refused_while_redis_is_gone_where_that_is_wanted() {
    run(async {
        let statuses = statuses_around_a_crash("closed").await;
        // At most what the limit allows was answered, after it had forgotten.
        assert!(statuses.iter().filter(|it| **it == 200).count() <= 5, "{statuses:?}");
        assert!(statuses.iter().filter(|it| **it == 503).count() > 10, "{statuses:?}");
    });
}

#[test]
fn every_operation_that_may_be_limited_says_so() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (server, client) = start(service("documented"), settings(&database)).await;
        let document = client.get("/openapi.json").await.expect(200).body;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let says = operation["responses"].get("429").is_some();
                let may = !path.starts_with("/health") && path != "/metrics";
                assert_eq!(says, may, "{method} {path}");
            }
        }
        let headers = &document["components"]["responses"]["TooManyRequests"]["headers"];
        for name in ["retry-after", "ratelimit", "ratelimit-policy", "x-ratelimit-reset"] {
            assert!(headers[name]["schema"]["type"].is_string(), "{name} in {headers}");
        }
        assert_ne!(document["components"]["responses"]["TooManyRequests"]["content"], json!(null));
        server.stop().await;
    });
}
