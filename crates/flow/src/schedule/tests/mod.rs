//! Through the routes and the ticker's steps, on both databases, with a clock that stands still. Jobs are
//! those of an engine, which does them where a test starts it.

mod asking;
mod firing;
mod policies;
mod queueing;

use std::time::Duration;

use ::http::{Method, Request, Response};
use axum::body::Body;
use axum::{Extension, Router};
use futures_util::future::BoxFuture;
use modelyard_kernel::db::query;
use modelyard_kernel::failure::Unrendered;
use modelyard_kernel::{Assignment, Failed, Grants, Kind, Policy, Ulid, Work};
use modelyard_testkit::{
    SERVICE, TENANT, TestDatabase, on_both_databases, test_caller, test_scope,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::job::{self, Engine, Job, NewJob};

const ID: &str = "01JCSEED000000000000SCHED1";
const OTHER: &str = "01JCSEED000000000000SCHED2";
/// May begin what schedules of tests begin.
const BEGIN: Permission = Permission("test:begin");

/// What the launchers of a test do.
#[derive(Clone, Debug, Default)]
struct World {
    /// What was asked for, committed or not.
    launched: Arc<Mutex<Vec<(Ulid, Launch)>>>,
    /// How the next jobs fail to begin.
    trouble: Arc<Mutex<Option<Trouble>>>,
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    QueueFull,
    Unavailable,
    Panic,
}

/// The slice as the assembly puts it together.
struct Server {
    router: Router,
    schedules: Schedules,
    /// Does nothing until a test starts it.
    engine: Engine,
    clock: Clock,
    db: Db,
    world: World,
}

impl Server {
    fn new(database: &TestDatabase) -> Self {
        Self::with(database.db.clone(), database.clock.clone(), World::default(), Grants::All)
    }

    /// Another process on the same database, in the same world.
    async fn other_node(&self, database: &TestDatabase) -> Self {
        let db = database.reconnect().await;
        Self::with(db, self.clock.clone(), self.world.clone(), Grants::All)
    }

    fn with(db: Db, clock: Clock, world: World, grants: Grants) -> Self {
        let background = Background::default();
        let options = job::Options { max_pending: 100_000, ..job::Options::default() };
        let (node, stopped) = ("node".to_owned(), background.clone());
        let engine = Engine::new(db.clone(), clock.clone(), stopped, node, options);
        engine.serve(SERVICE, ["test.work", "test.other"].map(|kind| work(&engine, kind)));
        let jobs = engine.jobs();
        let launchers = ["test.work", "test.other"];
        let launchers = launchers.map(|kind| launcher(kind, &clock, &jobs, &world)).into();
        let schedules =
            Schedules::new(db.clone(), clock.clone(), background, test_caller(), launchers, jobs);
        let (router, _) = schedules.part().routes.split_for_parts();
        let caller = Caller::new("somebody", TENANT, SERVICE, grants);
        Self { router: router.layer(Extension(caller)), schedules, engine, clock, db, world }
    }

    async fn call(&self, method: Method, path: &str, tag: Option<&str>, body: &Value) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/schedules{path}"))
            .header("content-type", "application/json");
        if let Some(tag) = tag {
            request = request.header("if-match", tag);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request.body(body).unwrap()).await
    }

    /// Runs a schedule now, in a request that the client calls by this name.
    async fn run_now_as(&self, id: &str, name: &str) -> Answer {
        let request = Request::post(format!("/api/v1/schedules/{id}/$run-now"));
        let request = request.header("idempotency-key", name);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let uri = request.uri().clone();
        let mut response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let header = |response: &Response<Body>, name| {
            response.headers().get(name).map(|it| it.to_str().unwrap().to_owned())
        };
        let (etag, location) = (header(&response, "etag"), header(&response, "location"));
        if let Some(Unrendered(failure)) = response.extensions_mut().remove::<Unrendered>() {
            // The outermost layer, which is not here, would do this.
            let body = Value::from(failure.problem(&uri, "http://test", "T"));
            return Answer { status, etag, location, body };
        }
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status, etag, location, body }
    }

    /// The status of an answer to somebody who has seen it already.
    async fn again(&self, path: &str, tag: Option<&str>) -> u16 {
        let request = Request::get(format!("/api/v1/schedules{path}"));
        let request = request.header("if-none-match", tag.unwrap());
        let request = request.body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap().status().as_u16()
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None, &Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, None, &body).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, None, &body).await
    }

    /// A new schedule with this id, which must be taken.
    async fn create(&self, id: &str, more: Value) -> Value {
        let mut body = hourly(id);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post("", body).await.expect(201)
    }

    async fn advance(&self, by: Duration) -> Looked {
        self.clock.advance(by);
        self.look().await
    }

    async fn look(&self) -> Looked {
        self.schedules.look(self.clock.now()).await.unwrap()
    }

    /// The history, newest first: the time of each tick, and what became of it.
    async fn history(&self, id: &str) -> Vec<(String, String)> {
        let runs = self.get(&format!("/{id}/$history")).await.expect(200);
        let text = |it: &Value| it.as_str().unwrap().to_owned();
        let runs = runs.as_array().unwrap().iter();
        runs.map(|it| (text(&it["tick_at"])[11..19].to_owned(), text(&it["outcome"]))).collect()
    }

    /// How many jobs there are: those whose transactions were committed.
    async fn jobs(&self) -> i64 {
        let all = ListQuery::all(&job::FIELDS);
        all.count(&mut self.db.conn().await.unwrap(), &test_scope()).await.unwrap()
    }

    async fn job(&self, id: Ulid) -> Job {
        self.engine.jobs().get(&test_caller(), JobId(id)).await.unwrap()
    }

    fn launched(&self) -> usize {
        self.world.launched.lock().len()
    }

    /// Ends a job that has not begun.
    async fn end(&self, id: Ulid) {
        let none = Conditions::default();
        self.engine.jobs().cancel(&test_caller(), JobId(id), &none).await.unwrap();
    }

    /// Ends whatever was begun.
    async fn end_all(&self) {
        let launched: Vec<Ulid> = self.world.launched.lock().iter().map(|it| it.0).collect();
        for id in launched {
            if !self.job(id).await.status.is_final() {
                self.end(id).await;
            }
        }
    }

    /// How many jobs of a schedule somebody has to look at before the next may begin.
    async fn open_jobs(&self, id: &str) -> usize {
        let (mut conn, id) = (self.db.conn().await.unwrap(), ScheduleId::read(id).unwrap());
        store::open_jobs(&mut conn, &test_scope(), id).await.unwrap().len()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    etag: Option<String>,
    location: Option<String>,
    body: Value,
}

