use std::time::Duration;

use modelyard_run::runner::{ConfigFormat, ShellRunner};
use serde_json::json;
use tempfile::TempDir;

use super::*;

mod any_text;

fn testdata(name: &str) -> Project {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/project/testdata").join(name);
    Project::load_with(root, &LoadOptions::default()).unwrap()
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs_err::write(root.path().join(name), text).unwrap();
    }
    root
}

/// What is wrong with a file, a line each, without the directory.
fn wrong(file: &str, text: &str) -> Vec<String> {
    let root = directory(&[(file, text)]);
    let error = Project::load_with(root.path(), &LoadOptions::default()).unwrap_err();
    let directory = format!("{}/", fs_err::canonicalize(root.path()).unwrap().display());
    error.to_string().replace(&directory, "").lines().map(str::to_owned).collect()
}

const SERVICE: &str = "[service]\nid = \"m\"\ndisplay_name = \"M\"\n";
const RUNNER: &str = "[runner]\ntrain = \"t\"\npredict = \"p\"\n";

#[test]
fn an_mlproject_becomes_a_service() {
    let Project { info, config, shell, hierarchy, adapters, .. } = testdata("seasonal");
    assert_eq!(
        serde_json::to_value(info.with_provenance(None)).unwrap(),
        json!({
            "id": "seasonal-lags",
            "display_name": "Seasonal model with lags",
            "version": "1.1",
            "description": "A folded description on two lines.",
            "model_metadata": {
                "author": "A. Author",
                "author_note": "Slow with many locations.",
                "author_assessed_status": "orange",
                "contact_email": null,
                "organization": "An institute",
                "organization_logo_url": "https://example.org/logo.png",
                "citation_info": "Author (2025)",
                "repository_url": "https://example.org/model.git",
                "documentation_url": null,
            },
            "git_revision": null,
            "chapkit_version": "2.4.1",
            "servicekit_version": "3.0.1",
            "period_type": "monthly",
            "min_prediction_periods": 1,
            "max_prediction_periods": 6,
            "allow_free_additional_continuous_covariates": true,
            "required_covariates": ["population", "rainfall"],
            "requires_geo": false,
            "target": "disease_cases",
            "hpo_search_space": {"n_lags": {"low": 1, "high": 12, "type": "int"}},
        })
    );
    assert_eq!(
        config.json_schema(),
        json!({
            "additionalProperties": true,
            "description": "Configuration for seasonal_lags.",
            "properties": {
                "prediction_periods": {
                    "default": 3,
                    "description": "Number of periods to predict into the future.",
                    "title": "Prediction Periods",
                    "type": "integer",
                },
                "additional_continuous_covariates": {
                    "default": [],
                    "items": {"type": "string"},
                    "title": "Additional Continuous Covariates",
                    "type": "array",
                },
                "n_lags": {
                    "default": 3,
                    "description": "Number of lags to use.",
                    "maximum": 24,
                    "minimum": 0,
                    "title": "N Lags",
                    "type": "integer",
                },
                "prior-precision": {"default": 0.01, "title": "Prior-Precision", "type": "number"},
                "rnn_type": {
                    "default": "GRU",
                    "enum": ["GRU", "LSTM"],
                    "title": "Network",
                    "type": "string",
                },
                "covariates": {
                    "default": ["rainfall"],
                    "items": {"type": "string"},
                    "title": "Covariates",
                    "type": "array",
                },
                "max_epochs": {
                    "anyOf": [{"type": "integer"}, {"type": "null"}],
                    "default": null,
                    "title": "Max Epochs",
                },
                "verbose": {"default": false, "title": "Verbose", "type": "boolean"},
                "weights": {"title": "Weights", "type": "string"},
            },
            "required": ["weights"],
            "title": "SeasonalLagsConfig",
            "type": "object",
        })
    );
    assert_eq!(shell.train, "Rscript train.R {train_data} {model} {model_config}");
    assert_eq!(shell.config_format, ConfigFormat::ChapCore);
    assert_eq!(hierarchy, "mlproject");
    let pairs: Vec<_> = adapters.0.iter().map(|(to, from)| (to.as_str(), from.as_str())).collect();
    assert_eq!(
        pairs,
        [("Cases", "disease_cases"), ("E", "population"), ("month", "month"), ("ID_year", "year")]
    );
    ShellRunner::new(shell).unwrap();
}

#[test]
fn what_an_mlproject_says_in_vain_is_noted() {
    assert_eq!(
        testdata("seasonal").notes,
        [
            "`r_env` is not a key of MLproject and is ignored, did you mean `uv_env`?",
            "meta_data.contact_email is ignored: `nobody` is not an email address",
            "docker_env (example.org/r-inla:1) is declared, and the commands run with what this \
             machine has; start the service in that image, or install what it has",
        ]
    );
}

