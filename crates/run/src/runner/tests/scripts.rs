use std::io::Cursor;

use super::*;

/// A project that "trains" by counting lines and "predicts" by repeating what it counted.
fn project(train: &str, predict: &str) -> (tempfile::TempDir, ShellSpec) {
    let root = tempfile::tempdir().unwrap();
    fs_err::write(
        root.path().join("train.sh"),
        "wc -l < $1 > model && cat config.yml && echo ${2:-no geo} >&2\n",
    )
    .unwrap();
    fs_err::write(
        root.path().join("predict.sh"),
        "echo time_period,sample_0 > $3 && echo 2023-03,$(cat model) >> $3\n",
    )
    .unwrap();
    fs_err::write(root.path().join("predictions.csv"), "old,one\n1,2\n").unwrap();
    let spec = ShellSpec::new(root.path(), train, predict);
    (root, spec)
}

const TRAIN: &str = "sh train.sh {data_file} {geo_file}";
const PREDICT: &str = "sh predict.sh {historic_file} {future_file} {output_file} {geo_file}";

#[tokio::test]
async fn a_project_trains_and_predicts() {
    let (_project, spec) = project(TRAIN, PREDICT);
    let runner = ShellRunner::new(spec).unwrap();
    let Place { run, root } = place();
    let geo = Some(json!({"type": "FeatureCollection", "features": []}));
    let trained = runner.train(&run, train_input(json!({"b": 1, "a": "x"}), geo)).await.unwrap();
    let output = trained.script.unwrap();
    assert_eq!(output.stdout, "a: x\nb: 1\n");
    assert_eq!(output.stderr, "geo.json\n");
    let files = run.workspace.path().unwrap();
    assert_eq!(
        fs_err::read_to_string(files.join("data.csv")).unwrap(),
        "time_period,cases\r\n2023-01,5\r\n2023-02,\r\n"
    );
    assert!(fs_err::read_to_string(files.join("geo.json")).unwrap().starts_with("{\n  \"type\": "));
    let archive = run.workspace.into_archive(ArchiveLimits::default()).await.unwrap();
    let Archive::Memory(zip) = archive else { panic!("it is small") };

    let workspace = Workspace::create(root.path(), "predict").unwrap();
    workspace.extract(Cursor::new(zip), 0, ArchiveLimits::default()).await.unwrap();
    let run = Run::new(workspace, CancellationToken::new());
    let predicted = runner.predict(&run, predict_input(json!({"a": "z"}))).await.unwrap();
    assert_eq!(predicted.predictions.columns, ["time_period", "sample_0"]);
    assert_eq!(predicted.predictions.data, [[json!("2023-03"), json!(3)]]);
    assert_eq!(
        fs_err::read_to_string(run.workspace.path().unwrap().join("config.yml")).unwrap(),
        "a: z\n"
    );
}

#[tokio::test]
async fn a_script_that_fails_leaves_its_workspace() {
    let (_project, spec) = project("echo half > model; echo 'it broke' >&2; exit 4", "exit 5");
    let runner = ShellRunner::new(spec).unwrap();
    let Place { run, root: _root } = place();
    let error = runner.train(&run, train_input(json!({}), None)).await.unwrap_err();
    assert_eq!(error.to_string(), "train script failed with exit code 4");
    assert_eq!(error.output().unwrap().stderr_tail().as_deref(), Some("it broke"));
    assert!(run.workspace.path().unwrap().join("model").exists());
    let error = runner.predict(&run, predict_input(json!({}))).await.unwrap_err();
    assert_eq!(error.to_string(), "predict script failed with exit code 5");
}

#[tokio::test]
async fn predictions_that_were_lying_around_are_not_an_answer() {
    let (_project, spec) = project(TRAIN, "true");
    let runner = ShellRunner::new(spec).unwrap();
    let Place { run, root: _root } = place();
    runner.train(&run, train_input(json!({}), None)).await.unwrap();
    assert!(run.workspace.path().unwrap().join("predictions.csv").exists());
    let error = runner.predict(&run, predict_input(json!({}))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "RuntimeError: Prediction script did not create output file at predictions.csv"
    );
}

#[tokio::test]
async fn a_validate_command_reports_its_findings() {
    let (_project, mut spec) = project(TRAIN, PREDICT);
    spec.validate = Some(
        r#"echo '[{{"severity": "warning", "code": "seen", "message": "{stage} {data_file}{future_file}"}}]'"#
            .to_owned(),
    );
    let runner = ShellRunner::new(spec.clone()).unwrap();
    assert!(runner.unpacks_to_validate());
    let finding = |message: &str| Diagnostic {
        severity: Severity::Warning,
        code: "seen".to_owned(),
        message: message.to_owned(),
        field: None,
    };
    let Place { run, root: _root } = place();
    let found = runner.validate_train(&run, train_input(json!({}), None)).await.unwrap();
    assert_eq!(found, [finding("train data.csv")]);
    let Place { run, root: _root } = place();
    let found = runner.validate_predict(&run, predict_input(json!({}))).await.unwrap();
    assert_eq!(found, [finding("predict future.csv")]);

    spec.validate = Some("true".to_owned());
    let runner = ShellRunner::new(spec.clone()).unwrap();
    let Place { run, root: _root } = place();
    assert_eq!(runner.validate_predict(&run, predict_input(json!({}))).await.unwrap(), []);
    spec.validate = Some("echo all is well".to_owned());
    let runner = ShellRunner::new(spec).unwrap();
    let error = runner.validate_predict(&run, predict_input(json!({}))).await.unwrap_err();
    assert!(error.to_string().contains("did not print a list of findings"), "{error}");
}
