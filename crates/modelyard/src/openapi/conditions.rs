//! Conditions and ranges: which operations look at them, and what they answer then.

use serde_json::{Value, json};

use super::components::add_header;
use super::operation::Operation;

/// What is read without an entity tag: pages, what never ends, and what is computed for each request.
const UNTAGGED: [&str; 24] = [
    "export_audit",
    "generate_sample_data",
    "get_accept_invitation_page",
    "get_artifact_metadata",
    "get_artifact_stats",
    "get_audit_entry",
    "get_config_stats",
    "get_docs",
    "get_factor",
    "get_health",
    "get_jwks",
    "get_landing_page",
    "get_metrics",
    "get_redoc",
    "get_reset_password_page",
    "get_session",
    "get_system",
    "get_task_stats",
    "list_config_artifacts",
    "list_sessions",
    "preview_schedule",
    "stream_health",
    "stream_job",
    "verify_audit",
];

/// What can be asked for in ranges.
const RANGED: &str = "download_artifact";

/// The headers that state a condition. Without examples, which the reference would send.
pub(super) fn parameters() -> [(&'static str, Value); 4] {
    let parameter = |name: &str, description: &str| {
        json!({
            "name": name,
            "in": "header",
            "description": description,
            // What a header may hold; HTTP itself refuses the rest.
            "schema": {"type": "string", "pattern": "^[ -~]*$"},
        })
    };
    [
        (
            "IfNoneMatch",
            parameter(
                "If-None-Match",
                "Entity tags that the client has; when one of them is still right, the answer is \
                 304.",
            ),
        ),
        (
            "IfMatch",
            parameter(
                "If-Match",
                "The entity tag that the change is based on, or `*`; when it is no longer right, \
                 nothing is changed and the answer is 412.",
            ),
        ),
        ("Range", parameter("Range", "The bytes that are wanted, such as `bytes=0-1023`.")),
        (
            "IfRange",
            parameter(
                "If-Range",
                "The entity tag that the range belongs to; when it is no longer right, the whole \
                 is sent.",
            ),
        ),
    ]
}

/// Whether answers of an operation have an entity tag.
fn is_tagged(operation: &Operation<'_>) -> bool {
    operation.method == "get" && !UNTAGGED.contains(&operation.id())
}

/// Describes the conditions that an operation looks at.
pub(super) fn describe(operation: &mut Operation<'_>) {
    if is_tagged(operation) {
        operation.add_shared("IfNoneMatch");
        operation.add_response("304", json!({"description": "The client has it already."}));
    }
    if matches!(operation.method, "put" | "delete") {
        operation.add_shared("IfMatch");
    }
    if operation.id() == RANGED {
        operation.add_shared("Range");
        operation.add_shared("IfRange");
    }
    let (tagged, changes) = (is_tagged(operation), operation.method == "put");
    for (status, response) in operation.responses() {
        if (tagged && matches!(status, "200" | "206" | "304")) || changes && status == "200" {
            add_header(response, "etag", "ETag");
        }
        if status == "201" {
            add_header(response, "etag", "ETag");
            add_header(response, "location", "Location");
        }
        if status == "206" {
            let headers = response.entry("headers").or_insert_with(|| json!({}));
            headers["content-range"] = json!({
                "description": "Which bytes these are, of how many.",
                "required": true,
                "schema": {"type": "string", "example": "bytes 0-1023/52428800"},
            });
        }
    }
}
