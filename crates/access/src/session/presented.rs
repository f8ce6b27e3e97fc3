//! Finds out whose a session is: a cookie says nothing of its tenant, so this one statement looks into
//! those of all.

use modelyard_kernel::db::{Conn, FromRow, Result, Row, query};

use super::model::Session;

/// A session and its tenant.
struct Found {
    tenant: String,
    session: Session,
}

impl FromRow for Found {
    fn from_row(mut row: Row) -> Result<Self> {
        Ok(Self { tenant: row.take("tenant_id")?, session: Session::from_row(row)? })
    }
}

/// The session of a cookie with this hash, and its tenant.
pub(super) async fn find(conn: &mut Conn, hash: Vec<u8>) -> Result<Option<(String, Session)>> {
    let sql = format!("SELECT tenant_id, {} FROM sessions WHERE hash = $1", Session::COLUMNS);
    let found: Option<Found> = query(sql).bind(hash).fetch_optional(conn).await?;
    Ok(found.map(|it| (it.tenant, it.session)))
}
