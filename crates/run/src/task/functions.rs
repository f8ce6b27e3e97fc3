//! The functions that tasks can run by their names.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use modelyard_kernel::form::{Loc, Node, Report, Violation, Violations};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::schema::{ConfigSchema, Field};
use crate::runner::{ModelError, Reporter, RunError, RunJob, run_on_a_thread};

type Later = Pin<Box<dyn Future<Output = Result<Value, ModelError>>>>;
type Call = Arc<dyn Fn(Value, TaskContext) -> Later + Send + Sync>;

/// What a function may know beside its parameters.
#[derive(Clone, Debug)]
pub struct TaskContext {
    /// The job that this is for.
    pub job: RunJob,
    /// Triggered when nobody wants the result any more. Every `await` ends then by itself; code
    /// that computes for long between them should look from time to time.
    pub cancel: CancellationToken,
    /// Tells how far the function has come.
    pub report: Reporter,
}

/// Functions by name. Clients call one with a task whose `task_type` is `python` and whose
/// `command` is the name.
///
/// ```
/// use modelyard_run::runner::ModelError;
/// use modelyard_run::task::TaskFunctions;
/// use serde_json::{Map, Value, json};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Sum { a: i64, b: i64 }
///
/// let functions = TaskFunctions::new()
///     .with("sum", |it: Sum| async move { Ok(it.a + it.b) })
///     .with("echo", |it: Map<String, Value>| async move { Ok(json!({"got": it})) })
///     .with("parse", |it: Map<String, Value>| async move {
///         let text = it.get("text").and_then(Value::as_str);
///         let text = text.ok_or_else(|| ModelError::of("KeyError", "text"))?;
///         Ok(text.parse::<f64>()?)
///     });
/// assert!(!functions.is_empty());
/// ```
#[derive(Clone, Default)]
pub struct TaskFunctions(BTreeMap<String, Function>);

#[derive(Clone)]
struct Function {
    call: Call,
    signature: Arc<Signature>,
}

impl TaskFunctions {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function. It gets the task's parameters as whatever `P` reads them as; a
    /// `Map<String, Value>` takes any. Clients are shown the schema of `P`, and what does not fit it is
    /// refused when it is stored. What the function returns is in the artifact as JSON. It runs on a
    /// thread of its own, so it may compute as long as it likes, and its future need not be `Send`.
    ///
    /// # Panics
    /// When there is a function of this name already: a mistake that shows at the first start.
    #[must_use]
    pub fn with<P, R, F>(
        self,
        name: &str,
        function: impl Fn(P) -> F + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned + JsonSchema + 'static,
        R: Serialize + 'static,
        F: Future<Output = Result<R, ModelError>> + 'static,
    {
        self.with_context(name, move |parameters, _| function(parameters))
    }

    /// Adds a function that also gets a [`TaskContext`].
    ///
    /// # Panics
    /// As [`TaskFunctions::with`].
    #[must_use]
    pub fn with_context<P, R, F>(
        mut self,
        name: &str,
        function: impl Fn(P, TaskContext) -> F + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned + JsonSchema + 'static,
        R: Serialize + 'static,
        F: Future<Output = Result<R, ModelError>> + 'static,
    {
        let function = Arc::new(function);
        let signature = Arc::new(Signature::of::<P>());
        let known = Arc::clone(&signature);
        let call = move |parameters: Value, context: TaskContext| -> Later {
            let (function, known) = (Arc::clone(&function), Arc::clone(&known));
            Box::pin(async move {
                known.check(&parameters, Missing::Allowed).map_err(|it| misfit(&it))?;
                let parameters = serde_json::from_value(parameters);
                let parameters = parameters.map_err(|it| missing(&it))?;
                Ok(serde_json::to_value(function(parameters, context).await?)?)
            })
        };
        let function = Function { call: Arc::new(call), signature };
        let before = self.0.insert(name.to_owned(), function);
        assert!(before.is_none(), "there are two task functions of the name `{name}`");
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, and the JSON schemas of what goes with them.
    pub(super) fn signatures(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, it)| (name.as_str(), &it.signature.schema))
    }

    /// What is wrong with parameters; nothing is when there is no function of this name, which may come
    /// with the next version of the service.
    pub(super) fn check(
        &self,
        name: &str,
        parameters: &Value,
        missing: Missing,
    ) -> Result<(), Violations> {
        self.0.get(name).map_or(Ok(()), |it| it.signature.check(parameters, missing))
    }

    /// Runs a function to its end, or until nobody waits any more; `None` when there is none of
    /// this name.
    pub(super) async fn call(
        &self,
        name: &str,
        parameters: Map<String, Value>,
        context: TaskContext,
    ) -> Option<Result<Value, RunError>> {
        let call = Arc::clone(&self.0.get(name)?.call);
        let canceled = context.cancel.clone();
        let work = move |cancel| async move {
            Ok(call(Value::Object(parameters), TaskContext { cancel, ..context }).await?)
        };
        Some(run_on_a_thread(&canceled, work).await)
    }
}

/// Whether parameters may lack what the function needs: what is stored with a task need not be all of
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Allowed,
    Refused,
}

