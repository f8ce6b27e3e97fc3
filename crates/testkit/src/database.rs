//! Fresh databases.

use std::future::Future;
use std::path::Path;

use modelyard_kernel::db::{Options, query};
use modelyard_kernel::{Clock, Db, Time};
use tempfile::TempDir;

/// A migrated database of its own for one test, gone at the end of it.
#[derive(Debug)]
pub struct TestDatabase {
    /// The handle.
    pub db: Db,
    /// Where it is, for programs that open it themselves.
    pub url: String,
    /// Stands still until it is advanced; starts at [`TestDatabase::start`].
    pub clock: Clock,
    server: Option<Server>,
    directory: TempDir,
}

#[derive(Debug)]
struct Server {
    url: String,
    name: String,
}

impl TestDatabase {
    /// A SQLite file in a temporary directory.
    pub async fn sqlite() -> Self {
        let directory = TempDir::with_prefix("modelyard-test-").unwrap();
        let url = format!("sqlite:{}", directory.path().join("test.db").display());
        Self::open(url, None, directory).await
    }

    /// A database of its own on the server that `TEST_DATABASE_URL` names.
    ///
    /// # Panics
    /// When the variable is not set or the server does not answer: no test is skipped silently.
    pub async fn postgres() -> Self {
        #[expect(clippy::disallowed_methods, reason = "tests have no settings")]
        let server = std::env::var("TEST_DATABASE_URL").unwrap_or_else(|_| {
            panic!(
                "this test needs PostgreSQL: run `cargo xtask test`, which starts one, or set \
                 TEST_DATABASE_URL to a server where databases may be made"
            )
        });
        let name = format!("test_{}", Clock::system().ulid()).to_lowercase();
        administer(&server, format!("CREATE DATABASE {name}")).await;
        let url = on_server(&server, &name);
        let directory = TempDir::with_prefix("modelyard-test-").unwrap();
        Self::open(url, Some(Server { url: server, name }), directory).await
    }

    async fn open(url: String, server: Option<Server>, directory: TempDir) -> Self {
        let db = connect(&url).await;
        let clock = Clock::fixed(Self::start());
        modelyard_schema::migrate(&db, &clock).await.unwrap();
        Self { db, url, clock, server, directory }
    }

    /// When the clock starts.
    pub fn start() -> Time {
        "2026-09-01T00:00:00Z".parse().unwrap()
    }

    /// A directory of this test, for blobs and files.
    pub fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// Another handle on the same database, as a second process has one.
    pub async fn reconnect(&self) -> Db {
        connect(&self.url).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(Server { url, name }) = self.server.take() else { return };
        // Dropping happens inside the test's runtime, which cannot wait for a future here.
        let dropping = std::thread::spawn(move || {
            run(administer(&url, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        let _told_by_the_thread = dropping.join();
    }
}

/// Runs a test on a runtime of its own, with two workers as a small server has.
pub fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(test);
}

async fn connect(url: &str) -> Db {
    let options = Options { url: url.to_owned(), ..Options::default() };
    Db::connect(&options).await.unwrap()
}

async fn administer(server: &str, sql: String) {
    let options = Options { url: server.to_owned(), pool_size: 1, ..Options::default() };
    let db = Db::connect(&options).await.unwrap_or_else(|error| {
        panic!("the server that TEST_DATABASE_URL names cannot be reached: {error}")
    });
    query(sql).execute(&mut db.conn().await.unwrap()).await.unwrap();
}

/// The address of another database on the same server.
fn on_server(server: &str, name: &str) -> String {
    let (address, options) = server.split_once('?').map_or((server, None), |(a, o)| (a, Some(o)));
    let host = address.find("://").map_or(0, |it| it + 3);
    let address = address[host..].find('/').map_or(address, |it| &address[..host + it]);
    let options = options.map_or_else(String::new, |it| format!("?{it}"));
    format!("{address}/{name}{options}")
}

#[cfg(test)]
mod tests {
    use super::on_server;

    #[test]
    fn the_name_of_the_database_is_replaced_in_an_address() {
        for (server, expected) in [
            ("postgres://u:p@host:5432/postgres", "postgres://u:p@host:5432/x"),
            ("postgres://u@host", "postgres://u@host/x"),
            ("postgres://u@host/db?sslmode=disable", "postgres://u@host/x?sslmode=disable"),
        ] {
            assert_eq!(on_server(server, "x"), expected);
        }
    }
}