#[test]
fn a_minimal_mlproject_takes_the_orchestrators_defaults() {
    let Project { info, config, notes, .. } = testdata("minimal");
    assert_eq!(info.id.as_str(), "minimal");
    assert_eq!(info.display_name, "minimal");
    assert_eq!(info.period_type, crate::info::PeriodType::Any);
    assert_eq!((info.min_prediction_periods, info.max_prediction_periods), (0, 100));
    let schema = config.json_schema();
    assert_eq!(schema["title"], "MinimalConfig");
    assert_eq!(schema["properties"].as_object().unwrap().len(), 2);
    assert_eq!(notes.len(), 1, "{notes:?}");
}

#[test]
fn options_are_read_as_leniently_as_the_orchestrator_does() {
    let text = "
name: m
user_options:
  shorthand: 5
  text_number: {type: string, default: 5}
  number_text: {type: int, default: '7'}
  flag: {type: boolean, default: 'yes'}
  wrong: {type: integer, default: many}
  either: {type: [integer, 'null'], default: 1, exclusiveMinimum: 0}
  anything: {anyOf: [{type: integer}, {type: string}], default: 1}
  table: {type: object, default: {a: 1}}
entry_points: {train: {command: t}, predict: {command: p}}
";
    let read = mlproject::read(text, &BTreeMap::new()).unwrap();
    let schema = read.config.json_schema();
    let properties = &schema["properties"];
    let default = |name: &str| properties[name]["default"].clone();
    assert_eq!(default("shorthand"), 5);
    assert_eq!(properties["shorthand"]["type"], "integer");
    assert_eq!(default("text_number"), "5");
    assert_eq!(default("number_text"), 7);
    assert_eq!(default("flag"), true);
    assert_eq!(default("wrong"), "many");
    assert_eq!(default("either"), 1);
    assert_eq!(properties["anything"]["anyOf"], json!([{"type": "integer"}, {"type": "string"}]));
    assert_eq!(properties["table"]["type"], "object");
    assert_eq!(
        read.notes,
        [
            "the default of user_options.wrong, \"many\", is not of its type integer; configs must set it"
        ]
    );
}

#[test]
fn an_unknown_placeholder_names_its_line_and_the_closest_one() {
    let text = "name: m\nentry_points:\n  train:\n    command: t {trian_data}\n  predict:\n    command: p\n";
    let problems = wrong("MLproject", text);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with(
            "MLproject:4: `entry_points.train.command` has an unknown placeholder `{trian_data}`, \
             did you mean `train_data`? (valid: "
        ),
        "{problems:?}"
    );
    assert!(problems[0].ends_with("; `--param trian_data=FILE` maps it to a file"), "{problems:?}");
}

#[test]
fn a_parameter_makes_a_placeholder_known() {
    let text = "name: m\nentry_points: {train: {command: 't {lags}'}, predict: {command: p}}\n";
    let root = directory(&[("MLproject.yml", text)]);
    let Param { name, file } = "lags=lags.csv".parse().unwrap();
    let options = LoadOptions { params: BTreeMap::from([(name, file)]), search_path: None };
    let project = Project::load_with(root.path(), &options).unwrap();
    ShellRunner::new(project.shell).unwrap();
    for bad in ["lags", "=x", "lags=", "a b=c"] {
        assert!(bad.parse::<Param>().is_err(), "{bad}");
    }
}

#[test]
fn an_mlproject_without_its_necessities_lists_them() {
    assert_eq!(
        wrong("MLproject", "entry_points: {train: {command: [a]}}"),
        [
            "MLproject: `name` is missing",
            "MLproject: `entry_points.train.command` must be a command line",
            "MLproject: `entry_points.predict.command` is missing",
        ]
    );
    assert_eq!(
        wrong("MLproject", "- a"),
        ["MLproject: an MLproject is a YAML mapping with `name` and `entry_points`"]
    );
    let broken = wrong("MLproject", "name: m\nentry_points: {");
    assert!(broken[0].starts_with("MLproject:2: not YAML: "), "{broken:?}");
}