/// What a function takes.
struct Signature {
    schema: Value,
    /// What the schema says of single parameters, with their bounds.
    fields: Vec<Field>,
    /// Reads parameters. It has the last word, since the function gets what it reads.
    reads: fn(&Value) -> Result<(), serde_json::Error>,
}

impl Signature {
    fn of<P: DeserializeOwned + JsonSchema>() -> Self {
        let generator = SchemaSettings::draft2020_12().into_generator();
        let schema = generator.into_root_schema_for::<P>().to_value();
        // Configs have fields of their own beside those of the type.
        let mut fields = ConfigSchema::of::<P>().fields;
        fields.retain(|it| !schema["properties"][&it.name].is_null());
        Self { schema, fields, reads: |it| P::deserialize(it).map(drop) }
    }

    fn check(&self, parameters: &Value, missing: Missing) -> Result<(), Violations> {
        let report = Report::new();
        let node = Node::at(&["body", "parameters"], parameters, &report);
        let given = parameters.as_object().into_iter().flatten();
        let read = |(name, value): (&'_ String, _)| {
            let field = self.fields.iter().find(|it| it.name == *name);
            field.is_none_or(|it| it.read(&node.field(name, value)).is_some())
        };
        let misread = given.clone().filter(|it| !read(*it)).count();
        if misread == 0
            && let Err(error) = (self.reads)(parameters)
        {
            match (self.missing(&error, parameters), missing) {
                (Some(_), Missing::Allowed) => {}
                (Some(name), Missing::Refused) => {
                    let place = node.tagged(&name).loc();
                    report.push(|| Violation::missing(place, parameters));
                }
                (None, _) => self.name_misfits(&node, given, &error),
            }
        }
        report.finish()
    }

    /// The name of the parameter that is not there, if that is what is wrong.
    fn missing(&self, error: &serde_json::Error, given: &Value) -> Option<String> {
        let name = missing_field(error)?;
        let is_needed = self.fields.iter().any(|it| it.name == name);
        (is_needed && given.get(&name).is_none()).then_some(name)
    }

    /// Says which of the parameters do not fit: those that do not on their own.
    fn name_misfits<'a>(
        &self,
        node: &Node<'a>,
        given: impl Iterator<Item = (&'a String, &'a Value)>,
        error: &serde_json::Error,
    ) {
        let mut is_named = false;
        for (name, value) in given {
            let alone = json!({ name: value });
            if let Err(error) = (self.reads)(&alone)
                && self.missing(&error, &alone).is_none()
            {
                node.field(name, value).fail_rule(error.to_string());
                is_named = true;
            }
        }
        if !is_named {
            node.fail_rule(error.to_string());
        }
    }
}

impl fmt::Debug for TaskFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn missing_field(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let name = text.strip_prefix("missing field `").and_then(|it| it.strip_suffix('`'));
    name.map(ToOwned::to_owned)
}

/// What clients know to be said of a parameter that is not there.
fn missing(error: &serde_json::Error) -> ModelError {
    let message = match missing_field(error) {
        Some(name) => format!(
            "Missing required parameter '{name}' for task function. Parameter is not injectable \
             and not provided in task.parameters."
        ),
        None => format!("the parameters do not fit the function: {error}"),
    };
    ModelError::of("ValueError", message)
}

fn misfit(violations: &Violations) -> ModelError {
    let message = format!("the parameters do not fit the function: {}", sentence(violations));
    ModelError::of("ValueError", message)
}

