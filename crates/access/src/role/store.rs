//! The tables `roles` and `role_bindings`.

use modelyard_kernel::db::{Conn, Json, Result, scoped};
use modelyard_kernel::{Scope, Time, Ulid};

use super::model::{Binding, NewRole, Role};

/// How many subjects are asked for in one statement: databases bound its values.
pub(super) const AT_ONCE: usize = 500;

/// The tenant's own roles.
pub(super) async fn all(conn: &mut Conn, scope: &Scope) -> Result<Vec<Role>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM roles WHERE tenant_id = $1 AND service_id = $2 ORDER BY name",
            Role::COLUMNS
        ),
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn find(conn: &mut Conn, scope: &Scope, name: &str) -> Result<Option<Role>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM roles WHERE tenant_id = $1 AND service_id = $2 AND name = $3",
            Role::COLUMNS
        ),
    )
    .bind(name)
    .fetch_optional(conn)
    .await
}

pub(super) async fn insert(
    conn: &mut Conn,
    scope: &Scope,
    new: NewRole,
    now: Time,
) -> Result<Role> {
    let NewRole { name, description, permissions, inherits } = new;
    scoped(
        scope,
        format!(
            "INSERT INTO roles (tenant_id, service_id, name, description, permissions, inherits,
                 revision, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7) RETURNING {}",
            Role::COLUMNS
        ),
    )
    .bind(name)
    .bind(description)
    .bind(Json(permissions))
    .bind(Json(inherits))
    .bind(now)
    .fetch_one(conn)
    .await
}

pub(super) async fn update(
    conn: &mut Conn,
    scope: &Scope,
    new: NewRole,
    now: Time,
) -> Result<Role> {
    let NewRole { name, description, permissions, inherits } = new;
    scoped(
        scope,
        format!(
            "UPDATE roles SET description = $4, permissions = $5, inherits = $6,
                 revision = revision + 1, updated_at = $7
             WHERE tenant_id = $1 AND service_id = $2 AND name = $3 RETURNING {}",
            Role::COLUMNS
        ),
    )
    .bind(name)
    .bind(description)
    .bind(Json(permissions))
    .bind(Json(inherits))
    .bind(now)
    .fetch_one(conn)
    .await
}

pub(super) async fn delete(conn: &mut Conn, scope: &Scope, name: &str) -> Result<()> {
    scoped(scope, "DELETE FROM roles WHERE tenant_id = $1 AND service_id = $2 AND name = $3")
        .bind(name)
        .execute(conn)
        .await
        .map(drop)
}

/// Who has a role, but for one subject.
pub(super) async fn others_with(
    conn: &mut Conn,
    scope: &Scope,
    binding: &Binding,
    but: Ulid,
) -> Result<Vec<Ulid>> {
    let found: Vec<(Ulid,)> = scoped(
        scope,
        "SELECT subject_id FROM role_bindings WHERE tenant_id = $1 AND service_id = $2
             AND role = $3 AND applies_to = $4 AND subject_id <> $5",
    )
    .bind(&binding.role)
    .bind(&binding.applies_to)
    .bind(but)
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(|it| it.0).collect())
}

/// Whether anybody has a role anywhere.
pub(super) async fn is_bound(conn: &mut Conn, scope: &Scope, role: &str) -> Result<bool> {
    let found: Option<(String,)> = scoped(
        scope,
        "SELECT subject_id FROM role_bindings WHERE tenant_id = $1 AND service_id = $2
             AND role = $3 LIMIT 1",
    )
    .bind(role)
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// What each of several subjects has.
pub(super) async fn bindings_of_many(
    conn: &mut Conn,
    scope: &Scope,
    subjects: &[Ulid],
) -> Result<Vec<(Ulid, Binding)>> {
    let mut all = Vec::new();
    for some in subjects.chunks(AT_ONCE) {
        let places: Vec<String> = (3..some.len() + 3).map(|it| format!("${it}")).collect();
        let found: Vec<(Ulid, String, String)> = scoped(
            scope,
            format!(
                "SELECT subject_id, role, applies_to FROM role_bindings
                 WHERE tenant_id = $1 AND service_id = $2 AND subject_id IN ({})
                 ORDER BY subject_id, role, applies_to",
                places.join(", ")
            ),
        )
        .bind_all(some.iter().map(|it| (*it).into()))
        .fetch_all(conn)
        .await?;
        all.extend(
            found
                .into_iter()
                .map(|(subject, role, applies_to)| (subject, Binding { role, applies_to })),
        );
    }
    Ok(all)
}

/// What a subject has.
pub(super) async fn bindings(
    conn: &mut Conn,
    scope: &Scope,
    subject: Ulid,
) -> Result<Vec<Binding>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM role_bindings WHERE tenant_id = $1 AND service_id = $2
                 AND subject_id = $3 ORDER BY role, applies_to",
            Binding::COLUMNS
        ),
    )
    .bind(subject)
    .fetch_all(conn)
    .await
}

pub(super) async fn bind(
    conn: &mut Conn,
    scope: &Scope,
    subject: Ulid,
    binding: &Binding,
    now: Time,
) -> Result<()> {
    scoped(
        scope,
        "INSERT INTO role_bindings (tenant_id, service_id, subject_id, role, applies_to, created_at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(subject)
    .bind(&binding.role)
    .bind(&binding.applies_to)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

pub(super) async fn unbind(
    conn: &mut Conn,
    scope: &Scope,
    subject: Ulid,
    binding: &Binding,
) -> Result<()> {
    scoped(
        scope,
        "DELETE FROM role_bindings WHERE tenant_id = $1 AND service_id = $2
             AND subject_id = $3 AND role = $4 AND applies_to = $5",
    )
    .bind(subject)
    .bind(&binding.role)
    .bind(&binding.applies_to)
    .execute(conn)
    .await
    .map(drop)
}

pub(super) async fn unbind_all(conn: &mut Conn, scope: &Scope, subject: Ulid) -> Result<()> {
    scoped(
        scope,
        "DELETE FROM role_bindings WHERE tenant_id = $1 AND service_id = $2 AND subject_id = $3",
    )
    .bind(subject)
    .execute(conn)
    .await
    .map(drop)
}
