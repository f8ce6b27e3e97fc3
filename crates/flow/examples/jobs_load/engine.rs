//! The engine, as a service uses it.

use std::sync::Arc;

use futures_util::FutureExt;
use modelyard_flow::job::{JobId, Jobs, NewJob, Options, WRITE};
use modelyard_kernel::part::Policy;
use modelyard_kernel::{Background, Caller, Clock, Db, Failed, Scope, Work, db};

use crate::measure::{Queue, Seen};
use crate::{AT_ONCE, Done};

const KIND: &str = "bench.nothing";

pub struct Engine {
    db: Db,
    clock: Clock,
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
        let system = Caller::system("bench", "default", "bench");
        let scope = system.permit(WRITE)?.clone();
        let options = Options { concurrency: AT_ONCE, max_pending: i64::MAX, ..Options::default() };
        let background = Background::default();
        let node = "bench".to_owned();
        let jobs = Jobs::new(db.clone(), clock.clone(), background, node, options, system);
        Ok(Self { db, clock, jobs, scope })
    }
}

impl Queue for Engine {
    async fn submit(&self, _client: usize, count: usize) -> Done<Vec<String>> {
        let ids: Vec<JobId> = (0..count).map(|_| JobId(self.clock.ulid())).collect();
        let (jobs, scope, new) = (self.jobs.clone(), self.scope.clone(), ids.clone());
        let submit = self.db.transaction(move |conn| {
            async move {
                for id in new {
                    let new = NewJob { id, kind: KIND, input: b"{}".to_vec(), artifact: None };
                    jobs.submit(conn, &scope, new).await?;
                }
                Ok(())
            }
            .boxed()
        });
        submit.await?;
        self.jobs.wake();
        Ok(ids.into_iter().map(|it| it.to_string()).collect())
    }

    async fn work(&self, seen: Arc<Seen>) -> Done {
        let (db, jobs, scope) = (self.db.clone(), self.jobs.clone(), self.scope.clone());
        let run = move |assignment: modelyard_kernel::Assignment| {
            let id = JobId(assignment.job);
            seen.begun(id.to_string());
            let (db, jobs, scope, seen) =
                (db.clone(), jobs.clone(), scope.clone(), Arc::clone(&seen));
            async move {
                let end = db.transaction(move |conn| {
                    async move { jobs.end(conn, &scope, id, Ok(None)).await }.boxed()
                });
                end.await.map_err(Failed::from)?;
                seen.completed();
                Ok(())
            }
            .boxed()
        };
        let work =
            Work { kind: KIND, queue: "bench", policy: Policy::default(), run: Arc::new(run) };
        self.jobs.start([work]).await?;
        Ok(())
    }
}
