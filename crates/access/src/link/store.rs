//! The tables `mailed_links` and `reset_requests`.

use modelyard_kernel::db::{Conn, Result, scoped};
use modelyard_kernel::{Scope, Time, Ulid};

use super::model::LinkPurpose;

/// A row to be written.
#[derive(Debug)]
pub(super) struct NewLink {
    pub(super) hash: Vec<u8>,
    pub(super) user: Ulid,
    pub(super) purpose: LinkPurpose,
    pub(super) expires_at: Time,
    pub(super) now: Time,
}

pub(super) async fn insert(conn: &mut Conn, scope: &Scope, new: NewLink) -> Result<()> {
    let NewLink { hash, user, purpose, expires_at, now } = new;
    scoped(
        scope,
        "INSERT INTO mailed_links
             (tenant_id, service_id, hash, user_id, purpose, expires_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(hash)
    .bind(user)
    .bind(purpose)
    .bind(expires_at)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// Whom a link that is still good was sent to.
pub(super) async fn find(
    conn: &mut Conn,
    scope: &Scope,
    hash: Vec<u8>,
    purpose: LinkPurpose,
    now: Time,
) -> Result<Option<Ulid>> {
    let found: Option<(Ulid,)> = scoped(
        scope,
        "SELECT user_id FROM mailed_links
         WHERE tenant_id = $1 AND service_id = $2 AND hash = $3 AND purpose = $4
             AND used_at IS NULL AND expires_at > $5",
    )
    .bind(hash)
    .bind(purpose)
    .bind(now)
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|it| it.0))
}

/// Uses a link. False when it is not good any more, or somebody else has used it in this very moment.
pub(super) async fn use_up(
    conn: &mut Conn,
    scope: &Scope,
    hash: Vec<u8>,
    purpose: LinkPurpose,
    now: Time,
) -> Result<bool> {
    let used = scoped(
        scope,
        "UPDATE mailed_links SET used_at = $5
         WHERE tenant_id = $1 AND service_id = $2 AND hash = $3 AND purpose = $4
             AND used_at IS NULL AND expires_at > $5",
    )
    .bind(hash)
    .bind(purpose)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(used == 1)
}

/// Makes what else was sent to a user useless.
pub(super) async fn retire(conn: &mut Conn, scope: &Scope, user: Ulid, now: Time) -> Result<()> {
    scoped(
        scope,
        "UPDATE mailed_links SET used_at = $4
         WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3 AND used_at IS NULL",
    )
    .bind(user)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// Removes what is not good any more.
pub(super) async fn sweep(conn: &mut Conn, scope: &Scope, user: Ulid, now: Time) -> Result<()> {
    scoped(
        scope,
        "DELETE FROM mailed_links
         WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3 AND expires_at <= $4",
    )
    .bind(user)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// Removes what is not good any more of everybody, `most` of it. What was used is kept until it is of no
/// use in [`count_since`] either.
pub(super) async fn sweep_all(
    conn: &mut Conn,
    scope: &Scope,
    now: Time,
    counted: Time,
    most: i64,
) -> Result<u64> {
    scoped(
        scope,
        "DELETE FROM mailed_links WHERE tenant_id = $1 AND service_id = $2 AND hash IN (
             SELECT hash FROM mailed_links WHERE tenant_id = $1 AND service_id = $2
                 AND (expires_at <= $3 OR used_at IS NOT NULL) AND created_at <= $4
             ORDER BY expires_at LIMIT $5)",
    )
    .bind(now)
    .bind(counted)
    .bind(most)
    .execute(conn)
    .await
}

/// How often somebody at an address asked for a new password of late, and when last.
pub(super) async fn requests(
    conn: &mut Conn,
    scope: &Scope,
    address: &str,
) -> Result<Option<(i64, Time)>> {
    scoped(
        scope,
        "SELECT requests, last_at FROM reset_requests
         WHERE tenant_id = $1 AND service_id = $2 AND address = $3",
    )
    .bind(address)
    .fetch_optional(conn)
    .await
}

/// Counts a request of an address; those before `forgotten` count no more.
pub(super) async fn note_request(
    conn: &mut Conn,
    scope: &Scope,
    address: &str,
    now: Time,
    forgotten: Time,
) -> Result<()> {
    scoped(
        scope,
        "INSERT INTO reset_requests (tenant_id, service_id, address, requests, last_at)
         VALUES ($1, $2, $3, 1, $4)
         ON CONFLICT (tenant_id, service_id, address) DO UPDATE SET last_at = $4,
             requests = CASE WHEN reset_requests.last_at < $5 THEN 1
                 ELSE reset_requests.requests + 1 END",
    )
    .bind(address)
    .bind(now)
    .bind(forgotten)
    .execute(conn)
    .await
    .map(drop)
}

/// Removes requests that count no more, of `most` addresses.
pub(super) async fn sweep_requests(
    conn: &mut Conn,
    scope: &Scope,
    before: Time,
    most: i64,
) -> Result<u64> {
    scoped(
        scope,
        "DELETE FROM reset_requests WHERE tenant_id = $1 AND service_id = $2 AND address IN (
             SELECT address FROM reset_requests
             WHERE tenant_id = $1 AND service_id = $2 AND last_at < $3
             ORDER BY last_at LIMIT $4) AND last_at < $3",
    )
    .bind(before)
    .bind(most)
    .execute(conn)
    .await
}

/// How many a user was sent after `since`.
pub(super) async fn count_since(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    purpose: LinkPurpose,
    since: Time,
) -> Result<i64> {
    let (count,) = scoped(
        scope,
        "SELECT COUNT(*) FROM mailed_links
         WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3 AND purpose = $4
             AND created_at > $5",
    )
    .bind(user)
    .bind(purpose)
    .bind(since)
    .fetch_one(conn)
    .await?;
    Ok(count)
}
