//! `/api/v1/keys`. Takes requests apart, calls [`Keys`], puts answers together.

use std::time::Duration;

use axum::extract::{OriginalUri, Path, RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use modelyard_kernel::list::{Direction, Field, FieldKind, Fields, ListQuery};
use modelyard_kernel::reply::{self, Conditions, Place};
use modelyard_kernel::{Caller, JsonBody, LargeBody, Result};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Key, KeyId, KeyPatch, KeyText, NewKey, OVERLAP, read_overlap};
use super::{Keys, WRITE};
use crate::role::http::BindingIn;

/// What lists of keys may be asked.
pub static FIELDS: Fields = Fields {
    table: "api_keys",
    fields: &[
        Field::new("id", FieldKind::Id),
        Field::new("name", FieldKind::Text),
        Field::new("prefix", FieldKind::Text),
        Field::new("created_by", FieldKind::Text),
        Field::new("created_at", FieldKind::Time),
        Field::new("updated_at", FieldKind::Time),
        Field::unsortable("expires_at", FieldKind::Time),
        Field::unsortable("revoked_at", FieldKind::Time),
        Field::unsortable("last_used_at", FieldKind::Time),
    ],
    keys: &[
        "id",
        "created_at",
        "updated_at",
        "name",
        "prefix",
        "roles",
        "scopes",
        "addresses",
        "per_minute",
        "created_by",
        "expires_at",
        "revoked_at",
        "last_used_at",
    ],
    search: &["name", "prefix"],
    default_sort: ("id", Direction::Asc),
};

/// A new key.
#[derive(ToSchema)]
#[schema(example = json!({"name": "nightly forecasts", "roles": [{"role": "user"}],
    "scopes": ["ml:predict"], "addresses": ["10.0.0.0/8"], "per_minute": 600,
    "expires_at": "2027-11-20T00:00:00Z"}))]
#[expect(dead_code, reason = "documents what `NewKey::read` takes")]
struct KeyIn {
    /// What it is called: one line.
    #[schema(min_length = 1, max_length = 200, example = "nightly forecasts")]
    name: String,
    /// Its roles, with no more than you may do yourself; none unless given.
    #[schema(value_type = Vec<BindingIn>, required = false)]
    roles: Option<Vec<BindingIn>>,
    /// Names of permissions, with `*` for any noun or verb, to which it is limited; all that its roles
    /// give unless given.
    #[schema(value_type = Vec<String>, required = false, example = json!(["ml:predict"]))]
    scopes: Option<Vec<String>>,
    /// Networks from which it may be used; any unless given.
    #[schema(value_type = Vec<String>, required = false, example = json!(["10.0.0.0/8"]))]
    addresses: Option<Vec<String>>,
    /// How often it may be used in a minute, on each node: as many at once, and then as they come back.
    #[schema(minimum = 1, maximum = 1_000_000, example = 600)]
    per_minute: Option<i64>,
    /// When it ends; never unless given.
    #[schema(value_type = Option<String>, format = DateTime, example = "2027-11-20T00:00:00Z")]
    expires_at: Option<String>,
}

/// What is to change of a key; what is left out stays.
#[derive(ToSchema)]
#[schema(example = json!({"per_minute": 60, "expires_at": null}))]
#[expect(dead_code, reason = "documents what `KeyPatch::read` takes")]
struct KeyPatchIn {
    /// What it is called: one line.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Names of permissions to which it is limited; null or empty: all that its roles give.
    #[schema(example = json!(["ml:predict"]))]
    scopes: Option<Vec<String>>,
    /// Networks from which it may be used; null or empty: any.
    #[schema(example = json!(["10.0.0.0/8"]))]
    addresses: Option<Vec<String>>,
    /// How often it may be used in a minute, on each node; null: any number.
    #[schema(minimum = 1, maximum = 1_000_000)]
    per_minute: Option<i64>,
    /// When it ends; null: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
}

/// How a key is to be rotated.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `read_overlap` takes")]
struct RotationIn {
    /// How long the old key goes on, in seconds; 0: not at all.
    #[schema(value_type = i64, required = false, minimum = 0, maximum = 2_678_400, default = 3600)]
    overlap_seconds: Option<i64>,
}

/// A new key with its text.
#[derive(Serialize, ToSchema)]
struct CreatedKey {
    /// The key itself. It is shown this once: keep it where only your program can read it.
    #[schema(example = "mk_4kT9aZ0q_0000000000000000000000000000000000000000000000000")]
    key: String,
    #[serde(flatten)]
    about: Key,
}

