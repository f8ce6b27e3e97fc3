//! Several changes, each on its own or all or nothing.

use futures_util::FutureExt;
use modelyard_kernel::bulk::{Applied, Bulk, Changed, Done, Operation};
use modelyard_kernel::db::query;
use modelyard_kernel::{Conn, Failure};
use modelyard_testkit::{TestDatabase, on_both_databases};

use crate::{add, counters, make_counters};

/// Makes a counter of this name, unless it is told to fail, or to go on after a statement that did:
/// such a transaction cannot be committed.
async fn step(conn: &mut Conn, operation: Operation<&'static str>) -> Done {
    let Operation::Create(name) = operation else { return Ok(Applied::Deleted) };
    match name {
        "refused" => return Err(Failure::conflict("counter_taken", "there is one")),
        "spoilt" => _ = query("SELECT nothing FROM nowhere").execute(conn).await,
        _ => _ = add(conn, name, 1).await?,
    }
    Applied::created(&name)
}

async fn apply(
    database: &TestDatabase,
    atomic: bool,
    names: &[&'static str],
) -> modelyard_kernel::Result<Changed> {
    let operations = names.iter().map(|name| match *name {
        "unread" => Err(Failure::bad_request("unread", "it cannot be read")),
        name => Ok(Operation::Create(name)),
    });
    let bulk = Bulk { atomic, operations: operations.collect() };
    bulk.apply(&database.db, |conn, operation| step(conn, operation).boxed()).await
}

fn codes(changed: &Changed) -> Vec<&str> {
    let code = |done| match done {
        &Ok(Applied::Created(_)) => "created",
        &Ok(Applied::NotTried) => "not tried",
        &Ok(_) => "?",
        Err(failure) => Failure::code(failure),
    };
    changed.results.iter().map(code).collect()
}

on_both_databases! {
    async fn whatever_fails_the_others_are_done(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        let names = ["a", "refused", "b", "spoilt", "c", "unread", "d"];
        let changed = apply(&database, false, &names).await.unwrap();
        assert!(changed.applied);
        assert_eq!(
            codes(&changed),
            ["created", "counter_taken", "created", "internal", "created", "unread", "created"]
        );
        let names: Vec<String> = counters(&mut conn).await.into_iter().map(|it| it.0).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);

        drop(conn);
        database.db.close().await;
        let changed = apply(&database, false, &["a", "b"]).await.unwrap();
        assert!(changed.results.iter().all(Result::is_err), "{changed:?}");
    }

    async fn the_first_failure_undoes_all(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        make_counters(&mut conn).await;
        for (names, found) in [
            (["a", "refused", "b"], ["not tried", "counter_taken", "not tried"]),
            (["a", "b", "unread"], ["not tried", "not tried", "unread"]),
            (["unread", "refused", "unread"], ["unread", "not tried", "unread"]),
        ] {
            let changed = apply(&database, true, &names).await.unwrap();
            assert!(!changed.applied);
            assert_eq!(codes(&changed), found);
        }
        let spoilt = apply(&database, true, &["a", "spoilt"]).await;
        assert_eq!(spoilt.unwrap_err().code(), "internal", "no operation has failed");
        assert!(counters(&mut conn).await.is_empty());
        assert!(apply(&database, true, &["a", "b"]).await.unwrap().applied);
        assert_eq!(counters(&mut conn).await.len(), 2);
    }
}
