//! The engine, as a service uses it.

use std::sync::Arc;

use futures_util::FutureExt;
use modelyard_flow::job::{self, Hold, JobId, Jobs, NewJob, WRITE};
use modelyard_kernel::{Assignment, Background, Caller, Clock, Db, Failed, Scope, Work, db};

use crate::measure::{Queue, Seen};
use crate::{AT_ONCE, Done};

const KIND: &str = "bench.nothing";
const SERVICE: &str = "bench";

/// The engine of one process.
pub struct Engine {
    db: Db,
    clock: Clock,
    engine: job::Engine,
    jobs: Jobs,
    scope: Scope,
}

impl Engine {
    pub async fn open(url: &str) -> Done<Self> {
        // As many connections as the loop by hand has.
        let options =
            db::Options { url: url.to_owned(), pool_size: 2 * AT_ONCE, ..db::Options::default() };
        let (db, clock) = (Db::connect(&options).await?, Clock::system());
        modelyard_schema::migrate(&db, &clock).await?;
        let options = job::Options {
            concurrency: AT_ONCE,
            max_pending: 1_000_000,
            ..job::Options::default()
        };
        let (background, node) = (Background::default(), "bench".to_owned());
        let engine = job::Engine::new(db.clone(), clock.clone(), background, node, options);
        let system = Caller::system("bench", "default", SERVICE);
        let scope = system.permit(WRITE)?.clone();
        Ok(Self { db, clock, jobs: engine.jobs(), engine, scope })
    }
}

impl Queue for Engine {
    async fn submit(&self, _client: usize, count: usize) -> Done<Vec<String>> {
        let ids: Vec<JobId> = (0..count).map(|_| JobId(self.clock.ulid())).collect();
        let new = |id: JobId| NewJob::new(id, KIND, b"{}".to_vec());
        if let [id] = ids.as_slice() {
            self.jobs.add(&self.scope, new(*id)).await?;
        } else {
            let (jobs, scope) = (self.jobs.clone(), self.scope.clone());
            let all: Vec<NewJob> = ids.iter().map(|id| new(*id)).collect();
            let submit = self.db.transaction(move |conn| {
                async move {
                    let mut last = None;
                    for new in all {
                        last = Some(jobs.submit(conn, &scope, new).await?);
                    }
                    Ok(last)
                }
                .boxed()
            });
            if let Some(last) = submit.await? {
                self.jobs.wake(&last);
            }
        }
        Ok(ids.into_iter().map(|it| it.to_string()).collect())
    }

    async fn work(&self, seen: Arc<Seen>) -> Done {
        let (jobs, scope) = (self.jobs.clone(), self.scope.clone());
        let run = move |assignment: Assignment| {
            let hold = Hold::from(&assignment);
            seen.begun(hold.job.to_string());
            let (jobs, scope) = (jobs.clone(), scope.clone());
            let seen = Arc::clone(&seen);
            async move {
                jobs.complete(&scope, hold, None).await?;
                seen.completed();
                Ok::<(), Failed>(())
            }
            .boxed()
        };
        let policy = modelyard_kernel::Policy::default();
        let work =
            Work { kind: KIND, queue: "bench", permission: WRITE, policy, run: Arc::new(run) };
        self.engine.serve(SERVICE, [work]);
        self.engine.start().await?;
        Ok(())
    }
}
