//! Asking checks, and the one for the database.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use modelyard_kernel::db::{self, Db};
use modelyard_kernel::part::Checked;
use modelyard_kernel::{Health, HealthCheck};
use serde::Serialize;
use serde::ser::SerializeMap;
use tokio::time::{Instant, timeout};

use super::Report;

/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the database answers.
pub fn database_check(db: Db) -> HealthCheck {
    let ask = move || {
        let db = db.clone();
        async move {
            match select_one(&db).await {
                Ok(()) => (Health::Healthy, None),
                Err(failure) => {
                    // The sentence for the client names no host, file or user.
                    tracing::warn!(%failure, "the database does not answer");
                    let message = "Check failed: the database does not answer";
                    (Health::Unhealthy, Some(message.to_owned()))
                }
            }
        }
        .boxed()
    };
    HealthCheck { name: "database", ask: Arc::new(ask) }
}

async fn select_one(db: &Db) -> db::Result<()> {
    let (_one,): (i64,) =
        db::query("SELECT CAST(1 AS BIGINT)").fetch_one(&mut db.conn().await?).await?;
    Ok(())
}

/// Asks all of them at once.
pub(super) async fn ask_all(checks: &[HealthCheck]) -> Vec<Checked> {
    join_all(checks.iter().map(ask)).await
}

async fn ask(check: &HealthCheck) -> Checked {
    // A check that panics, even before its first wait, is one that failed.
    let answer = AssertUnwindSafe(async { (check.ask)().await }).catch_unwind();
    let unhealthy = |message: &str| (Health::Unhealthy, Some(message.to_owned()));
    match timeout(PATIENCE, answer).await {
        Ok(Ok(checked)) => checked,
        Ok(Err(_panic)) => unhealthy("Check failed: the check itself does not work"),
        Err(_) => unhealthy("Check timed out"),
    }
}

impl Report {
    pub(super) fn new(names: &[&str], answers: Vec<Checked>, overall: Health) -> Self {
        let states = answers.iter().map(|it| it.0).collect();
        let answers: Vec<(&str, One)> = names
            .iter()
            .zip(answers)
            .map(|(name, (state, message))| (*name, One { state, message }))
            .collect();
        let answers = (!answers.is_empty()).then_some(InOrder(answers));
        let body = serde_json::to_string(&Wire { status: overall, checks: answers });
        let body = body.unwrap_or_default();
        let event = Bytes::from(format!("data: {body}\n\n"));
        Report { seen: Instant::now(), overall, states, body: body.into(), event }
    }
}

/// The contract's form; what there is nothing to say about is left out.
#[derive(Serialize)]
struct Wire<'a> {
    status: Health,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<InOrder<'a>>,
}

struct InOrder<'a>(Vec<(&'a str, One)>);

impl Serialize for InOrder<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, one) in &self.0 {
            map.serialize_entry(name, one)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct One {
    state: Health,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}
