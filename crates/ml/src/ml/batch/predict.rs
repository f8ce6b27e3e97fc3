//! One chunk of a batch of predictions.

use modelyard_kernel::background::compute_sized;
use modelyard_kernel::{Assignment, Failed};
use modelyard_run::config::Config;
use modelyard_run::frame::Frame;
use modelyard_run::runner::{PredictInput, RunError};

use super::chunk::{Chunk, Content, halves};
use super::model::{Batch, Shape};
use super::work::{Made, Running};
use crate::ml::predict::{Training, refuse};
use crate::ml::{Ml, gone};

/// What all chunks have in common.
pub(super) struct Predicting {
    pub(super) training: Training,
    config: Config,
    columns: Vec<String>,
}

impl Predicting {
    pub(super) async fn begin(
        ml: &Ml,
        assignment: &Assignment,
        batch: &Batch,
    ) -> Result<Self, Failed> {
        let missing = || Failed::new("RuntimeError", "the batch says no training");
        let id = batch.options.artifact_id.ok_or_else(missing)?;
        let training = ml.training(&assignment.caller, id).await?;
        let mut training = training.map_err(|it| refuse(&it, id))?;
        let config = training.config.take().ok_or_else(|| gone(training.config_id))?;
        let columns = match &batch.shape {
            Shape::Table(layout) => layout.columns.clone(),
            Shape::Items(_) => Vec::new(),
        };
        Ok(Self { training, config, columns })
    }
}

impl Running<'_> {
    /// Predicts for the rows of a chunk that are to be predicted for, as a request with just these rows
    /// would.
    pub(super) async fn predict_chunk(
        &self,
        predicting: &Predicting,
        chunk: &Chunk,
    ) -> Result<Made, Failed> {
        let Content::Rows(rows, _) = &chunk.content else { return Ok(Made::default()) };
        let Predicting { training, config, columns } = predicting;
        let (rows, columns) = (rows.clone(), columns.clone());
        let (size, target) = (rows.len() * columns.len() * 10, self.ml.info().target.clone());
        let split = compute_sized(size, move || halves(&columns, rows, &target));
        let (historic, future) = split.await?;
        let (historic_rows, done_rows) = (historic.rows() as u64, future.rows() as u64);
        if future.is_empty() {
            return Ok(Made { historic_rows, ..Made::default() });
        }
        let config = self.ml.values(config, self.batch.options.periods, &future)?;
        let (historic, future) = (self.ml.adapt(historic).await?, self.ml.adapt(future).await?);
        let input = PredictInput { config, historic, future, geo: None };
        let frame = self.predict(training, input, chunk).await.map_err(told)?;
        Ok(Made { done_rows, historic_rows, frame: Some(frame), artifact: None })
    }

    async fn predict(
        &self,
        training: &Training,
        input: PredictInput,
        chunk: &Chunk,
    ) -> Result<Frame, RunError> {
        let run = self.begin("predict", chunk).await?;
        let predicted = match self.ml.unpack(&run, training).await {
            Ok(()) => self.ml.0.model.runner.predict(&run, input).await,
            Err(error) => Err(error),
        };
        run.workspace.remove().await;
        predicted.map(|it| it.predictions)
    }
}

/// A failure with the last of what the script printed: nothing else of the run is kept.
pub(super) fn told(error: RunError) -> Failed {
    let tail = error.output().and_then(|it| it.stderr_tail());
    let mut failed = Failed::from(error);
    if let Some(tail) = tail {
        failed.error = format!("{}; stderr tail: {tail}", failed.error);
    }
    failed
}
