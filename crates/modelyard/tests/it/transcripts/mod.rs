//! What was recorded of real servers of the contract, replayed against ours: the same requests in
//! the same order get the same answers, but for what `deviations.toml` lists.

mod answer;
mod bind;
mod compare;
mod deviations;
mod recorded;
mod registration;
mod replay;

use std::path::Path;

use modelyard::{Access, Server, Service};
use modelyard_ml::project::Project;
use modelyard_testkit::{TestClient, TestDatabase, on_both_databases};

use serde_json::json;

use self::replay::Replay;
use crate::support::{text, until};
use crate::{artifact_model, peer_model, support, task_model};

macro_rules! recording {
    ($file:literal) => {
        include_str!(concat!("../../fixtures/transcripts/", $file, ".jsonl"))
    };
}
pub(crate) use recording;

on_both_databases! {
    async fn the_peers_model_answers_as_recorded(database: TestDatabase) {
        replay_the_peers_model(&database, None).await;
    }

    async fn the_peers_model_answers_a_key_of_the_deployment_as_recorded(database: TestDatabase) {
        replay_the_peers_model(&database, Some("operator")).await;
    }

    async fn keys_are_asked_for_as_recorded(database: TestDatabase) {
        let keys = ["sk_dev_0123456789abcdef", "sk_second_0123456789"].map(str::to_owned);
        let service = peer_model::service().with_auth(keys).build().unwrap();
        let (server, client) = start(service, &database).await;
        let mut replay = Replay::new(client);
        replay.scenario(recording!("v2-chapkit-2.4.1/s13-auth")).await;
        server.stop().await;
        replay.finish(false);
    }

    async fn keys_of_the_deployment_are_asked_for_as_recorded(database: TestDatabase) {
        let (server, client) = start(peer_model::service().build().unwrap(), &database).await;
        let first = key_of_the_deployment(&client, "tenant-admin").await;
        // The second is made with the first: by now nobody comes in without.
        let known = client.clone().with_header("x-api-key", &first);
        let second = key_of_the_deployment(&known, "viewer").await;
        let ours = [("sk_dev_0123456789abcdef", first), ("sk_second_0123456789", second)];
        let mut replay = Replay::new(client).with_keys(ours);
        replay.scenario(recording!("v2-chapkit-2.4.1/s13-auth")).await;
        server.stop().await;
        replay.finish(false);
    }

    async fn a_project_of_scripts_answers_as_recorded(database: TestDatabase) {
        replay_a_project_of_scripts(&database, None).await;
    }

    async fn a_project_of_scripts_answers_a_key_of_the_deployment_as_recorded(database: TestDatabase) {
        replay_a_project_of_scripts(&database, Some("operator")).await;
    }

    async fn artifacts_to_be_read_only_answer_as_recorded(database: TestDatabase) {
        replay_artifacts_to_be_read_only(&database, None).await;
    }

    async fn artifacts_to_be_read_only_answer_a_key_of_the_deployment_as_recorded(database: TestDatabase) {
        replay_artifacts_to_be_read_only(&database, Some("operator")).await;
    }

    async fn tasks_answer_as_recorded(database: TestDatabase) {
        replay_tasks(&database, None).await;
    }

    async fn tasks_answer_a_key_of_the_deployment_as_recorded(database: TestDatabase) {
        replay_tasks(&database, Some("operator")).await;
    }
}

/// As everybody, or with a key of the deployment that has a role.
async fn replay_the_peers_model(database: &TestDatabase, role: Option<&str>) {
    let (server, client) = start(peer_model::service().build().unwrap(), database).await;
    let mut replay = Replay::new(with_role(client, role).await);
    // In the order in which they were recorded: each saw what the ones before it had left.
    for scenario in [
        recording!("v2-chapkit-2.4.1/s02-configs_crud"),
        recording!("v2-chapkit-2.4.1/s03-config_errors"),
        recording!("v2-chapkit-2.4.1/s04-ml_happy"),
        recording!("v2-chapkit-2.4.1/s05-ml_errors"),
        recording!("v2-chapkit-2.4.1/s06-validate"),
        recording!("v2-chapkit-2.4.1/s07-sample_data"),
        recording!("v2-chapkit-2.4.1/s08-jobs"),
        recording!("v2-chapkit-2.4.1/s09-artifacts_crud"),
        recording!("v2-chapkit-2.4.1/s09b-artifact_cycle"),
        recording!("v2-chapkit-2.4.1/s10-links"),
        recording!("v2-chapkit-2.4.1/s11-dataframe_schema"),
        recording!("v2-chapkit-2.4.1/s01-health_system_info"),
    ] {
        replay.scenario(scenario).await;
    }
    server.stop().await;
    replay.finish(true);
}

async fn replay_a_project_of_scripts(database: &TestDatabase, role: Option<&str>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/shell_model");
    let project = Project::load(directory).unwrap();
    let (server, client) = start(Service::from_project(project).unwrap(), database).await;
    // The peer's regression has rounded where ours is exact.
    let mut replay = Replay::new(with_role(client, role).await).with_tolerance(1e-12);
    replay.scenario(recording!("v2-chapkit-2.4.1/s14-shell_runner")).await;
    server.stop().await;
    replay.finish(false);
}

async fn replay_artifacts_to_be_read_only(database: &TestDatabase, role: Option<&str>) {
    let writable = artifact_model::service(Access::Full).build().unwrap();
    let (server, client) = start(writable, database).await;
    artifact_model::seed(&client).await;
    server.stop().await;
    let read_only = artifact_model::service(Access::ReadOnly).build().unwrap();
    let (server, client) = start(read_only, database).await;
    let mut replay = Replay::new(with_role(client, role).await);
    replay.scenario(recording!("v2-chapkit-2.4.1/s15-artifact_fixture_readonly")).await;
    server.stop().await;
    replay.finish(false);
}

async fn replay_tasks(database: &TestDatabase, role: Option<&str>) {
    let (server, client) = start(task_model::service().build().unwrap(), database).await;
    task_model::seed(&client).await;
    let mut replay = Replay::new(with_role(client, role).await);
    replay.scenario(recording!("v0-chapkit-2025-10/t01-tasks")).await;
    replay.scenario(recording!("v0-chapkit-2025-10/t02-ml-2025-10")).await;
    server.stop().await;
    replay.finish(false);
}

async fn with_role(client: TestClient, role: Option<&str>) -> TestClient {
    let Some(role) = role else { return client };
    let key = key_of_the_deployment(&client, role).await;
    client.with_header("x-api-key", &key)
}

/// A new key, after which nobody comes in without one.
async fn key_of_the_deployment(client: &TestClient, role: &str) -> String {
    let key = json!({"name": "recorded", "roles": [{"role": role}]});
    let key = text(&client.post("/api/v1/keys", &key).await.expect(201).body["key"]);
    assert!(key.starts_with("mk_"), "{key}");
    let unknown = TestClient::new(client.base());
    until("nobody comes in unknown", async || unknown.get("/api/v1/configs").await.status == 401)
        .await;
    key
}

async fn start(service: Service, database: &TestDatabase) -> (Server, TestClient) {
    support::start(service, support::settings(database)).await
}
