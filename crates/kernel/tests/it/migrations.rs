//! Migrations: once, in order, by whoever comes first.

use futures_util::future::join_all;
use modelyard_kernel::Db;
use modelyard_kernel::db::{Dialect, Options, query};
use modelyard_schema::{PASSING, SchemaError, TABLES, migrate, status};
use modelyard_testkit::{TestDatabase, on_both_databases};

/// The address of a database without any table, on the same server or in the same directory.
async fn empty(database: &TestDatabase) -> String {
    match database.db.dialect() {
        Dialect::Sqlite => format!("sqlite:{}", database.dir().join("below/empty.db").display()),
        Dialect::Postgres => {
            let mut tx = database.db.begin().await.unwrap();
            tx.batch("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
            tx.commit().await.unwrap();
            database.url.clone()
        }
    }
}

async fn connect(url: &str) -> Db {
    Db::connect(&Options { url: url.to_owned(), ..Options::default() }).await.unwrap()
}

on_both_databases! {
    async fn nodes_that_start_at_once_migrate_once(database: TestDatabase) {
        let url = empty(&database).await;
        let nodes = join_all((0..6).map(async |_| {
            let db = connect(&url).await;
            migrate(&db, &database.clock).await
        }))
        .await;
        let applied: Vec<usize> = nodes.iter().map(|it| it.as_ref().unwrap().len()).collect();
        let all = status(&connect(&url).await).await.unwrap();
        assert_eq!(applied.iter().filter(|it| **it > 0).collect::<Vec<_>>(), [&all.len()]);
        assert!(all.iter().all(|it| it.applied_at == Some(TestDatabase::start())));
    }

    async fn what_is_up_to_date_is_left_alone(database: TestDatabase) {
        assert!(migrate(&database.db, &database.clock).await.unwrap().is_empty());
    }

    async fn an_empty_database_has_everything_to_come(database: TestDatabase) {
        let db = connect(&empty(&database).await).await;
        let all = status(&db).await.unwrap();
        assert!(!all.is_empty());
        assert!(all.iter().all(|it| it.applied_at.is_none()));
        assert!(all.windows(2).all(|it| it[0].version < it[1].version));
    }

    async fn a_database_of_a_later_program_is_left_alone(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        query("INSERT INTO schema_migrations (version, name, applied_at) VALUES (999, 'later', $1)")
            .bind(database.clock.now())
            .execute(&mut conn)
            .await
            .unwrap();
        let refused = migrate(&database.db, &database.clock).await.unwrap_err();
        assert!(matches!(refused, SchemaError::TooNew { found: 999, .. }), "{refused}");
    }

    async fn every_table_is_known_and_has_a_tenant_and_a_service(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        let sql = match conn.dialect() {
            Dialect::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
            Dialect::Postgres => "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = 'public'",
        };
        let found: Vec<(String,)> = query(sql).fetch_all(&mut conn).await.unwrap();
        let mut found: Vec<String> = found.into_iter().map(|it| it.0).collect();
        found.retain(|it| it != "schema_migrations" && !PASSING.contains(&it.as_str()));
        found.sort();
        let mut known = TABLES.to_vec();
        known.sort_unstable();
        assert_eq!(found, known);
        for table in TABLES {
            query(format!("SELECT tenant_id, service_id FROM {table}"))
                .fetch_all::<(String, String)>(&mut conn)
                .await
                .unwrap();
        }
    }
}
