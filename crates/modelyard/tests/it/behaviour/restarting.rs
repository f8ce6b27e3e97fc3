//! Jobs outlive the process, however it ends.

use bytes::Bytes;
use http::Method;
use modelyard_kernel::db::query;
use modelyard_testkit::{TestClient, on_both_databases};
use rustix::process::Signal;
use serde_json::json;

use crate::support::program::{Program, Project};
use crate::support::{
    config, ended, frame, running, service, settings, start, start_model, submitted, text,
    train_with, until,
};

/// The first time it leaves a process behind and takes for ever, later it is quick.
const SLOW_ONCE: &str = r#"
if [ ! -e "$1" ]; then
    : > "$1"
    sh -c 'sleep 60; :' grandchild "$1" &
    setsid sh -c 'sleep 60; :' stray "$1" &
    sh -c 'sleep 60; :' child "$1"
fi
echo trained > model
"#;

on_both_databases! {
    async fn jobs_that_wait_or_run_at_a_stop_are_done_after_it(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let slow = config(&client, json!({"how": "wait", "seconds": 1.0})).await;
        let mut submitted = Vec::new();
        for _ in 0..3 {
            submitted.push(train_with(&client, &slow).await);
        }
        running(&client, &submitted[0].job).await;
        server.stop().await;
        let mut conn = database.db.conn().await.unwrap();
        let states: Vec<(String,)> =
            query("SELECT status FROM jobs").fetch_all(&mut conn).await.unwrap();
        assert_eq!(states, vec![("pending".to_owned(),); 3]);

        let mut settings = settings(&database);
        settings.jobs.concurrency = 3;
        let (server, client) = start(service("behaviour"), settings).await;
        for it in submitted {
            all_went_well(&client, &it.job, &it.artifact).await;
        }
        server.stop().await;
    }

    async fn jobs_that_wait_or_run_when_the_process_is_killed_are_done_after_it(
        database: TestDatabase
    ) {
        let project = Project::new(SLOW_ONCE);
        let serve = || {
            let mut command = project.serve();
            command.arg("--database").arg(&database.url);
            command
        };
        let mut program = Program::start(serve()).await;
        let id = config(&program.client, json!({})).await;
        let mut submitted = Vec::new();
        for _ in 0..3 {
            submitted.push(train_with(&program.client, &id).await);
        }
        until("the script has children", async || project.processes().len() >= 4).await;
        assert_eq!(project.workspaces().len(), 1);
        program.signal(Signal::KILL);
        program.ended(std::time::Duration::from_secs(5)).await;
        assert!(!project.processes().is_empty(), "what is to be found again is gone already");

        let program = Program::start(serve()).await;
        let left: Vec<String> =
            project.processes().into_iter().filter(|it| it.contains("sleep 60")).collect();
        assert!(left.is_empty(), "{left:?}");
        for it in submitted {
            all_went_well(&program.client, &it.job, &it.artifact).await;
        }
        until("the workspaces are gone", async || project.workspaces().is_empty()).await;
        assert!(project.processes().is_empty());
    }

    async fn a_prediction_that_has_run_when_the_process_is_killed_is_not_run_again(
        database: TestDatabase
    ) {
        let project = Project::new("echo trained > model");
        let manifest = fs_err::read_to_string(project.path().join("modelyard.toml")).unwrap();
        let script = format!("sh predict.sh {}", project.mark().display());
        let manifest = manifest.replace("cp {future_file} {output_file}", &script);
        fs_err::write(project.path().join("modelyard.toml"), manifest).unwrap();
        let script = "echo ran >> $1.ledger; cp future.csv predictions.csv";
        fs_err::write(project.path().join("predict.sh"), script).unwrap();
        let serve = || {
            let mut command = project.serve();
            command.arg("--database").arg(&database.url);
            command
        };
        // The first run is that of the training.
        let mut killed = serve();
        killed.env("MODELYARD_FAILPOINT", "run.stored@2");
        let mut program = Program::start(killed).await;
        let id = config(&program.client, json!({})).await;
        let trained = train_with(&program.client, &id).await;
        all_went_well(&program.client, &trained.job, &trained.artifact).await;
        let body = json!({"artifact_id": trained.artifact, "historic": frame(), "future": frame()});
        let answer = program.client.post("/api/v1/ml/$predict", &body).await.expect(202);
        let predicted = submitted(&answer);
        program.ended(std::time::Duration::from_secs(10)).await;

        let program = Program::start(serve()).await;
        all_went_well(&program.client, &predicted.job, &predicted.artifact).await;
        let path = format!("/api/v1/artifacts/{}", predicted.artifact);
        let content = &program.client.get(&path).await.expect(200).body["data"]["content"];
        assert_eq!(content["columns"], frame()["columns"], "{content}");
        let ledger = format!("{}.ledger", project.mark().display());
        assert_eq!(fs_err::read_to_string(ledger).unwrap(), "ran\n");
        until("the workspaces are gone", async || project.workspaces().is_empty()).await;
    }

    async fn only_the_newest_checkpoint_is_kept_and_none_after_the_end(database: TestDatabase) {
        // It dies after the third, goes on from there, and waits before its end.
        let project = Project::new(r#"
            count=0
            if [ -n "${MODELYARD_CHECKPOINT:-}" ]; then count=$(cat "$MODELYARD_CHECKPOINT"); fi
            echo "from $count" >> "$1.ledger"
            while [ $count -lt 6 ]; do
                count=$((count + 1))
                echo $count > "$MODELYARD_CHECKPOINT_DIR/$count"
                echo "{\"checkpoint\": \"$count\"}" >> "$MODELYARD_PROGRESS"
                sleep 0.6
                if [ $count = 3 -a ! -e "$1.died" ]; then : > "$1.died"; exit 75; fi
            done
            until [ -e "$1.go" ]; do sleep 0.05; done
            echo $count > model
        "#);
        let mark = project.mark().display().to_string();
        let mut command = project.serve();
        command.arg("--database").arg(&database.url);
        let mut program = Program::start(command).await;
        let kept = async || {
            let mut conn = database.db.conn().await.unwrap();
            let kept = query("SELECT COUNT(*) FROM blobs WHERE refs <= 0 AND keeps > 0");
            let (kept,): (i64,) = kept.fetch_one(&mut conn).await.unwrap();
            kept
        };
        let id = config(&program.client, json!({})).await;
        let it = train_with(&program.client, &id).await;
        until("it goes on", async || {
            assert!(kept().await <= 1);
            fs_err::read_to_string(format!("{mark}.ledger")).is_ok_and(|it| it.lines().count() == 2)
        })
        .await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(kept().await, 1);
        fs_err::write(format!("{mark}.go"), "").unwrap();
        all_went_well(&program.client, &it.job, &it.artifact).await;
        until("no checkpoint is kept", async || kept().await == 0).await;
        assert_eq!(fs_err::read_to_string(format!("{mark}.ledger")).unwrap(), "from 0\nfrom 3\n");
        program.signal(Signal::TERM);
        program.ended(std::time::Duration::from_secs(10)).await;
    }

    async fn killed_again_and_again_it_keeps_what_it_promised(database: TestDatabase) {
        let project = Project::new("head -c 200000 /dev/urandom > model");
        let serve = || {
            let mut command = project.serve();
            command.arg("--database").arg(&database.url);
            command
        };
        let mut program = Program::start(serve()).await;
        let id = config(&program.client, json!({})).await;
        let mut promised = Promised::default();
        for round in 0..6 {
            let client = program.client.clone();
            let mut life = Promised::default();
            // Whenever the time comes, whatever is on its way then.
            let time = std::time::Duration::from_millis(30 + round * 60);
            let _killed = tokio::time::timeout(time, life.gather(&client, &id)).await;
            program.signal(Signal::KILL);
            program.ended(std::time::Duration::from_secs(5)).await;
            promised.jobs.extend(life.jobs);
            promised.uploads.extend(life.uploads);
            program = Program::start(serve()).await;
        }
        assert!(promised.uploads.len() > 2 && promised.jobs.len() > 2, "{promised:?}");
        for (job, artifact) in &promised.jobs {
            all_went_well(&program.client, job, artifact).await;
        }
        for (artifact, content) in &promised.uploads {
            let path = format!("/api/v1/artifacts/{artifact}/$download");
            assert_eq!(program.client.get(&path).await.expect(200).bytes, *content);
        }
        // Nothing is there that cannot be read, promised or not.
        for artifact in program.client.get("/api/v1/artifacts").await.body.as_array().unwrap() {
            let path = format!("/api/v1/artifacts/{}/$download", text(&artifact["id"]));
            program.client.get(&path).await.expect(200);
        }
        until("the workspaces are gone", async || project.workspaces().is_empty()).await;
    }
}

/// What the server said that it has.
#[derive(Default)]
struct Promised {
    /// Jobs, and the artifacts that they promised.
    jobs: Vec<(String, String)>,
    /// Artifacts and their content.
    uploads: Vec<(String, Bytes)>,
}

impl std::fmt::Debug for Promised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} jobs and {} uploads", self.jobs.len(), self.uploads.len())
    }
}

impl Promised {
    async fn gather(&mut self, client: &TestClient, config: &str) {
        for number in 0_u8.. {
            let it = train_with(client, config).await;
            self.jobs.push((it.job, it.artifact));
            let content = Bytes::from(vec![number; 200_000]);
            let upload = client.request(Method::POST, "/api/v1/artifacts/$upload");
            let made = upload.body(content.clone()).send().await.expect(201).body;
            self.uploads.push((text(&made["id"]), content));
        }
    }
}

/// Checks that a job is completed with the artifact that it promised.
async fn all_went_well(client: &TestClient, job: &str, artifact: &str) {
    let record = ended(client, job).await;
    assert_eq!(record["status"], "completed", "{record}");
    assert_eq!(text(&record["artifact_id"]), artifact);
    let artifact = client.get(&format!("/api/v1/artifacts/{artifact}")).await.expect(200);
    assert_eq!(artifact.body["data"]["metadata"]["status"], "success");
}
