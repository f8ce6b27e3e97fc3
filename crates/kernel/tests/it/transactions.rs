//! All or nothing, one after the other.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use modelyard_kernel::db::{Error, Options, query};
use modelyard_kernel::{Db, Failure};
use modelyard_testkit::on_both_databases;

use crate::{add, counters, make_counters};

async fn increment(db: &Db, name: &str) -> modelyard_kernel::db::Result<()> {
    let mut tx = db.begin().await?;
    let sql = format!("SELECT value FROM counters WHERE name = $1{}", tx.for_update());
    let (value,): (i64,) = query(sql).bind(name).fetch_one(&mut tx).await?;
    query("UPDATE counters SET value = $2 WHERE name = $1")
        .bind(name)
        .bind(value + 1)
        .execute(&mut tx)
        .await?;
    tx.commit().await
}

on_both_databases! {
    async fn what_is_committed_stays_and_what_is_dropped_goes(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        let mut tx = database.db.begin().await.unwrap();
        add(&mut tx, "kept", 1).await.unwrap();
        assert!(counters(&mut conn).await.is_empty(), "nobody sees it before the commit");
        assert_eq!(counters(&mut tx).await.len(), 1);
        tx.commit().await.unwrap();

        let mut tx = database.db.begin().await.unwrap();
        add(&mut tx, "dropped", 1).await.unwrap();
        drop(tx);
        assert_eq!(counters(&mut conn).await, [("kept".to_owned(), 1)]);
    }

    async fn transactions_that_are_dropped_do_not_use_connections_up(database: TestDatabase) {
        make_counters(&mut database.db.conn().await.unwrap()).await;
        for number in 0..30 {
            let mut tx = database.db.begin().await.unwrap();
            add(&mut tx, "dropped", number).await.unwrap();
        }
        // And none of the connections is inside a transaction still.
        let answers = join_all((0..8).map(|number| {
            let db = database.db.clone();
            async move { add(&mut db.conn().await.unwrap(), &number.to_string(), 1).await }
        }))
        .await;
        assert!(answers.iter().all(Result::is_ok));
        let other = database.reconnect().await;
        assert_eq!(counters(&mut other.conn().await.unwrap()).await.len(), 8);
    }

    async fn a_transaction_given_up_while_it_begins_leaves_nothing_open(database: TestDatabase) {
        make_counters(&mut database.db.conn().await.unwrap()).await;
        for _ in 0..20 {
            let _begun = database.db.begin().now_or_never();
            let _begun = database.db.snapshot().now_or_never();
        }
        for number in 0..8 {
            let mut conn = database.db.conn().await.unwrap();
            add(&mut conn, &number.to_string(), 1).await.unwrap();
        }
        let other = database.reconnect().await;
        assert_eq!(counters(&mut other.conn().await.unwrap()).await.len(), 8);
    }

    async fn two_who_change_one_row_both_count(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        add(&mut conn, "a", 0).await.unwrap();
        let done = join_all((0..40).map(|_| increment(&database.db, "a"))).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        assert_eq!(counters(&mut conn).await, [("a".to_owned(), 40)]);
    }

    async fn a_named_lock_lets_one_in_at_a_time(database: TestDatabase) {
        make_counters(&mut database.db.conn().await.unwrap()).await;
        // At most three rows, a rule that no constraint can keep.
        let try_add = async |number: i64| {
            let mut tx = database.db.begin().await?;
            tx.exclusive("counters").await?;
            let (count,): (i64,) = query("SELECT COUNT(*) FROM counters").fetch_one(&mut tx).await?;
            if count < 3 {
                add(&mut tx, &number.to_string(), number).await?;
            }
            tx.commit().await
        };
        let done = join_all((0..20).map(try_add)).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        assert_eq!(counters(&mut database.db.conn().await.unwrap()).await.len(), 3);
    }

    async fn after_a_statement_that_failed_nothing_is_committed(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        let mut tx = database.db.begin().await.unwrap();
        add(&mut tx, "a", 1).await.unwrap();
        assert!(matches!(add(&mut tx, "a", 2).await, Err(Error::Unique)));
        assert!(matches!(add(&mut tx, "b", 2).await, Err(Error::Aborted)));
        assert!(matches!(tx.batch("SELECT 1").await, Err(Error::Aborted)));
        assert!(matches!(tx.commit().await, Err(Error::Aborted)));
        assert!(counters(&mut conn).await.is_empty());
        add(&mut conn, "a", 3).await.unwrap();
    }

    async fn a_snapshot_sees_one_moment_and_keeps_nobody_from_writing(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        add(&mut conn, "before", 1).await.unwrap();
        let mut snapshot = database.db.snapshot().await.unwrap();
        assert_eq!(counters(&mut snapshot).await.len(), 1);
        add(&mut conn, "after", 1).await.unwrap();
        let mut tx = database.db.begin().await.unwrap();
        add(&mut tx, "after-too", 1).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(counters(&mut conn).await.len(), 3);
        assert_eq!(counters(&mut snapshot).await.len(), 1);
        assert!(matches!(add(&mut snapshot, "never", 1).await, Err(Error::ReadOnly)));
        drop(snapshot);
        assert_eq!(counters(&mut database.db.snapshot().await.unwrap()).await.len(), 3);
    }

    async fn what_succeeds_is_committed_and_what_fails_or_panics_is_undone(database: TestDatabase) {
        let db = &database.db;
        make_counters(&mut db.conn().await.unwrap()).await;
        let committed = db.transaction(|conn| {
            async move {
                add(conn, "kept", 1).await?;
                Ok(counters(conn).await.len())
            }
            .boxed()
        });
        assert_eq!(committed.await.unwrap(), 1);

        let failed = db.transaction(|conn| {
            async move {
                add(conn, "failed", 1).await?;
                Err::<(), _>(Failure::conflict("no", "not this one"))
            }
            .boxed()
        });
        assert_eq!(failed.await.unwrap_err().code(), "no");

        // A failed statement that nobody looked at fails the commit.
        let careless = db.transaction(|conn| {
            async move {
                let _ignored = add(conn, "kept", 2).await;
                Ok(())
            }
            .boxed()
        });
        careless.await.unwrap_err();

        let panicked = AssertUnwindSafe(db.transaction(|conn| {
            async move {
                add(conn, "panicked", 1).await?;
                if counters(conn).await.len() == 2 {
                    panic!("in the middle");
                }
                Ok(())
            }
            .boxed()
        }));
        // On SQLite a failure, on PostgreSQL the caller's own panic.
        assert!(!matches!(panicked.catch_unwind().await, Ok(Ok(()))));

        let mut conn = db.conn().await.unwrap();
        add(&mut conn, "after", 1).await.unwrap();
        assert_eq!(counters(&mut conn).await, [("after".to_owned(), 1), ("kept".to_owned(), 1)]);
    }

    async fn transactions_and_single_writes_all_count(database: TestDatabase) {
        make_counters(&mut database.db.conn().await.unwrap()).await;
        add(&mut database.db.conn().await.unwrap(), "a", 0).await.unwrap();
        let done = join_all((0..40).map(|number| {
            let db = database.db.clone();
            async move {
                add(&mut db.conn().await?, &format!("single-{number}"), 1).await?;
                db.transaction(|conn| {
                    async move {
                        let sql = format!("SELECT value FROM counters WHERE name = 'a'{}", conn.for_update());
                        let (value,): (i64,) = query(sql).fetch_one(conn).await?;
                        let sql = "UPDATE counters SET value = $1 WHERE name = 'a'";
                        query(sql).bind(value + 1).execute(conn).await?;
                        Ok(())
                    }
                    .boxed()
                })
                .await
            }
        }))
        .await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        let left = counters(&mut database.db.conn().await.unwrap()).await;
        assert_eq!((left.len(), left.first()), (41, Some(&("a".to_owned(), 40))));
    }

    async fn a_transaction_that_waits_for_something_else_is_undone(database: TestDatabase) {
        let idle_timeout = Duration::from_millis(150);
        let options = Options { url: database.url.clone(), idle_timeout, ..Options::default() };
        let db = Db::connect(&options).await.unwrap();
        make_counters(&mut db.conn().await.unwrap()).await;
        let waiting = db.transaction(|conn| {
            async move {
                add(conn, "a", 1).await?;
                std::future::pending::<()>().await;
                Ok(())
            }
            .boxed()
        });
        let waiting = tokio::time::timeout(Duration::from_secs(1), waiting).await;
        assert!(!matches!(waiting, Ok(Ok(()))));
        add(&mut db.conn().await.unwrap(), "b", 1).await.unwrap();
        assert_eq!(counters(&mut db.conn().await.unwrap()).await, [("b".to_owned(), 1)]);
    }

    async fn a_transaction_that_is_silent_for_too_long_is_undone(database: TestDatabase) {
        let idle_timeout = Duration::from_millis(150);
        let options = Options { url: database.url.clone(), idle_timeout, ..Options::default() };
        let db = Db::connect(&options).await.unwrap();
        let mut conn = db.conn().await.unwrap();
        make_counters(&mut conn).await;
        add(&mut conn, "a", 0).await.unwrap();

        let mut silent = db.begin().await.unwrap();
        let sql = "UPDATE counters SET value = 100 WHERE name = 'a'";
        query(sql).execute(&mut silent).await.unwrap();
        // Waits for the silent one, and not for ever.
        increment(&db, "a").await.unwrap();
        let refused = silent.commit().await.unwrap_err();
        assert!(matches!(refused, Error::Busy | Error::CommitUnknown(_)), "{refused}");
        assert_eq!(counters(&mut conn).await, [("a".to_owned(), 1)]);
    }

    async fn single_writes_and_transactions_do_not_mix(database: TestDatabase) {
        make_counters(&mut database.db.conn().await.unwrap()).await;
        let singles = join_all((0..50).map(|number| {
            let db = database.db.clone();
            async move { add(&mut db.conn().await.unwrap(), &format!("single-{number}"), 1).await }
        }));
        let dropped = join_all((0..50).map(|number| {
            let db = database.db.clone();
            async move {
                let mut tx = db.begin().await?;
                add(&mut tx, &format!("dropped-{number}"), 1).await
            }
        }));
        let (singles, dropped) = join(singles, dropped).await;
        assert!(singles.iter().chain(&dropped).all(Result::is_ok));
        let left = counters(&mut database.db.conn().await.unwrap()).await;
        assert_eq!(left.len(), 50);
        assert!(left.iter().all(|it| it.0.starts_with("single")));
    }
}
