//! The data layer and the blobs, on both databases.

#![expect(clippy::unwrap_used, reason = "tests panic loudly")]

mod blobs;
mod bulk;
mod lists;
mod migrations;
mod statements;
mod transactions;
mod trouble;
mod values;

use modelyard_kernel::db::{Conn, query};

/// A table for tests that are about no entity.
async fn make_counters(conn: &mut Conn) {
    let text = "CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL)";
    query(text).execute(conn).await.unwrap();
}

async fn add(conn: &mut Conn, name: &str, value: i64) -> modelyard_kernel::db::Result<u64> {
    query("INSERT INTO counters (name, value) VALUES ($1, $2)")
        .bind(name)
        .bind(value)
        .execute(conn)
        .await
}

/// Every counter by name.
async fn counters(conn: &mut Conn) -> Vec<(String, i64)> {
    query("SELECT name, value FROM counters ORDER BY name").fetch_all(conn).await.unwrap()
}
