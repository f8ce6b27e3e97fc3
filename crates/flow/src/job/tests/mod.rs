//! The engine through its handle, on both databases. The clock is the real one: pauses and leases are
//! about time that passes.

mod waiting;

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use modelyard_kernel::{Background, Clock, Grants, Progress, Time, Work};
use modelyard_testkit::{SERVICE, TENANT, TestDatabase, on_both_databases, test_scope};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;

const KIND: &str = "test.work";
/// May ask for work of that kind.
const WORK: Permission = Permission("test:work");

type Body = Arc<dyn Fn(Jobs, Assignment) -> BoxFuture<'static, Result<(), Failed>> + Send + Sync>;

/// An engine with one service that does one kind of work.
struct Node {
    engine: Engine,
    jobs: Jobs,
    background: Background,
    clock: Clock,
}

fn quick() -> Policy {
    Policy {
        backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(50),
        ..Policy::default()
    }
}

impl Node {
    fn new(database: &TestDatabase, name: &str, options: Options) -> Self {
        let (background, clock) = (Background::default(), Clock::system());
        let (db, node) = (database.db.clone(), name.to_owned());
        let engine = Engine::new(db, clock.clone(), background.clone(), node, options);
        let jobs = engine.jobs();
        Self { engine, jobs, background, clock }
    }

    fn does(&self, policy: Policy, body: Body) {
        self.does_for(SERVICE, policy, body);
    }

    fn does_for(&self, service: &str, policy: Policy, body: Body) {
        let jobs = self.engine.jobs();
        let run = move |it: Assignment| body(jobs.clone(), it);
        let work = Work { kind: KIND, queue: "test", permission: WORK, policy, run: Arc::new(run) };
        self.engine.serve(service, [work]);
    }

    fn job(&self) -> NewJob {
        NewJob::new(JobId::new(&self.clock), KIND, b"{}".to_vec())
    }

    async fn add(&self, new: NewJob) -> JobId {
        self.jobs.add(&test_scope(), new).await.unwrap().job
    }

