//! What is asked of a model, and what is kept of its work. No I/O in this file.

use std::borrow::Cow;

use modelyard_kernel::form::{Node, Object, shorten};
use modelyard_kernel::{Time, Ulid};
use modelyard_run::artifact::{ArtifactId, Hierarchy};
use modelyard_run::config::ConfigId;
use modelyard_run::frame::{Frame, Frames};
use modelyard_run::runner::{Diagnostic, ScriptOutput, Severity};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::geo;

/// Type of the artifact that training makes.
pub const TRAINED: &str = "ml_training_workspace";
/// Type of the artifact that prediction makes.
pub const PREDICTED: &str = "ml_prediction";
/// Type of the artifact that holds a prediction's files.
pub const PREDICTION_FILES: &str = "ml_prediction_workspace";

/// The levels at which a model's artifacts lie: trainings, and below each its predictions.
pub fn hierarchy(name: &str) -> Hierarchy {
    Hierarchy::new(name, &[TRAINED, PREDICTED])
}

/// `POST $train`.
#[derive(Debug, Serialize, Deserialize)]
pub struct TrainRequest {
    /// The config to train with.
    pub config_id: ConfigId,
    /// What to learn from.
    pub data: Frame,
    /// Where the locations are: a `GeoJSON` feature collection.
    pub geo: Option<Value>,
    /// The horizon that the client will ask for, in periods.
    pub periods: Option<i64>,
}

/// `POST $predict`.
#[derive(Debug, Serialize, Deserialize)]
pub struct PredictRequest {
    /// The training artifact.
    pub artifact_id: ArtifactId,
    /// What is known.
    pub historic: Frame,
    /// What to predict for.
    pub future: Frame,
    /// Where the locations are: a `GeoJSON` feature collection.
    pub geo: Option<Value>,
    /// The horizon, in periods.
    pub periods: Option<i64>,
}

/// `POST $validate`.
#[derive(Debug)]
pub enum ValidateRequest {
    /// Whether a training would be accepted.
    Train(TrainRequest),
    /// Whether a prediction would be accepted.
    Predict(PredictRequest),
}

impl TrainRequest {
    /// Reads a request's body, less the `frames` of it that were read already. Frames without rows
    /// are left to the caller.
    pub fn read(node: &Node<'_>, frames: &mut Frames) -> Option<Self> {
        let object = node.object()?;
        let config_id = object.required("config_id").and_then(|it| it.ulid());
        let data = frames.required(&object, "data");
        let (geo, periods) = common(&object);
        Some(Self {
            config_id: ConfigId(Ulid::read(&config_id?)?),
            data: data?,
            geo: geo?,
            periods: periods?,
        })
    }
}

impl PredictRequest {
    /// Reads a request's body, less the `frames` of it that were read already. Frames without rows
    /// are left to the caller.
    pub fn read(node: &Node<'_>, frames: &mut Frames) -> Option<Self> {
        let object = node.object()?;
        let artifact_id = object.required("artifact_id").and_then(|it| it.ulid());
        let historic = frames.required(&object, "historic");
        let future = frames.required(&object, "future");
        let (geo, periods) = common(&object);
        Some(Self {
            artifact_id: ArtifactId(Ulid::read(&artifact_id?)?),
            historic: historic?,
            future: future?,
            geo: geo?,
            periods: periods?,
        })
    }
}

impl ValidateRequest {
    /// Reads a request's body, less the `frames` of it that were read already: `type` says which of
    /// the two it is.
    pub fn read(node: &Node<'_>, frames: &mut Frames) -> Option<Self> {
        let object = node.object()?;
        let Some(tag) = object.get("type") else {
            let msg = "Unable to extract tag using discriminator 'type'";
            node.fail("union_tag_not_found", msg, Some(json!({"discriminator": "'type'"})));
            return None;
        };
        match tag.value().as_str() {
            Some("train") => {
                TrainRequest::read(&node.tagged("train"), frames).map(ValidateRequest::Train)
            }
            Some("predict") => {
                PredictRequest::read(&node.tagged("predict"), frames).map(ValidateRequest::Predict)
            }
            _ => {
                let said = tag.value().to_string();
                let shown = shorten(tag.value().as_str().unwrap_or(&said));
                node.fail(
                    "union_tag_invalid",
                    format!("Input tag '{shown}' found using 'type' does not match any of the expected tags: 'train', 'predict'"),
                    Some(json!({
                        "discriminator": "'type'",
                        "tag": shown,
                        "expected_tags": "'train', 'predict'",
                    })),
                );
                None
            }
        }
    }
}