pub(super) fn routes(keys: Keys) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_keys, create_key))
        .routes(routes!(get_key, update_key, revoke_key))
        .routes(routes!(rotate_key))
        .with_state(keys)
}

/// List keys
///
/// Those that are revoked as well; `?revoked_at[gte]=2026-01-01` finds them.
#[utoipa::path(get, path = "/api/v1/keys", tag = "access",
    responses((status = 200, body = Vec<Key>)))]
async fn list_keys(
    State(keys): State<Keys>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let query = ListQuery::read(raw.as_deref(), &FIELDS, &[])?;
    let listed = keys.list(&caller, &query).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), listed.to_json(&query)?))
}

/// Create a key
///
/// The answer has the key's text, which is shown this once.
#[utoipa::path(post, path = "/api/v1/keys", tag = "access", request_body = KeyIn,
    responses((status = 201, body = CreatedKey)))]
async fn create_key(
    State(keys): State<Keys>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response> {
    caller.permit_in_deployment(WRITE)?;
    let new = body.read(|node| NewKey::read(&node, keys.now()))?;
    let (key, text) = keys.create(&caller, new).await?;
    created(&Place::new(&headers, &uri), key, &text)
}

/// The one answer that has a key's text.
fn created(place: &Place, key: Key, text: &KeyText) -> Result<Response> {
    let (id, etag) = (key.id, key.etag());
    let shown = CreatedKey { key: text.text().to_owned(), about: key };
    let mut response = reply::created(place, &id, &etag, &shown)?;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Get a key
#[utoipa::path(get, path = "/api/v1/keys/{id}", tag = "access",
    params(("id" = String, Path)), responses((status = 200, body = Key)))]
async fn get_key(
    State(keys): State<Keys>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let key = keys.get(&caller, KeyId::read(&id)?).await?;
    // Its roles and its last use are no part of the revision: nobody is told that nothing has changed.
    reply::entity(&Conditions::default(), &key.etag(), &key)
}

/// Change a key
///
/// Its roles are changed with `$bindings` of roles.
#[utoipa::path(patch, path = "/api/v1/keys/{id}", tag = "access",
    params(("id" = String, Path)), request_body = KeyPatchIn,
    responses((status = 200, body = Key)))]
async fn update_key(
    State(keys): State<Keys>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response> {
    caller.permit_in_deployment(WRITE)?;
    let patch = body.read(|node| KeyPatch::read(&node, keys.now()))?;
    let conditions = Conditions::of(&headers);
    let key = keys.update(&caller, KeyId::read(&id)?, patch, &conditions).await?;
    reply::entity(&Conditions::default(), &key.etag(), &key)
}

/// Revoke a key
///
/// At once and for good. It stays in lists.
#[utoipa::path(delete, path = "/api/v1/keys/{id}", tag = "access",
    params(("id" = String, Path)), responses((status = 204)))]
async fn revoke_key(
    State(keys): State<Keys>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    keys.revoke(&caller, KeyId::read(&id)?, &Conditions::of(&headers)).await?;
    Ok(reply::nothing())
}

/// Rotate a key
///
/// Makes a new key with the same settings and roles, whose text is shown this once. The old one goes on
/// for a while.
#[utoipa::path(post, path = "/api/v1/keys/{id}/$rotate", tag = "access",
    params(("id" = String, Path)), request_body = Option<RotationIn>,
    responses((status = 201, body = CreatedKey)))]
async fn rotate_key(
    State(keys): State<Keys>,
    caller: Caller,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: LargeBody,
) -> Result<Response> {
    caller.permit_in_deployment(WRITE)?;
    let overlap = match body.raw().is_empty() {
        true => OVERLAP,
        false => body.read_values(|node| read_overlap(&node)).await?,
    };
    let (id, overlap) = (KeyId::read(&id)?, Duration::from_secs(overlap));
    let (key, text) = keys.rotate(&caller, id, overlap, &Conditions::of(&headers)).await?;
    created(&collection(&headers, &uri), key, &text)
}

/// The address of all keys, from that of an operation on one.
fn collection(headers: &HeaderMap, uri: &http::Uri) -> Place {
    let path = uri.path();
    let end = path.find("/keys/").map_or(path.len(), |it| it + "/keys".len());
    let all = path.get(..end).and_then(|it| it.parse().ok());
    Place::new(headers, &all.unwrap_or_else(|| uri.clone()))
}
