//! The OpenAPI document of a service: what the slices say of their routes, completed with what is
//! true of all routes of a kind.
//!
//! A handler documents what is its own. Pages and filters of lists, conditions, problem documents,
//! headers and keys follow from what an operation is, and are added here, so that no handler can
//! forget them.

mod components;
mod conditions;
mod lists;
mod operation;
mod problems;

use modelyard_kernel::Result;
use modelyard_run::config::schema::ConfigSchema;
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use operation::{Operation, each};

/// What the handlers cannot say, because it differs from service to service.
#[derive(Clone, Debug)]
pub struct About {
    /// The JSON Schema of what a config holds.
    pub config: Value,
    /// The body of `/api/v1/info`.
    pub info: Value,
    /// The header that keys are sent in, when clients need one.
    pub key_header: Option<String>,
}

impl About {
    /// Of a service whose clients need no key.
    pub fn new(config: &ConfigSchema, info: Value) -> Self {
        Self { config: config.json_schema(), info, key_header: None }
    }
}

/// What the groups of operations are, in the order in which they are read.
const TAGS: [(&str, &str); 16] = [
    ("service", "What this service is."),
    ("health", "How it does."),
    ("configs", "How the model is to be trained and used, as its users set it."),
    ("ml", "Training and prediction. Both are jobs: follow the job, then read its artifact."),
    ("jobs", "Work that is answered with 202 and done afterwards."),
    ("artifacts", "What came of training and prediction, as trees."),
    ("tasks", "Commands and functions that are stored once and run as often as somebody likes."),
    ("schedules", "Jobs that begin by the clock."),
    ("auth", "Logging in and out, tokens, and forgotten passwords."),
    ("account", "What whoever asks has of its own: its name, its password, its second factor."),
    ("users", "Who may log in."),
    ("access", "Keys for programs, and the roles of keys and users."),
    ("audit", "Who did what, when, and what came of it."),
    ("system", "Where it runs."),
    ("monitoring", "For the operator."),
    ("pages", "For people."),
];

/// What every operation has in common.
const CONVENTIONS: &str = "\
Every answer has an `x-request-id`, which the log of the server knows. Whatever is no success is a \
problem document (RFC 9457) with a stable `code`, and one answer has every violation of a request. \
Every GET can be asked as HEAD. Answers with an `ETag` are not sent again to who names it in \
`If-None-Match`; a change that names one in `If-Match` is made only if nobody else was quicker. \
Where there are rate limits, `RateLimit` and `RateLimit-Policy` say of each what is left and what it is. \
Answers are compressed for clients that accept gzip.";

/// Completes the document of a service.
///
/// # Errors
/// When it cannot be written as JSON: a defect of ours.
pub fn complete(document: OpenApi, about: &About) -> Result<Value> {
    let mut document = serde_json::to_value(document)?;
    let Some(root) = document.as_object_mut() else { return Ok(document) };
    // Relative to the document, so that what the reference sends arrives at this service, also
    // below `/services/{id}`.
    root.entry("servers").or_insert_with(|| json!([{"url": ".", "description": "This service"}]));
    add_conventions(root);
    components::add(root, about)?;
    let mut items = Vec::new();
    each(root, |operation| {
        components::describe_ids(operation);
        components::describe_content(operation);
        items.extend(lists::describe(operation));
        conditions::describe(operation);
        problems::describe(operation);
        complete_responses(operation);
        add_example(operation, about);
    });
    components::add_lists(root, &items);
    components::describe_properties(root);
    add_keys(root, about);
    add_tags(root);
    Ok(document)
}

fn add_conventions(root: &mut Map<String, Value>) {
    let Some(info) = root.get_mut("info").and_then(Value::as_object_mut) else { return };
    let own = info.get("description").and_then(Value::as_str).unwrap_or_default();
    let whole = [own, CONVENTIONS].join("\n\n");
    info.insert("description".to_owned(), whole.trim().into());
}

/// The groups that there are.
fn add_tags(root: &mut Map<String, Value>) {
    let mut used = Vec::new();
    each(root, |operation| used.extend(operation.tag().map(ToOwned::to_owned)));
    let tags = TAGS.iter().filter(|it| used.iter().any(|tag| tag == it.0));
    let tags = tags.map(|(name, description)| json!({"name": name, "description": description}));
    root.insert("tags".to_owned(), tags.collect());
}

fn complete_responses(operation: &mut Operation<'_>) {
    for (status, response) in operation.responses() {
        components::add_header(response, "x-request-id", "RequestId");
        let description = match status {
            "201" => "The new one.",
            "202" => "It will be done; follow the job.",
            "204" => "Done.",
            "307" => "It is elsewhere.",
            _ => "What was asked for.",
        };
        let said = response.entry("description").or_insert_with(|| description.into());
        if said == "" {
            *said = description.into();
        }
    }
}

fn add_example(operation: &mut Operation<'_>, about: &About) {
    let example = match operation.id() {
        "get_info" => &about.info,
        "get_config_schema" => &about.config,
        _ => return,
    };
    let content = operation.response("200").and_then(|it| it.get_mut("content"));
    let json = content.and_then(|it| it.get_mut("application/json")).and_then(Value::as_object_mut);
    if let Some(json) = json {
        json.insert("example".to_owned(), example.clone());
    }
}

/// Says which operations need a key.
fn add_keys(root: &mut Map<String, Value>, about: &About) {
    let Some(header) = &about.key_header else { return };
    root.insert("security".to_owned(), json!([{"ApiKey": []}]));
    components::add_to(
        root,
        "securitySchemes",
        "ApiKey",
        json!({"type": "apiKey", "in": "header", "name": header}),
    );
    each(root, |operation| {
        if operation.is_open() {
            operation.insert("security", json!([]));
        }
    });
}
