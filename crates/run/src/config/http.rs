//! `/api/v1/configs`. Takes requests apart, calls [`Configs`], puts answers together.

use axum::extract::{OriginalUri, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use modelyard_kernel::bulk::{Bulk, BulkIn, Outcomes};
use modelyard_kernel::list::{Direction, Field, FieldKind, Fields, ListQuery};
use modelyard_kernel::reply::{self, Conditions, Place};
use modelyard_kernel::{Caller, JsonBody, LargeBody, Result, Ulid};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Config, ConfigId, NewConfig};
use super::{Configs, WRITE};
use crate::artifact::http::Stats;
use crate::artifact::{Access, Artifact, ArtifactId, Rendered};

/// What lists of configs may be asked.
pub static FIELDS: Fields = Fields {
    table: "configs",
    fields: &[
        Field::new("id", FieldKind::Id),
        Field::new("name", FieldKind::Text),
        Field::new("created_at", FieldKind::Time),
        Field::new("updated_at", FieldKind::Time),
        Field::unsortable("tags", FieldKind::Tags),
    ],
    keys: &["id", "created_at", "updated_at", "tags", "name", "data"],
    search: &["name", "tags"],
    default_sort: ("id", Direction::Asc),
};

/// A new config, or one that replaces another.
#[derive(ToSchema)]
#[schema(example = json!({"name": "three months ahead", "tags": ["dengue"], "data": {}}))]
#[expect(dead_code, reason = "documents what `NewConfig::read` takes")]
struct ConfigIn {
    /// Its id, to choose it; a new one unless given.
    #[schema(example = "01M7W2GJGNPH03KT3S3W4GRB46")]
    id: Option<String>,
    /// Words to find it by.
    #[schema(value_type = Vec<String>, required = false, example = json!(["dengue"]))]
    tags: Option<Vec<String>>,
    /// What its users call it; several may have one name.
    #[schema(example = "three months ahead")]
    name: String,
    /// Its values; see `$schema`.
    #[schema(value_type = Object)]
    data: Map<String, Value>,
}

/// The artifact to link.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `read_link` takes")]
struct Link {
    /// A root artifact.
    #[schema(example = "01M7W2GK1CC2HZY9FECP19MYJJ")]
    artifact_id: String,
}

pub(super) fn routes(configs: Configs, access: Access) -> OpenApiRouter {
    let mut routes = OpenApiRouter::new()
        .routes(routes!(get_config_schema))
        .routes(routes!(get_config_stats))
        .routes(routes!(list_config_artifacts))
        .routes(routes!(get_artifact_config));
    if access == Access::Full {
        routes = routes
            .routes(routes!(list_configs, create_config))
            .routes(routes!(change_configs))
            .routes(routes!(get_config, update_config, delete_config))
            .routes(routes!(link_artifact))
            .routes(routes!(unlink_artifact));
    } else {
        routes = routes.routes(routes!(list_configs)).routes(routes!(get_config));
    }
    routes.with_state(configs)
}

/// List configs
#[utoipa::path(get, path = "/api/v1/configs", tag = "configs",
    responses((status = 200, body = Vec<Config>)))]
async fn list_configs(
    State(configs): State<Configs>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let query = ListQuery::read(raw.as_deref(), &FIELDS, &[])?;
    let listed = configs.list(&caller, &query).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), listed.to_json(&query)?))
}

/// Create a config
#[utoipa::path(post, path = "/api/v1/configs", tag = "configs", request_body = ConfigIn,
    responses((status = 201, body = Config)))]
async fn create_config(
    State(configs): State<Configs>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: LargeBody,
) -> Result<Response> {
    let new = read(&configs, body).await?;
    let config = configs.create(&caller, new).await?;
    reply::created(&Place::new(&headers, &uri), &config.id, &config.etag(), &config)
}

async fn read(configs: &Configs, body: LargeBody) -> Result<NewConfig> {
    let configs = configs.clone();
    body.read_values(move |node| NewConfig::read(node, configs.schema())).await
}

/// Change several configs
///
/// Creates, updates and deletes, each with a result of its own, or all or nothing.
#[utoipa::path(post, path = "/api/v1/configs/$bulk", tag = "configs", request_body = BulkIn<ConfigIn>,
    responses((status = 200, body = Outcomes)))]
