//! Problem documents: which operation may answer which.

use serde_json::{Value, json};

use super::operation::Operation;

/// Status, name, and when it is answered.
const PROBLEMS: [(&str, &str, &str); 14] = [
    ("400", "BadRequest", "The request is wrong in itself; `detail` says how."),
    ("401", "Unauthorized", "There is no key, or none that is accepted."),
    ("403", "Forbidden", "This is known, and not allowed here."),
    ("404", "NotFound", "There is no such thing."),
    ("408", "RequestTimeout", "The answer took too long, so the request was given up."),
    ("409", "Conflict", "The present state forbids it."),
    ("412", "PreconditionFailed", "It was changed since the client read it; nothing was changed."),
    ("413", "ContentTooLarge", "The body is larger than the service takes."),
    ("416", "RangeNotSatisfiable", "The content has no such range."),
    ("422", "ValidationFailed", "The request has violations; `errors` lists all of them."),
    ("429", "TooManyRequests", "Too many jobs are waiting; try again later."),
    ("500", "InternalServerError", "Something went wrong on the server's side."),
    ("503", "Unavailable", "The service cannot do it now; try again in a moment."),
    ("507", "InsufficientStorage", "The disk is full; nothing was stored."),
];

/// What begins a job, which may have to wait behind too many others.
const SUBMITS: [&str; 3] = ["train_model", "predict_with_model", "execute_task"];

/// What shell commands go through, which a service may refuse.
const SHELL: [&str; 3] = ["create_task", "update_task", "execute_task"];

/// What refers to another entity in its body or query.
const REFERS: [&str; 4] =
    ["train_model", "predict_with_model", "validate_request", "generate_sample_data"];

/// The answers that operations share.
pub(super) fn responses() -> impl Iterator<Item = (&'static str, Value)> {
    PROBLEMS.iter().map(|(status, name, description)| {
        let mut response = json!({
            "description": description,
            "headers": {"x-request-id": {"$ref": "#/components/headers/RequestId"}},
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
            },
        });
        let header = match *status {
            "416" => ("content-range", "How many bytes there are.", "string"),
            "401" => ("www-authenticate", "Which header the key belongs in.", "string"),
            "429" | "503" => ("retry-after", "Seconds to wait.", "integer"),
            _ => return (*name, response),
        };
        let (header, description, kind) = header;
        response["headers"][header] = json!({"description": description, "schema": {"type": kind}});
        (*name, response)
    })
}

/// Adds the problems that an operation may answer.
pub(super) fn describe(operation: &mut Operation<'_>, needs_key: bool) {
    for (status, name, _) in PROBLEMS {
        if applies(operation, status, needs_key) {
            let response = json!({"$ref": format!("#/components/responses/{name}")});
            operation.add_response(status, response);
        }
    }
}

fn applies(it: &Operation<'_>, status: &str, needs_key: bool) -> bool {
    let id = it.id();
    let takes_input = it.has_body() || it.has_query();
    let writes = matches!(it.method, "post" | "put" | "delete") && id != "validate_request";
    match status {
        "400" => takes_input || it.has_path_parameters(),
        "401" => needs_key && !it.is_open(),
        "403" => SHELL.contains(&id),
        "404" => it.has_path_parameters() || REFERS.contains(&id),
        "409" | "507" => writes,
        "412" => matches!(it.method, "put" | "delete"),
        "413" => it.has_body(),
        "416" => id == "download_artifact",
        "422" => takes_input,
        "429" => SUBMITS.contains(&id),
        _ => true,
    }
}