#[test]
fn a_native_manifest_becomes_a_service() {
    let Project { info, config, shell, hierarchy, notes, .. } = testdata("native");
    assert_eq!(
        serde_json::to_value(info.with_provenance(None)).unwrap(),
        json!({
            "id": "native-model",
            "display_name": "Native Model",
            "version": "2.0.0",
            "description": "Written for this server",
            "model_metadata": {
                "author": "A. Author",
                "author_note": null,
                "author_assessed_status": "green",
                "contact_email": "a@example.com",
                "organization": null,
                "organization_logo_url": null,
                "citation_info": null,
                "repository_url": "https://example.com/",
                "documentation_url": null,
            },
            "git_revision": null,
            "chapkit_version": "2.4.1",
            "servicekit_version": "3.0.1",
            "period_type": "weekly",
            "min_prediction_periods": 4,
            "max_prediction_periods": 26,
            "allow_free_additional_continuous_covariates": true,
            "required_covariates": ["rainfall"],
            "requires_geo": true,
            "target": "cases",
            "hpo_search_space": {"n_lags": {"low": 1, "high": 12}},
        })
    );
    let schema = config.json_schema();
    assert_eq!(schema["title"], "NativeConfig");
    assert_eq!(schema["required"], json!(["alpha"]));
    let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    let order = ["n_lags", "mode", "columns", "seed", "alpha"];
    assert_eq!(names[2..], order, "the file's order");
    assert_eq!(schema["properties"]["prediction_periods"]["default"], 4);
    assert_eq!(
        schema["properties"]["mode"],
        json!({"default": "fast", "enum": ["fast", "slow"], "title": "Mode", "type": "string"})
    );
    assert_eq!(shell.validate.as_deref(), Some("sh check.sh {stage}"));
    assert_eq!(shell.config_format, ConfigFormat::ChapCore);
    assert_eq!(shell.environment, BTreeMap::from([("OMP_NUM_THREADS".to_owned(), "1".to_owned())]));
    assert_eq!(shell.limits.wall_time, Some(Duration::from_secs(1800)));
    assert_eq!(shell.limits.cpu_time, Some(Duration::from_secs(3600)));
    assert_eq!(shell.limits.memory_bytes, Some(2 << 30));
    assert_eq!(shell.limits.output_bytes, 64 << 20);
    assert_eq!(hierarchy, "native_model");
    assert_eq!(notes, Vec::<String>::new());
    ShellRunner::new(shell).unwrap();
}

#[test]
fn every_problem_of_a_manifest_is_told_at_once_with_its_line() {
    let text = r#"[service]
id = "No Slug"
display_name = 3
perid_type = "monthly"
period_type = "month"
max_prediction_periods = -1

[service.metadata]
contact_email = "nobody"
repository_url = "example.com"

[config.fields.n_lags]
type = "integr"

[runner]
train = "t {data}"
predict = ""
enviroment = {}

[limits]
wall_time = "30 minutes"
memory = 2

[servr]
port = 1
"#;
    assert_eq!(
        wrong(MANIFEST, text),
        [
            "modelyard.toml:2: `service.id`: `No Slug` is not a service id: lower-case letters and \
             digits in groups joined by single hyphens, starting with a letter, as in \
             `dengue-baseline`",
            "modelyard.toml:3: `service.display_name` must be a string, found the integer 3",
            "modelyard.toml:4: unknown key `service.perid_type`, did you mean `period_type`?",
            "modelyard.toml:5: `service.period_type` is `month`, not one of weekly, monthly, any, \
             did you mean `monthly`?",
            "modelyard.toml:6: `service.max_prediction_periods` must be a whole number from 0 to \
             4294967295, found the integer -1",
            "modelyard.toml:9: `service.metadata.contact_email`: `nobody` is not an email address",
            "modelyard.toml:10: `service.metadata.repository_url`: `example.com` is not an http or \
             https address",
            "modelyard.toml:13: `config.fields.n_lags.type` is `integr`, not one of integer, number, \
             string, boolean, list[integer], list[number], list[string], list[boolean], did you mean \
             `integer`?",
            "modelyard.toml:16: `runner.train` has an unknown placeholder `{data}`, did you mean \
             `data_file`? (valid: config_file, data_file, future_data, future_file, geo_file, \
             historic_data, historic_file, model, model_config, out_file, output_file, polygons, \
             train_data; `{{` and `}}` are literal braces)",
            "modelyard.toml:17: `runner.predict` is empty",
            "modelyard.toml:18: unknown key `runner.enviroment`, did you mean `environment`?",
            "modelyard.toml:21: `limits.wall_time` must be a duration such as \"90s\", \"30m\" or \
             \"2h\", found the string \"30 minutes\"",
            "modelyard.toml:22: `limits.memory` must be a size such as \"64MiB\", \"2GiB\" or \
             \"500MB\", found the integer 2",
            "modelyard.toml:24: unknown key `servr`, did you mean `server`?",
        ]
    );
}

#[test]
fn a_manifest_without_its_necessities_lists_them() {
    assert_eq!(
        wrong(MANIFEST, "[service]\n"),
        [
            "modelyard.toml: `runner` is missing",
            "modelyard.toml:1: `service.id` is missing",
            "modelyard.toml:1: `service.display_name` is missing",
        ]
    );
    assert_eq!(
        wrong(MANIFEST, &format!("{SERVICE}min_prediction_periods = 200\n{RUNNER}")),
        ["modelyard.toml:4: in `service`: min_prediction_periods (200) is greater than \
          max_prediction_periods (100)"]
    );
    let broken = wrong(MANIFEST, "[service]\nid = \n");
    assert!(broken[0].starts_with("modelyard.toml:2: not TOML: "), "{broken:?}");
}

