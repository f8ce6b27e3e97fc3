//! The tables `audit_entries`, `audit_heads`, `audit_anchors` and `audit_removals`. The scope is that of the
//! deployment.

use modelyard_kernel::Scope;
use modelyard_kernel::db::{Conn, Result, Value, scoped};

use super::model::{Entry, HASH, Mark, NOTHING};

/// Entries that one statement adds; the others are added one by one, so that there are two statements only.
const ROWS: usize = 32;

/// The last entry of a chain, or what it begins behind.
pub(super) async fn tail(conn: &mut Conn, scope: &Scope) -> Result<(i64, [u8; HASH])> {
    let last: Option<(i64, Vec<u8>)> = scoped(
        scope,
        "SELECT seq, hash FROM audit_entries WHERE tenant_id = $1 AND service_id = $2
         ORDER BY seq DESC LIMIT 1",
    )
    .fetch_optional(conn)
    .await?;
    let last = match last {
        Some(last) => Some(last),
        None => anchor(conn, scope).await?.map(|it| (it.seq, it.hash)),
    };
    // A hash that is none was not written by us: what follows will not fit either.
    Ok(last.map_or((0, NOTHING), |(seq, hash)| (seq, hash.try_into().unwrap_or(NOTHING))))
}

pub(super) async fn insert(conn: &mut Conn, scope: &Scope, entries: Vec<Entry>) -> Result<()> {
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let some: Vec<Entry> = entries.by_ref().take(ROWS).collect();
        if some.len() == ROWS {
            insert_some(conn, scope, some).await?;
            continue;
        }
        for entry in some {
            insert_some(conn, scope, vec![entry]).await?;
        }
    }
    Ok(())
}

async fn insert_some(conn: &mut Conn, scope: &Scope, entries: Vec<Entry>) -> Result<()> {
    const COLUMNS: usize = 13;
    let row = |index: usize| {
        let places = (0..COLUMNS).map(|it| format!("${}", 3 + index * COLUMNS + it));
        format!("($1, $2, {})", places.collect::<Vec<_>>().join(", "))
    };
    let rows: Vec<String> = (0..entries.len()).map(row).collect();
    let sql = format!(
        "INSERT INTO audit_entries (tenant_id, service_id, {}) VALUES {}",
        Entry::COLUMNS,
        rows.join(", ")
    );
    let values = entries.into_iter().flat_map(|entry| {
        let Entry { seq, id, at, service, actor, address, request, .. } = entry;
        let Entry { action, subject, outcome, before, after, hash, .. } = entry;
        let values: [Value; COLUMNS] = [
            seq.into(),
            id.into(),
            at.into(),
            service.into(),
            actor.into(),
            address.into(),
            request.into(),
            action.into(),
            subject.into(),
            outcome.into(),
            before.into(),
            after.into(),
            hash.into(),
        ];
        values
    });
    scoped(scope, sql).bind_all(values).execute(conn).await.map(drop)
}

/// Up to `most` entries after one, in their order.
pub(super) async fn page(
    conn: &mut Conn,
    scope: &Scope,
    after: i64,
    most: i64,
) -> Result<Vec<Entry>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM audit_entries WHERE tenant_id = $1 AND service_id = $2 AND seq > $3
             ORDER BY seq LIMIT $4",
            Entry::COLUMNS
        ),
    )
    .bind(after)
    .bind(most)
    .fetch_all(conn)
    .await
}

pub(super) async fn find(conn: &mut Conn, scope: &Scope, seq: i64) -> Result<Option<Entry>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM audit_entries WHERE tenant_id = $1 AND service_id = $2 AND seq = $3",
            Entry::COLUMNS
        ),
    )
    .bind(seq)
    .fetch_optional(conn)
    .await
}

/// The first entry that is not older than a time, if there is any.
pub(super) async fn first_since(
    conn: &mut Conn,
    scope: &Scope,
    at: modelyard_kernel::Time,
) -> Result<Option<i64>> {
    let (seq,): (Option<i64>,) = scoped(
        scope,
        "SELECT MIN(seq) FROM audit_entries WHERE tenant_id = $1 AND service_id = $2 AND at >= $3",
    )
    .bind(at)
    .fetch_one(conn)
    .await?;
    Ok(seq)
}

/// The first entry that is there.
pub(super) async fn first(conn: &mut Conn, scope: &Scope) -> Result<Option<i64>> {
    let (seq,): (Option<i64>,) = scoped(
        scope,
        "SELECT MIN(seq) FROM audit_entries WHERE tenant_id = $1 AND service_id = $2",
    )
    .fetch_one(conn)
    .await?;
    Ok(seq)
}

/// The last head.
pub(super) async fn head(conn: &mut Conn, scope: &Scope) -> Result<Option<Mark>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM audit_heads WHERE tenant_id = $1 AND service_id = $2
             ORDER BY seq DESC LIMIT 1",
            Mark::COLUMNS
        ),
    )
    .fetch_optional(conn)
    .await
}

/// Heads after an entry, until another.
pub(super) async fn heads(
    conn: &mut Conn,
    scope: &Scope,
    after: i64,
    until: i64,
) -> Result<Vec<Mark>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM audit_heads
             WHERE tenant_id = $1 AND service_id = $2 AND seq > $3 AND seq <= $4 ORDER BY seq",
            Mark::COLUMNS
        ),
    )
    .bind(after)
    .bind(until)
    .fetch_all(conn)
    .await
}

/// Adds a head; one that is there stays.
pub(super) async fn insert_head(conn: &mut Conn, scope: &Scope, mark: Mark) -> Result<()> {
    let Mark { seq, hash, at, kid, public_key, signature } = mark;
    scoped(
        scope,
        "INSERT INTO audit_heads (tenant_id, service_id, seq, hash, at, kid, public_key, signature)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(seq)
    .bind(hash)
    .bind(at)
    .bind(kid)
    .bind(public_key)
    .bind(signature)
    .execute(conn)
    .await
    .map(drop)
}

pub(super) async fn anchor(conn: &mut Conn, scope: &Scope) -> Result<Option<Mark>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM audit_anchors WHERE tenant_id = $1 AND service_id = $2",
            Mark::COLUMNS
        ),
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn set_anchor(conn: &mut Conn, scope: &Scope, mark: Mark) -> Result<()> {
    let Mark { seq, hash, at, kid, public_key, signature } = mark;
    scoped(
        scope,
        "INSERT INTO audit_anchors (tenant_id, service_id, seq, hash, at, kid, public_key, signature)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (tenant_id, service_id) DO UPDATE SET seq = $3, hash = $4, at = $5, kid = $6,
             public_key = $7, signature = $8",
    )
    .bind(seq)
    .bind(hash)
    .bind(at)
    .bind(kid)
    .bind(public_key)
    .bind(signature)
    .execute(conn)
    .await
    .map(drop)
}

/// Removes the entries until one, and the heads of those.
pub(super) async fn remove(conn: &mut Conn, scope: &Scope, until: i64) -> Result<()> {
    scoped(scope, "INSERT INTO audit_removals (tenant_id, seq) SELECT $1, $3 WHERE $2 <> ''")
        .bind(until)
        .execute(conn)
        .await?;
    for sql in [
        "DELETE FROM audit_entries WHERE tenant_id = $1 AND service_id = $2 AND seq <= $3",
        "DELETE FROM audit_heads WHERE tenant_id = $1 AND service_id = $2 AND seq <= $3",
        "DELETE FROM audit_removals WHERE tenant_id = $1 AND $2 <> '' AND seq = $3",
    ] {
        scoped(scope, sql).bind(until).execute(conn).await?;
    }
    Ok(())
}
