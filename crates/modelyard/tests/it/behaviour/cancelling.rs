//! A job that nobody wants any more leaves nothing: no process, no directory, no artifact.

use std::time::{Duration, Instant};

use modelyard::{Server, Service};
use modelyard_ml::project::Project as Manifest;
use modelyard_testkit::{TestClient, TestDatabase, on_both_databases};
use serde_json::json;

use crate::support::program::Project;
use crate::support::{
    Submitted, config, running, settings, start, start_model, stored, train_with, until,
};

/// Has a child that does not listen, a grandchild, and one that left the process group.
const FAMILY: &str = r#"
sh -c 'trap "" TERM; sh -c "sleep 60; :" grandchild "$1"; sleep 60' child "$1" &
setsid sh -c 'sleep 60; :' stray "$1" &
sh -c 'sleep 60; :' waiting "$1"
"#;

/// What is promised of a cancelled job.
const SOON: Duration = Duration::from_secs(2);

async fn start_project(project: &Project, database: &TestDatabase) -> (Server, TestClient) {
    let service = Service::from_project(Manifest::load(project.path()).unwrap()).unwrap();
    let mut settings = settings(database);
    settings.data.dir = project.data();
    start(service, settings).await
}

async fn assert_left_nothing(client: &TestClient, it: &Submitted) {
    for path in [format!("/api/v1/jobs/{}", it.job), format!("/api/v1/artifacts/{}", it.artifact)] {
        client.get(&path).await.expect(404);
    }
}

on_both_databases! {
    async fn a_cancelled_job_takes_its_whole_family_along(database: TestDatabase) {
        let project = Project::new(FAMILY);
        let (server, client) = start_project(&project, &database).await;
        let id = config(&client, json!({})).await;
        let before = stored(&database).await;
        let submitted = train_with(&client, &id).await;
        until("the family is complete", async || {
            let lines = project.processes();
            let there = |name: &str| lines.iter().any(|it| it.starts_with("sh ") && it.contains(name));
            ["child", "grandchild", "stray", "waiting"].into_iter().all(there)
        })
        .await;

        let asked = Instant::now();
        client.delete(&format!("/api/v1/jobs/{}", submitted.job)).await.expect(204);
        let took = asked.elapsed();
        // Who is told that it is cancelled finds nobody and nothing any more.
        assert!(project.processes().is_empty(), "{:?}", project.processes());
        assert!(project.workspaces().is_empty(), "{:?}", project.workspaces());
        assert!(took < SOON, "{took:?}");
        assert_left_nothing(&client, &submitted).await;
        assert_eq!(stored(&database).await, before);
        server.stop().await;
    }

    async fn a_script_that_listens_is_gone_at_once(database: TestDatabase) {
        let project = Project::new("sh -c 'sleep 60; :' waiting \"$1\"");
        let (server, client) = start_project(&project, &database).await;
        let id = config(&client, json!({})).await;
        let submitted = train_with(&client, &id).await;
        until("it runs", async || project.processes().len() >= 2).await;
        let asked = Instant::now();
        client.delete(&format!("/api/v1/jobs/{}", submitted.job)).await.expect(204);
        assert!(project.processes().is_empty(), "{:?}", project.processes());
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert_left_nothing(&client, &submitted).await;
        server.stop().await;
    }

    async fn jobs_that_are_cancelled_as_they_begin_do_not_run_on(database: TestDatabase) {
        let project = Project::new("sh -c 'sleep 60; :' waiting \"$1\"");
        let (server, client) = start_project(&project, &database).await;
        let id = config(&client, json!({})).await;
        for _ in 0..60 {
            // Before a worker has it, while one takes it, or just after.
            let submitted = train_with(&client, &id).await;
            client.delete(&format!("/api/v1/jobs/{}", submitted.job)).await.expect(204);
        }
        // Whatever went on would keep the only worker for a minute.
        let next = train_with(&client, &id).await;
        running(&client, &next.job).await;
        until("the next one runs alone", async || project.workspaces().len() == 1).await;
        client.delete(&format!("/api/v1/jobs/{}", next.job)).await.expect(204);
        until("nothing is left", async || {
            project.processes().is_empty() && project.workspaces().is_empty()
        })
        .await;
        server.stop().await;
    }

    async fn a_function_that_waits_is_cancelled_too(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({"seconds": 60.0})).await;
        let before = stored(&database).await;
        let submitted = train_with(&client, &id).await;
        running(&client, &submitted.job).await;
        let asked = Instant::now();
        client.delete(&format!("/api/v1/jobs/{}", submitted.job)).await.expect(204);
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        assert_left_nothing(&client, &submitted).await;
        assert_eq!(stored(&database).await, before);
        let work = database.dir().join("data/work");
        until("its workspace is gone", async || {
            fs_err::read_dir(&work).unwrap().next().is_none()
        })
        .await;
        server.stop().await;
    }
}
