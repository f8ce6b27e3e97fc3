//! A start that fails leaves nothing behind, and neither start nor stop waits for a model for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use modelyard::server::{self, ServeError};
use modelyard::{
    Frame, Model, ModelError, ModelRunner, PredictData, Server, Service, ServiceInfo, TrainData,
};
use modelyard_testkit::{TestDatabase, run};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::Value;

use crate::support::{settings, start, until};

/// What happens at a model's start or end.
#[derive(Clone, Copy)]
enum Then {
    Done,
    Fails,
    Hangs,
}

/// How often each was asked for.
#[derive(Default)]
struct Counts {
    started: AtomicUsize,
    ended: AtomicUsize,
}

struct Moody {
    start: Then,
    end: Then,
    counts: Arc<Counts>,
}

impl Model for Moody {
    type Config = Value;
    type Fitted = ();

    async fn on_init(&self) -> Result<(), ModelError> {
        self.counts.started.fetch_add(1, Ordering::SeqCst);
        match self.start {
            Then::Done => Ok(()),
            Then::Fails => Err(ModelError::of("ValueError", "not today")),
            Then::Hangs => std::future::pending().await,
        }
    }

    async fn on_cleanup(&self) {
        self.counts.ended.fetch_add(1, Ordering::SeqCst);
        if matches!(self.end, Then::Hangs) {
            std::future::pending::<()>().await;
        }
    }

    async fn train(&self, _: Value, _: TrainData) -> Result<(), ModelError> {
        Ok(())
    }

    async fn predict(&self, _: Value, (): (), it: PredictData) -> Result<Frame, ModelError> {
        Ok(it.future)
    }
}

fn moody(id: &str, start: Then, end: Then) -> (Service, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    let runner = ModelRunner::new(Moody { start, end, counts: counts.clone() });
    let service = Service::builder(ServiceInfo::new(id, "Moody")).runner(runner);
    (service.build().unwrap(), counts)
}

fn times(count: &AtomicUsize) -> usize {
    count.load(Ordering::SeqCst)
}

#[test]
fn what_can_be_known_before_is_found_before_anything_runs() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (service, counts) = moody("first", Then::Done, Then::Done);
        let mut wrong = settings(&database);
        wrong.auth.header = "no header".to_owned();
        let refused = Server::start(vec![service], wrong).await;
        assert!(matches!(refused, Err(ServeError::Header(_))), "{refused:?}");
        assert_eq!(times(&counts.started), 0);
        // Nothing holds the directory.
        let (service, _) = moody("first", Then::Done, Then::Done);
        start(service, settings(&database)).await.0.stop().await;
    });
}

#[test]
fn models_that_had_started_clean_up_when_another_does_not_start() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (first, well) = moody("first", Then::Done, Then::Done);
        let (second, badly) = moody("second", Then::Fails, Then::Done);
        let refused = Server::start(vec![first, second], settings(&database)).await;
        let Err(ServeError::Model { service, cause }) = refused else { panic!("{refused:?}") };
        assert_eq!(service, "second");
        assert!(cause.to_string().contains("not today"), "{cause}");
        assert_eq!((times(&well.started), times(&well.ended)), (1, 1));
        assert_eq!((times(&badly.started), times(&badly.ended)), (1, 0));
        let (service, _) = moody("first", Then::Done, Then::Done);
        start(service, settings(&database)).await.0.stop().await;
    });
}

#[test]
fn a_model_that_does_not_end_is_left_behind() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (service, counts) = moody("first", Then::Done, Then::Hangs);
        let (server, client) = start(service, settings(&database)).await;
        client.get("/health").await.expect(200);
        let asked = Instant::now();
        let stopped = tokio::time::timeout(Duration::from_secs(20), server.stop()).await;
        assert!(stopped.is_ok(), "it still stops after {:?}", asked.elapsed());
        assert_eq!(times(&counts.ended), 1);
    });
}

#[test]
fn whoever_is_asked_to_stop_while_a_model_starts_does() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (first, well) = moody("first", Then::Done, Then::Done);
        let (second, slow) = moody("second", Then::Hangs, Then::Done);
        let serving = server::serve(vec![first, second], settings(&database));
        let signal = async {
            until("the model starts", async || times(&slow.started) == 1).await;
            kill_process(getpid(), Signal::TERM).unwrap();
        };
        let both = async { tokio::join!(serving, signal) };
        let (served, ()) =
            tokio::time::timeout(Duration::from_secs(20), Box::pin(both)).await.unwrap();
        served.unwrap();
        assert_eq!((times(&well.ended), times(&slow.ended)), (1, 0));
    });
}
