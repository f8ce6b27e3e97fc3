//! The table `secret_checks`.

use modelyard_kernel::db::{Conn, Result, scoped};
use modelyard_kernel::{Scope, Time};

/// What was sealed with the deployment's secret, so that it can be tried.
pub(super) async fn find(conn: &mut Conn, scope: &Scope) -> Result<Option<Vec<u8>>> {
    let found: Option<(Vec<u8>,)> =
        scoped(scope, "SELECT sealed FROM secret_checks WHERE tenant_id = $1 AND service_id = $2")
            .fetch_optional(conn)
            .await?;
    Ok(found.map(|it| it.0))
}

pub(super) async fn put(conn: &mut Conn, scope: &Scope, sealed: Vec<u8>, now: Time) -> Result<()> {
    scoped(
        scope,
        "INSERT INTO secret_checks (tenant_id, service_id, sealed, created_at)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, service_id)
         DO UPDATE SET sealed = excluded.sealed, created_at = excluded.created_at",
    )
    .bind(sealed)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}
