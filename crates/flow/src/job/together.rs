//! Writing together what is asked for at the same time: on PostgreSQL each commit waits for the disk,
//! and one wait can serve many. (SQLite's writer does this for every statement by itself.)

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use modelyard_kernel::db::{Json, Query, Value, query, storable};
use modelyard_kernel::event::emit_all;
use modelyard_kernel::{Background, Db, Event, Failure, Kind, Result, Scope, Time, Ulid, Wishes};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use super::model::{Hold, JobId, NewJob};
use super::store::Terms;

/// Changes that are written at once at most.
const MOST: usize = 256;
/// Statements under way at a time: the server has one wait for the disk serve several of them.
const WRITERS: usize = 4;

/// What waits to be written with others of its kind. While as many statements as may be are under way,
/// the next changes gather.
#[derive(Debug)]
pub(super) struct Together<T>(Mutex<Gathered<T>>);

#[derive(Debug)]
struct Gathered<T> {
    waiting: Vec<(T, oneshot::Sender<Result<bool>>)>,
    writers: usize,
}

impl<T> Default for Together<T> {
    fn default() -> Self {
        Self(Mutex::new(Gathered { waiting: Vec::new(), writers: 0 }))
    }
}

/// A change that can be written together with others.
pub(super) trait Change: Send + Sync + Sized + 'static {
    /// Writes all of them in one statement, and says of each whether it was done.
    fn write(db: &Db, all: &[Self]) -> impl Future<Output = Result<Vec<bool>>> + Send;
}

impl<T: Change> Together<T> {
    /// Writes a change, soon. False when it could not be done.
    pub(super) async fn write(
        self: &Arc<Self>,
        background: &Background,
        db: &Db,
        change: T,
    ) -> Result<bool> {
        let (done, result) = oneshot::channel();
        let begins = {
            let mut gathered = self.0.lock();
            gathered.waiting.push((change, done));
            let begins = gathered.writers < WRITERS;
            gathered.writers += usize::from(begins);
            begins
        };
        if begins {
            // A task of its own: whoever asked may go away, the others must not wait in vain.
            background.spawn(Arc::clone(self).write_all(db.clone()));
        }
        result.await.unwrap_or_else(|_| Err(Failure::internal("a change was not written")))
    }

    async fn write_all(self: Arc<Self>, db: Db) {
        loop {
            let (changes, asked): (Vec<T>, Vec<_>) = {
                let mut gathered = self.0.lock();
                if gathered.waiting.is_empty() {
                    gathered.writers -= 1;
                    return;
                }
                let most = gathered.waiting.len().min(MOST);
                gathered.waiting.drain(..most).unzip()
            };
            match T::write(&db, &changes).await {
                Ok(done) => {
                    for (asked, done) in asked.into_iter().zip(done) {
                        let _gone_away = asked.send(Ok(done));
                    }
                }
                // One of them must not fail the others.
                Err(failure) if changes.len() > 1 && failure.kind() != Kind::Unavailable => {
                    for (asked, change) in asked.into_iter().zip(&changes) {
                        let done = T::write(&db, std::slice::from_ref(change)).await;
                        let done = done.and_then(|it| {
                            it.into_iter().next().ok_or_else(|| Failure::internal("no answer"))
                        });
                        let _gone_away = asked.send(done);
                    }
                }
                Err(failure) => {
                    // Each hears of it; the first has the cause.
                    let (kind, code) = (failure.kind(), failure.code().to_owned());
                    let detail = failure.detail().to_owned();
                    let others = || Failure::new(kind, code.clone(), detail.clone());
                    let mut first = Some(failure);
                    for asked in asked {
                        let _gone_away = asked.send(Err(first.take().unwrap_or_else(others)));
                    }
                }
            }
        }
    }
}

/// A job that is completed.
#[derive(Debug, Serialize)]
pub(super) struct Completed {
    tenant_id: String,
    service_id: String,
    id: JobId,
    token: i64,
    artifact_id: Option<Ulid>,
    #[serde(skip)]
    now: Time,
}

impl Completed {
    pub(super) fn new(scope: &Scope, hold: Hold, artifact_id: Option<Ulid>, now: Time) -> Self {
        let (tenant_id, service_id) = (scope.tenant().to_owned(), scope.service().to_owned());
        Self { tenant_id, service_id, id: hold.job, token: hold.token, artifact_id, now }
    }
}