#[test]
fn a_field_of_a_config_says_what_is_wrong_with_it() {
    let wrong_field = |field: &str| {
        wrong(MANIFEST, &format!("{SERVICE}{RUNNER}[config.fields.x]\n{field}\n")).join("\n")
    };
    assert_eq!(wrong_field("default = 1"), "modelyard.toml:7: `config.fields.x.type` is missing");
    assert_eq!(
        wrong_field("type = \"integer\"\ndefault = \"a\""),
        "modelyard.toml:9: `config.fields.x.default` is not of the field's type integer"
    );
    assert_eq!(
        wrong_field("choices = [\"a\"]\ndefault = \"b\""),
        "modelyard.toml:9: `config.fields.x.default` is not one of the field's choices"
    );
    assert_eq!(
        wrong_field("type = \"integer\"\ndefault = 9\nmaximum = 8"),
        "modelyard.toml:9: `config.fields.x.default` is greater than the field's maximum"
    );
    assert_eq!(
        wrong_field("type = \"integer\"\ndefault = 9\nrequired = true"),
        "modelyard.toml:10: `config.fields.x.required` is true, but the field has a default"
    );
    assert_eq!(
        wrong_field("type = \"string\"\nmaximum = 8"),
        "modelyard.toml:9: `config.fields.x.maximum` is for numbers, and the field's type is string"
    );
    assert_eq!(
        wrong_field("type = \"integer\"\nminimum = 2\nmaximum = 1"),
        "modelyard.toml:9: `config.fields.x.minimum` is greater than its maximum"
    );
}

#[test]
fn the_manifest_wins_over_an_mlproject_unless_it_only_has_settings() {
    let foreign = "name: foreign\nentry_points: {train: {command: t}, predict: {command: p}}\n";
    let native = format!("{SERVICE}{RUNNER}");
    let root = directory(&[(MANIFEST, &native), ("MLproject", foreign)]);
    assert_eq!(Project::load(root.path()).unwrap().info.id.as_str(), "m");

    let settings = "[server]\nport = 1\n[limits]\nwall_time = \"5s\"\n";
    let root = directory(&[(MANIFEST, settings), ("MLproject", foreign)]);
    let project = Project::load(root.path()).unwrap();
    assert_eq!(project.info.id.as_str(), "foreign");
    assert_eq!(project.shell.limits.wall_time, Some(Duration::from_secs(5)));

    assert_eq!(
        wrong(MANIFEST, settings),
        [
            "modelyard.toml: `service` and `runner` are missing, and there is no MLproject to say what \
          the model is"
        ]
    );
}

#[test]
fn a_directory_without_a_model_says_what_was_looked_for() {
    let root = directory(&[]);
    let error = Project::load(root.path()).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "looked for modelyard.toml and MLproject, MLproject.yaml, MLproject.yml; `modelyard \
             init` makes one"
        ),
        "{error}"
    );
    assert!(matches!(Project::load(root.path().join("absent")), Err(ProjectError::Unreadable(_))));
}

#[test]
fn a_virtual_environment_beside_the_project_is_used() {
    let text = format!("{SERVICE}{RUNNER}environment = {{ VIRTUAL_ENV = \"/mine\" }}\n");
    let root = directory(&[(MANIFEST, &text)]);
    fs_err::create_dir_all(root.path().join(".venv/bin")).unwrap();
    fs_err::write(root.path().join(".venv/bin/python"), "").unwrap();
    let options = LoadOptions { search_path: Some("/usr/bin".into()), ..LoadOptions::default() };
    let project = Project::load_with(root.path(), &options).unwrap();
    let bin = project.root.join(".venv/bin");
    assert_eq!(project.shell.environment["PATH"], format!("{}:/usr/bin", bin.display()));
    assert_eq!(project.shell.environment["VIRTUAL_ENV"], "/mine", "the manifest has the last word");
}

#[test]
fn keys_are_located_by_their_dotted_name() {
    let text = "a = 1\n\n[server]\nport = 1\n\n[server.tls]\ncert = \"x\"\n";
    assert_eq!(manifest::locate(text, "a"), Some(1));
    assert_eq!(manifest::locate(text, "server"), Some(3));
    assert_eq!(manifest::locate(text, "server.port"), Some(4));
    assert_eq!(manifest::locate(text, "server.tls.cert"), Some(7));
    for absent in ["", "b", "server.host", "a.b", "server.port.x"] {
        assert_eq!(manifest::locate(text, absent), None, "{absent}");
    }
    assert_eq!(manifest::locate("a = 1\nb = \nc = 3\n", "c"), Some(3), "past a mistake");
}