/// What is wrong with parameters, in a sentence.
pub(super) fn sentence(violations: &Violations) -> String {
    let sentences = violations.iter().map(|it| {
        let place = it.loc.iter().skip(2).map(|it| match it {
            Loc::Key(key) => key.clone(),
            Loc::Index(index) => index.to_string(),
        });
        let place: Vec<String> = place.collect();
        match place.is_empty() {
            true => it.msg.clone(),
            false => format!("`{}`: {}", place.join("."), it.msg),
        }
    });
    sentences.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(serde::Deserialize, JsonSchema)]
    struct Sum {
        a: i64,
        /// What is added.
        #[schemars(range(min = 0))]
        b: i64,
        #[serde(default)]
        more: Vec<u8>,
    }

    fn functions() -> TaskFunctions {
        TaskFunctions::new()
            .with("sum", |it: Sum| async move { Ok(it.a + it.b + it.more.len() as i64) })
            .with("parse", |_: Map<String, Value>| async move { Ok("x".parse::<i64>()?) })
            .with("forever", |_: Map<String, Value>| {
                std::future::pending::<Result<(), ModelError>>()
            })
    }

    fn context() -> TaskContext {
        let id = modelyard_kernel::Ulid::read("01M7W2VW5SZCEB0G592J0SM0XC").unwrap();
        let job = RunJob { id, idempotency_key: format!("{id}-run") };
        TaskContext { job, cancel: CancellationToken::new(), report: Reporter::default() }
    }

    async fn call(name: &str, parameters: Value) -> Option<Result<Value, String>> {
        let Value::Object(parameters) = parameters else { panic!("parameters are an object") };
        let called = functions().call(name, parameters, context()).await;
        called.map(|it| it.map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn a_function_gets_its_parameters_in_a_type_of_its_own() {
        assert_eq!(call("sum", json!({"a": 40, "b": 2, "c": 0})).await, Some(Ok(json!(42))));
        assert_eq!(call("other", json!({})).await, None);
    }

    #[tokio::test]
    async fn parameters_that_do_not_fit_are_an_error_of_the_function() {
        let missing = "ValueError: Missing required parameter 'b' for task function. Parameter is \
                       not injectable and not provided in task.parameters.";
        assert_eq!(call("sum", json!({"a": 1})).await, Some(Err(missing.to_owned())));
        let error = call("sum", json!({"a": 1, "b": "x"})).await.unwrap().unwrap_err();
        assert!(
            error.starts_with("ValueError: the parameters do not fit the function: "),
            "{error}"
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let said = |parameters: Value, missing| {
            functions().check("sum", &parameters, missing).map_err(|it| sentence(&it))
        };
        let (allowed, refused) = (Missing::Allowed, Missing::Refused);
        assert_eq!(said(json!({"a": 1, "b": 2, "c": []}), refused), Ok(()));
        assert_eq!(said(json!({"a": 1}), allowed), Ok(()));
        assert_eq!(said(json!({"a": 1}), refused), Err("`b`: Field required".to_owned()));
        assert_eq!(
            said(json!({"a": "x", "b": -1}), allowed).unwrap_err(),
            "`a`: Input should be a valid integer, unable to parse string as an integer; \
             `b`: Input should be greater than or equal to 0"
        );
        // What forms let pass, and the function does not take.
        assert_eq!(
            said(json!({"b": "1", "more": [256]}), allowed).unwrap_err(),
            "`b`: Value error, invalid type: string \"1\", expected i64; `more`: Value error, \
             invalid value: integer `256`, expected u8"
        );
        assert_eq!(functions().check("parse", &json!({"any": {}}), refused).map_err(drop), Ok(()));
        assert_eq!(functions().check("other", &json!({"any": {}}), refused).map_err(drop), Ok(()));
    }

    #[tokio::test]
    async fn bounds_hold_also_for_what_was_stored_before_there_were_any() {
        let error = call("sum", json!({"a": 1, "b": -1})).await.unwrap().unwrap_err();
        assert_eq!(
            error,
            "ValueError: the parameters do not fit the function: `b`: Input should be greater than \
             or equal to 0"
        );
    }

    #[tokio::test]
    async fn any_error_is_named_after_its_type() {
        let error = call("parse", json!({})).await.unwrap().unwrap_err();
        assert_eq!(error, "ParseIntError: invalid digit found in string");
    }

    #[tokio::test]
    async fn a_function_that_nobody_waits_for_ends() {
        let context = context();
        context.cancel.cancel();
        let called = functions().call("forever", Map::new(), context).await;
        assert!(matches!(called, Some(Err(RunError::Canceled))));
    }

    #[test]
    #[should_panic(expected = "two task functions of the name `sum`")]
    fn a_name_is_given_once() {
        let _functions = functions().with("sum", |it: Sum| async move { Ok(it.a) });
    }
}
