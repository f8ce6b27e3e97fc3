//! What a task is. No I/O in this file.

use modelyard_kernel::form::{Node, shorten};
use modelyard_kernel::{Time, Ulid, clock, columns, entity_id, words};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::command;
use crate::runner::ScriptOutput;

entity_id!(
    /// The id of a task.
    TaskId
);

words! {
    /// What a task's command is.
    TaskType {
        /// A line for `/bin/sh`.
        Shell = "shell",
        /// The name of a registered function. The word on the wire is older than the functions.
        Python = "python",
    }
}

/// A task.
#[derive(Debug, Serialize, ToSchema)]
pub struct Task {
    /// Its id.
    #[schema(value_type = String, example = "01M7W2VW5SZCEB0G592J0SM0XC")]
    pub id: TaskId,
    /// When it was made.
    #[serde(serialize_with = "clock::seconds")]
    #[schema(value_type = String, example = "2026-11-20T08:58:42")]
    pub created_at: Time,
    /// When it was last changed.
    #[serde(serialize_with = "clock::seconds")]
    #[schema(value_type = String, example = "2026-11-20T08:58:42")]
    pub updated_at: Time,
    /// A shell command, or the name of a function.
    #[schema(example = "calculate_sum")]
    pub command: String,
    /// Which of the two.
    pub task_type: TaskType,
    /// What the function gets; in a shell command `{name}` stands for one of them.
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Box<RawValue>>,
    /// Whether it may be executed.
    pub enabled: bool,
    /// How often it was changed.
    #[serde(skip)]
    pub revision: i64,
}

columns!(Task: id, created_at, updated_at, command, task_type, parameters, enabled, revision);

impl Task {
    /// Its entity tag. The time is in it because an id may be used again once its entity is gone.
    pub fn etag(&self) -> String {
        format!("\"{}-{}-{}\"", self.id, self.created_at.micros(), self.revision)
    }

    /// Its parameters with `overrides` put over them, key by key; `None` when there are neither.
    pub(super) fn parameters_with(
        &self,
        overrides: Option<Map<String, Value>>,
    ) -> Option<Map<String, Value>> {
        let stored = self.parameters.as_ref();
        let stored: Option<Map<String, Value>> =
            stored.map(|it| serde_json::from_str(it.get()).unwrap_or_default());
        match (stored, overrides) {
            (Some(mut parameters), Some(overrides)) => {
                parameters.extend(overrides);
                Some(parameters)
            }
            (stored, overrides) => stored.or(overrides),
        }
    }

    /// What is wrong with parameters that are to be put over those of a shell command. A command has
    /// the parameters that are stored with it, each of the type of the stored one.
    pub(super) fn complaint(&self, overrides: &Map<String, Value>) -> Option<String> {
        let stored = self.parameters_with(None).unwrap_or_default();
        overrides.iter().find_map(|(key, value)| {
            let Some(default) = stored.get(key) else {
                let known: Vec<&str> = stored.keys().map(String::as_str).collect();
                let key = shorten(key);
                return Some(format!("`{key}` is none of its parameters: {}", known.join(", ")));
            };
            let (expected, got) = (type_name(default), type_name(value));
            let fits = expected == got || default.is_null();
            (!fits).then(|| format!("`{key}` must be {expected}, it is {got}"))
        })
    }

    /// The shell command with its parameters: `{name}` becomes the parameter of that name, as one word
    /// of the shell. Other braces stay as they are.
    ///
    /// # Errors
    /// A sentence, when one stands where no word is read.
    pub(super) fn command_with(
        &self,
        parameters: Option<&Map<String, Value>>,
    ) -> Result<String, String> {
        let Some(parameters) = parameters else { return Ok(self.command.clone()) };
        let filled = command::fill(&self.command, |name| parameters.get(name).map(word));
        filled.map_err(misplaced)
    }

    /// What an artifact says of a shell command that ended, whatever its exit code.
    pub(super) fn shell_data(
        &self,
        parameters: Option<&Map<String, Value>>,
        output: &ScriptOutput,
    ) -> Value {
        let mut data = self.plain_shell_data(output);
        if let Some(parameters) = parameters {
            data["task"]["parameters"] = Value::Object(parameters.clone());
        }
        data
    }

    fn plain_shell_data(&self, output: &ScriptOutput) -> Value {
        let ScriptOutput { exit_code, stdout, stderr } = output;
        json!({
            "task": {
                "id": self.id,
                "command": self.command,
                "created_at": self.created_at.to_seconds(),
                "updated_at": self.updated_at.to_seconds(),
            },
            "stdout": stdout,
            "stderr": stderr,
            "exit_code": exit_code,
        })
    }

