//! Problem documents: which operation may answer which.

use http::Uri;
use modelyard_kernel::form::{Loc, Violation};
use modelyard_kernel::{Failure, Kind};
use serde_json::{Value, json};

use super::operation::Operation;
use crate::http::{RATE_FIELDS, is_limitable};

/// A problem that operations share.
struct Shared {
    name: &'static str,
    /// When it is answered.
    when: &'static str,
    /// An example.
    example: Failure,
}

fn shared() -> [Shared; 16] {
    let of = |name, when, kind, code, detail| Shared {
        name,
        when,
        example: Failure::new(kind, code, detail),
    };
    [
        of(
            "BadRequest",
            "The request is wrong in itself; `detail` says how.",
            Kind::Invalid,
            "filter_unknown",
            "there is no filter `nam`; the valid ones are `id`, `name`",
        ),
        of(
            "Unauthorized",
            "There is no key, or none that is accepted.",
            Kind::Unauthenticated,
            "unauthenticated",
            "Missing authentication header: X-API-Key",
        ),
        of(
            "Forbidden",
            "This is known, and not allowed here.",
            Kind::Denied,
            "shell_tasks_disabled",
            "shell tasks are switched off",
        ),
        of(
            "NotFound",
            "There is no such thing.",
            Kind::Missing,
            "config_missing",
            "Entity with id 01M7W2GJGNPH03KT3S3W4GRB46 not found",
        ),
        of(
            "RequestTimeout",
            "The answer took too long, so the request was given up.",
            Kind::Unavailable,
            "request_timeout",
            "the request was given up after 60 seconds, try again later",
        ),
        of(
            "Conflict",
            "The present state forbids it.",
            Kind::Conflict,
            "config_taken",
            "Entity with id 01M7W2GJGNPH03KT3S3W4GRB46 already exists",
        ),
        of(
            "PreconditionFailed",
            "It was changed since the client read it; nothing was changed.",
            Kind::Conflict,
            "precondition_failed",
            "this was changed since you read it; read it again and repeat your change",
        ),
        of(
            "ContentTooLarge",
            "The body is larger than the service takes.",
            Kind::Invalid,
            "body_too_large",
            "the body is larger than this service takes",
        ),
        of(
            "UnsupportedMediaType",
            "The body is of a type that is not read here.",
            Kind::Invalid,
            "media_type_unsupported",
            "a batch is `text/csv`, `application/x-ndjson` or `application/json`; say which by \
             `Content-Type` or `?format=`",
        ),
        of(
            "RangeNotSatisfiable",
            "The content has no such range.",
            Kind::Invalid,
            "range_unsatisfiable",
            "the content has 1024 bytes, ask for a range within",
        ),
        Shared {
            name: "ValidationFailed",
            when: "The request has violations; `errors` lists all of them.",
            example: Failure::violations(vec![Violation::missing(
                vec![Loc::from("body"), Loc::from("name")],
                &json!({}),
            )]),
        },
        of(
            "TooManyRequests",
            "More was asked than a rate limit or quota allows, or too many jobs are waiting; try again \
             after the seconds of `Retry-After`.",
            Kind::Exhausted,
            "rate_limited",
            "more than 100 a minute are not answered, try again in 3 seconds",
        ),
        of(
            "InternalServerError",
            "Something went wrong on the server's side.",
            Kind::Internal,
            "internal",
            "something went wrong on our side",
        ),
        of(
            "NotImplemented",
            "This server is built without it.",
            Kind::Invalid,
            "not_implemented",
            "this server is built without Parquet; ask for `output=csv` or `ndjson`",
        ),
        of(
            "Unavailable",
            "The service cannot do it now; try again in a moment.",
            Kind::Unavailable,
            "service_busy",
            "the service answers as many requests as it can, try again in a moment",
        ),
        of(
            "InsufficientStorage",
            "The disk is full; nothing was stored.",
            Kind::Unavailable,
            "storage_full",
            "the disk is full: nothing was stored; free space and try again",
        ),
    ]
}

/// What takes files of several types, and gives some.
const FILES: [&str; 2] = ["train_in_batch", "predict_in_batch"];

/// What shell commands go through, which a service may refuse.
const SHELL: [&str; 3] = ["create_task", "update_task", "execute_task"];

/// What refers to another entity in its body or query.
const REFERS: [&str; 6] = [
    "train_model",
    "predict_with_model",
    "train_in_batch",
    "predict_in_batch",
    "validate_request",
    "generate_sample_data",
];

/// The answers that operations share.
pub(super) fn responses() -> impl Iterator<Item = (&'static str, Value)> {
    shared().into_iter().map(|Shared { name, when, example }| {
        let mut response = json!({
            "description": when,
            "headers": {"x-request-id": {"$ref": "#/components/headers/RequestId"}},
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": problem(&example),
                },
            },
        });
        let header = match name {
            "RangeNotSatisfiable" => ("content-range", "How many bytes there are.", "string"),
            "Unauthorized" => ("www-authenticate", "Which header the key belongs in.", "string"),
            "TooManyRequests" | "Unavailable" => ("retry-after", "Seconds to wait.", "integer"),
            _ => return (name, response),
        };
        let (header, description, kind) = header;
        response["headers"][header] = json!({"description": description, "schema": {"type": kind}});
        if name == "TooManyRequests" {
            for (header, description, kind) in RATE_FIELDS {
                response["headers"][header] =
                    json!({"description": description, "schema": {"type": kind}});
            }
        }
        (name, response)
    })
}

fn problem(failure: &Failure) -> Value {
    let uri = Uri::from_static("/api/v1/configs/01M7W2GJGNPH03KT3S3W4GRB46");
    failure.problem(&uri, "http://localhost:9090", "01M7W2VW60C9EPCRR0MMA50P56").into()
}

/// Adds the problems that an operation may answer.
pub(super) fn describe(operation: &mut Operation<'_>) {
    for Shared { name, example, .. } in shared() {
        let status = example.status().as_str().to_owned();
        if applies(operation, &status) {
            let response = json!({"$ref": format!("#/components/responses/{name}")});
            operation.add_response(&status, response);
        }
    }
}

fn applies(it: &Operation<'_>, status: &str) -> bool {
    let id = it.id();
    let takes_input = it.has_body() || it.has_query();
    let writes =
        matches!(it.method, "post" | "put" | "patch" | "delete") && id != "validate_request";
    // Open to those whom nobody knows yet, who may turn out to be nobody.
    let asks_who = it.path.starts_with("/api/v1/auth/");
    // Bodies with secrets in them.
    let is_own = asks_who || it.path.starts_with("/api/v1/account");
    match status {
        "400" => takes_input || it.has_path_parameters(),
        // As soon as there is a user or a key, whoever asks has to be known.
        "401" => !it.is_open() || asks_who,
        "403" => !it.is_open() || asks_who || SHELL.contains(&id),
        "404" => it.has_path_parameters() || REFERS.contains(&id),
        "409" | "507" => writes,
        "412" => matches!(it.method, "put" | "patch" | "delete"),
        "413" => it.has_body(),
        "415" => FILES.contains(&id) || it.has_body() && is_own,
        "501" => FILES.contains(&id),
        "416" => id == "download_artifact",
        "422" => takes_input,
        // Whether there are limits is up to who runs it.
        "429" => is_limitable(it.path),
        _ => true,
    }
}
