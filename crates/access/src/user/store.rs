//! The table `users`.

use modelyard_kernel::db::{Conn, Result, scoped};
use modelyard_kernel::{Scope, Time, Ulid};

use super::model::{Credentials, Email, User, UserId, UserStatus};

/// A row to be written.
#[derive(Debug)]
pub(super) struct UserRow {
    pub(super) id: UserId,
    pub(super) email: Email,
    pub(super) name: String,
    pub(super) status: UserStatus,
    pub(super) password_hash: Option<String>,
    pub(super) factor_required: bool,
    pub(super) now: Time,
}

/// `None` when the address is taken.
pub(super) async fn insert(conn: &mut Conn, scope: &Scope, row: UserRow) -> Result<Option<User>> {
    let UserRow { id, email, name, status, password_hash, factor_required, now } = row;
    let password_changed_at = password_hash.is_some().then_some(now);
    scoped(
        scope,
        format!(
            "INSERT INTO users (tenant_id, service_id, id, email, name, status, password_hash,
                 password_changed_at, factor_required, revision, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $10)
             ON CONFLICT (tenant_id, service_id, email) DO NOTHING
             RETURNING {}",
            User::COLUMNS
        ),
    )
    .bind(id)
    .bind(&email)
    .bind(name)
    .bind(status)
    .bind(password_hash)
    .bind(password_changed_at)
    .bind(factor_required)
    .bind(now)
    .fetch_optional(conn)
    .await
}

pub(super) async fn find(conn: &mut Conn, scope: &Scope, id: UserId) -> Result<Option<User>> {
    select(conn, scope, id, "").await
}

/// Finds it, and holds it until the transaction ends.
pub(super) async fn lock(conn: &mut Conn, scope: &Scope, id: UserId) -> Result<Option<User>> {
    let suffix = conn.for_update();
    select(conn, scope, id, suffix).await
}

async fn select(conn: &mut Conn, scope: &Scope, id: UserId, suffix: &str) -> Result<Option<User>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM users WHERE tenant_id = $1 AND service_id = $2 AND id = $3{suffix}",
            User::COLUMNS
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// Whether one of some users may log in.
pub(super) async fn any_active(conn: &mut Conn, scope: &Scope, ids: &[Ulid]) -> Result<bool> {
    let places: Vec<String> = (3..ids.len() + 3).map(|it| format!("${it}")).collect();
    let found: Option<(UserId,)> = scoped(
        scope,
        format!(
            "SELECT id FROM users WHERE tenant_id = $1 AND service_id = $2
                 AND id IN ({}) AND status = 'active' LIMIT 1",
            places.join(", ")
        ),
    )
    .bind_all(ids.iter().map(|it| (*it).into()))
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

pub(super) async fn any(conn: &mut Conn, scope: &Scope) -> Result<bool> {
    let found: Option<(UserId,)> =
        scoped(scope, "SELECT id FROM users WHERE tenant_id = $1 AND service_id = $2 LIMIT 1")
            .fetch_optional(conn)
            .await?;
    Ok(found.is_some())
}

/// Writes what an administrator, or the user, may change.
pub(super) async fn update(conn: &mut Conn, scope: &Scope, user: &User, now: Time) -> Result<User> {
    scoped(
        scope,
        format!(
            "UPDATE users SET name = $4, factor_required = $5, revision = revision + 1,
                 updated_at = $6
             WHERE tenant_id = $1 AND service_id = $2 AND id = $3
             RETURNING {}",
            User::COLUMNS
        ),
    )
    .bind(user.id)
    .bind(&user.name)
    .bind(user.factor_required)
    .bind(now)
    .fetch_one(conn)
    .await
}

pub(super) async fn disable(conn: &mut Conn, scope: &Scope, id: UserId, now: Time) -> Result<User> {
    set_status(conn, scope, id, "'disabled'", now).await
}

/// Without a password it is invited again.
pub(super) async fn enable(conn: &mut Conn, scope: &Scope, id: UserId, now: Time) -> Result<User> {
    let status = "CASE WHEN password_hash IS NULL THEN 'invited' ELSE 'active' END";
    set_status(conn, scope, id, status, now).await
}

async fn set_status(
    conn: &mut Conn,
    scope: &Scope,
    id: UserId,
    status: &str,
    now: Time,
) -> Result<User> {
    scoped(
        scope,
        format!(
            "UPDATE users SET status = {status}, revision = revision + 1, updated_at = $4
             WHERE tenant_id = $1 AND service_id = $2 AND id = $3
             RETURNING {}",
            User::COLUMNS
        ),
    )
    .bind(id)
    .bind(now)
    .fetch_one(conn)
    .await
}

pub(super) async fn delete(conn: &mut Conn, scope: &Scope, id: UserId) -> Result<()> {
    scoped(scope, "DELETE FROM users WHERE tenant_id = $1 AND service_id = $2 AND id = $3")
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}

/// Whoever was invited is active from then on; whoever is disabled stays so. False when there is no
/// such user.
pub(super) async fn set_password(
    conn: &mut Conn,
    scope: &Scope,
    id: UserId,
    hash: &str,
    now: Time,
) -> Result<bool> {
    let changed = scoped(
        scope,
        "UPDATE users SET password_hash = $4, password_changed_at = $5, revision = revision + 1,
             updated_at = $5, status = CASE WHEN status = 'invited' THEN 'active' ELSE status END
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3",
    )
    .bind(id)
    .bind(hash)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(changed > 0)
}

pub(super) async fn credentials_by_email(
    conn: &mut Conn,
    scope: &Scope,
    email: &str,
    suffix: &str,
) -> Result<Option<Credentials>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM users WHERE tenant_id = $1 AND service_id = $2 AND email = $3{suffix}",
            Credentials::COLUMNS
        ),
    )
    .bind(email)
    .fetch_optional(conn)
    .await
}

pub(super) async fn credentials(
    conn: &mut Conn,
    scope: &Scope,
    id: UserId,
    suffix: &str,
) -> Result<Option<Credentials>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM users WHERE tenant_id = $1 AND service_id = $2 AND id = $3{suffix}",
            Credentials::COLUMNS
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// That it has logged in; `hash` is the password's, made anew.
pub(super) async fn set_login(
    conn: &mut Conn,
    scope: &Scope,
    id: UserId,
    hash: Option<&str>,
    now: Time,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE users SET last_login_at = $4,
             password_hash = COALESCE($5, password_hash)
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3",
    )
    .bind(id)
    .bind(now)
    .bind(hash)
    .execute(conn)
    .await
    .map(drop)
}
