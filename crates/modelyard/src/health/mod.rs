//! Health: whether the service works, from the checks of its slices.
//!
//! Each check is asked at most once a second however many clients ask, and never because of a
//! client that has left. Between two looks the answer is bytes in memory.

mod check;
mod http;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use futures_util::future::join_all;
use modelyard_kernel::{Background, Health, HealthCheck, Part};
use parking_lot::RwLock;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

use check::ask_all;
pub use check::database_check;

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(1);

/// The health of one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Checks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    checks: Vec<HealthCheck>,
    background: Background,
    latest: RwLock<Option<Arc<Report>>>,
    /// Held by the one who looks.
    looking: Arc<Mutex<()>>,
}

/// What a look found, ready to be sent.
#[derive(Debug)]
struct Report {
    seen: Instant,
    overall: Health,
    /// The state of each check, in their order.
    states: Vec<Health>,
    body: Bytes,
    event: Bytes,
}

impl Checks {
    /// Checks in the order in which they are shown: those of the service's own, then `database`,
    /// then `registration`.
    pub fn new(checks: Vec<HealthCheck>, background: Background) -> Self {
        let (latest, looking) = (RwLock::default(), Arc::default());
        Self(Arc::new(Inner { checks, background, latest, looking }))
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "health", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// How the service does, as of the last second.
    async fn latest(&self) -> Arc<Report> {
        if let Some(report) = self.fresh() {
            return report;
        }
        let turn = self.0.looking.clone().lock_owned().await;
        if let Some(report) = self.fresh() {
            return report;
        }
        // In a task of its own, so that a client that leaves does not interrupt a check.
        let (seen, look) = oneshot::channel();
        let checks = self.clone();
        self.0.background.spawn(async move {
            let report = checks.look().await;
            drop(turn);
            let _client_left = seen.send(report);
        });
        match look.await {
            Ok(report) => report,
            // The process is ending and its tasks with it.
            Err(_) => Arc::new(Report::new(&[], Vec::new(), Health::Unhealthy)),
        }
    }

    fn fresh(&self) -> Option<Arc<Report>> {
        self.0.latest.read().as_ref().filter(|it| it.seen.elapsed() < FRESH).cloned()
    }

    async fn look(&self) -> Arc<Report> {
        let answers = ask_all(&self.0.checks).await;
        let overall = answers.iter().map(|it| it.0).max().unwrap_or(Health::Healthy);
        let names: Vec<&str> = self.0.checks.iter().map(|it| it.name).collect();
        let report = Arc::new(Report::new(&names, answers, overall));
        let before = self.0.latest.write().replace(report.clone());
        let was = |n: usize| before.as_ref().and_then(|it| it.states.get(n).copied());
        for (n, (check, now)) in self.0.checks.iter().zip(&report.states).enumerate() {
            if was(n).unwrap_or(Health::Healthy) != *now {
                tracing::warn!(check = check.name, state = ?now, "health has changed");
            }
        }
        report
    }
}

/// `/health` of a process with several services: a check for each, named by its id.
pub fn front(services: Vec<(String, Checks)>) -> Router {
    http::front(services).into()
}

/// How all of them do: each as one check.
async fn overall(services: &[(String, Checks)]) -> Report {
    let reports = join_all(services.iter().map(|it| it.1.latest())).await;
    let states: Vec<Health> = reports.iter().map(|it| it.overall).collect();
    let worst = states.iter().copied().max().unwrap_or(Health::Healthy);
    let names: Vec<&str> = services.iter().map(|it| it.0.as_str()).collect();
    Report::new(&names, states.into_iter().map(|it| (it, None)).collect(), worst)
}

#[cfg(test)]
mod tests;
