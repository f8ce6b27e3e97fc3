//! Statements that stand alone.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use modelyard_kernel::Db;
use modelyard_kernel::db::{Error, Options, query};
use modelyard_testkit::{TestDatabase, on_both_databases, run};

use crate::{add, counters, make_counters};

on_both_databases! {
    async fn values_may_stand_in_any_order_and_twice(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        let answer: (String, String, String) =
            query("SELECT CAST($2 AS TEXT), CAST($1 AS TEXT), CAST($2 AS TEXT)")
                .bind("one")
                .bind("two")
                .fetch_one(&mut conn)
                .await
                .unwrap();
        assert_eq!(answer, ("two".to_owned(), "one".to_owned(), "two".to_owned()));
        let twelve = query("SELECT CAST($12 AS TEXT), CAST($1 AS TEXT)")
            .bind_all((1..=12).map(|it| format!("v{it}").into()))
            .fetch_one::<(String, String)>(&mut conn)
            .await;
        // PostgreSQL has no type for values that no one looks at; SQLite does not mind.
        if let Ok(twelve) = twelve {
            assert_eq!(twelve, ("v12".to_owned(), "v1".to_owned()));
        }
    }

    async fn what_was_written_is_read_by_everyone_after_the_answer(database: TestDatabase) {
        let other = database.reconnect().await;
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        for value in 1..=100 {
            add(&mut conn, &format!("{value:03}"), value).await.unwrap();
            let (count,): (i64,) =
                query("SELECT COUNT(*) FROM counters").fetch_one(&mut conn).await.unwrap();
            assert_eq!(count, value);
        }
        assert_eq!(counters(&mut other.conn().await.unwrap()).await.len(), 100);
    }

    async fn rows_that_a_write_returns_are_counted_and_read(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        for name in ["a", "b", "c"] {
            add(&mut conn, name, 1).await.unwrap();
        }
        let sql = "UPDATE counters SET value = value + 1 WHERE name > $1";
        assert_eq!(query(sql).bind("a").execute(&mut conn).await.unwrap(), 2);
        let sql = "UPDATE counters SET value = value + 1 RETURNING name";
        assert_eq!(query(sql).execute(&mut conn).await.unwrap(), 3);
        let with = "WITH old AS (SELECT name FROM counters WHERE value > 2)
                    DELETE FROM counters WHERE name IN (SELECT name FROM old) RETURNING name, value";
        let mut gone: Vec<(String, i64)> = query(with).fetch_all(&mut conn).await.unwrap();
        gone.sort();
        assert_eq!(gone, [("b".to_owned(), 3), ("c".to_owned(), 3)]);
        let left = query("SELECT name FROM counters").fetch_optional::<(String,)>(&mut conn).await;
        assert_eq!(left.unwrap(), Some(("a".to_owned(),)));
    }

    async fn of_many_writes_at_once_each_has_its_own_answer(database: TestDatabase) {
        make_counters(&mut database.db.conn().await.unwrap()).await;
        let answers = join_all((0..300).map(|number| {
            let db = database.db.clone();
            // Every third name is taken by the one before it.
            let name = format!("{:04}", if number % 3 == 2 { number - 1 } else { number });
            async move { add(&mut db.conn().await.unwrap(), &name, number).await }
        }))
        .await;
        let refused = answers.iter().filter(|it| matches!(it, Err(Error::Unique))).count();
        assert_eq!(refused, 100);
        assert!(answers.iter().all(|it| matches!(it, Ok(1) | Err(Error::Unique))));
        assert_eq!(counters(&mut database.db.conn().await.unwrap()).await.len(), 200);
    }

    async fn broken_constraints_have_names(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        let sql = "CREATE TABLE parts (id BIGINT NOT NULL PRIMARY KEY, place BIGINT NOT NULL,
                       whole TEXT REFERENCES counters (name), UNIQUE (place))";
        query(sql).execute(&mut conn).await.unwrap();
        add(&mut conn, "a", 1).await.unwrap();
        assert!(matches!(add(&mut conn, "a", 2).await, Err(Error::Unique)));

        let insert = "INSERT INTO parts (id, place, whole) VALUES ($1, $2, $3)";
        let part = |id: i64, place: i64, whole: &str| query(insert).bind(id).bind(place).bind(whole);
        part(1, 1, "a").execute(&mut conn).await.unwrap();
        assert!(matches!(part(2, 1, "a").execute(&mut conn).await, Err(Error::Unique)));
        assert!(matches!(part(2, 2, "b").execute(&mut conn).await, Err(Error::ForeignKey)));
        let delete = query("DELETE FROM counters").execute(&mut conn).await;
        assert!(matches!(delete, Err(Error::ForeignKey)));
        // A connection is as good as before after each of them.
        part(2, 2, "a").execute(&mut conn).await.unwrap();
    }

    async fn a_statement_that_makes_no_sense_says_what_the_database_said(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        let error = query("SELECT nothing FROM nowhere").fetch_all::<(i64,)>(&mut conn).await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Driver(_)));
        assert!(error.to_string().contains("nowhere"), "{error}");
    }

    async fn closing_writes_what_is_queued_and_refuses_the_rest(database: TestDatabase) {
        make_counters(&mut database.db.conn().await.unwrap()).await;
        let writes = join_all((0..100).map(|number| {
            let db = database.db.clone();
            async move { add(&mut db.conn().await.unwrap(), &number.to_string(), number).await }
        }));
        assert!(writes.await.iter().all(Result::is_ok));
        database.db.close().await;

        let refused = match database.db.conn().await {
            Ok(mut conn) => add(&mut conn, "late", 1).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(refused, Error::Closed), "{refused}");
        assert!(matches!(database.db.begin().await, Err(Error::Closed)));
        let again = database.reconnect().await;
        assert_eq!(counters(&mut again.conn().await.unwrap()).await.len(), 100);
    }
}

