//! Sample data has a size that a config cannot lift.

use modelyard_testkit::on_both_databases;
use serde_json::json;

use crate::support::{config, start_model};

on_both_databases! {
    async fn a_config_of_many_covariates_gives_no_huge_sample(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let covariates: Vec<String> = (0..20_000).map(|it| format!("c{it}")).collect();
        let id = config(&client, json!({"additional_continuous_covariates": covariates})).await;
        let path = format!("/api/v1/ml/$generate-sample-data?num_locations=10&num_periods=60&config_id={id}");
        let refused = client.get(&path).await.expect(400);
        assert_eq!(refused.body["code"], "sample_too_large");
        let path = format!("/api/v1/ml/$generate-sample-data?num_locations=1&num_periods=2&num_features=0&config_id={id}");
        let sample = client.get(&path).await.expect(200);
        assert_eq!(sample.body["data"]["columns"].as_array().unwrap().len(), 20_006);
        server.stop().await;
    }
}
