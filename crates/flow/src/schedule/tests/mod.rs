//! Through the routes and the ticker's steps, on both databases, with a clock that stands still and
//! jobs that are rows of a table nobody else needs here.

mod asking;
mod firing;
mod policies;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::http::{Method, Request, Response};
use axum::body::Body;
use axum::{Extension, Router};
use modelyard_kernel::db::query;
use modelyard_kernel::failure::Unrendered;
use modelyard_kernel::{Grants, Kind};
use modelyard_testkit::{SERVICE, TENANT, TestDatabase, on_both_databases, test_caller};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

const ID: &str = "01JCSEED000000000000SCHED1";
const OTHER: &str = "01JCSEED000000000000SCHED2";

/// What the jobs of a test do.
#[derive(Clone, Debug, Default)]
struct World {
    /// What was asked for, committed or not.
    launched: Arc<Mutex<Vec<(Ulid, Launch)>>>,
    /// Jobs that have not ended.
    running: Arc<Mutex<HashSet<Ulid>>>,
    /// Jobs that wait, by their unique key.
    waiting: Arc<Mutex<HashMap<String, Ulid>>>,
    /// How the next jobs fail to begin.
    trouble: Arc<Mutex<Option<Trouble>>>,
    woken: Arc<AtomicUsize>,
    /// How often somebody asked whether a job has ended.
    asked: Arc<AtomicUsize>,
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
        let launchers =
            vec![launcher("test.work", &clock, &world), launcher("test.other", &clock, &world)];
        let (running, woken) = (world.running.clone(), world.woken.clone());
        let asked = world.asked.clone();
        let is_unfinished: IsUnfinished = Arc::new(move |_, _, job| {
            asked.fetch_add(1, Ordering::Relaxed);
            let is_unfinished = running.lock().contains(&job);
            async move { Ok(is_unfinished) }.boxed()
        });
        let wake = Arc::new(move || _ = woken.fetch_add(1, Ordering::Relaxed));
        let jobs = JobWatch { is_unfinished, wake };
        let background = Background::default();
        let schedules =
            Schedules::new(db.clone(), clock.clone(), background, test_caller(), launchers, jobs);
        let (router, _) = schedules.part().routes.split_for_parts();
        let caller = Caller::new("somebody", TENANT, SERVICE, grants);
        Self { router: router.layer(Extension(caller)), schedules, clock, db, world }
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
        let request = request.body(body).unwrap();
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
        let mut conn = self.db.conn().await.unwrap();
        query("SELECT COUNT(*) FROM tasks").fetch_one::<(i64,)>(&mut conn).await.unwrap().0
    }

    fn launched(&self) -> usize {
        self.world.launched.lock().len()
    }

    /// Whatever was begun has ended.
    fn end_all(&self) {
        self.world.running.lock().clear();
        self.world.waiting.lock().clear();
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

/// A job is a row, so that what is not committed leaves none.
fn launcher(kind: &'static str, clock: &Clock, world: &World) -> Launcher {
    let (clock, world) = (clock.clone(), world.clone());
    Launcher {
        kind,
        permission: Permission("test:begin"),
        check: Arc::new(|input: &Value| match input.get("wrong") {
            Some(_) => Err(Failure::bad_request("input_wrong", "this input is wrong")),
            None => Ok(()),
        }),
        launch: Arc::new(move |conn, scope, launch| {
            let (clock, world) = (clock.clone(), world.clone());
            async move {
                let key = launch.unique.clone().unwrap_or_default();
                if let Some(waits) = world.waiting.lock().get(&key) {
                    return Ok(*waits);
                }
                let (id, now) = (clock.ulid(), clock.now());
                let sql = "INSERT INTO tasks (tenant_id, service_id, id, command, task_type,
                        enabled, revision, created_at, updated_at)
                    VALUES ($1, $2, $3, $4, 'shell', $5, 1, $6, $6)";
                let insert = modelyard_kernel::db::scoped(scope, sql);
                let insert = insert.bind(id).bind(launch.label.clone()).bind(true).bind(now);
                insert.execute(conn).await?;
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
                world.running.lock().insert(id);
                world.launched.lock().push((id, launch));
                Ok(id)
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
