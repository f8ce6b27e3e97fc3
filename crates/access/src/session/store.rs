//! The tables `sessions` and `refresh_tokens`.

use modelyard_kernel::db::{Conn, Result, scoped};
use modelyard_kernel::{Scope, Time, Ulid, columns};

use super::model::{Session, SessionId};

/// A new row; `hash` is the cookie's.
pub(super) async fn insert(
    conn: &mut Conn,
    scope: &Scope,
    session: &Session,
    hash: Option<Vec<u8>>,
) -> Result<()> {
    let Session { id, user_id, kind, address, user_agent, factor_at, proved_at, .. } = session;
    let Session { last_seen_at, expires_at, revoked_at, created_at, .. } = session;
    scoped(
        scope,
        "INSERT INTO sessions (tenant_id, service_id, id, user_id, kind, hash, address, user_agent,
             factor_at, proved_at, last_seen_at, expires_at, revoked_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(*id)
    .bind(*user_id)
    .bind(*kind)
    .bind(hash)
    .bind(address)
    .bind(user_agent)
    .bind(*factor_at)
    .bind(*proved_at)
    .bind(*last_seen_at)
    .bind(*expires_at)
    .bind(*revoked_at)
    .bind(*created_at)
    .execute(conn)
    .await
    .map(drop)
}

pub(super) async fn find(conn: &mut Conn, scope: &Scope, id: SessionId) -> Result<Option<Session>> {
    select(conn, scope, id, "").await
}

/// Finds it, and holds it until the transaction ends.
pub(super) async fn lock(conn: &mut Conn, scope: &Scope, id: SessionId) -> Result<Option<Session>> {
    let suffix = conn.for_update();
    select(conn, scope, id, suffix).await
}

async fn select(
    conn: &mut Conn,
    scope: &Scope,
    id: SessionId,
    suffix: &str,
) -> Result<Option<Session>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM sessions WHERE tenant_id = $1 AND service_id = $2 AND id = $3{suffix}",
            Session::COLUMNS
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// Those of a user that nobody has ended and whose time is not over, newest first.
pub(super) async fn of_user(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    now: Time,
) -> Result<Vec<Session>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM sessions WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3
                 AND revoked_at IS NULL AND expires_at > $4 ORDER BY id DESC",
            Session::COLUMNS
        ),
    )
    .bind(user)
    .bind(now)
    .fetch_all(conn)
    .await
}

/// How many of a user's began at a place.
pub(super) async fn count(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    address: &str,
    user_agent: &str,
) -> Result<i64> {
    let (count,) = scoped(
        scope,
        "SELECT COUNT(*) FROM sessions WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3
             AND address = $4 AND user_agent = $5",
    )
    .bind(user)
    .bind(address)
    .bind(user_agent)
    .fetch_one(conn)
    .await?;
    Ok(count)
}

/// Removes those of a user whose time is over.
pub(super) async fn forget(conn: &mut Conn, scope: &Scope, user: Ulid, now: Time) -> Result<()> {
    scoped(
        scope,
        "DELETE FROM sessions WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3
             AND expires_at <= $4",
    )
    .bind(user)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// Removes those of a user but the newest `most`, which have not ended rather than others. Gives which.
pub(super) async fn keep_newest(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    most: i64,
) -> Result<Vec<(SessionId,)>> {
    scoped(
        scope,
        "DELETE FROM sessions WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3
             AND id NOT IN (
                 SELECT id FROM sessions
                 WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3
                 ORDER BY CASE WHEN revoked_at IS NULL THEN 0 ELSE 1 END, id DESC LIMIT $4)
         RETURNING id",
    )
    .bind(user)
    .bind(most)
    .fetch_all(conn)
    .await
}

/// Ends one of a user's sessions. False when there is no such session, or it has ended.
pub(super) async fn revoke(
    conn: &mut Conn,
    scope: &Scope,
    id: SessionId,
    user: Ulid,
    now: Time,
) -> Result<bool> {
    let ended = scoped(
        scope,
        "UPDATE sessions SET revoked_at = $5
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3 AND user_id = $4
             AND revoked_at IS NULL",
    )
    .bind(id)
    .bind(user)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(ended > 0)
}

/// Ends all of a user's sessions but `except`.
pub(super) async fn revoke_all(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    except: Option<Ulid>,
    now: Time,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE sessions SET revoked_at = $5
         WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3 AND id <> $4
             AND revoked_at IS NULL",
    )
    .bind(user)
    .bind(except.map_or_else(String::new, |it| it.to_string()))
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

pub(super) async fn seen(conn: &mut Conn, scope: &Scope, id: SessionId, now: Time) -> Result<()> {
    scoped(
        scope,
        "UPDATE sessions SET last_seen_at = $4
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3 AND last_seen_at < $4",
    )
    .bind(id)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// That the user has proved who it is.
pub(super) async fn proved(
    conn: &mut Conn,
    scope: &Scope,
    id: SessionId,
    proved_at: Time,
    factor_at: Option<Time>,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE sessions SET proved_at = $4, factor_at = COALESCE($5, factor_at)
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3",
    )
    .bind(id)
    .bind(proved_at)
    .bind(factor_at)
    .execute(conn)
    .await
    .map(drop)
}

/// That the user has shown a second factor.
pub(super) async fn note_factor(
    conn: &mut Conn,
    scope: &Scope,
    id: SessionId,
    at: Time,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE sessions SET factor_at = $4
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3",
    )
    .bind(id)
    .bind(at)
    .execute(conn)
    .await
    .map(drop)
}

