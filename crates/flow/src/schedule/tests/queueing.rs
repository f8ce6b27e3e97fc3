//! Jobs of a schedule that wait for one another, done by engines that end and begin.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::*;
use crate::job::JobStatus;

/// What the work of all engines of a test shares.
#[derive(Clone, Debug)]
struct Done {
    begun: Arc<Mutex<Vec<Ulid>>>,
    ended: Arc<Mutex<Vec<Ulid>>>,
    /// Each job goes on when it has one.
    go_on: Arc<Semaphore>,
    /// Whether the next one fails for a reason that may pass.
    fails: Arc<AtomicBool>,
}

impl Done {
    async fn work(self, jobs: Jobs, it: Assignment) -> std::result::Result<(), Failed> {
        self.begun.lock().push(it.job);
        self.go_on.acquire().await.expect("nobody closes it").forget();
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(Failed::new("OSError", "not yet").transient());
        }
        jobs.complete(&test_scope(), (&it).into(), None).await?;
        self.ended.lock().push(it.job);
        Ok(())
    }

    fn begun(&self) -> Vec<Ulid> {
        self.begun.lock().clone()
    }
}

/// A process that does jobs, two at a time. It has a runtime of its own, with which it ends as if it
/// were killed.
struct Process {
    runtime: Runtime,
    engine: Engine,
}

impl Process {
    fn start(database: &TestDatabase, name: &str, done: &Done) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        let (node, done) = (name.to_owned(), done.clone());
        let engine = tokio::task::block_in_place(|| {
            runtime.block_on(async {
                let options = job::Options { concurrency: 2, ..job::Options::default() };
                let (db, clock) = (database.reconnect().await, Clock::system());
                let engine = Engine::new(db, clock, Background::default(), node, options);
                let jobs = engine.jobs();
                let run = move |it| -> BoxFuture<'static, _> {
                    Box::pin(done.clone().work(jobs.clone(), it))
                };
                let backoff = Duration::from_millis(300);
                let policy = Policy { backoff, max_backoff: backoff, ..Policy::default() };
                let work = Work {
                    kind: "test.work",
                    queue: "test",
                    permission: BEGIN,
                    policy,
                    run: Arc::new(run),
                };
                engine.serve(SERVICE, [work]);
                engine.start().await.unwrap();
                engine
            })
        });
        Self { runtime, engine }
    }

    /// At once, in the middle of what it does.
    async fn kill(self) {
        let Self { runtime, engine } = self;
        drop(engine);
        let end = move || runtime.shutdown_timeout(Duration::from_secs(5));
        modelyard_kernel::background::on_a_thread(end).await.unwrap();
    }
}

/// A schedule of which one job is being done and another waits.
struct Scene {
    server: Server,
    done: Done,
    process: Process,
    first: Ulid,
    second: Ulid,
}

impl Scene {
    async fn new(database: &TestDatabase) -> Self {
        let (begun, ended) = (Arc::default(), Arc::default());
        let (go_on, fails) = (Arc::new(Semaphore::new(0)), Arc::default());
        let done = Done { begun, ended, go_on, fails };
        let (db, clock) = (database.db.clone(), Clock::system());
        let server = Server::with(db, clock, World::default(), Grants::All);
        server.create(ID, json!({"overlap": "queue"})).await;
        let process = Process::start(database, "one", &done);

        let first = run_now(&server, &process).await;
        until("the first is begun", async || done.begun() == [first]).await;
        let second = run_now(&server, &process).await;
        assert_ne!(second, first);
        // There is a place for it, it is due, and the process was told.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(server.job(second).await.status, JobStatus::Pending);
        // A third finds that one waits already.
        assert_eq!(run_now(&server, &process).await, second);
        assert_eq!((server.jobs().await, done.begun()), (2, vec![first]));
        Self { server, done, process, first, second }
    }

    /// Lets both go on, of which the first was begun this often, and they end one after the other.
    async fn ends(self, times: usize) {
        let Self { server, done, process, first, second } = self;
        let mut begun = vec![first; times];
        until("the first is begun", async || done.begun() == begun).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(done.begun(), begun, "the second waits for it");
        done.go_on.add_permits(1);
        begun.push(second);
        until("the second is begun", async || done.begun() == begun).await;
        assert_eq!(server.job(first).await.status, JobStatus::Completed);
        // Now another may wait.
        let third = run_now(&server, &process).await;
        assert!(third != second && third != first);
        done.go_on.add_permits(2);
        until("all have ended", async || *done.ended.lock() == [first, second, third]).await;
        let jobs = [server.job(first).await, server.job(second).await, server.job(third).await];
        assert!(jobs.iter().all(|it| it.status == JobStatus::Completed));
        assert!(jobs[0].finished_at <= jobs[1].started_at, "{jobs:?}");
        assert!(jobs[1].finished_at <= jobs[2].started_at, "{jobs:?}");
        process.kill().await;
    }
}

async fn run_now(server: &Server, process: &Process) -> Ulid {
    let begun = server.post(&format!("/{ID}/$run-now"), Value::Null).await.expect(202);
    // One process is asked and another does it: do not wait until that one looks again.
    process.engine.jobs().wake_all();
    Ulid::read(begun["job_id"].as_str().unwrap()).unwrap()
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    for _ in 0..1500 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came: {what}");
}

on_both_databases! {
    async fn one_job_of_a_schedule_waits_until_the_other_has_ended(database: TestDatabase) {
        let scene = Scene::new(&database).await;
        scene.ends(1).await;
    }

    async fn it_waits_also_when_the_process_is_started_again(database: TestDatabase) {
        let Scene { server, done, process, first, second } = Scene::new(&database).await;
        process.kill().await;
        let process = Process::start(&database, "one", &done);
        Scene { server, done, process, first, second }.ends(2).await;
    }

    async fn it_waits_also_when_another_process_takes_over(database: TestDatabase) {
        let Scene { server, done, process, first, second } = Scene::new(&database).await;
        process.kill().await;
        let process = Process::start(&database, "two", &done);
        Scene { server, done, process, first, second }.ends(2).await;
    }

    async fn it_waits_also_while_the_other_is_to_be_tried_again(database: TestDatabase) {
        let scene = Scene::new(&database).await;
        scene.done.fails.store(true, Ordering::SeqCst);
        scene.done.go_on.add_permits(1);
        let (server, first) = (&scene.server, scene.first);
        until("it has failed", async || server.job(first).await.error.is_some()).await;
        // The record may show that it waits by now, or is done again.
        scene.ends(2).await;
    }
}