    /// What an artifact says of a function that ended, whether well or not. `parameters` are those
    /// that it got.
    pub(super) fn function_data(
        &self,
        parameters: Option<Map<String, Value>>,
        outcome: Result<Value, Captured>,
    ) -> Value {
        let (result, error) = match outcome {
            Ok(result) => (result, None),
            Err(error) => (Value::Null, Some(error)),
        };
        json!({
            "task": {
                "id": self.id,
                "command": self.command,
                "task_type": self.task_type,
                "parameters": parameters,
                "created_at": self.created_at.to_seconds(),
                "updated_at": self.updated_at.to_seconds(),
            },
            "result": result,
            "error": error,
        })
    }
}

/// An error of a function, as its artifact shows it.
#[derive(Debug, Serialize)]
pub(super) struct Captured {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) message: String,
    pub(super) traceback: String,
}

/// A function that tasks can run.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskFunction {
    /// What the `command` of a task names.
    #[schema(example = "calculate_sum")]
    pub name: String,
    /// The JSON schema of its parameters.
    #[schema(value_type = Object)]
    pub parameters: Value,
}

/// A task to be stored.
#[derive(Debug)]
pub struct NewTask {
    /// Its id, when the client chose it.
    pub id: Option<TaskId>,
    /// A shell command, or the name of a function.
    pub command: String,
    /// Which of the two.
    pub task_type: TaskType,
    /// What the function gets; `None`: not said.
    pub parameters: Option<Box<RawValue>>,
    /// Whether it may be executed.
    pub enabled: bool,
}

impl NewTask {
    /// Reads a request's body.
    pub fn read(node: Node<'_>) -> Option<Self> {
        let object = node.object()?;
        let id = match object.optional("id") {
            Some(it) => it.ulid().and_then(|it| Ulid::read(&it)).map(|it| Some(TaskId(it))),
            None => Some(None),
        };
        let command = object.required("command").and_then(read_command);
        let task_type = match object.get("task_type") {
            Some(it) => it.one_of(TaskType::NAMES).and_then(TaskType::read),
            None => Some(TaskType::Shell),
        };
        // Written here, where they were read: large ones take a while.
        let parameters = read_parameters(object.optional("parameters"))
            .and_then(|it| it.map(|it| to_raw_value(&it)).transpose().ok());
        let enabled = object.get("enabled").map_or(Some(true), |it| it.bool());
        Some(Self {
            id: id?,
            command: command?,
            task_type: task_type?,
            parameters: parameters?,
            enabled: enabled?,
        })
    }
}

fn read_command(node: Node<'_>) -> Option<String> {
    let command = node.string()?;
    // No shell takes one, and PostgreSQL's text holds none.
    if command.contains('\0') {
        node.fail_rule("A command has no zero characters");
        return None;
    }
    Some(command)
}

/// Outside: whether they could be read; inside: whether there are any.
#[expect(clippy::option_option, reason = "absent is not the same as wrong")]
fn read_parameters(node: Option<Node<'_>>) -> Option<Option<Map<String, Value>>> {
    match node {
        Some(it) => it.dict().map(|it| Some(it.map().clone())),
        None => Some(None),
    }
}

/// What is wrong with a shell command that has these parameters.
pub(super) fn complaint_of(command: &str, parameters: &Map<String, Value>) -> Option<String> {
    let known = |name: &str| parameters.contains_key(name).then(String::new);
    command::fill(command, known).err().map(misplaced)
}

fn misplaced(name: &str) -> String {
    let name = shorten(name);
    format!(
        "`{{{name}}}` must be written without quotes, as a word: what it stands for is quoted already. \
         It cannot be used in quotes, backquotes, `${{…}}`, arithmetic, comments, or after a \
         here-document; there, begin the command with `value={{{name}}}` and write \"$value\""
    )
}

