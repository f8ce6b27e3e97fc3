//! The measurements, the same for whoever has a queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use serde::Serialize;

use crate::server::Database;
use crate::{AT_ONCE, Done};

/// Jobs a second while it is measured how soon they are begun, and for how long.
const LIGHT: (u32, Duration) = (50, Duration::from_secs(10));

/// How long nothing is done while the queries are counted.
const IDLE: Duration = Duration::from_secs(20);

/// Jobs in one transaction, where several are.
const BULK: usize = 100;

/// A queue of jobs that do nothing.
pub trait Queue: Send + Sync + 'static {
    /// Adds `count` jobs in one transaction and returns after its commit, with what each is called.
    fn submit(&self, client: usize, count: usize)
    -> impl Future<Output = Done<Vec<String>>> + Send;

    /// Begins to do jobs, [`AT_ONCE`] at a time, and tells `seen`.
    fn work(&self, seen: Arc<Seen>) -> impl Future<Output = Done> + Send;
}

/// What the workers did.
#[derive(Default)]
pub struct Seen {
    begun: Mutex<HashMap<String, Instant>>,
    completed: AtomicUsize,
}

impl Seen {
    /// A job is begun.
    pub fn begun(&self, job: String) {
        self.begun.lock().insert(job, Instant::now());
    }

    /// Its end is committed.
    pub fn completed(&self) {
        self.completed.fetch_add(1, Ordering::Relaxed);
    }

    async fn all(&self, jobs: usize) -> Done {
        let began = Instant::now();
        while self.completed.load(Ordering::Relaxed) < jobs {
            if began.elapsed() > Duration::from_secs(300) {
                let completed = self.completed.load(Ordering::Relaxed);
                return Err(format!("{completed} of {jobs} jobs in five minutes").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

/// What is printed.
#[derive(Serialize)]
pub struct Figures {
    /// Nobody works meanwhile.
    enqueued_per_second: f64,
    /// [`BULK`] in a transaction.
    enqueued_in_bulk_per_second: f64,
    /// Of jobs that wait already.
    completed_per_second: f64,
    /// From the first submission to the last end, both at the same time.
    per_second: f64,
    pick_up_p50_ms: f64,
    pick_up_p99_ms: f64,
    /// On PostgreSQL.
    idle_queries_per_second: Option<f64>,
}

/// Measures everything.
pub async fn all(queue: impl Queue, jobs: usize, database: Option<&Database>) -> Done<Figures> {
    let queue = Arc::new(queue);
    let seen = Arc::new(Seen::default());

    let began = Instant::now();
    submit(&queue, jobs / 2, 1).await?;
    let enqueued_per_second = rate(jobs / 2, began);
    let began = Instant::now();
    submit(&queue, jobs / 2, BULK).await?;
    let enqueued_in_bulk_per_second = rate(jobs / 2, began);

    let began = Instant::now();
    queue.work(Arc::clone(&seen)).await?;
    seen.all(jobs).await?;
    let completed_per_second = rate(jobs, began);

    let began = Instant::now();
    submit(&queue, jobs, 1).await?;
    seen.all(2 * jobs).await?;
    let per_second = rate(jobs, began);

    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut waits = pick_up(&*queue, &seen, 2 * jobs).await?;
    waits.sort_unstable();
    let percentile = |percent: usize| {
        waits[(waits.len() * percent / 100).min(waits.len() - 1)].as_secs_f64() * 1e3
    };

    let idle_queries_per_second = match database {
        None => None,
        Some(database) => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let before = database.queries().await?;
            tokio::time::sleep(IDLE).await;
            let queries = database.queries().await? - before;
            Some(queries as f64 / IDLE.as_secs_f64())
        }
    };
    Ok(Figures {
        enqueued_per_second,
        enqueued_in_bulk_per_second,
        completed_per_second,
        per_second,
        pick_up_p50_ms: percentile(50),
        pick_up_p99_ms: percentile(99),
        idle_queries_per_second,
    })
}

/// Several clients, each as fast as it can.
async fn submit(queue: &Arc<impl Queue>, jobs: usize, at_once: usize) -> Done {
    let client = |client| async move {
        for _ in 0..jobs / AT_ONCE / at_once {
            queue.submit(client, at_once).await?;
        }
        Done::Ok(())
    };
    try_join_all((0..AT_ONCE).map(client)).await?;
    // What does not come out even.
    let rest = jobs - jobs / AT_ONCE / at_once * AT_ONCE * at_once;
    if rest > 0 {
        queue.submit(0, rest).await?;
    }
    Ok(())
}

/// How long each job waits while there are few.
async fn pick_up(queue: &impl Queue, seen: &Seen, before: usize) -> Done<Vec<Duration>> {
    let (per_second, time) = LIGHT;
    let every = Duration::from_secs(1) / per_second;
    let mut committed = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let due = began + every * u32::try_from(committed.len())?;
        tokio::time::sleep_until(due.into()).await;
        let job = queue.submit(0, 1).await?.remove(0);
        committed.push((job, Instant::now()));
    }
    seen.all(before + committed.len()).await?;
    let begun = seen.begun.lock();
    Ok(committed.iter().map(|(job, at)| begun[job].saturating_duration_since(*at)).collect())
}

fn rate(jobs: usize, since: Instant) -> f64 {
    jobs as f64 / since.elapsed().as_secs_f64()
}
