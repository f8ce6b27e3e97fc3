//! `/api/v1/artifacts`. Takes requests apart, calls [`Artifacts`], puts answers together.

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, OriginalUri, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::{HeaderMap, header};
use modelyard_kernel::bulk::{Bulk, BulkIn, Outcomes};
use modelyard_kernel::form::{Query, Report};
use modelyard_kernel::list::{Direction, Field, FieldKind, Fields, ListQuery};
use modelyard_kernel::reply::{self, Conditions, Place};
use modelyard_kernel::{Caller, Failure, LargeBody, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Artifact, ArtifactId, ArtifactNode, NewArtifact};
use super::{Access, Artifacts, NewContent, Rendered, WRITE, download};

/// What lists of artifacts may be asked.
pub static FIELDS: Fields = Fields {
    table: "artifacts",
    fields: &[
        Field::new("id", FieldKind::Id),
        Field::new("created_at", FieldKind::Time),
        Field::new("updated_at", FieldKind::Time),
        Field::new("level", FieldKind::Int),
        Field::unsortable("parent_id", FieldKind::Id),
        Field::unsortable("tags", FieldKind::Tags),
    ],
    keys: &["id", "created_at", "updated_at", "tags", "data", "parent_id", "level"],
    search: &["tags"],
    default_sort: ("id", Direction::Asc),
};

/// How many.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    /// Items in the collection.
    pub total: i64,
}

/// A new artifact, or one that replaces another.
#[derive(ToSchema)]
#[schema(example = json!({"tags": ["dengue"],
    "data": {"type": "generic", "metadata": {"run": 1}, "content": {"beta": 0.5}}}))]
#[expect(dead_code, reason = "documents what `NewArtifact::read` takes")]
pub(super) struct ArtifactIn {
    /// Its id, to choose it; a new one unless given.
    #[schema(example = "01M7W2GR7K1YVYHKEAQW519BWD")]
    id: Option<String>,
    /// Words to find it by.
    #[schema(value_type = Vec<String>, required = false, example = json!(["dengue"]))]
    tags: Option<Vec<String>>,
    /// Any JSON but null. The key `content` of an object may be large and is kept apart.
    #[schema(schema_with = data_schema)]
    data: Value,
    /// The artifact that it came of.
    parent_id: Option<String>,
}

/// Any JSON but null.
fn data_schema() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
    let types = [Type::Object, Type::Array, Type::String, Type::Number, Type::Boolean];
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(types.to_vec()))
        .description(Some(
            "Any JSON but null. The key `content` of an object may be large and is kept apart.",
        ))
        .examples([json!({"type": "generic", "metadata": {"run": 1}, "content": {"beta": 0.5}})])
        .build()
}

pub(super) fn routes(artifacts: Artifacts, access: Access) -> OpenApiRouter {
    let mut routes = OpenApiRouter::new()
        .routes(routes!(get_artifact_schema))
        .routes(routes!(get_artifact_stats))
        .routes(routes!(expand_artifact))
        .routes(routes!(get_artifact_tree))
        .routes(routes!(download_artifact))
        .routes(routes!(get_artifact_metadata));
    if access == Access::Full {
        routes = routes
            .routes(routes!(list_artifacts, create_artifact))
            .routes(routes!(get_artifact, update_artifact, delete_artifact))
            .routes(routes!(change_artifacts));
        // Content is streamed: its size is bounded while it comes, not before.
        let upload = OpenApiRouter::new().routes(routes!(upload_artifact));
        routes = routes.merge(upload.layer(DefaultBodyLimit::disable()));
    } else {
        routes = routes.routes(routes!(list_artifacts)).routes(routes!(get_artifact));
    }
    routes.with_state(artifacts)
}

/// List artifacts
///
/// Without their content.
#[utoipa::path(get, path = "/api/v1/artifacts", tag = "artifacts",
    responses((status = 200, body = Vec<Artifact>)))]
async fn list_artifacts(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let query = ListQuery::read(raw.as_deref(), &FIELDS, &[])?;
    let listed = artifacts.list(&caller, &query).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), listed.to_json(&query)?))
}

