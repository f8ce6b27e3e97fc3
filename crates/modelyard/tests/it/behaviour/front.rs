//! What a process with several services says of all of them.

use modelyard::{Health, Server, Service, ServiceInfo};
use modelyard_testkit::{TestClient, TestDatabase, run};
use serde_json::json;

use crate::support::settings;

fn service(id: &str, health: Health) -> Service {
    let check = move || async move { (health, None) };
    let service = Service::builder(ServiceInfo::new(id, id)).with_health_check("mood", check);
    service.build().unwrap()
}

#[test]
fn its_health_is_that_of_the_worst_of_its_services() {
    run(async {
        let database = TestDatabase::sqlite().await;
        for (second, status) in
            [(Health::Healthy, 200), (Health::Degraded, 200), (Health::Unhealthy, 503)]
        {
            let services = vec![service("first", Health::Healthy), service("second", second)];
            let server = Server::start(services, settings(&database)).await.unwrap();
            let front = TestClient::new(format!("http://{}", server.address()));
            let health = front.get("/health").await.expect(status).body;
            let checks = json!({"first": {"state": "healthy"}, "second": {"state": second}});
            assert_eq!(health, json!({"status": second, "checks": checks}));
            server.stop().await;
        }
    });
}

#[test]
fn its_metrics_are_those_of_all_services() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let services = vec![service("first", Health::Healthy), service("second", Health::Healthy)];
        let server = Server::start(services, settings(&database)).await.unwrap();
        let front = TestClient::new(format!("http://{}", server.address()));
        let metrics = front.get("/metrics").await.expect(200).text();
        for id in ["first", "second"] {
            assert!(metrics.contains(&format!("service_name=\"{id}\"")), "{metrics}");
        }
        server.stop().await;
    });
}

#[test]
fn without_a_key_nobody_learns_which_services_there_are_not() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let own = Service::builder(ServiceInfo::new("second", "second"));
        let services = vec![
            service("first", Health::Healthy),
            own.with_auth(["sesame".to_owned()]).build().unwrap(),
        ];
        let mut settings = settings(&database);
        settings.auth.api_keys = vec!["key".to_owned()];
        let server = Server::start(services, settings).await.unwrap();
        let front = TestClient::new(format!("http://{}", server.address()));
        for path in [
            "/metrics",
            "/services/first/api/v1/configs",
            "/services/third/api/v1/configs",
            "/nope",
        ] {
            let refused = front.get(path).await.expect(401);
            assert_eq!(
                refused.header("www-authenticate"),
                Some("ApiKey header=\"X-API-Key\""),
                "{path}"
            );
        }
        front.get("/health").await.expect(200);
        for key in ["key", "sesame"] {
            let known = TestClient::new(front.base()).with_header("x-api-key", key);
            known.get("/metrics").await.expect(200);
            known.get("/services/third/api/v1/configs").await.expect(404);
        }
        server.stop().await;
    });
}

#[test]
fn a_service_may_keep_its_metrics_to_itself() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let service = Service::builder(ServiceInfo::new("quiet", "Quiet")).with_metrics(false);
        let server =
            Server::start(vec![service.build().unwrap()], settings(&database)).await.unwrap();
        let client = TestClient::new(format!("http://{}", server.address()));
        client.get("/metrics").await.expect(404);
        let document = client.get("/openapi.json").await.expect(200).body;
        assert!(
            document["paths"]["/health"].is_object() && document["paths"]["/metrics"].is_null()
        );
        server.stop().await;
    });
}
