//! What must be true once everybody has gone home.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};

use modelyard_kernel::Time;
use modelyard_testkit::TestClient;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ledger::{Line, What};
use super::load::{Load, Promise, Stage, file};
use super::site::Site;
use crate::support::text;

/// Checks every promise, every artifact and the ledger of a site that serves and has nothing to do.
pub(super) async fn all_is_kept(site: &Site, load: &Load, client: &TestClient) {
    let promises = load.promises();
    let ledger = site.ledger();
    let (mut made, mut lost) = (BTreeSet::new(), 0);
    for promise in &promises {
        let record = load.record(promise);
        let Promise { key, stage, submitted } = promise;
        if given_up(&record) {
            lost += 1;
            continue;
        }
        if load.is_canceled(promise) || (*stage == Stage::Cancel && record["status"] == "canceled")
        {
            assert_eq!(record["status"], "canceled", "{key}: {record}");
            let path = format!("/api/v1/artifacts/{}", submitted.artifact);
            client.get(&path).await.expect(404);
            continue;
        }
        assert_eq!(record["status"], "completed", "{key}: {record}");
        assert_eq!(text(&record["artifact_id"]), submitted.artifact, "{key}: {record}");
        assert!(made.insert(submitted.artifact.clone()), "{key}: an artifact of two jobs");
        match stage {
            Stage::Predict => prediction_is_kept(client, promise).await,
            Stage::Batch => {
                let path = format!("/api/v1/artifacts/{}/$download", submitted.artifact);
                assert_eq!(client.get(&path).await.expect(200).text(), file(key), "{record}");
            }
            _ => training_is_kept(client, site, promise, &record, &ledger).await,
        }
    }
    assert!(lost * 10 <= promises.len(), "{lost} of {} were given up", promises.len());
    let scheduled = load.check_scheduled(client).await;
    nothing_is_half_written(client).await;
    every_change_has_its_entry(client).await;
    // And the one before the first kill: a request that was sent again has made no second job.
    let listed = client.get("/api/v1/jobs?page=1&size=1").await.expect(200).body;
    assert_eq!(listed["total"], promises.len() + 1 + scheduled, "{listed}");

    let keys: BTreeMap<&str, usize> = ledger.iter().fold(BTreeMap::new(), |mut keys, it| {
        *keys.entry(it.key.as_str()).or_default() += usize::from(it.what == What::Begin);
        keys
    });
    let again = keys.values().filter(|runs| **runs > 1).count();
    println!(
        "{} jobs were promised and kept, {lost} of them given up after many losses; {again} trainings \
         were begun more than once",
        promises.len()
    );
}

/// Whether so many processes ended over a job that it is not begun again, which is told.
fn given_up(record: &Value) -> bool {
    let error = record["error"].as_str().unwrap_or_default();
    record["status"] == "failed" && error.contains("given up") && record["dead_letter"] == true
}

/// The artifact is whole, its model is that of the last run, and nothing ran once that was settled.
async fn training_is_kept(
    client: &TestClient,
    site: &Site,
    promise: &Promise,
    record: &Value,
    ledger: &[Line],
) {
    let Promise { key, submitted, .. } = promise;
    let path = format!("/api/v1/artifacts/{}/$download", submitted.artifact);
    let zipped = client.get(&path).await.expect(200).bytes;
    let mut files = zip::ZipArchive::new(Cursor::new(zipped)).unwrap();
    let mut model = Vec::new();
    files.by_name("model").unwrap().read_to_end(&mut model).unwrap();
    assert!(model.starts_with(format!("{key}\n").as_bytes()), "{key} has somebody else's model");
    let sum: String = Sha256::digest(&model).iter().map(|it| format!("{it:02x}")).collect();

    let lines: Vec<&Line> = ledger.iter().filter(|it| it.key == *key).collect();
    let last = lines.last().unwrap_or_else(|| panic!("{key} was never begun: {record}"));
    assert_eq!(last.what, What::End, "{key} was begun after its end: {lines:#?}\n{record}");
    assert_eq!(last.sum, sum, "{key} has the model of an earlier run: {lines:#?}\n{record}");

    let path = format!("/api/v1/jobs/{}/$steps", submitted.job);
    let steps = client.get(&path).await.expect(200).body;
    // What ran is of use on its node only: another runs it once more.
    let elsewhere = |step: &&Value| site.is_one_of_several() && step["name"] == "run";
    for step in steps.as_array().unwrap().iter().filter(|it| !elsewhere(it)) {
        let finished: Time = text(&step["finished_at"]).parse().unwrap();
        let again = lines.iter().find(|it| it.what == What::Begin && it.at > finished.micros());
        assert!(
            again.is_none(),
            "{key} was run again after its end was written: {step} {lines:#?}"
        );
    }
    assert!(steps.as_array().is_some_and(|it| !it.is_empty()), "no step of {key} was written");
}

/// The forecast is that of the request.
async fn prediction_is_kept(client: &TestClient, Promise { key, submitted, .. }: &Promise) {
    let path = format!("/api/v1/artifacts/{}", submitted.artifact);
    let artifact = client.get(&path).await.expect(200).body;
    let location = &artifact["data"]["content"]["data"][0][1];
    assert_eq!(location.as_str(), Some(key.as_str()), "{artifact}");
}

/// What is there was written down when it was made, what was written down is there, and the audit is whole.
async fn every_change_has_its_entry(client: &TestClient) {
    let found = client.get("/api/v1/audit/$verify").await.expect(200).body;
    assert_eq!(found["ok"], true, "{found}");
    let file = client.get("/api/v1/audit/$export").await.expect(200).text();
    let mut told: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for line in file.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let action = ["job.submitted", "artifact.created", "job.canceled", "config.created"]
            .into_iter()
            .find(|it| entry["action"] == **it);
        if let Some(action) = action {
            *told.entry(action).or_default().entry(text(&entry["subject"])).or_default() += 1;
        }
    }
    for (action, path) in [
        ("job.submitted", "/api/v1/jobs?fields=id,status"),
        ("artifact.created", "/api/v1/artifacts?fields=id"),
        ("config.created", "/api/v1/configs?fields=id"),
    ] {
        let listed = client.get(path).await.expect(200).body;
        let there: BTreeMap<String, usize> =
            listed.as_array().unwrap().iter().map(|it| (text(&it["id"]), 1)).collect();
        let told = told.remove(action).unwrap_or_default();
        assert!(!there.is_empty() && told == there, "{action}: {told:#?} but {there:#?}");
    }
    let listed = client.get("/api/v1/jobs?fields=id,status&status=canceled").await.expect(200).body;
    let canceled: BTreeMap<String, usize> =
        listed.as_array().unwrap().iter().map(|it| (text(&it["id"]), 1)).collect();
    assert_eq!(told.remove("job.canceled").unwrap_or_default(), canceled);
}

/// Every artifact that is listed can be read to its end.
async fn nothing_is_half_written(client: &TestClient) {
    for page in 1.. {
        let path = format!("/api/v1/artifacts?page={page}&size=100&fields=id");
        let listed = client.get(&path).await.expect(200).body;
        let items = listed["items"].as_array().unwrap();
        if items.is_empty() {
            return;
        }
        for artifact in items {
            let path = format!("/api/v1/artifacts/{}/$download", text(&artifact["id"]));
            client.get(&path).await.expect(200);
        }
    }
}