type Common = (Option<Option<Value>>, Option<Option<i64>>);

/// `geo` and the horizon of `run_info`, under its older name too.
fn common(object: &Object<'_>) -> Common {
    let geo = match object.get("geo").filter(|it| !it.is_null()) {
        Some(it) => geo::read(&it).then(|| Some(it.value().clone())),
        None => Some(None),
    };
    let Some(info) = object.get("run_info").filter(|it| !it.is_null()) else {
        return (geo, Some(None));
    };
    let Some(info) = info.object() else { return (geo, None) };
    let named = ["prediction_periods", "prediction_length"];
    let periods = named.iter().find_map(|name| info.get(name).filter(|it| !it.is_null()));
    let periods = match periods {
        Some(it) => it.int().map(Some),
        None => Some(None),
    };
    (geo, periods)
}

/// Reports a frame that has nothing in it: the contract lets it in and the job fails; we say so at
/// once.
pub(super) fn require_rows(node: &Node<'_>, key: &str, frame: &Frame) -> bool {
    if !frame.is_empty() {
        return true;
    }
    if let Some(it) = node.object().and_then(|it| it.get(key)) {
        it.fail("value_error", "Value error, the frame has no rows", Some(json!({"error": {}})));
    }
    false
}

/// 202 of `$train` and `$predict`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Submitted {
    /// The job to follow.
    #[schema(value_type = String, example = "01M7W2GK1CC2HZY9FECP19MYJK")]
    pub job_id: Ulid,
    /// The id that the result will have.
    #[schema(value_type = String, example = "01M7W2GK1CC2HZY9FECP19MYJJ")]
    pub artifact_id: ArtifactId,
    /// The same in words.
    pub message: String,
}

/// 200 of `$validate`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Validation {
    /// False when there is an error among the diagnostics.
    pub valid: bool,
    /// What was found.
    pub diagnostics: Vec<Diagnostic>,
}

impl Validation {
    pub(super) fn of(diagnostics: Vec<Diagnostic>) -> Self {
        Self { valid: !has_errors(&diagnostics), diagnostics }
    }
}

pub(super) fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|it| it.severity == Severity::Error)
}

pub(super) fn error(code: &str, message: String, field: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: code.to_owned(),
        message,
        field: Some(field.to_owned()),
    }
}

/// What is kept of a run, in an artifact's `metadata`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Metadata {
    pub(super) status: Cow<'static, str>,
    pub(super) config_id: ConfigId,
    pub(super) started_at: String,
    pub(super) completed_at: String,
    pub(super) duration_seconds: f64,
    pub(super) exit_code: Option<i32>,
    pub(super) stdout: Option<String>,
    pub(super) stderr: Option<String>,
}

impl Metadata {
    pub(super) fn new(config_id: ConfigId, started: Time, completed: Time) -> Self {
        let seconds = completed.since(started).as_secs_f64();
        Self {
            status: Cow::Borrowed("success"),
            config_id,
            started_at: started.to_offset(),
            completed_at: completed.to_offset(),
            duration_seconds: (seconds * 100.0).round() / 100.0,
            exit_code: None,
            stdout: None,
            stderr: None,
        }
    }

    pub(super) fn with_script(mut self, script: Option<&ScriptOutput>) -> Self {
        if let Some(script) = script {
            self.exit_code = Some(script.exit_code);
            self.stdout = Some(script.stdout.clone());
            self.stderr = Some(script.stderr.clone());
        }
        self
    }

    /// What is kept beside a prediction itself; its files have the rest.
    pub(super) fn without_script(&self) -> Self {
        Self { exit_code: None, stdout: None, stderr: None, ..self.clone() }
    }

    pub(super) fn failed(mut self) -> Self {
        self.status = Cow::Borrowed("failed");
        self
    }

    /// An artifact's data, its content still to come.
    pub(super) fn data(&self, kind: &str, content_type: &str, size: Option<u64>) -> Value {
        json!({
            "type": kind,
            "metadata": self,
            "content": null,
            "content_type": content_type,
            "content_size": size,
        })
    }
}
