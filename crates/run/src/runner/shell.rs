//! The runner of a project's own scripts, whatever they are written in.
//!
//! # What a script gets
//!
//! Its working directory is the workspace: a copy of the project, `config.yml`, `data.csv` (to
//! train) or `historic.csv` and `future.csv` (to predict), and `geo.json` if the request had
//! geometry. Prediction begins with what training left and must write `predictions.csv`. Exit
//! code 0 means that it went well, and 75 that it may go well later
//! ([`TEMPORARY_FAILURE`](super::TEMPORARY_FAILURE)).
//!
//! The environment is the server's without its secrets (see [`is_withheld`](super::is_withheld)),
//! then that of the project, then these. Standard input is empty.
//!
//! * `MODELYARD_WORKSPACE`: the directory around the working directory, by which the processes of
//!   the run are found;
//! * `MODELYARD_PROGRESS`: a file to which the script appends what it has to tell, one JSON object
//!   a line: `{"progress": 0.4, "message": "epoch 3", "counters": {"epoch": 3}}` or
//!   `{"checkpoint": "epoch-3"}`. It is open as descriptor 3 too, and `MODELYARD_PROGRESS_FD` says
//!   so;
//! * `MODELYARD_CHECKPOINT_DIR`: where it writes checkpoints, which are complete when they are
//!   announced;
//! * `MODELYARD_CHECKPOINT`: the one to go on from, if there is one.
//!
//! `docs/scripts.md` has all of it for people who write scripts.
//!
//! # The validate command
//!
//! It gets what the train or predict command would get, with one more placeholder: `{stage}` is
//! `train` or `predict`. Placeholders of files the stage does not have are empty. It prints a JSON
//! array of its findings on standard output, or nothing if there are none:
//!
//! ```json
//! [{"severity": "error", "code": "too_short", "message": "12 months are needed", "field": "data"}]
//! ```
//!
//! `severity` is `error`, `warning` or `info`; `field` may be left out. The exit code is 0 also
//! when there are errors; any other says that the validation itself failed.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;

use super::{
    ConfigFormat, Diagnostic, Limits, PredictInput, Predicted, Run, RunError, Runner, ScriptOutput,
    Template, TemplateError, TrainInput, Trained, blocking, inputs,
    process::{Script, run_script},
};
use crate::frame::Frame;

const PREDICTIONS_FILE: &str = "predictions.csv";

/// Predictions are held in memory and in an answer; a larger file is a mistake.
const MAX_PREDICTIONS_BYTES: u64 = 512 * 1024 * 1024;

/// What a project says about how to run it.
#[derive(Clone, Debug)]
pub struct ShellSpec {
    /// Copied into the workspace of every training.
    pub project_root: PathBuf,
    /// The commands, as [`Template`]s.
    pub train: String,
    pub predict: String,
    pub validate: Option<String>,
    /// More placeholders, with the files they stand for.
    pub parameters: BTreeMap<String, String>,
    pub config_format: ConfigFormat,
    pub limits: Limits,
    /// Set over what scripts inherit from the server, like a `PATH` with a virtual environment.
    pub environment: BTreeMap<String, String>,
    /// Directories never copied, like the data directory of the server.
    pub skip: Vec<PathBuf>,
}

impl ShellSpec {
    /// A project with these two commands, and defaults for the rest.
    pub fn new(
        project_root: impl Into<PathBuf>,
        train: impl Into<String>,
        predict: impl Into<String>,
    ) -> Self {
        Self {
            project_root: project_root.into(),
            train: train.into(),
            predict: predict.into(),
            validate: None,
            parameters: BTreeMap::new(),
            config_format: ConfigFormat::default(),
            limits: Limits::default(),
            environment: BTreeMap::new(),
            skip: Vec::new(),
        }
    }
}

/// Runs the scripts of a project.
#[derive(Clone, Debug)]
pub struct ShellRunner {
    spec: ShellSpec,
    train: Template,
    predict: Template,
    /// For training and for prediction.
    validate: Option<[Template; 2]>,
}

impl ShellRunner {
    /// Reads the commands, so that a wrong placeholder shows at the start and not in a job.
    pub fn new(spec: ShellSpec) -> Result<Self, TemplateError> {
        let train = Template::parse(&spec.train, &spec.parameters)?;
        let predict = Template::parse(&spec.predict, &spec.parameters)?;
        let validate_at = |command: &String, stage: &str| {
            let mut parameters = spec.parameters.clone();
            parameters.insert("stage".to_owned(), stage.to_owned());
            Template::parse(command, &parameters)
        };
        let validate = match &spec.validate {
            Some(command) => {
                Some([validate_at(command, "train")?, validate_at(command, "predict")?])
            }
            None => None,
        };
        Ok(Self { spec, train, predict, validate })
    }

