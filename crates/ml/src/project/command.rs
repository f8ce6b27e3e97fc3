//! A model's command lines, and what to tell the author of a wrong one.

use std::collections::BTreeMap;

use modelyard_run::runner::{PLACEHOLDERS, Template, TemplateError};

use super::suggest;

/// A model's command lines: templates that have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    pub train: String,
    pub predict: String,
    /// Run to check a request before it is queued.
    pub validate: Option<String>,
}

/// A command line that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The start of the wrong part as it stands in the command.
    pub found: String,
    /// Goes behind "the command has".
    pub message: String,
}

/// Checks a command line. `params` maps further placeholders to files of the workspace.
pub fn check(command: &str, params: &BTreeMap<String, String>) -> Result<(), Wrong> {
    Template::parse(command, params).map(drop).map_err(|error| match error {
        TemplateError::Unknown { name, .. } => unknown(&name, params),
        TemplateError::Single { brace, .. } => Wrong {
            found: brace.to_string(),
            message: format!("a single `{brace}`; write `{brace}{brace}` for a literal one"),
        },
    })
}

/// Whether a text can be a placeholder's name.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn unknown(name: &str, params: &BTreeMap<String, String>) -> Wrong {
    let mut valid: Vec<&str> = PLACEHOLDERS.iter().map(|(name, _)| *name).collect();
    valid.extend(params.keys().map(String::as_str));
    let message = format!(
        "an unknown placeholder `{{{name}}}`{} (valid: {}; `{{{{` and `}}}}` are literal braces)",
        suggest::hint(name, &valid),
        valid.join(", ")
    );
    Wrong { found: format!("{{{name}"), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_placeholder_is_named_with_the_closest_valid_one() {
        let params = BTreeMap::from([("extra".to_owned(), "e".to_owned())]);
        let wrong = check("r {trian_data}", &params).unwrap_err();
        let start = "an unknown placeholder `{trian_data}`, did you mean `train_data`? (valid: ";
        assert!(wrong.message.starts_with(start), "{}", wrong.message);
        assert!(wrong.message.contains("train_data, extra;"), "{}", wrong.message);
        let wrong = check("r {x y}", &BTreeMap::new()).unwrap_err();
        assert!(wrong.message.starts_with("an unknown placeholder `{x y}` (valid: "), "{wrong:?}");
    }

    #[test]
    fn a_single_brace_is_an_error_not_a_surprise() {
        for command in ["a { b", "a } b", "é{"] {
            let wrong = check(command, &BTreeMap::new()).unwrap_err();
            assert!(wrong.message.starts_with("a single"), "{command}: {wrong:?}");
        }
    }
}
