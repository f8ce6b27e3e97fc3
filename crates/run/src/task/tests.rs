//! Through the routes, on both databases, with a real worker that does the jobs.

mod executing;
mod storing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Request, Response};
use axum::body::Body;
use axum::{Extension, Router};
use modelyard_flow::job::{Engine, Job, JobId, JobStatus, Options};
use modelyard_kernel::db::query;
use modelyard_kernel::failure::Unrendered;
use modelyard_kernel::{Background, Blobs, Grants, Ulid};
use modelyard_testkit::{SERVICE, TENANT, TestDatabase, on_both_databases, test_caller};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use super::*;
use crate::artifact::Hierarchy;
use crate::config::Configs;
use crate::config::schema::ConfigSchema;
use crate::runner::ModelError;

const ID: &str = "01JCSEED0000000000000PYTH1";
const OTHER: &str = "01JCSEED0000000000000PYTH2";
const THIRD: &str = "01JCSEED0000000000000PYTH3";

/// What a test may set before it starts.
struct Setup {
    shell: ShellTasks,
    directory: Option<PathBuf>,
    limits: Limits,
    grants: Grants,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            shell: ShellTasks::Allowed,
            directory: None,
            limits: Limits::default(),
            grants: Grants::All,
        }
    }
}

/// The slice as the assembly puts it together.
struct Server {
    router: Router,
    engine: Engine,
    jobs: Jobs,
    artifacts: Artifacts,
    work: Vec<Work>,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Sum {
    a: i64,
    b: i64,
}

fn functions() -> TaskFunctions {
    TaskFunctions::new()
        .with("calculate_sum", |it: Sum| async move {
            Ok(json!({"result": it.a + it.b, "operation": "sum"}))
        })
        .with("failing_task", |_: Map<String, Value>| async move {
            Err::<(), _>(ModelError::of("ValueError", "This task was designed to fail"))
        })
        .with("panicking_task", |it: Map<String, Value>| async move {
            assert!(!it.is_empty(), "there is nothing");
            Ok(it.len())
        })
        .with_context("hesitating_task", |_: Map<String, Value>, context| async move {
            context.report.say("looked");
            context.report.progress(0.5, "half");
            let id = context.job.id;
            assert_eq!(context.job.idempotency_key, format!("{id}-run"));
            Err::<(), _>(ModelError::new("not yet").transient())
        })
}

impl Server {
    /// Without a worker: jobs stay pending until [`Server::start`].
    fn new(database: &TestDatabase, setup: Setup) -> Self {
        let Setup { shell, directory, limits, grants } = setup;
        let (db, clock) = (database.db.clone(), database.clock.clone());
        let blobs = Blobs::directory(&database.dir().join("blobs"), clock.clone()).unwrap();
        let hierarchy = Hierarchy::new("test", &[]);
        let artifacts = Artifacts::new(db.clone(), clock.clone(), blobs, hierarchy);
        let (background, node) = (Background::default(), "node".to_owned());
        let engine = Engine::new(db.clone(), clock.clone(), background, node, Options::default());
        let jobs = engine.jobs();
        let work_root = database.dir().join("work");
        let schema = ConfigSchema::new("Test");
        let configs = Configs::new(db.clone(), clock.clone(), artifacts.clone(), schema);
        let publisher = Publisher::new(db.clone(), jobs.clone(), artifacts.clone(), configs);
        let options = super::Options {
            functions: functions(),
            shell,
            directory,
            environment: [("GREETING".to_owned(), "hello".to_owned())].into(),
            limits,
            work_root,
        };
        let tasks = Tasks::new(db, clock, jobs.clone(), artifacts.clone(), publisher, options);
        let Part { routes, work, .. } = tasks.part(Access::Full);
        let (router, _) = routes.split_for_parts();
        let caller = Caller::new("somebody", TENANT, SERVICE, grants);
        Self { router: router.layer(Extension(caller)), engine, jobs, artifacts, work }
    }

    async fn started(database: &TestDatabase, setup: Setup) -> Self {
        let server = Self::new(database, setup);
        server.start().await;
        server
    }

    async fn start(&self) {
        self.engine.serve(SERVICE, self.work.clone());
        self.engine.start().await.unwrap();
    }

    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let uri = request.uri().clone();
        let mut response = self.router.clone().oneshot(request).await.unwrap();
        if let Some(Unrendered(failure)) = response.extensions_mut().remove::<Unrendered>() {
            // The outermost layer, which is not here, would do this.
            let problem = failure.problem(&uri, "http://test", "T");
            return (response.status().as_u16(), Value::from(problem));
        }
        read(response).await
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(format!("/api/v1/tasks{path}"));
        let request = request.header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let uri = format!("/api/v1/tasks{path}");
        self.send(Request::get(uri).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, &body).await
    }

    async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::PUT, path, &body).await
    }

    /// Without a body, as clients of the contract do it.
    async fn execute(&self, id: &str) -> (u16, Value) {
        let uri = format!("/api/v1/tasks/{id}/$execute");
        self.send(Request::post(uri).body(Body::empty()).unwrap()).await
    }

    async fn job(&self, id: JobId) -> Job {
        self.jobs.get(&test_caller(), id).await.unwrap()
    }

    async fn ended(&self, (status, answer): (u16, Value)) -> Job {
        assert_eq!(status, 202, "{answer}");
        let id = job_id(&answer);
        let patience = async {
            loop {
                let job = self.job(id).await;
                if job.status.is_final() {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), patience).await.expect("the job ends")
    }

    async fn artifact(&self, job: &Job) -> Value {
        let id = job.artifact_id.expect("the job has an artifact");
        let found = self.artifacts.find(&test_caller(), ArtifactId(id)).await.unwrap().unwrap();
        assert_eq!((found.parent_id, found.level), (None, 0));
        serde_json::from_str(found.data.get()).unwrap()
    }

    /// The data of the artifact of a new task, executed once.
    async fn outcome(&self, task: Value) -> Value {
        let (status, task) = self.post("", task).await;
        assert_eq!(status, 201, "{task}");
        let submitted = self.execute(task["id"].as_str().unwrap()).await;
        let job = self.ended(submitted).await;
        assert_eq!((job.status, &job.error), (JobStatus::Completed, &None));
        self.artifact(&job).await
    }
}

async fn read(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn job_id(answer: &Value) -> JobId {
    JobId(Ulid::read(answer["job_id"].as_str().unwrap()).unwrap())
}

fn ids(answer: &Value) -> Vec<&str> {
    let items = answer.get("items").unwrap_or(answer);
    items.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect()
}

fn python(id: &str) -> Value {
    json!({"id": id, "command": "calculate_sum", "task_type": "python",
        "parameters": {"a": 10, "b": 32}})
}