/// Create an artifact
#[utoipa::path(post, path = "/api/v1/artifacts", tag = "artifacts", request_body = ArtifactIn,
    responses((status = 201, body = Artifact)))]
async fn create_artifact(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: LargeBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let new = body.read_values(NewArtifact::read).await?;
    let artifact = artifacts.create(&caller, new, None).await?;
    created(&artifacts, &caller, &artifact, &Place::new(&headers, &uri)).await
}

async fn created(
    artifacts: &Artifacts,
    caller: &Caller,
    artifact: &Artifact,
    place: &Place,
) -> Result<Response> {
    let mut response = artifacts.get(caller, artifact.id).await?.into_response().await?;
    *response.status_mut() = http::StatusCode::CREATED;
    if let Ok(location) = place.of(&artifact.id).parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Change several artifacts
///
/// Creates, updates and deletes, each with a result of its own, or all or nothing.
#[utoipa::path(post, path = "/api/v1/artifacts/$bulk", tag = "artifacts", request_body = BulkIn<ArtifactIn>,
    responses((status = 200, body = Outcomes)))]
async fn change_artifacts(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    body: LargeBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let bulk = body.read_values(|node| Bulk::read(node, NewArtifact::read)).await?;
    let changed = artifacts.change(&caller, bulk).await?;
    Ok(Outcomes::new(changed, &uri).into_response())
}

/// The JSON schema of an artifact
#[utoipa::path(get, path = "/api/v1/artifacts/$schema", tag = "artifacts",
    responses((status = 200, body = Object)))]
async fn get_artifact_schema(caller: Caller, headers: HeaderMap) -> Result<Response> {
    caller.permit(super::READ)?;
    Ok(reply::document(&Conditions::of(&headers), include_str!("schema.json")))
}

/// Count artifacts
#[utoipa::path(get, path = "/api/v1/artifacts/$stats", tag = "artifacts",
    responses((status = 200, body = Stats)))]
async fn get_artifact_stats(
    State(artifacts): State<Artifacts>,
    caller: Caller,
) -> Result<axum::Json<Stats>> {
    Ok(axum::Json(Stats { total: artifacts.count(&caller).await? }))
}

/// Get an artifact
///
/// With its content: JSON as it is, binary content as a note of what it is.
#[utoipa::path(get, path = "/api/v1/artifacts/{id}", tag = "artifacts",
    params(("id" = String, Path)), responses((status = 200, body = Artifact)))]
async fn get_artifact(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let found: Rendered = artifacts.get(&caller, ArtifactId::read(&id)?).await?;
    let etag = found.artifact.etag();
    if Conditions::of(&headers).is_fresh(&etag) {
        return Ok((http::StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    found.into_response().await
}

/// Replace an artifact
///
/// `tags` and `parent_id` stay as they are when they are left out; `parent_id: null` makes a root.
#[utoipa::path(put, path = "/api/v1/artifacts/{id}", tag = "artifacts",
    params(("id" = String, Path)), request_body = ArtifactIn,
    responses((status = 200, body = Artifact)))]
async fn update_artifact(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: LargeBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let new = body.read_values(NewArtifact::read).await?;
    let id = ArtifactId::read(&id)?;
    artifacts.update(&caller, id, new, &Conditions::of(&headers)).await?;
    artifacts.get(&caller, id).await?.into_response().await
}

/// Delete an artifact
///
/// What came of it stays, and becomes a root.
#[utoipa::path(delete, path = "/api/v1/artifacts/{id}", tag = "artifacts",
    params(("id" = String, Path)), responses((status = 204)))]
async fn delete_artifact(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let id = ArtifactId::read(&id)?;
    artifacts.delete(&caller, id, &Conditions::of(&headers)).await?;
    Ok(reply::nothing())
}

/// Get an artifact with its labels
#[utoipa::path(get, path = "/api/v1/artifacts/{id}/$expand", tag = "artifacts",
    params(("id" = String, Path)), responses((status = 200, body = ArtifactNode)))]
async fn expand_artifact(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let node = artifacts.expand(&caller, ArtifactId::read(&id)?).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), serde_json::to_vec(&node)?))
}