/// A value as one word of a shell command.
fn word(value: &Value) -> String {
    match value {
        Value::Null => command::quoted(""),
        Value::String(it) => command::quoted(it),
        other => command::quoted(&other.to_string()),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// How a task is to be executed this time.
#[derive(Debug, Default)]
pub struct NewExecution {
    /// Put over the parameters of the task, key by key.
    pub parameters: Option<Map<String, Value>>,
}

impl NewExecution {
    /// Reads a request's body.
    pub fn read(node: Node<'_>) -> Option<Self> {
        if node.is_null() {
            return Some(Self::default());
        }
        let parameters = read_parameters(node.object()?.optional("parameters"))?;
        Some(Self { parameters })
    }
}

/// The answer to a request for execution.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskSubmitted)]
pub struct Submitted {
    /// The job, whose record names the artifact once there is one.
    #[schema(value_type = String, example = "01M7W2VW60C9EPCRR0MMA50P56")]
    pub job_id: Ulid,
    /// The same in words.
    #[schema(example = "Task submitted for execution. Job ID: 01M7W2VW60C9EPCRR0MMA50P56")]
    pub message: String,
}

impl Submitted {
    pub(super) fn new(job_id: Ulid) -> Self {
        Self { job_id, message: format!("Task submitted for execution. Job ID: {job_id}") }
    }
}

#[cfg(test)]
mod tests {
    use modelyard_kernel::form::Report;

    use super::*;

    fn read(body: &Value) -> Result<NewTask, Value> {
        let report = Report::new();
        let read = NewTask::read(Node::body(body, &report));
        match report.finish() {
            Ok(()) => Ok(read.unwrap()),
            Err(violations) => Err(serde_json::to_value(violations).unwrap()),
        }
    }

    fn task(parameters: Option<&str>) -> Task {
        Task {
            id: TaskId::read("01M7W2VW5SZCEB0G592J0SM0XC").unwrap(),
            created_at: Time::from_micros(0),
            updated_at: Time::from_micros(0),
            command: "f".to_owned(),
            task_type: TaskType::Python,
            parameters: parameters.map(|it| RawValue::from_string(it.to_owned()).unwrap()),
            enabled: true,
            revision: 1,
        }
    }

    fn map(value: Value) -> Option<Map<String, Value>> {
        value.as_object().cloned()
    }

    #[test]
    fn a_task_is_an_enabled_shell_command_unless_it_says_otherwise() {
        let NewTask { id, command, task_type, parameters, enabled } =
            read(&json!({"command": "date", "more": 1})).unwrap();
        assert_eq!((id, command.as_str(), task_type), (None, "date", TaskType::Shell));
        assert!(parameters.is_none() && enabled);
    }

    #[test]
    fn every_violation_of_a_task_is_told() {
        let wrong = json!({"task_type": "ruby", "parameters": [1], "enabled": null, "id": "x"});
        let violations = read(&wrong).unwrap_err();
        let kinds: Vec<_> = violations.as_array().unwrap().iter().map(|it| &it["type"]).collect();
        assert_eq!(kinds, ["ulid_format", "missing", "literal_error", "dict_type", "bool_type"]);
        assert_eq!(violations[2]["msg"], "Input should be 'shell' or 'python'");
        let zero = read(&json!({"command": "a\0b"})).unwrap_err();
        assert_eq!(zero[0]["msg"], "Value error, A command has no zero characters");
    }

    #[test]
    fn overrides_are_put_over_the_stored_parameters_key_by_key() {
        let stored = task(Some(r#"{"a":1,"b":2}"#));
        assert_eq!(stored.parameters_with(None), map(json!({"a": 1, "b": 2})));
        let merged = stored.parameters_with(map(json!({"b": 3, "c": 4})));
        assert_eq!(merged, map(json!({"a": 1, "b": 3, "c": 4})));
        assert_eq!(task(None).parameters_with(map(json!({"c": 4}))), map(json!({"c": 4})));
        assert_eq!(task(None).parameters_with(None), None);
    }

    #[test]
    fn an_artifact_has_the_keys_of_the_contract_in_their_order() {
        let output =
            ScriptOutput { exit_code: 3, stdout: "out\n".to_owned(), stderr: "err\n".to_owned() };
        assert_eq!(
            task(None).shell_data(None, &output).to_string(),
            r#"{"task":{"id":"01M7W2VW5SZCEB0G592J0SM0XC","command":"f","created_at":"1970-01-01T00:00:00","updated_at":"1970-01-01T00:00:00"},"stdout":"out\n","stderr":"err\n","exit_code":3}"#
        );
        let error = Captured {
            kind: "ValueError".to_owned(),
            message: "no".to_owned(),
            traceback: "ValueError: no".to_owned(),
        };
        assert_eq!(
            task(None).function_data(None, Err(error)).to_string(),
            r#"{"task":{"id":"01M7W2VW5SZCEB0G592J0SM0XC","command":"f","task_type":"python","parameters":null,"created_at":"1970-01-01T00:00:00","updated_at":"1970-01-01T00:00:00"},"result":null,"error":{"type":"ValueError","message":"no","traceback":"ValueError: no"}}"#
        );
    }
}
