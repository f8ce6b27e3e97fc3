//! As little as a queue on PostgreSQL can be: a table, and workers that take the oldest row which
//! nobody else holds. No leases, no retries, no records: the limit of what an engine can reach.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::measure::{Queue, Seen};
use crate::{AT_ONCE, Done, server};

const TABLE: &str = "
    CREATE TABLE jobs (id bigserial PRIMARY KEY, state text NOT NULL DEFAULT 'pending', input text);
    CREATE INDEX jobs_pending ON jobs (id) WHERE state = 'pending'";

const INSERT: &str = "INSERT INTO jobs (input) VALUES ('{}') RETURNING id";

const CLAIM: &str = "
    UPDATE jobs SET state = 'running' WHERE id = (
        SELECT id FROM jobs WHERE state = 'pending' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, input";

const COMPLETE: &str = "UPDATE jobs SET state = 'completed' WHERE id = $1";

/// A connection for each client and each worker.
pub struct ByHand {
    clients: Vec<tokio::sync::Mutex<Client>>,
    url: String,
    wake: Arc<tokio::sync::Notify>,
}

impl ByHand {
    pub async fn open(url: &str) -> Done<Self> {
        let mut clients = Vec::new();
        for _ in 0..AT_ONCE {
            clients.push(tokio::sync::Mutex::new(server::connect(url).await?));
        }
        clients[0].lock().await.batch_execute(TABLE).await?;
        Ok(Self { clients, url: url.to_owned(), wake: Arc::default() })
    }
}

impl Queue for ByHand {
    async fn submit(&self, client: usize, count: usize) -> Done<Vec<String>> {
        let mut client = self.clients[client].lock().await;
        let insert = client.prepare(INSERT).await?;
        let ids = if count == 1 {
            vec![client.query_one(&insert, &[]).await?.get::<_, i64>(0)]
        } else {
            let transaction = client.transaction().await?;
            let mut ids = Vec::with_capacity(count);
            for _ in 0..count {
                ids.push(transaction.query_one(&insert, &[]).await?.get(0));
            }
            transaction.commit().await?;
            ids
        };
        self.wake.notify_one();
        Ok(ids.into_iter().map(|id| id.to_string()).collect())
    }

    async fn work(&self, seen: Arc<Seen>) -> Done {
        for _ in 0..AT_ONCE {
            let client = server::connect(&self.url).await?;
            let (claim, complete) = (client.prepare(CLAIM).await?, client.prepare(COMPLETE).await?);
            let (seen, wake) = (Arc::clone(&seen), Arc::clone(&self.wake));
            server::spawn(async move {
                loop {
                    let Some(job) = client.query_opt(&claim, &[]).await? else {
                        wake.notified().await;
                        continue;
                    };
                    let id: i64 = job.get(0);
                    // As any worker would, it wakes the next as long as it finds something.
                    wake.notify_one();
                    seen.begun(id.to_string());
                    client.execute(&complete, &[&id]).await?;
                    seen.completed();
                }
            });
        }
        Ok(())
    }
}