impl Change for Completed {
    async fn write(db: &Db, all: &[Self]) -> Result<Vec<bool>> {
        let Some(first) = all.first() else { return Ok(Vec::new()) };
        let written: Vec<(JobId, i64)> = query(
            "WITH ended AS (
                 UPDATE jobs SET status = 'completed', artifact_id = e.artifact_id, error = NULL,
                     error_traceback = NULL, finished_at = $2, input = NULL, node = NULL,
                     revision = revision + 1
                 FROM json_to_recordset($1::JSON) AS e(tenant_id TEXT, service_id TEXT, id TEXT,
                     token BIGINT, artifact_id TEXT)
                 WHERE jobs.tenant_id = e.tenant_id COLLATE \"C\"
                     AND jobs.service_id = e.service_id COLLATE \"C\"
                     AND jobs.id = e.id COLLATE \"C\" AND jobs.token = e.token
                     AND jobs.status = 'running'
                 RETURNING jobs.tenant_id, jobs.service_id, jobs.id, e.token),
             gone AS (
                 DELETE FROM job_inputs USING ended WHERE job_inputs.tenant_id = ended.tenant_id
                     AND job_inputs.service_id = ended.service_id
                     AND job_inputs.job_id = ended.id)
             SELECT id, token FROM ended",
        )
        .bind(Json(all))
        .bind(first.now)
        .fetch_all(&mut db.conn().await?)
        .await?;
        Ok(all.iter().map(|it| written.contains(&(it.id, it.token))).collect())
    }
}

/// A job that is added.
#[derive(Debug, Serialize)]
pub(super) struct Added {
    tenant_id: String,
    service_id: String,
    id: JobId,
    kind: &'static str,
    /// In base 64.
    input: String,
    input_bytes: i64,
    promised_id: Option<Ulid>,
    submitted_at: Time,
    queue: String,
    priority: i64,
    label: Option<String>,
    owner: Option<String>,
    run_at: Time,
    deadline_at: Option<Time>,
    max_attempts: i64,
    retry_of: Option<Ulid>,
    /// Whose it is, and what is told of it.
    #[serde(skip)]
    told: (Scope, Event),
}

impl Added {
    pub(super) fn new(scope: &Scope, new: NewJob, terms: Terms<'_>, event: Event) -> Self {
        let NewJob { id, kind, input, artifact, owner, unique: _, retry_of, wishes } = new;
        let Wishes { label, priority, run_at, .. } = wishes;
        Self {
            tenant_id: scope.tenant().to_owned(),
            service_id: scope.service().to_owned(),
            id,
            kind,
            input_bytes: i64::try_from(input.len()).unwrap_or(i64::MAX),
            input: STANDARD.encode(input),
            promised_id: artifact,
            submitted_at: terms.now,
            queue: terms.queue.to_owned(),
            priority: priority.unwrap_or(0),
            label: label.as_deref().map(storable),
            owner: owner.as_deref().map(storable),
            run_at: run_at.unwrap_or(terms.now),
            deadline_at: terms.deadline_at,
            max_attempts: terms.max_attempts,
            retry_of,
            told: (scope.clone(), event),
        }
    }
}

impl Change for Added {
    async fn write(db: &Db, all: &[Self]) -> Result<Vec<bool>> {
        let jobs = Value::from(Json(all));
        let told: Vec<(Scope, Event)> = all.iter().map(|it| it.told.clone()).collect();
        let write = db.transaction(move |conn| {
            async move {
                let written = insert(jobs).execute(conn).await?;
                emit_all(conn, told).await?;
                Ok(written)
            }
            .boxed()
        });
        let written = write.await?;
        Ok(vec![written == all.len() as u64; all.len()])
    }
}

/// Adds jobs.
fn insert(jobs: Value) -> Query {
    query(
        "INSERT INTO jobs (tenant_id, service_id, id, kind, status, input, promised_id,
                 submitted_at, queue, priority, label, owner, run_at, deadline_at, max_attempts,
                 input_bytes, retry_of)
             SELECT tenant_id, service_id, id, kind, 'pending', decode(input, 'base64'),
                 promised_id, submitted_at, queue, priority, label, owner, run_at, deadline_at,
                 max_attempts, input_bytes, retry_of
             FROM json_to_recordset($1::JSON) AS e(tenant_id TEXT, service_id TEXT, id TEXT,
                 kind TEXT, input TEXT, promised_id TEXT, submitted_at TIMESTAMPTZ, queue TEXT,
                 priority BIGINT, label TEXT, owner TEXT, run_at TIMESTAMPTZ,
                 deadline_at TIMESTAMPTZ, max_attempts BIGINT, input_bytes BIGINT, retry_of TEXT)",
    )
    .bind(jobs)
}
