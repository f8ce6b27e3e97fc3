//! What goes in comes out.

use modelyard_kernel::db::{Conn, Dialect, Error, Json, Row, Value, query};
use modelyard_kernel::{Time, Ulid};
use modelyard_testkit::on_both_databases;
use serde_json::value::RawValue;

async fn make_table(conn: &mut Conn) {
    let sql = match conn.dialect() {
        Dialect::Sqlite => {
            "CREATE TABLE things (number BIGINT, fraction DOUBLE PRECISION, word TEXT, raw BLOB,
                                  flag BOOLEAN, moment TEXT, document TEXT)"
        }
        Dialect::Postgres => {
            "CREATE TABLE things (number BIGINT, fraction DOUBLE PRECISION, word TEXT, raw BYTEA,
                                  flag BOOLEAN, moment TIMESTAMPTZ, document JSON)"
        }
    };
    query(sql).execute(conn).await.unwrap();
}

async fn insert(conn: &mut Conn, values: [Value; 7]) {
    let done = query("INSERT INTO things VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind_all(values)
        .execute(conn)
        .await;
    assert_eq!(done.unwrap(), 1);
}

fn time(text: &str) -> Time {
    text.parse().unwrap()
}

on_both_databases! {
    async fn every_type_comes_back_as_it_went(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_table(&mut conn).await;
        let document = "{\"b\":1, \"a\" : [1.0,1e2,0.1],\"b\":\"\u{e9}\\u0000\"}";
        let word = "na\u{ef}ve \u{1f600}\n'\"%_$1";
        let all: Vec<u8> = (0..=255).collect();
        insert(&mut conn, [
            i64::MIN.into(), 0.1_f64.into(), word.into(), all.clone().into(),
            true.into(), time("2026-11-20T08:52:32.940128Z").into(), document.into(),
        ]).await;

        let mut row: Row = query("SELECT * FROM things").fetch_one(&mut conn).await.unwrap();
        assert_eq!(row.take::<i64>("number").unwrap(), i64::MIN);
        assert_eq!(row.take::<f64>("fraction").unwrap().to_bits(), 0.1_f64.to_bits());
        assert_eq!(row.take::<String>("word").unwrap(), word);
        assert_eq!(row.take::<Vec<u8>>("raw").unwrap(), all);
        assert!(row.take::<bool>("flag").unwrap());
        assert_eq!(row.take::<Time>("moment").unwrap(), time("2026-11-20T08:52:32.940128Z"));
        assert_eq!(row.take::<String>("document").unwrap(), document, "byte for byte");
    }

    async fn what_is_absent_stays_absent(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_table(&mut conn).await;
        insert(&mut conn, [const { Value::Null }; 7]).await;

        let mut row: Row = query("SELECT * FROM things").fetch_one(&mut conn).await.unwrap();
        assert_eq!(row.take::<Option<i64>>("number").unwrap(), None);
        assert_eq!(row.take::<Option<f64>>("fraction").unwrap(), None);
        assert_eq!(row.take::<Option<String>>("word").unwrap(), None);
        assert_eq!(row.take::<Option<Vec<u8>>>("raw").unwrap(), None);
        assert_eq!(row.take::<Option<bool>>("flag").unwrap(), None);
        assert_eq!(row.take::<Option<Time>>("moment").unwrap(), None);
        assert_eq!(row.take::<Option<Json<Vec<i64>>>>("document").unwrap(), None);
    }

    async fn the_edges_of_each_type_survive(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_table(&mut conn).await;
        let edges = [
            (i64::MAX, f64::MAX, "", Vec::new(), "1969-12-31T23:59:59.999999Z"),
            (0, f64::MIN_POSITIVE, " ", vec![0], "0001-01-01T00:00:00Z"),
            (-1, -1e-300, "\u{10ffff}", vec![255, 0], "9999-12-30T22:00:00.000001Z"),
            (1 << 53 | 1, f64::INFINITY, "1", b"text".to_vec(), "2000-01-01T00:00:00Z"),
        ];
        for (number, fraction, word, raw, moment) in edges {
            let moment = time(moment);
            query("DELETE FROM things").execute(&mut conn).await.unwrap();
            insert(&mut conn, [
                number.into(), fraction.into(), word.into(), raw.clone().into(), false.into(),
                moment.into(), "null".into(),
            ]).await;
            let mut row: Row = query("SELECT * FROM things").fetch_one(&mut conn).await.unwrap();
            assert_eq!(row.take::<i64>("number").unwrap(), number);
            assert_eq!(row.take::<f64>("fraction").unwrap().to_bits(), fraction.to_bits());
            assert_eq!(row.take::<String>("word").unwrap(), word);
            assert_eq!(row.take::<Vec<u8>>("raw").unwrap(), raw);
            assert!(!row.take::<bool>("flag").unwrap());
            assert_eq!(row.take::<Time>("moment").unwrap(), moment);
            assert_eq!(row.take::<Box<RawValue>>("document").unwrap().get(), "null");
        }
    }

    async fn times_are_ordered_and_compared_as_times(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_table(&mut conn).await;
        let mut moments = vec![
            time("2026-11-20T08:52:32.9Z"), time("2026-11-20T08:52:32.900001Z"),
            time("1969-01-01T00:00:00Z"), time("2026-11-20T08:52:33Z"),
        ];
        for moment in &moments {
            query("INSERT INTO things (moment) VALUES ($1)").bind(*moment).execute(&mut conn).await.unwrap();
        }
        moments.sort();
        let found: Vec<(Time,)> =
            query("SELECT moment FROM things ORDER BY moment").fetch_all(&mut conn).await.unwrap();
        assert_eq!(found.into_iter().map(|it| it.0).collect::<Vec<_>>(), moments);
        let before: Vec<(Time,)> = query("SELECT moment FROM things WHERE moment < $1 ORDER BY moment")
            .bind(moments[2])
            .fetch_all(&mut conn)
            .await
            .unwrap();
        assert_eq!(before.len(), 2);
        // Before the first year that PostgreSQL knows.
        let none: Vec<(Time,)> = query("SELECT moment FROM things WHERE moment < $1")
            .bind(time("-004800-01-01T00:00:00Z"))
            .fetch_all(&mut conn)
            .await
            .unwrap();
        assert!(none.is_empty());
    }

    async fn typed_values_come_back_typed(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_table(&mut conn).await;
        let id = database.clock.ulid();
        query("INSERT INTO things (word, document, number) VALUES ($1, $2, $3)")
            .bind(id)
            .bind(Json(vec!["a", "b"]))
            .bind(7_i32)
            .execute(&mut conn)
            .await
            .unwrap();
        let (word, document, number): (Ulid, Json<Vec<String>>, u32) =
            query("SELECT word, document, number FROM things").fetch_one(&mut conn).await.unwrap();
        assert_eq!((word, document.0.len(), number), (id, 2, 7));
    }

    async fn columns_can_be_read_by_name(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_table(&mut conn).await;
        insert(&mut conn, [
            1.into(), 0.5.into(), "x".into(), vec![1_u8].into(), true.into(),
            time("2026-01-01T00:00:00Z").into(), "{}".into(),
        ]).await;
        let row: Row = query("SELECT * FROM things").with_names().fetch_one(&mut conn).await.unwrap();
        let names: Vec<String> = row.into_columns().map(|it| it.0).collect();
        assert_eq!(names, ["number", "fraction", "word", "raw", "flag", "moment", "document"]);
    }

    async fn a_column_of_another_type_is_an_error_that_names_it(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_table(&mut conn).await;
        query("INSERT INTO things (word) VALUES ('x')").execute(&mut conn).await.unwrap();
        let mut row: Row = query("SELECT word FROM things").fetch_one(&mut conn).await.unwrap();
        assert!(matches!(row.take::<i64>("word"), Err(Error::Column("word"))));
        let none = query("SELECT word FROM things WHERE word = 'y'").fetch_one::<Row>(&mut conn).await;
        assert!(matches!(none, Err(Error::NoRow)));
    }
}
