//! Full disks, lost connections, full queues, directories that may not be written.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use modelyard_kernel::db::{Error, Options, query};
use modelyard_kernel::{Db, Failure};
use modelyard_testkit::{TestDatabase, run};

use crate::{add, counters, make_counters};

/// A database whose disk has room for very little more.
async fn almost_full(database: &TestDatabase) {
    let mut conn = database.db.conn().await.unwrap();
    make_counters(&mut conn).await;
    let (pages,): (i64,) =
        query("SELECT page_count FROM pragma_page_count").fetch_one(&mut conn).await.unwrap();
    let limit = format!("PRAGMA max_page_count = {}", pages + 4);
    query(limit).execute(&mut conn).await.unwrap();
}

#[test]
fn on_a_full_disk_a_write_fails_whole_and_reads_go_on() {
    run(async {
        let database = TestDatabase::sqlite().await;
        almost_full(&database).await;
        let mut conn = database.db.conn().await.unwrap();
        add(&mut conn, "small", 1).await.unwrap();
        let long = "x".repeat(100_000);
        let refused = add(&mut conn, &long, 1).await.unwrap_err();
        assert!(matches!(refused, Error::Full), "{refused}");
        assert_eq!(Failure::from(refused).code(), "storage_full");
        assert_eq!(counters(&mut conn).await, [("small".to_owned(), 1)]);
        query("DELETE FROM counters").execute(&mut conn).await.unwrap();
        add(&mut conn, "small-again", 1).await.unwrap();
    });
}

#[test]
fn on_a_full_disk_nobody_is_told_of_a_success_that_was_none() {
    run(async {
        let database = TestDatabase::sqlite().await;
        almost_full(&database).await;
        let answers = join_all((0..60).map(|number| {
            let db = database.db.clone();
            let name =
                format!("{number:03}{}", "x".repeat(if number % 7 == 6 { 50_000 } else { 10 }));
            async move { add(&mut db.conn().await.unwrap(), &name, number).await.map(|_| name) }
        }))
        .await;
        assert!(answers.iter().any(|it| matches!(it, Err(Error::Full))));
        let mut told: Vec<String> = answers.into_iter().filter_map(Result::ok).collect();
        told.sort();
        let stored = counters(&mut database.db.conn().await.unwrap()).await;
        assert_eq!(stored.into_iter().map(|it| it.0).collect::<Vec<_>>(), told);
    });
}

#[test]
fn on_a_full_disk_a_transaction_fails_whole() {
    run(async {
        let database = TestDatabase::sqlite().await;
        almost_full(&database).await;
        let mut tx = database.db.begin().await.unwrap();
        add(&mut tx, "small", 1).await.unwrap();
        assert!(matches!(add(&mut tx, &"x".repeat(100_000), 1).await, Err(Error::Full)));
        assert!(matches!(add(&mut tx, "small-too", 1).await, Err(Error::Aborted)));
        assert!(tx.commit().await.is_err());
        assert!(counters(&mut database.db.conn().await.unwrap()).await.is_empty());
    });
}

#[test]
fn a_database_that_may_no_longer_be_written_can_still_be_read() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        // It takes effect at once, so that the commit around it is refused already.
        let _refused = query("PRAGMA query_only = ON").execute(&mut conn).await;
        let refused = add(&mut conn, "a", 1).await.unwrap_err();
        assert!(matches!(refused, Error::ReadOnly), "{refused}");
        assert_eq!(Failure::from(refused).code(), "storage_read_only");
        assert!(matches!(database.db.begin().await, Err(Error::ReadOnly)));
        assert!(counters(&mut conn).await.is_empty());
    });
}

