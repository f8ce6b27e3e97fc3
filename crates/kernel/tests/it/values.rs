//! What goes in comes out.

use modelyard_kernel::Time;
use modelyard_kernel::db::{Conn, Dialect, Json, Row, Value, query};
use modelyard_testkit::on_both_databases;

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
    query("INSERT INTO things VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind_all(values)
        .execute(conn)
        .await
        .unwrap();
}

fn time(text: &str) -> Time {
    text.parse().unwrap()
}

on_both_databases! {
    async fn every_type_comes_back_as_it_went(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_table(&mut conn).await;
        let document = "{\"b\":1, \"a\" : [1.0,1e2,0.1],\"b\":\"\u{e9}\\u0000\"}";
        let all: Vec<u8> = (0..=255).collect();
        insert(&mut conn, [
            i64::MIN.into(), 0.1_f64.into(), "na\u{ef}ve \u{1f600}\n'\"%_".into(), all.clone().into(),
            true.into(), time("2026-11-20T08:52:32.940128Z").into(), document.into(),
        ]).await;

        let mut row: Row = query("SELECT * FROM things").fetch_one(&mut conn).await.unwrap();
        assert_eq!(row.take::<i64>("number").unwrap(), i64::MIN);
        assert_eq!(row.take::<f64>("fraction").unwrap().to_bits(), 0.1_f64.to_bits());
        assert_eq!(row.take::<String>("word").unwrap(), "na\u{ef}ve \u{1f600}\n'\"%_");
        assert_eq!(row.take::<Vec<u8>>("raw").unwrap(), all);
        assert!(row.take::<bool>("flag").unwrap());
        assert_eq!(row.take::<Time>("moment").unwrap(), time("2026-11-20T08:52:32.940128Z"));
        assert_eq!(row.take::<String>("document").unwrap(), document, "byte for byte");
    }
}