#[test]
fn a_write_that_nobody_waits_for_is_not_done() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        let tx = database.db.begin().await.unwrap();
        // Queued behind the transaction, and given up.
        assert!(add(&mut conn, "given-up", 1).now_or_never().is_none());
        tx.commit().await.unwrap();
        add(&mut conn, "wanted", 1).await.unwrap();
        assert_eq!(counters(&mut conn).await, [("wanted".to_owned(), 1)]);
    });
}

#[test]
fn a_database_in_memory_is_one_database() {
    run(async {
        let db = Db::connect(&Options::default()).await.unwrap();
        make_counters(&mut db.conn().await.unwrap()).await;
        let mut tx = db.begin().await.unwrap();
        add(&mut tx, "a", 1).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(counters(&mut db.conn().await.unwrap()).await.len(), 1);
        assert_eq!(counters(&mut db.snapshot().await.unwrap()).await.len(), 1);
    });
}

#[test]
fn a_connection_keeps_a_bounded_number_of_statements_prepared() {
    run(async {
        let database = TestDatabase::postgres().await;
        let mut conn = database.db.conn().await.unwrap();
        for number in 0..600 {
            let (answer,): (i64,) = query(format!("SELECT CAST({number} AS BIGINT)"))
                .fetch_one(&mut conn)
                .await
                .unwrap();
            assert_eq!(answer, number);
        }
        let (kept,): (i64,) = query("SELECT COUNT(*) FROM pg_prepared_statements")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert!(kept < 300, "{kept}");
    });
}

#[test]
fn addresses_that_are_none_are_refused_at_once() {
    run(async {
        for url in ["", "sqlite:", "mysql://localhost/x", "./data.db"] {
            let options = Options { url: url.to_owned(), ..Options::default() };
            assert!(matches!(Db::connect(&options).await, Err(Error::Address)), "{url}");
        }
        for url in ["postgres://user@127.0.0.1:1/x", "sqlite:/proc/nowhere/x.db"] {
            let patience = Duration::from_millis(120);
            let options =
                Options { url: url.to_owned(), connect_timeout: patience, ..Options::default() };
            assert!(matches!(Db::connect(&options).await, Err(Error::Connect(_))), "{url}");
        }
    });
}