/// That no session of a user has shown a second factor.
pub(super) async fn forget_factor(conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<()> {
    scoped(
        scope,
        "UPDATE sessions SET factor_at = NULL
         WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3 AND factor_at IS NOT NULL",
    )
    .bind(user)
    .execute(conn)
    .await
    .map(drop)
}

/// Another cookie instead of the one that a session had.
pub(super) async fn replace_cookie(
    conn: &mut Conn,
    scope: &Scope,
    id: SessionId,
    hash: Vec<u8>,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE sessions SET hash = $4 WHERE tenant_id = $1 AND service_id = $2 AND id = $3",
    )
    .bind(id)
    .bind(hash)
    .execute(conn)
    .await
    .map(drop)
}

/// A refresh token as it is kept.
#[derive(Debug)]
pub(super) struct RefreshRow {
    pub(super) session_id: SessionId,
    pub(super) expires_at: Time,
    pub(super) used_at: Option<Time>,
    pub(super) created_at: Time,
}

columns!(RefreshRow: session_id, expires_at, used_at, created_at);

pub(super) async fn insert_refresh(
    conn: &mut Conn,
    scope: &Scope,
    hash: Vec<u8>,
    row: RefreshRow,
) -> Result<()> {
    let RefreshRow { session_id, expires_at, used_at, created_at } = row;
    scoped(
        scope,
        "INSERT INTO refresh_tokens (tenant_id, service_id, hash, session_id, expires_at, used_at,
             created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(hash)
    .bind(session_id)
    .bind(expires_at)
    .bind(used_at)
    .bind(created_at)
    .execute(conn)
    .await
    .map(drop)
}

pub(super) async fn find_refresh(
    conn: &mut Conn,
    scope: &Scope,
    hash: &[u8],
) -> Result<Option<RefreshRow>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM refresh_tokens
             WHERE tenant_id = $1 AND service_id = $2 AND hash = $3",
            RefreshRow::COLUMNS
        ),
    )
    .bind(hash.to_vec())
    .fetch_optional(conn)
    .await
}

pub(super) async fn use_refresh(
    conn: &mut Conn,
    scope: &Scope,
    hash: &[u8],
    now: Time,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE refresh_tokens SET used_at = $4
         WHERE tenant_id = $1 AND service_id = $2 AND hash = $3",
    )
    .bind(hash.to_vec())
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// Removes the used ones of a session but the last `most`.
pub(super) async fn keep_last_used(
    conn: &mut Conn,
    scope: &Scope,
    session: SessionId,
    most: i64,
) -> Result<()> {
    scoped(
        scope,
        "DELETE FROM refresh_tokens WHERE tenant_id = $1 AND service_id = $2 AND session_id = $3
             AND used_at IS NOT NULL AND hash NOT IN (
                 SELECT hash FROM refresh_tokens
                 WHERE tenant_id = $1 AND service_id = $2 AND session_id = $3
                     AND used_at IS NOT NULL
                 ORDER BY used_at DESC, created_at DESC LIMIT $4)",
    )
    .bind(session)
    .bind(most)
    .execute(conn)
    .await
    .map(drop)
}

/// Removes sessions of everybody whose time is over, `most` of them.
pub(super) async fn sweep(conn: &mut Conn, scope: &Scope, now: Time, most: i64) -> Result<u64> {
    scoped(
        scope,
        "DELETE FROM sessions WHERE tenant_id = $1 AND service_id = $2 AND id IN (
             SELECT id FROM sessions WHERE tenant_id = $1 AND service_id = $2 AND expires_at <= $3
             ORDER BY expires_at LIMIT $4)",
    )
    .bind(now)
    .bind(most)
    .execute(conn)
    .await
}