    /// Runs a command to its end. Only exit code 0 is `Ok`.
    async fn run(
        &self,
        run: &Run,
        stage: &'static str,
        command: &str,
    ) -> Result<ScriptOutput, RunError> {
        let ShellSpec { environment, limits, .. } = &self.spec;
        let directory = run.workspace.path()?;
        let output =
            run_script(Script { stage, command, directory, environment, limits }, run).await?;
        match output.exit_code {
            0 => Ok(output),
            _ => Err(RunError::Script { stage, output }),
        }
    }

    async fn prepare_train(&self, run: &Run, input: TrainInput) -> Result<(), RunError> {
        run.workspace.copy_project(&self.spec.project_root, &self.spec.skip).await?;
        let (files, format) = (run.workspace.path()?.to_owned(), self.spec.config_format);
        blocking(move || inputs::write(&files, &inputs::of_train(&input, format)?)).await
    }

    async fn prepare_predict(&self, run: &Run, input: PredictInput) -> Result<(), RunError> {
        let (files, format) = (run.workspace.path()?.to_owned(), self.spec.config_format);
        blocking(move || {
            // One that came with the project would pass for the script's own.
            match fs_err::remove_file(files.join(PREDICTIONS_FILE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error)?,
                _ => {}
            }
            inputs::write(&files, &inputs::of_predict(&input, format)?)
        })
        .await
    }

    async fn findings(&self, run: &Run, command: &Template) -> Result<Vec<Diagnostic>, RunError> {
        let files = run.workspace.path()?;
        let command = command.render(|name, file| name != "stage" && !files.join(file).exists());
        let output = self.run(run, "validate", &command).await?;
        if output.stdout.trim().is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_str(&output.stdout).map_err(|error| {
            let message = format!("the validate command did not print a list of findings: {error}");
            RunError::model("ValueError", message)
        })
    }
}

#[async_trait]
impl Runner for ShellRunner {
    async fn train(&self, run: &Run, input: TrainInput) -> Result<Trained, RunError> {
        let has_geo = input.geo.is_some();
        self.prepare_train(run, input).await?;
        let command = self.train.render(|name, _| name == "geo_file" && !has_geo);
        let output = self.run(run, "train", &command).await?;
        Ok(Trained { script: Some(output) })
    }

    async fn predict(&self, run: &Run, input: PredictInput) -> Result<Predicted, RunError> {
        let has_geo = input.geo.is_some();
        self.prepare_predict(run, input).await?;
        let command = self.predict.render(|name, _| name == "geo_file" && !has_geo);
        let output = self.run(run, "predict", &command).await?;
        let file = run.workspace.path()?.join(PREDICTIONS_FILE);
        let predictions = blocking(move || read_predictions(&file)).await?;
        Ok(Predicted { predictions, script: Some(output) })
    }

    fn unpacks_to_validate(&self) -> bool {
        self.validate.is_some()
    }

    async fn validate_train(
        &self,
        run: &Run,
        input: TrainInput,
    ) -> Result<Vec<Diagnostic>, RunError> {
        let Some([command, _]) = &self.validate else { return Ok(Vec::new()) };
        self.prepare_train(run, input).await?;
        self.findings(run, command).await
    }

    async fn validate_predict(
        &self,
        run: &Run,
        input: PredictInput,
    ) -> Result<Vec<Diagnostic>, RunError> {
        let Some([_, command]) = &self.validate else { return Ok(Vec::new()) };
        self.prepare_predict(run, input).await?;
        self.findings(run, command).await
    }
}

fn read_predictions(file: &Path) -> Result<Frame, RunError> {
    let size = match fs_err::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = "Prediction script did not create output file at predictions.csv";
            return Err(RunError::model("RuntimeError", message));
        }
        metadata => metadata?.len(),
    };
    if size > MAX_PREDICTIONS_BYTES {
        let limit = format!("{MAX_PREDICTIONS_BYTES} bytes of predictions");
        return Err(RunError::OverLimit { stage: "predict", limit, output: None });
    }
    Frame::from_csv(&fs_err::read(file)?)
        .map_err(|error| RunError::model("ValueError", format!("{PREDICTIONS_FILE}: {error}")))
}
