//! The service behind the recorded exchanges of `s15`: two trees of artifacts that clients may only
//! read, and a health check with moods.

use std::sync::atomic::{AtomicBool, Ordering};

use modelyard::{Access, Health, Hierarchy, Service, ServiceBuilder, ServiceInfo};
use modelyard_testkit::TestClient;
use serde_json::{Value, json};

/// The service, with what clients may do to its artifacts.
pub fn service(access: Access) -> ServiceBuilder {
    let mut info = ServiceInfo::new("chapkit-artifact-service", "Chapkit Artifact Service");
    let description =
        "Artifact hierarchies with config linking, read-only API, and non-JSON payloads";
    info.description = Some(description.to_owned());
    let labels = ["train", "predict", "result"];
    let hierarchy = json!({"name": "training_pipeline", "level_labels": {"0": "train", "1": "predict", "2": "result"}});
    let asked = AtomicBool::new(false);
    Service::builder(info)
        .with_hierarchy(Hierarchy::new("training_pipeline", &labels))
        .with_artifacts(access)
        .with_info_field("author", json!("Morten Hansen"))
        .with_info_field("contact_email", json!("morten@dhis2.org"))
        .with_info_field("hierarchy", hierarchy)
        .with_info_field("configs", json!(["experiment_alpha", "experiment_beta"]))
        .with_info_field("non_json_payload", json!("MockLinearModel"))
        .with_health_check("flaky_service", move || {
            let first = !asked.swap(true, Ordering::Relaxed);
            async move {
                match first {
                    true => {
                        let message = "Service experiencing intermittent issues".to_owned();
                        (Health::Degraded, Some(message))
                    }
                    false => (Health::Healthy, None),
                }
            }
        })
}

/// Stores the trees and their configs through a service that may be written to.
pub async fn seed(client: &TestClient) {
    let experiments = [
        ("E", "experiment_alpha", "xgboost", 0.05, 50, 256),
        ("K", "experiment_beta", "lightgbm", 0.1, 30, 128),
    ];
    for (last, name, model, learning_rate, epochs, batch_size) in experiments {
        let data = json!({
            "model": model, "learning_rate": learning_rate, "epochs": epochs,
            "batch_size": batch_size,
        });
        let config = json!({"id": id(last), "name": name, "data": data});
        let _stored = client.post("/api/v1/configs", &config).await.expect(201);
    }
    let predicted = |run: &str, path: &str| json!({"stage": "predict", "run": run, "path": path});
    let result = |accuracy: f64, f1: f64| json!({"stage": "result", "metrics": {"accuracy": accuracy, "f1": f1}});
    // Where the peer has a Python object, we have the text that it shows of it.
    let model = json!({
        "stage": "result",
        "content": "MockLinearModel(coefficients=(0.420, 0.180, -0.070), intercept=0.120)",
        "content_type": "application/x-pickle",
        "metadata": {"kind": "model", "format": "pickle"},
    });
    let artifacts = [
        ("F", None, json!({"stage": "train", "dataset": "alpha_train.parquet"})),
        ("G", Some("F"), predicted("2024-01-05", "alpha/preds_20240105.parquet")),
        ("H", Some("G"), result(0.91, 0.88)),
        ("J", Some("F"), predicted("2024-01-12", "alpha/preds_20240112.parquet")),
        ("M", None, json!({"stage": "train", "dataset": "beta_train.parquet"})),
        ("N", Some("M"), predicted("2024-02-01", "beta/preds_20240201.parquet")),
        ("P", Some("N"), result(0.87, 0.84)),
        ("Q", Some("G"), model),
    ];
    for (last, parent, data) in artifacts {
        let artifact = json!({"id": id(last), "parent_id": parent.map(id), "data": data});
        let _stored = client.post("/api/v1/artifacts", &artifact).await.expect(201);
    }
    for (config, root) in [("E", "F"), ("K", "M")] {
        let path = format!("/api/v1/configs/{}/$link-artifact", id(config));
        let link: Value = json!({"artifact_id": id(root)});
        let _linked = client.post(&path, &link).await.expect(204);
    }
}

fn id(last: &str) -> String {
    format!("01K72PWT05GEXK1S24AVKAZ9V{last}")
}