impl Answer {
    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

/// Work that ends well at once.
fn work(engine: &Engine, kind: &'static str) -> Work {
    let jobs = engine.jobs();
    let run = move |it: Assignment| -> BoxFuture<'static, std::result::Result<(), Failed>> {
        let jobs = jobs.clone();
        Box::pin(async move { Ok(jobs.complete(&test_scope(), (&it).into(), None).await?) })
    };
    Work { kind, queue: "test", permission: BEGIN, policy: Policy::default(), run: Arc::new(run) }
}

fn launcher(kind: &'static str, clock: &Clock, jobs: &Jobs, world: &World) -> Launcher {
    let (clock, jobs, world) = (clock.clone(), jobs.clone(), world.clone());
    Launcher {
        kind,
        permission: BEGIN,
        check: Arc::new(|input: &Value| match input.get("wrong") {
            Some(_) => Err(Failure::bad_request("input_wrong", "this input is wrong")),
            None => Ok(()),
        }),
        launch: Arc::new(move |conn, scope, launch| {
            let (clock, jobs, world) = (clock.clone(), jobs.clone(), world.clone());
            async move {
                let again = launch.clone();
                let Launch { input, unique, owner, wishes } = launch;
                let input = serde_json::to_vec(&input)?;
                let new = NewJob::new(JobId::new(&clock), kind, input);
                let new = NewJob { owner: Some(owner), unique, wishes, ..new };
                let submitted = jobs.submit(conn, scope, new).await?;
                let trouble = *world.trouble.lock();
                match trouble {
                    None => {}
                    Some(Trouble::Panic) => panic!("the launcher panics"),
                    Some(Trouble::QueueFull) => {
                        let detail = "1000 jobs are waiting already";
                        return Err(Failure::new(Kind::Exhausted, "queue_full", detail));
                    }
                    Some(Trouble::Unavailable) => {
                        return Err(Failure::new(Kind::Unavailable, "storage_busy", "busy"));
                    }
                }
                if !submitted.existed {
                    world.launched.lock().push((submitted.job.0, again));
                }
                Ok(submitted.job.0)
            }
            .boxed()
        }),
    }
}

/// A schedule that fires at every full hour; the clock of tests starts at one.
fn hourly(id: &str) -> Value {
    json!({"id": id, "name": "every hour", "trigger": {"type": "interval", "every_seconds": 3600},
        "target": {"kind": "test.work", "input": {"a": 1}}, "overlap": "allow"})
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(3600 * count)
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// A line of a history.
fn line(time: &str, outcome: &str) -> (String, String) {
    (format!("{time}:00"), outcome.to_owned())
}
