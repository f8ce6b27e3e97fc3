//! Every migration, in one place and one order.
//!
//! The text of a migration serves both databases; where a column's type has two names it is written
//! `{text}`, `{json}`, `{time}` or `{bytes}`; what one of them only is to do stands between `{sqlite}`, or
//! `{postgres}`, and `{end}`. JSON is kept as text on PostgreSQL too (`json`, not
//! `jsonb`): the contract promises the order of keys and the form of numbers.

use modelyard_kernel::db::{self, Conn, Db, Dialect, query};
use modelyard_kernel::{Clock, Time};

/// A step from one version of the schema to the next.
#[derive(Debug)]
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($($stem:literal),+ $(,)?) => {
        &[$(Migration {
            version: number($stem),
            name: $stem.split_at(DIGITS + 1).1,
            sql: include_str!(concat!("../../../migrations/", $stem, ".sql")),
        }),+]
    };
}

const MIGRATIONS: &[Migration] = migrations! {
    "0001_blobs",
    "0002_configs",
    "0003_artifacts",
    "0004_jobs",
    "0005_tasks",
    "0006_durable_work",
    "0007_schedules",
    "0008_blob_keeps",
    "0009_access",
    "0010_access_upkeep",
    "0011_promised_artifacts",
    "0012_events",
    "0013_audit",
    "0014_key_makers",
    "0015_login_failures",
};

/// How many digits the name of a migration's file begins with.
const DIGITS: usize = 4;

/// The number that the name of a migration's file begins with.
const fn number(stem: &str) -> i64 {
    match i64::from_str_radix(stem.split_at(DIGITS).0, 10) {
        Ok(it) => it,
        Err(_) => panic!("the name of a migration begins with its number"),
    }
}

/// Every table with rows of ours, parents before children: what a backup holds.
pub const TABLES: &[&str] = &[
    "blobs",
    "configs",
    "artifacts",
    "config_artifacts",
    "jobs",
    "job_inputs",
    "job_steps",
    "job_logs",
    "job_keys",
    "paused_queues",
    "tasks",
    "schedules",
    "schedule_runs",
    "users",
    "roles",
    "role_bindings",
    "api_keys",
    "sessions",
    "refresh_tokens",
    "signing_keys",
    "factors",
    "recovery_codes",
    "mailed_links",
    "secret_checks",
    "events",
    "audit_entries",
    "audit_heads",
    "audit_anchors",
];

/// Tables about what runs or was tried a moment ago, of no use in a backup.
pub const PASSING: &[&str] = &["nodes", "login_failures", "reset_requests", "audit_removals"];

/// The schema and the program do not fit.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database refused.
    #[error("the database refused a migration: {0}")]
    Database(#[from] db::Error),
    /// The database was migrated by a later program.
    #[error("the database is at version {found}, this program knows {known}: use a newer program")]
    TooNew {
        /// What the database is at.
        found: i64,
        /// The last that this program knows.
        known: i64,
    },
}

/// A migration and when it was applied, if it was.
#[derive(Debug)]
pub struct Applied {
    /// Its number.
    pub version: i64,
    /// What it is about.
    pub name: &'static str,
    /// `None` when it is still to come.
    pub applied_at: Option<Time>,
}

/// Brings a database up to date under a lock, so that nodes may start at the same time. Returns
/// the names of what was applied.
///
/// # Errors
/// When the database refuses, or was migrated by a later program; nothing is changed then.
pub async fn migrate(db: &Db, clock: &Clock) -> Result<Vec<&'static str>, SchemaError> {
    let mut tx = db.begin().await?;
    tx.exclusive("modelyard schema").await?;
    tx.batch(&render(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
             version BIGINT NOT NULL PRIMARY KEY, name {text} NOT NULL, applied_at {time} NOT NULL)",
        tx.dialect(),
    ))
    .await?;
    let known = MIGRATIONS.iter().map(|it| it.version).max().unwrap_or(0);
    let (found,): (i64,) =
        query("SELECT COALESCE(MAX(version), 0) FROM schema_migrations").fetch_one(&mut tx).await?;
    if found > known {
        return Err(SchemaError::TooNew { found, known });
    }
    let mut applied = Vec::new();
    for migration in MIGRATIONS.iter().filter(|it| it.version > found) {
        let sql = render(migration.sql, tx.dialect());
        tx.batch(&sql).await?;
        query("INSERT INTO schema_migrations (version, name, applied_at) VALUES ($1, $2, $3)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(clock.now())
            .execute(&mut tx)
            .await?;
        applied.push(migration.name);
    }
    tx.commit().await?;
    Ok(applied)
}

/// What was applied and what is still to come.
///
/// # Errors
/// When the database refuses.
pub async fn status(db: &Db) -> Result<Vec<Applied>, SchemaError> {
    let mut conn = db.conn().await?;
    let done: Vec<(i64, Time)> = if has_migrations(&mut conn).await? {
        query("SELECT version, applied_at FROM schema_migrations").fetch_all(&mut conn).await?
    } else {
        Vec::new()
    };
    let at = |version| done.iter().find(|it| it.0 == version).map(|it| it.1);
    Ok(MIGRATIONS
        .iter()
        .map(|it| Applied { version: it.version, name: it.name, applied_at: at(it.version) })
        .collect())
}

async fn has_migrations(conn: &mut Conn) -> Result<bool, db::Error> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE name = 'schema_migrations'",
        Dialect::Postgres => {
            "SELECT COUNT(*) FROM pg_tables WHERE tablename = 'schema_migrations' AND schemaname = current_schema()"
        }
    };
    let (count,): (i64,) = query(sql).fetch_one(conn).await?;
    Ok(count > 0)
}

fn render(sql: &str, dialect: Dialect) -> String {
    let types: [(&str, &str); 4] = match dialect {
        Dialect::Sqlite => {
            [("{text}", "TEXT"), ("{json}", "TEXT"), ("{time}", "TEXT"), ("{bytes}", "BLOB")]
        }
        // Order by bytes, as SQLite does, so that pages are the same on both.
        Dialect::Postgres => [
            ("{text}", "TEXT COLLATE \"C\""),
            ("{json}", "JSON"),
            ("{time}", "TIMESTAMPTZ"),
            ("{bytes}", "BYTEA"),
        ],
    };
    let (own, other) = match dialect {
        Dialect::Sqlite => ("{sqlite}", "{postgres}"),
        Dialect::Postgres => ("{postgres}", "{sqlite}"),
    };
    let sql = without(sql, other).replace(own, "").replace("{end}", "");
    types.into_iter().fold(sql, |sql, (from, to)| sql.replace(from, to))
}

/// A text without what stands between a mark and the next end.
fn without(sql: &str, mark: &str) -> String {
    let mut parts = sql.split(mark);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |kept, part| kept + part.split_once("{end}").map_or("", |it| it.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_a_gap() {
        let versions: Vec<i64> = MIGRATIONS.iter().map(|it| it.version).collect();
        assert_eq!(versions, (1..).take(versions.len()).collect::<Vec<i64>>());
        assert_eq!(MIGRATIONS[0].name, "blobs");
        assert_eq!(number("0012_later"), 12);
    }

    #[test]
    fn what_one_database_only_is_to_do_is_left_out_of_the_other() {
        let sql = "a {text} {sqlite}b{end} c {postgres}d{end} e";
        assert_eq!(render(sql, Dialect::Sqlite), "a TEXT b c  e");
        assert_eq!(render(sql, Dialect::Postgres), "a TEXT COLLATE \"C\"  c d e");
    }
}