    async fn until(&self, id: JobId, what: impl Fn(&Job) -> bool) -> Job {
        for _ in 0..800 {
            let job = self.jobs.get(&system(), id).await.unwrap();
            if what(&job) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never came: {:?}", self.jobs.get(&system(), id).await);
    }

    async fn ended(&self, id: JobId) -> Job {
        self.until(id, |it| it.status.is_final()).await
    }

    async fn stop(self) {
        assert!(self.background.shutdown(Duration::from_secs(20)).await);
    }
}

fn system() -> Caller {
    Caller::system("jobs", TENANT, SERVICE)
}

fn body<F>(work: impl Fn(Jobs, Assignment) -> F + Send + Sync + 'static) -> Body
where
    F: Future<Output = Result<(), Failed>> + Send + 'static,
{
    Arc::new(move |jobs, assignment| Box::pin(work(jobs, assignment)))
}

/// Work that ends well at once.
fn nothing() -> Body {
    body(|jobs, assignment| async move { complete(&jobs, &assignment).await })
}

async fn complete(jobs: &Jobs, assignment: &Assignment) -> Result<(), Failed> {
    Ok(jobs.complete(assignment.caller.permit(WRITE)?, assignment.into(), None).await?)
}

fn options() -> Options {
    Options { concurrency: 4, ..Options::default() }
}

on_both_databases! {
    async fn what_may_pass_is_tried_again_until_it_does(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        node.does(quick(), body(|jobs, assignment| async move {
            if assignment.attempt < 3 {
                return Err(Failed::new("OSError", "not yet").transient());
            }
            complete(&jobs, &assignment).await
        }));
        node.engine.start().await.unwrap();
        let id = node.add(node.job()).await;
        let job = node.ended(id).await;
        assert_eq!((job.status, job.attempt, job.max_attempts), (JobStatus::Completed, 3, 3));
        assert_eq!((job.error, job.dead_letter), (None, false));
        node.stop().await;
    }

    async fn what_fails_for_good_is_a_dead_letter_that_can_be_tried_again(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        let repaired = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&repaired);
        node.does(quick(), body(move |jobs, assignment| {
            let repaired = seen.load(Ordering::SeqCst) > 0;
            async move {
                assert_eq!(assignment.input, [b'x'; 20_000]);
                if repaired { complete(&jobs, &assignment).await }
                else { Err(Failed::new("OSError", "broken").transient()) }
            }
        }));
        node.engine.start().await.unwrap();
        let new = NewJob { input: vec![b'x'; 20_000], artifact: Some(node.clock.ulid()), ..node.job() };
        let promised = new.artifact;
        let id = node.add(new).await;
        let job = node.ended(id).await;
        assert_eq!((job.status, job.attempt, job.dead_letter), (JobStatus::Failed, 3, true));
        assert_eq!(job.error.as_deref(), Some("OSError: broken"));

        repaired.store(1, Ordering::SeqCst);
        let retried = node.jobs.retry(&system(), id, Wishes::default()).await.unwrap();
        assert!(retried.artifact.is_some() && retried.artifact != promised);
        let second = node.ended(retried.job).await;
        assert_eq!((second.status, second.retry_of), (JobStatus::Completed, Some(id.0)));
        let first = node.jobs.get(&system(), id).await.unwrap();
        assert_eq!((first.status, first.dead_letter), (JobStatus::Failed, false));
        let refused = node.jobs.retry(&system(), id, Wishes::default()).await.unwrap_err();
        assert_eq!(refused.code(), "not_a_dead_letter");
        node.stop().await;
    }

    async fn whoever_tries_work_again_may_do_such_work(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        node.does(quick(), body(|_, _| async { Err(Failed::new("ValueError", "never")) }));
        node.engine.start().await.unwrap();
        let id = node.add(node.job()).await;
        node.ended(id).await;
        let with = |names: &[&str]| {
            let grants = Grants::Only(names.iter().map(|it| (*it).to_owned()).collect());
            Caller::new("janitor", TENANT, SERVICE, grants)
        };
        let janitor = with(&["jobs:read", "jobs:write"]);
        let refused = node.jobs.retry(&janitor, id, Wishes::default()).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.detail()),
            ("permission_denied", "this needs the `test:work` permission")
        );
        assert!(node.jobs.get(&system(), id).await.unwrap().dead_letter);
        let worker = with(&["jobs:write", "test:work"]);
        node.jobs.retry(&worker, id, Wishes::default()).await.unwrap();
        node.stop().await;
    }

    async fn what_would_fail_again_is_not_tried_again(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        node.does(quick(), body(|_, _| async { Err(Failed::new("ValueError", "never")) }));
        node.engine.start().await.unwrap();
        let id = node.add(node.job()).await;
        let job = node.ended(id).await;
        assert_eq!((job.status, job.attempt, job.dead_letter), (JobStatus::Failed, 1, true));
        node.jobs.discard(&system(), id).await.unwrap();
        assert!(!node.jobs.get(&system(), id).await.unwrap().dead_letter);
        node.stop().await;
    }

    async fn a_step_that_is_done_is_not_done_again(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        let (fitted, published) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&fitted), Arc::clone(&published));
        node.does(quick(), body(move |jobs, assignment| {
            let (fitted, published) = counts.clone();
            async move {
                let context = jobs.context(&assignment)?;
                let model: Value = context.step("fit", async {
                    fitted.fetch_add(1, Ordering::SeqCst);
                    Ok(json!({"slope": 1.5}))
                }).await?;
                assert_eq!(model, json!({"slope": 1.5}));
                assert!(context.idempotency_key("publish").ends_with("-publish"));
                let tries: usize = context.local_step("publish", async {
                    if published.fetch_add(1, Ordering::SeqCst) == 0 {
                        return Err(Failed::new("OSError", "the first time fails").transient());
                    }
                    Ok(7)
                }).await?;
                assert_eq!(tries, 7);
                complete(&jobs, &assignment).await
            }
        }));
        node.engine.start().await.unwrap();
        let id = node.add(node.job()).await;
        let job = node.ended(id).await;
        assert_eq!((job.status, job.attempt), (JobStatus::Completed, 2), "{:?}", job.error);
        assert_eq!((fitted.load(Ordering::SeqCst), published.load(Ordering::SeqCst)), (1, 2));
        let steps = node.jobs.steps(&system(), id).await.unwrap();
        let names: Vec<_> = steps.iter().map(|it| (it.name.as_str(), it.attempt)).collect();
        assert_eq!(names, [("fit", 1), ("publish", 2)]);
        node.stop().await;
    }

    async fn a_job_that_sleeps_leaves_its_place_to_others(database: TestDatabase) {
        let node = Node::new(&database, "a", Options { concurrency: 1, ..options() });
        node.does(quick(), body(|jobs, assignment| async move {
            if assignment.input == b"sleeps" {
                let context = jobs.context(&assignment)?;
                let until = jobs.machine().clock.now().after(Duration::from_millis(700));
                context.sleep_until("rest", until).await?;
            }
            complete(&jobs, &assignment).await
        }));
        node.engine.start().await.unwrap();
        let sleeper = node.add(NewJob { input: b"sleeps".to_vec(), ..node.job() }).await;
        let other = node.add(node.job()).await;
        let other = node.ended(other).await;
        let sleeper = node.ended(sleeper).await;
        assert_eq!((sleeper.status, sleeper.attempt), (JobStatus::Completed, 1));
        assert!(other.finished_at < sleeper.finished_at);
        let slept = sleeper.finished_at.unwrap().since(sleeper.submitted_at);
        assert!(slept >= Duration::from_millis(700), "{slept:?}");
        node.stop().await;
    }

    async fn whoever_lost_its_claim_changes_nothing(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        let (begun, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let marks = (Arc::clone(&begun), Arc::clone(&go_on));
        node.does(quick(), body(move |jobs, assignment| {
            let (begun, go_on) = marks.clone();
            async move {
                begun.add_permits(1);
                let _ = go_on.acquire().await;
                let context = jobs.context(&assignment)?;
                let written = context.step("late", async { Ok(1) }).await;
                assert!(written.unwrap_err().error.contains("another process"));
                complete(&jobs, &assignment).await
            }
        }));
        node.engine.start().await.unwrap();
        let id = node.add(node.job()).await;
        begun.acquire().await.unwrap().forget();
        // As if this process had been silent for too long.
        // In one transaction, or else it might take the job back.
        let mut tx = database.db.begin().await.unwrap();
        assert_eq!(claims::requeue_own(&mut tx, "a").await.unwrap(), 1);
        let lane = Lane::of(&test_scope(), "test");
        let claimed = claims::claim(&mut tx, &lane, "b", 1, node.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((claimed[0].id, claimed[0].lost, claimed[0].is_fresh()), (id, 1, false));
        go_on.add_permits(1);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let job = node.jobs.get(&system(), id).await.unwrap();
        assert_eq!((job.status, job.attempt), (JobStatus::Running, 2));
        let hold = Hold { job: id, token: claimed[0].token };
        let mut conn = database.db.conn().await.unwrap();
        node.jobs.end(&mut conn, &test_scope(), hold, Ok(None)).await.unwrap();
        assert_eq!(node.ended(id).await.status, JobStatus::Completed);
        drop(conn);
        node.stop().await;
    }

    async fn jobs_of_a_process_that_is_gone_are_done_by_another(database: TestDatabase) {
        let (one, two) = (Node::new(&database, "one", options()), Node::new(&database, "two", options()));
        // What it claimed under its last lease, before it was gone.
        let id = one.add(one.job()).await;
        let gone = claims::Beat {
            node: "one".to_owned(),
            lease: Some(Duration::from_millis(3400)),
            takes_over: false,
            now: one.clock.now(),
        };
        claims::beat(&database.db, gone).await.unwrap();
        let lane = Lane::of(&test_scope(), "default");
        let mut conn = database.db.conn().await.unwrap();
        claims::claim(&mut conn, &lane, "one", 1, one.clock.now()).await.unwrap();
        drop(conn);
        let since = Instant::now();
        two.does(quick(), nothing());
        two.engine.start().await.unwrap();
        let job = two.ended(id).await;
        assert_eq!((job.status, job.attempt), (JobStatus::Completed, 2));
        let took = since.elapsed();
        assert!(took > Duration::from_millis(3000) && took < Duration::from_secs(6), "{took:?}");
        two.stop().await;
    }

    async fn a_job_that_ends_the_process_each_time_is_given_up(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        let id = node.add(node.job()).await;
        let mut conn = database.db.conn().await.unwrap();
        for _ in 0..model::MAX_LOST {
            let lane = Lane::of(&test_scope(), "default");
            claims::claim(&mut conn, &lane, "a", 1, node.clock.now()).await.unwrap();
            claims::requeue_own(&mut conn, "a").await.unwrap();
        }
        drop(conn);
        node.does(quick(), nothing());
        node.engine.start().await.unwrap();
        let job = node.ended(id).await;
        let error = "RuntimeError: given up, since the process that did it ended 20 times";
        assert_eq!((job.status, job.error.as_deref()), (JobStatus::Failed, Some(error)));
        node.stop().await;
    }

    async fn a_cancelled_job_says_so_at_once_and_its_work_stops(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        let stopped = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&stopped);
        node.does(quick(), body(move |_, assignment| {
            let stopped = Arc::clone(&seen);
            async move {
                assignment.cancel.cancelled().await;
                stopped.fetch_add(1, Ordering::SeqCst);
                Err(Failed::new("CancelledError", "stopped"))
            }
        }));
        node.engine.start().await.unwrap();
        let id = node.add(node.job()).await;
        node.until(id, |it| it.status == JobStatus::Running).await;
        // The process that runs it is not the one that is asked.
        let other = Node::new(&database, "b", Options { workers: Workers::None, ..options() });
        let asked = Instant::now();
        let job = other.jobs.cancel(&system(), id, &Conditions::default()).await.unwrap();
        assert_eq!(job.status, JobStatus::Canceled);
        while stopped.load(Ordering::SeqCst) == 0 {
            assert!(asked.elapsed() < Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let again = other.jobs.cancel(&system(), id, &Conditions::default()).await.unwrap_err();
        assert_eq!(again.code(), "job_ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(node.jobs.get(&system(), id).await.unwrap().status, JobStatus::Canceled);
        node.stop().await;
    }

    async fn the_same_request_asks_for_one_job(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        let key = |fingerprint: &str| {
            let (name, fingerprint) = ("monday".to_owned(), fingerprint.to_owned());
            Wishes { request: Some(RequestKey { name, fingerprint }), ..Wishes::default() }
        };
        let new = || NewJob { wishes: key("x"), artifact: Some(node.clock.ulid()), ..node.job() };
        let (scope, jobs) = (test_scope(), &node.jobs);
        let asked = join_all((0..20).map(|_| jobs.add(&scope, new()))).await;
        let asked: Vec<Submission> = asked.into_iter().map(Result::unwrap).collect();
        assert_eq!(asked.iter().filter(|it| !it.existed).count(), 1);
        assert!(asked.iter().all(|it| it.job == asked[0].job && it.artifact == asked[0].artifact));
        let other = NewJob { wishes: key("y"), ..node.job() };
        let refused = jobs.add(&scope, other).await.unwrap_err();
        assert_eq!((refused.code(), refused.status().as_u16()), ("idempotency_key_reused", 422));
        // Neither the refused nor the repeated ones left anything.
        let all = ListQuery::all(&FIELDS);
        assert_eq!(all.count(&mut database.db.conn().await.unwrap(), &scope).await.unwrap(), 1);
    }

    async fn one_job_of_a_key_waits_at_a_time(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        let new = || NewJob { unique: Some("nightly".to_owned()), ..node.job() };
        let first = node.jobs.add(&test_scope(), new()).await.unwrap();
        let second = node.jobs.add(&test_scope(), new()).await.unwrap();
        assert_eq!((second.job, second.existed), (first.job, true));
        node.does(quick(), nothing());
        node.engine.start().await.unwrap();
        node.ended(first.job).await;
        let third = node.jobs.add(&test_scope(), new()).await.unwrap();
        assert!(!third.existed && third.job != first.job);
        node.ended(third.job).await;
        node.stop().await;
    }

    async fn the_urgent_go_first_and_services_take_turns(database: TestDatabase) {
        let node = Node::new(&database, "a", Options { total: 1, ..options() });
        let order = Arc::new(Mutex::new(Vec::new()));
        let done = |service: &'static str| {
            let order = Arc::clone(&order);
            body(move |jobs, assignment| {
                let order = Arc::clone(&order);
                async move {
                    order.lock().push((service, String::from_utf8(assignment.input.clone()).unwrap()));
                    complete(&jobs, &assignment).await
                }
            })
        };
        node.does_for("busy", quick(), done("busy"));
        node.does_for("small", quick(), done("small"));
        let scope = |service: &str| modelyard_testkit::scope_of(TENANT, service);
        for (service, priority, name) in [
            ("busy", 0, "1"), ("busy", 0, "2"), ("busy", 0, "3"), ("busy", 9, "urgent"),
            ("small", 0, "1"),
        ] {
            let input = name.as_bytes().to_vec();
            let wishes = Wishes { priority: Some(priority), ..Wishes::default() };
            let new = NewJob { wishes, ..NewJob::new(JobId::new(&node.clock), KIND, input) };
            node.jobs.add(&scope(service), new).await.unwrap();
        }
        node.engine.start().await.unwrap();
        while order.lock().len() < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let order = order.lock().clone();
        let of = |service: &str| -> Vec<String> {
            order.iter().filter(|it| it.0 == service).map(|it| it.1.clone()).collect()
        };
        assert_eq!(of("busy"), ["urgent", "1", "2", "3"]);
        let small = order.iter().position(|it| it.0 == "small").unwrap();
        assert!(small <= 1, "{order:?}");
        node.stop().await;
    }

    async fn a_queue_has_bounds_and_a_switch(database: TestDatabase) {
        let queues = [("test".to_owned(), 2)].into();
        let node = Node::new(&database, "a", Options { queues, max_pending: 5, ..options() });
        let (most, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&most), Arc::clone(&now));
        node.does(quick(), body(move |jobs, assignment| {
            let (most, now) = counts.clone();
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                complete(&jobs, &assignment).await
            }
        }));
        node.jobs.pause(&system(), "test").await.unwrap();
        node.engine.start().await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(node.add(node.job()).await);
        }
        let refused = node.jobs.add(&test_scope(), node.job()).await.unwrap_err();
        assert_eq!((refused.code(), refused.status().as_u16()), ("queue_full", 429));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let queues = node.jobs.queues(&system()).await.unwrap();
        let expected = Queue {
            name: "test".to_owned(), paused: true, pending: 5, running: 0, concurrency: Some(2),
        };
        assert_eq!(queues, [expected]);
        node.jobs.resume(&system(), "test").await.unwrap();
        for id in ids {
            assert_eq!(node.ended(id).await.status, JobStatus::Completed);
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
        node.stop().await;
    }

    async fn what_takes_too_long_is_stopped(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        let policy = Policy {
            attempt_timeout: Some(Duration::from_millis(100)), max_attempts: 2, ..quick()
        };
        node.does(policy, body(|_, assignment| async move {
            assignment.cancel.cancelled().await;
            Err(Failed::new("CancelledError", "stopped"))
        }));
        node.engine.start().await.unwrap();
        let id = node.add(node.job()).await;
        let job = node.ended(id).await;
        let error = "TimeoutError: the attempt took more than 0.1 seconds";
        assert_eq!((job.attempt, job.error.as_deref()), (2, Some(error)));
        node.stop().await;

        let node = Node::new(&database, "b", options());
        let deadline = Some(Duration::from_millis(100));
        node.does(Policy { deadline, ..quick() }, body(|_, assignment| async move {
            assignment.cancel.cancelled().await;
            Err(Failed::new("CancelledError", "stopped").transient())
        }));
        node.engine.start().await.unwrap();
        let id = node.add(node.job()).await;
        let job = node.ended(id).await;
        let error = "TimeoutError: the job was not done by its deadline";
        assert_eq!((job.attempt, job.error.as_deref()), (1, Some(error)));
        node.stop().await;
    }

    async fn what_a_job_says_can_be_read(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        node.does(quick(), body(|jobs, assignment| async move {
            let context = jobs.context(&assignment)?;
            let counters = [("epoch".to_owned(), 3.0)].into();
            let message = Some("fitting".to_owned());
            context.progress(Progress { fraction: Some(0.25), message, counters });
            for line in 0..3000 {
                context.log("stdout", &format!("line {line}"));
            }
            tokio::time::sleep(Duration::from_millis(600)).await;
            context.log("stderr", "the last\0 line");
            complete(&jobs, &assignment).await
        }));
        node.engine.start().await.unwrap();
        let id = node.add(node.job()).await;
        let job = node.until(id, |it| it.progress.is_some() && it.log_tail.is_some()).await;
        let shown = serde_json::to_value(&job).unwrap();
        assert_eq!(shown["progress"]["fraction"], 0.25);
        assert_eq!(shown["progress"]["counters"], json!({"epoch": 3.0}));
        assert!(shown["progress"]["eta_seconds"].is_number(), "{shown}");
        let job = node.ended(id).await;
        let tail = job.log_tail.unwrap().0;
        assert_eq!((tail.len(), tail[9].as_str()), (10, "the last\u{fffd} line"));
        let lines = node.jobs.lines(&system(), id, 0, 5000).await.unwrap();
        // More than fits into the buffer at once: the first ones give way, and a note says so.
        assert_eq!(lines[0].text, "[... 1000 lines left out ...]");
        assert_eq!((lines[0].seq, lines[1].text.as_str()), (1, "line 1000"));
        assert_eq!(lines.last().unwrap().stream, "stderr");
        let rest = node.jobs.lines(&system(), id, lines.len() as i64 - 1, 10).await.unwrap();
        assert_eq!(rest.len(), 1);
        node.stop().await;
    }

    async fn what_has_expired_goes(database: TestDatabase) {
        let node = Node::new(&database, "a", Options { retention: Duration::from_millis(1), ..options() });
        node.does(quick(), nothing());
        node.engine.start().await.unwrap();
        let id = node.add(node.job()).await;
        node.ended(id).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(retention::expire_now(node.jobs.machine(), Time::from_micros(0)).await.unwrap(), 1);
        assert_eq!(node.jobs.get(&system(), id).await.unwrap_err().code(), "job_missing");
        node.stop().await;
    }

    async fn what_there_is_no_place_for_here_is_done_elsewhere_soon(database: TestDatabase) {
        let only = |queue: &str| Options {
            workers: Workers::Queues(vec![queue.to_owned()]), ..options()
        };
        let (one, two) =
            (Node::new(&database, "one", only("other")), Node::new(&database, "two", only("test")));
        for node in [&one, &two] {
            node.does(quick(), nothing());
            node.engine.start().await.unwrap();
        }
        // Both have looked, and would look again in fifteen seconds.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let added = Instant::now();
        let id = one.add(one.job()).await;
        let somehow = one.job();
        let other = somehow.id;
        one.jobs.submit(&mut database.db.conn().await.unwrap(), &test_scope(), somehow).await.unwrap();
        one.jobs.wake_all();
        if database.db.dialect() == Dialect::Sqlite {
            // Where there is but one process, it is the one that does it.
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(one.jobs.get(&system(), id).await.unwrap().status, JobStatus::Pending);
            two.jobs.wake_all();
        }
        for id in [id, other] {
            assert_eq!(one.ended(id).await.status, JobStatus::Completed);
        }
        assert!(added.elapsed() < Duration::from_secs(2), "{:?}", added.elapsed());
        one.stop().await;
        two.stop().await;
    }

    async fn no_job_is_lost_or_done_twice_by_several_processes(database: TestDatabase) {
        let done: Arc<Mutex<HashMap<JobId, usize>>> = Arc::default();
        let count = Arc::clone(&done);
        let work = body(move |jobs, assignment| {
            let done = Arc::clone(&count);
            async move {
                *done.lock().entry(JobId(assignment.job)).or_default() += 1;
                complete(&jobs, &assignment).await
            }
        });
        let nodes: Vec<Node> =
            ["a", "b", "c"].iter().map(|name| Node::new(&database, name, options())).collect();
        for node in &nodes {
            node.does(quick(), Arc::clone(&work));
            node.engine.start().await.unwrap();
        }
        let mut ids = Vec::new();
        for at in 0..150 {
            let node = &nodes[at % 3];
            ids.push(node.add(node.job()).await);
        }
        for id in &ids {
            assert_eq!(nodes[0].ended(*id).await.status, JobStatus::Completed);
        }
        let done = done.lock().clone();
        assert!(ids.iter().all(|id| done.get(id) == Some(&1)), "{done:?}");
        for node in nodes {
            node.stop().await;
        }
    }
}

