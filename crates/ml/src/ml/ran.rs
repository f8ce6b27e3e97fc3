//! A script that has run. What it left stays in its workspace until it is collected, so that it is not
//! run again after a crash.

use bytes::Bytes;
use modelyard_kernel::{Assignment, Failed, Time, failpoint};
use modelyard_run::runner::Run;
use serde::{Deserialize, Serialize};

use super::attempt::Attempt;
use super::model::Metadata;

/// The step in which the script runs. It is of use on this node only.
pub(super) const RUN: &str = "run";
/// What a workspace has beside its files when the script predicted.
const PREDICTIONS: &str = "predictions";

/// A script that has run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ran {
    pub(super) metadata: Metadata,
    /// Why it failed, if it did, in one line.
    pub(super) failed: Option<String>,
    /// In microseconds since 1970.
    started: i64,
    /// The data frame that it predicted, as JSON. In the workspace, not in the journal.
    #[serde(skip)]
    pub(super) predictions: Option<Bytes>,
    /// Whether there is one.
    #[serde(default)]
    predicted: bool,
}

impl Ran {
    pub(super) fn new(
        metadata: Metadata,
        failed: Option<String>,
        started: Time,
        predictions: Option<Bytes>,
    ) -> Self {
        let predicted = predictions.is_some();
        Self { metadata, failed, started: started.micros(), predictions, predicted }
    }

    pub(super) fn started(&self) -> Time {
        Time::from_micros(self.started)
    }
}

impl Attempt {
    /// What an earlier attempt on this machine ran, if its workspace is still there.
    pub(super) async fn ran(&self, assignment: &Assignment) -> Result<Option<(Ran, Run)>, Failed> {
        let Some(mut ran) = self.context.done_here::<Ran>(RUN).await? else { return Ok(None) };
        let (root, cancel) = (self.work_root(), assignment.cancel.clone());
        let Some(run) = Run::resume(root, assignment.job, cancel).await? else { return Ok(None) };
        if ran.predicted {
            ran.predictions = run.workspace.aside(PREDICTIONS).await?;
            if ran.predictions.is_none() {
                return Ok(None);
            }
        }
        Ok(Some((ran, run)))
    }

    /// Writes down that a script has run, and keeps its workspace.
    pub(super) async fn note_run(&self, ran: &Ran, run: &Run) -> Result<(), Failed> {
        if !self.needs_directory() {
            return Ok(());
        }
        failpoint::reach("run.ended");
        if let Some(json) = &ran.predictions {
            run.workspace.put_aside(PREDICTIONS, json.clone()).await?;
        }
        run.workspace.keep().await?;
        self.context.note_here(RUN, ran, ran.started()).await?;
        failpoint::reach("run.noted");
        Ok(())
    }
}