async fn change_configs(
    State(configs): State<Configs>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    body: LargeBody,
) -> Result<Response> {
    let it = configs.clone();
    let read = move |node: modelyard_kernel::form::Node<'_>| NewConfig::read(node, it.schema());
    let bulk = body.read_values(|node| Bulk::read(node, read)).await?;
    let changed = configs.change(&caller, bulk).await?;
    Ok(Outcomes::new(changed, &uri).into_response())
}

/// The JSON schema of a config's data
#[utoipa::path(get, path = "/api/v1/configs/$schema", tag = "configs",
    responses((status = 200, body = Object)))]
async fn get_config_schema(
    State(configs): State<Configs>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response> {
    caller.permit(super::READ)?;
    let schema = serde_json::to_vec(&configs.schema().json_schema())?;
    Ok(reply::json_bytes(&Conditions::of(&headers), schema))
}

/// Count configs
#[utoipa::path(get, path = "/api/v1/configs/$stats", tag = "configs",
    responses((status = 200, body = Stats)))]
async fn get_config_stats(
    State(configs): State<Configs>,
    caller: Caller,
) -> Result<axum::Json<Stats>> {
    Ok(axum::Json(Stats { total: configs.count(&caller).await? }))
}

/// Get a config
#[utoipa::path(get, path = "/api/v1/configs/{id}", tag = "configs",
    params(("id" = String, Path)), responses((status = 200, body = Config)))]
async fn get_config(
    State(configs): State<Configs>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let config = configs.get(&caller, ConfigId::read(&id)?).await?;
    reply::entity(&Conditions::of(&headers), &config.etag(), &config)
}

/// Replace a config
///
/// `tags` stay as they are when they are left out.
#[utoipa::path(put, path = "/api/v1/configs/{id}", tag = "configs",
    params(("id" = String, Path)), request_body = ConfigIn,
    responses((status = 200, body = Config)))]
async fn update_config(
    State(configs): State<Configs>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: LargeBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let new = read(&configs, body).await?;
    let conditions = Conditions::of(&headers);
    let config = configs.update(&caller, ConfigId::read(&id)?, new, &conditions).await?;
    reply::entity(&Conditions::default(), &config.etag(), &config)
}

/// Delete a config
///
/// With every tree of artifacts that is linked to it.
#[utoipa::path(delete, path = "/api/v1/configs/{id}", tag = "configs",
    params(("id" = String, Path)), responses((status = 204)))]
async fn delete_config(
    State(configs): State<Configs>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let conditions = Conditions::of(&headers);
    configs.delete(&caller, ConfigId::read(&id)?, &conditions).await?;
    Ok(reply::nothing())
}

/// Link a root artifact to a config
#[utoipa::path(post, path = "/api/v1/configs/{id}/$link-artifact", tag = "configs",
    params(("id" = String, Path)), request_body = Link, responses((status = 204)))]
async fn link_artifact(
    State(configs): State<Configs>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let artifact = read_link(&body)?;
    configs.link(&caller, ConfigId::read(&id)?, artifact).await?;
    Ok(reply::nothing())
}

/// Take a link back
#[utoipa::path(post, path = "/api/v1/configs/{id}/$unlink-artifact", tag = "configs",
    params(("id" = String, Path)), request_body = Link, responses((status = 204)))]
async fn unlink_artifact(
    State(configs): State<Configs>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let artifact = read_link(&body)?;
    configs.unlink(&caller, ConfigId::read(&id)?, artifact).await?;
    Ok(reply::nothing())
}

fn read_link(body: &JsonBody) -> Result<ArtifactId> {
    body.read(|node| {
        let id = node.object()?.required("artifact_id")?.ulid()?;
        Ulid::read(&id).map(ArtifactId)
    })
}

/// List the artifacts that are linked to a config
///
/// Roots only, with their content.
#[utoipa::path(get, path = "/api/v1/configs/{id}/$artifacts", tag = "configs",
    params(("id" = String, Path)), responses((status = 200, body = Vec<Artifact>)))]
async fn list_config_artifacts(
    State(configs): State<Configs>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    Rendered::list_response(configs.artifacts(&caller, ConfigId::read(&id)?).await?).await
}

/// Get the config that an artifact was made with
#[utoipa::path(get, path = "/api/v1/artifacts/{id}/$config", tag = "artifacts",
    params(("id" = String, Path)), responses((status = 200, body = Config)))]
async fn get_artifact_config(
    State(configs): State<Configs>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let config = configs.of_artifact(&caller, ArtifactId::read(&id)?).await?;
    reply::entity(&Conditions::of(&headers), &config.etag(), &config)
}