#[test]
fn a_queue_that_is_full_says_so_at_once() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        let tx = database.db.begin().await.unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            let db = database.db.clone();
            let name = waiting.len().to_string();
            let mut write =
                async move { add(&mut db.conn().await.unwrap(), &name, 1).await }.boxed();
            match (&mut write).now_or_never() {
                None => waiting.push(write),
                Some(answer) => break answer.unwrap_err(),
            }
            assert!(waiting.len() < 100_000, "the queue has no end");
        };
        assert!(matches!(refused, Error::Busy), "{refused}");
        assert_eq!(Failure::from(refused).code(), "storage_busy");
        tx.commit().await.unwrap();
        let queued = waiting.len();
        assert!(join_all(waiting).await.iter().all(Result::is_ok));
        assert_eq!(counters(&mut conn).await.len(), queued, "what was queued is written");
    });
}

#[test]
fn a_pool_that_is_used_up_says_so_after_a_while() {
    run(async {
        let database = TestDatabase::postgres().await;
        let options = Options {
            url: database.url.clone(),
            pool_size: 1,
            connect_timeout: Duration::from_millis(200),
            ..Options::default()
        };
        let db = Db::connect(&options).await.unwrap();
        let only = db.conn().await.unwrap();
        assert!(matches!(db.conn().await, Err(Error::Busy)));
        drop(only);
        db.conn().await.unwrap();
    });
}

#[test]
fn a_lost_connection_fails_once_and_is_replaced() {
    run(async {
        let database = TestDatabase::postgres().await;
        let db = database.reconnect().await;
        make_counters(&mut db.conn().await.unwrap()).await;
        let mut tx = db.begin().await.unwrap();
        add(&mut tx, "lost", 1).await.unwrap();

        let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let mut other = database.db.conn().await.unwrap();
        let (ended,): (i64,) = query(end).fetch_one(&mut other).await.unwrap();
        assert!(ended >= 1);

        let refused = tx.commit().await.unwrap_err();
        assert!(matches!(refused, Error::CommitUnknown(_)), "{refused}");
        assert!(Failure::from(refused).is_uncertain());
        // Each of the pool's connections was cut, and tells so at most once.
        let mut lost = 0;
        let mut number = 0;
        while number < 8 {
            match add(&mut db.conn().await.unwrap(), &number.to_string(), 1).await {
                Ok(_) => number += 1,
                Err(Error::Connect(_)) => lost += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(lost < ended, "{lost} of {ended}");
        assert_eq!(counters(&mut other).await.len(), 8);
    });
}

#[test]
fn a_server_that_does_not_want_us_is_not_asked_again_and_again() {
    run(async {
        let database = TestDatabase::postgres().await;
        let (start, host) = database.url.rsplit_once('@').unwrap();
        assert!(start.starts_with("postgres://"));
        let options = Options {
            url: format!("postgres://nobody_we_know@{host}"),
            connect_timeout: Duration::from_secs(600),
            ..Options::default()
        };
        let error = Db::connect(&options).await.unwrap_err();
        assert!(error.to_string().contains("nobody_we_know"), "{error}");
    });
}

/// Runs `body` as a user who owns nothing: nothing keeps root from writing.
pub fn without_privileges(body: impl FnOnce() + Send + 'static) {
    use rustix::thread::set_thread_uid;
    let thread = std::thread::spawn(move || {
        // Of this thread and those that it starts; refused to whoever has no privileges anyway.
        let _refused = set_thread_uid(rustix::process::Uid::from_raw(65534));
        body();
    });
    thread.join().unwrap();
}

pub fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_that_may_not_be_written_is_told_when_the_database_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("old.db");
    let options = |name: &str| Options {
        url: format!("sqlite:{}", directory.path().join(name).display()),
        ..Options::default()
    };
    let (old, new) = (options("old.db"), options("new.db"));
    run(async {
        let db = Db::connect(&old).await.unwrap();
        make_counters(&mut db.conn().await.unwrap()).await;
        db.close().await;
    });
    set_mode(&file, 0o444);
    set_mode(directory.path(), 0o555);
    without_privileges(move || {
        run(async move {
            for options in [old, new] {
                let error = Db::connect(&options).await.unwrap_err().to_string();
                assert!(error.contains(options.url.trim_start_matches("sqlite:")), "{error}");
                assert!(error.contains("Permission denied"), "{error}");
            }
        });
    });
    set_mode(directory.path(), 0o755);
}
