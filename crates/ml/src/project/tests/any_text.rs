//! Whatever a file holds, reading it ends with an answer.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{manifest, mlproject, units};

#[test]
fn deep_nesting_is_an_error_not_the_end_of_the_process() {
    let deep = 100_000;
    let texts = [
        format!("a = {}", "[".repeat(deep)),
        format!("a = {}{}", "[".repeat(deep), "]".repeat(deep)),
        format!("{} = 1", vec!["a"; deep].join(".")),
        format!("[{}]", vec!["a"; deep].join(".")),
        format!("a: {}", "[".repeat(deep)),
        format!("a: {}{}", "[".repeat(deep), "]".repeat(deep)),
        format!("a: {}", "{b: ".repeat(deep)),
        (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect(),
        "- ".repeat(deep),
    ];
    for text in texts {
        assert!(manifest::read(&text).is_err());
        assert!(mlproject::read(&text, &BTreeMap::new()).is_err());
        manifest::locate(&text, &vec!["a"; 100].join("."));
    }
}

/// Texts that look enough like a manifest to get past the syntax.
fn manifest_like() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "service",
        "metadata",
        "config",
        "fields",
        "runner",
        "limits",
        "server",
        "id",
        "train",
        "type",
        "default",
        "choices",
        "minimum",
        "wall_time",
        "environment",
        "\"\"",
        "x.y",
        "é",
    ]);
    let value = prop::sample::select(vec![
        "1",
        "-1",
        "1.5",
        "nan",
        "inf",
        "true",
        "\"\"",
        "\"integer\"",
        "\"30m\"",
        "\"{data_file}\"",
        "\"{\"",
        "[]",
        "[1, \"a\"]",
        "{}",
        "{ a = { b = [] } }",
        "1979-05-27",
        "99999999999999999999",
        "0xff",
    ]);
    let line = prop_oneof![
        (key.clone(), value).prop_map(|(key, value)| format!("{key} = {value}")),
        prop::collection::vec(key, 1..4).prop_map(|keys| format!("[{}]", keys.join("."))),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

fn mlproject_like() -> impl Strategy<Value = String> {
    let scalar = || {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[ -~é]{0,12}".prop_map(Value::from),
        ]
    };
    let tree = scalar().prop_recursive(4, 24, 6, |inner| {
        let key = prop::sample::select(vec![
            "type",
            "default",
            "enum",
            "items",
            "anyOf",
            "minimum",
            "exclusiveMinimum",
            "command",
            "train",
            "predict",
            "image",
            "",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5).prop_map(|pairs| {
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    });
    let key = prop::sample::select(vec![
        "meta_data",
        "user_options",
        "adapters",
        "docker_env",
        "supported_period_type",
        "min_prediction_periods",
        "max_prediction_length",
        "required_covariates",
        "hpo_search_space",
        "requires_geo",
        "version",
        "unknown",
    ]);
    let options = prop::collection::vec(("[a-z-]{0,6}", tree.clone()), 0..4);
    (prop::collection::vec((key, tree), 0..6), options, "[ -~]{0,30}").prop_map(
        |(pairs, options, command)| {
            let mut root = serde_json::Map::new();
            root.insert("name".to_owned(), json!("3 m"));
            let points = json!({"train": {"command": command}, "predict": {"command": "p"}});
            root.insert("entry_points".to_owned(), points);
            root.extend(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)));
            if !options.is_empty() {
                root.insert(
                    "user_options".to_owned(),
                    Value::Object(options.into_iter().collect()),
                );
            }
            // JSON is YAML.
            Value::Object(root).to_string()
        },
    )
}

proptest! {
    #[test]
    fn any_text_is_a_manifest_or_has_problems(text in prop_oneof![".*", "[ -~\n]*", manifest_like()]) {
        if let Err(problems) = manifest::read(&text) {
            prop_assert!(!problems.is_empty());
        }
        let _ = manifest::locate(&text, &text);
    }

    #[test]
    fn any_text_is_an_mlproject_or_has_problems(text in prop_oneof![".*", "[ -~\n]*", mlproject_like()]) {
        match mlproject::read(&text, &BTreeMap::new()) {
            Err(problems) => prop_assert!(!problems.is_empty()),
            Ok(read) => {
                prop_assert!(read.info.check().is_ok());
                read.config.json_schema();
            }
        }
    }

    #[test]
    fn units_never_panic(text in "[0-9]{0,30} ?[a-zA-Z]{0,4}") {
        units::duration(&text);
        units::size(&text);
    }
}