/// Get an artifact and everything that came of it
#[utoipa::path(get, path = "/api/v1/artifacts/{id}/$tree", tag = "artifacts",
    params(("id" = String, Path)), responses((status = 200, body = ArtifactNode)))]
async fn get_artifact_tree(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let node = artifacts.tree(&caller, ArtifactId::read(&id)?).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), serde_json::to_vec(&node)?))
}

/// Download an artifact's content
///
/// Binary content is streamed, whole or as the `Range` that is asked for; a data frame becomes CSV
/// or records.
#[utoipa::path(get, path = "/api/v1/artifacts/{id}/$download", tag = "artifacts",
    params(("id" = String, Path)),
    responses((status = 200, description = "the content, of the type that it was stored with", content_type = "*/*", body = Vec<u8>),
        (status = 206, description = "a range of it", content_type = "*/*", body = Vec<u8>)))]
async fn download_artifact(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let id = ArtifactId::read(&id)?;
    let found = artifacts.get(&caller, id).await.map_err(|it| match it.kind() {
        modelyard_kernel::Kind::Missing => super::unknown(id),
        _ => it,
    })?;
    download::respond(found, &headers, &artifacts.converting).await
}

/// Get an artifact's metadata
#[utoipa::path(get, path = "/api/v1/artifacts/{id}/$metadata", tag = "artifacts",
    params(("id" = String, Path)),
    responses((status = 200, body = Value, description = "`metadata` of its data; an empty object when it has none")))]
async fn get_artifact_metadata(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>> {
    let id = ArtifactId::read(&id)?;
    let found = artifacts.find(&caller, id).await?.ok_or_else(|| super::unknown(id))?;
    let metadata = found.fields().shift_remove("metadata").filter(|it| !it.is_null());
    Ok(axum::Json(metadata.unwrap_or_else(|| Value::Object(Map::new()))))
}

/// Upload an artifact
///
/// The body is the content, of any size; it is stored as it comes. `Content-Type` becomes its type.
#[utoipa::path(post, path = "/api/v1/artifacts/$upload", tag = "artifacts",
    params(
        ("parent_id" = Option<String>, Query, description = "the artifact that it came of"),
        ("tags" = Option<String>, Query, description = "words to find it by, with commas between"),
        ("filename" = Option<String>, Query, description = "kept in the metadata"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = Artifact)))]
async fn upload_artifact(
    State(artifacts): State<Artifacts>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let query = Query::parse(raw.as_deref());
    let mut form = Map::new();
    form.insert("data".to_owned(), json!({}));
    if let Some(parent) = query.get("parent_id") {
        form.insert("parent_id".to_owned(), parent.into());
    }
    if let Some(tags) = query.get("tags").filter(|it| !it.is_empty()) {
        form.insert("tags".to_owned(), tags.split(',').map(str::trim).collect());
    }
    let form = Value::Object(form);
    let report = Report::new();
    let new = NewArtifact::read(modelyard_kernel::form::Node::at(&["query"], &form, &report));
    report.finish().map_err(Failure::violations)?;
    let new = new.ok_or_else(|| Failure::internal("a query was refused without a violation"))?;

    let mut writer = artifacts.blobs().writer();
    let mut stream = body.into_data_stream();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.map_err(|_| {
            Failure::bad_request("body_unreadable", "the upload ended early, send it again")
        })?;
        if writer.size_bytes() + bytes.len() as u64 > super::MAX_UPLOAD {
            return Err(Failure::bad_request(
                "body_too_large",
                format!("content has at most {} bytes", super::MAX_UPLOAD),
            ));
        }
        writer.write(bytes).await?;
    }
    let stored = writer.finish().await?;
    let media = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let data = json!({
        "type": "generic",
        "metadata": { "filename": query.get("filename") },
        "content": null,
        "content_type": media.unwrap_or("application/octet-stream"),
        "content_size": stored.blob().size_bytes,
    });
    let new = NewArtifact { data, ..new };
    let artifact = artifacts.create(&caller, new, Some(NewContent::Stored(stored))).await?;
    created(&artifacts, &caller, &artifact, &Place::new(&headers, &uri)).await
}
