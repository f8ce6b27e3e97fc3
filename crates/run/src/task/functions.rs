//! The functions that tasks can run by their names.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::runner::{ModelError, RunError, run_on_a_thread};

type Later = Pin<Box<dyn Future<Output = Result<Value, ModelError>>>>;
type Function = Arc<dyn Fn(Map<String, Value>) -> Later + Send + Sync>;

/// Functions by name. Clients call one with a task whose `task_type` is `python` and whose
/// `command` is the name.
///
/// ```
/// use modelyard_run::runner::ModelError;
/// use modelyard_run::task::TaskFunctions;
/// use serde_json::{Map, Value, json};
///
/// #[derive(serde::Deserialize)]
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

impl TaskFunctions {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function. It gets the task's parameters as whatever `P` reads them as; a
    /// `Map<String, Value>` takes any. What it returns is in the artifact as JSON. It runs on a
    /// thread of its own, so it may compute as long as it likes, and its future need not be `Send`.
    ///
    /// # Panics
    /// When there is a function of this name already: a mistake that shows at the first start.
    #[must_use]
    pub fn with<P, R, F>(
        mut self,
        name: &str,
        function: impl Fn(P) -> F + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned + 'static,
        R: Serialize + 'static,
        F: Future<Output = Result<R, ModelError>> + 'static,
    {
        let function = Arc::new(function);
        let erased = move |parameters: Map<String, Value>| -> Later {
            let function = Arc::clone(&function);
            Box::pin(async move {
                let parameters = serde_json::from_value(Value::Object(parameters));
                let parameters = parameters.map_err(|it| misfit(&it))?;
                Ok(serde_json::to_value(function(parameters).await?)?)
            })
        };
        let before = self.0.insert(name.to_owned(), Arc::new(erased));
        assert!(before.is_none(), "there are two task functions of the name `{name}`");
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs a function to its end, or until nobody waits any more; `None` when there is none of
    /// this name.
    pub(super) async fn call(
        &self,
        name: &str,
        parameters: Map<String, Value>,
        cancel: &CancellationToken,
    ) -> Option<Result<Value, RunError>> {
        let function = Arc::clone(self.0.get(name)?);
        Some(run_on_a_thread(cancel, move |_| async move { Ok(function(parameters).await?) }).await)
    }
}

impl fmt::Debug for TaskFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What clients know to be said of parameters that a function cannot take.
fn misfit(error: &serde_json::Error) -> ModelError {
    let text = error.to_string();
    let missing = text.strip_prefix("missing field `").and_then(|it| it.strip_suffix('`'));
    let message = match missing {
        Some(name) => format!(
            "Missing required parameter '{name}' for task function. Parameter is not injectable \
             and not provided in task.parameters."
        ),
        None => format!("the parameters do not fit the function: {text}"),
    };
    ModelError::of("ValueError", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Sum {
        a: i64,
        b: i64,
    }

    fn functions() -> TaskFunctions {
        TaskFunctions::new()
            .with("sum", |it: Sum| async move { Ok(it.a + it.b) })
            .with("parse", |_: Map<String, Value>| async move { Ok("x".parse::<i64>()?) })
            .with("forever", |_: Map<String, Value>| {
                std::future::pending::<Result<(), ModelError>>()
            })
    }

    async fn call(name: &str, parameters: Value) -> Option<Result<Value, String>> {
        let Value::Object(parameters) = parameters else { panic!("parameters are an object") };
        let called = functions().call(name, parameters, &CancellationToken::new()).await;
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

    #[tokio::test]
    async fn any_error_is_named_after_its_type() {
        let error = call("parse", json!({})).await.unwrap().unwrap_err();
        assert_eq!(error, "ParseIntError: invalid digit found in string");
    }

    #[tokio::test]
    async fn a_function_that_nobody_waits_for_ends() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let called = functions().call("forever", Map::new(), &cancel).await;
        assert!(matches!(called, Some(Err(RunError::Canceled))));
    }

    #[test]
    #[should_panic(expected = "two task functions of the name `sum`")]
    fn a_name_is_given_once() {
        let _functions = functions().with("sum", |it: Sum| async move { Ok(it.a) });
    }
}