#[test]
fn progress_tells_how_long_it_may_still_take() {
    let at = |seconds: i64| Time::from_micros(seconds * 1_000_000);
    let mut job = Job {
        id: JobId(Ulid::read("01M7W2GK1CC2HZY9FECP19MYJK").unwrap()),
        status: JobStatus::Running,
        submitted_at: at(0),
        started_at: Some(at(10)),
        finished_at: None,
        error: None,
        error_traceback: None,
        artifact_id: None,
        kind: KIND.to_owned(),
        label: None,
        queue: "test".to_owned(),
        priority: 0,
        attempt: 1,
        max_attempts: 3,
        run_at: None,
        deadline_at: None,
        owner: None,
        retry_of: None,
        dead_letter: false,
        progress: None,
        log_tail: None,
        revision: 1,
    };
    let reported = json!({"fraction": 0.25, "at": 40_000_000});
    job.progress = Some(modelyard_kernel::db::Json(serde_json::from_value(reported).unwrap()));
    let shown = serde_json::to_value(&job).unwrap();
    assert_eq!(shown["progress"]["eta_seconds"], 90.0);
    assert_eq!(shown["timing"]["waited_ms"], 10_000.0);
    job.status = JobStatus::Completed;
    assert!(serde_json::to_value(&job).unwrap()["progress"]["eta_seconds"].is_null());
}
