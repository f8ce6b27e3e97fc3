//! A database of a run's own, and what its server counts.

use tokio_postgres::{Client, NoTls};

use crate::Done;

/// A database that was made for this run; its server is gone after it.
pub struct Database {
    pub url: String,
    name: String,
    /// Connected to another database, so that it does not count itself.
    watcher: Client,
}

impl Database {
    /// Makes one on the server at this address.
    pub async fn make(server: &str) -> Done<Self> {
        let watcher = connect(server).await?;
        let name = format!("bench_{}", std::process::id());
        watcher.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        watcher.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await?;
        let (server, _) = server.rsplit_once('/').ok_or("an address ends in a database")?;
        Ok(Self { url: format!("{server}/{name}"), name, watcher })
    }

    /// Queries on it so far, whoever sent them.
    pub async fn queries(&self) -> Done<i64> {
        let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
                   JOIN pg_database ON oid = dbid WHERE datname = $1";
        Ok(self.watcher.query_one(sql, &[&self.name]).await?.get(0))
    }
}

/// One connection, driven until its client is dropped.
pub async fn connect(url: &str) -> Done<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    spawn(async move { Ok(connection.await?) });
    Ok(client)
}

/// Begins what ends with the process, or with what it works on.
#[expect(clippy::disallowed_methods, reason = "a program that ends when it has its figures")]
#[expect(clippy::print_stderr, reason = "its last word")]
pub fn spawn(task: impl Future<Output = Done> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = task.await {
            eprintln!("{error}");
        }
    });
}
