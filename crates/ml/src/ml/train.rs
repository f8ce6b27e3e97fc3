//! The job of a training, in steps: run the script in a workspace, collect the workspace, publish it.

use std::sync::Arc;

use modelyard_flow::job::Context;
use modelyard_kernel::{Assignment, Caller, Failed, Time, failpoint};
use modelyard_run::artifact::ArtifactId;
use modelyard_run::config::ConfigId;
use modelyard_run::publish::Publication;
use modelyard_run::runner::{Run, TrainInput};
use serde::{Deserialize, Serialize};

use super::collect::{Harvest, archive_content};
use super::horizon::Horizon;
use super::model::{Metadata, TRAINED, TrainRequest};
use super::{Ml, TRAIN, failure, promised, read_input};

/// The step in which the script runs. What it leaves is in its workspace, so this is of use on this
/// node only.
const RUN: &str = "run";

/// A script that has run.
#[derive(Debug, Serialize, Deserialize)]
struct Ran {
    metadata: Metadata,
    /// Why it failed, if it did, in one line.
    failed: Option<String>,
    /// In microseconds since 1970.
    started: i64,
}

impl Ml {
    pub(super) async fn do_train(&self, mut assignment: Assignment) -> Result<(), Failed> {
        let id = promised(&assignment)?;
        let context = Arc::new(self.0.jobs.context(&assignment)?);
        let job = assignment.job;
        let done = self.train_in_steps(&context, &mut assignment, id).await;
        self.clear(&context, job, done).await
    }

    async fn train_in_steps(
        &self,
        context: &Arc<Context>,
        assignment: &mut Assignment,
        id: ArtifactId,
    ) -> Result<(), Failed> {
        let harvest = match self.collected(context, assignment).await? {
            Some(harvest) => harvest,
            None => {
                let (ran, run) = match self.ran(context, assignment).await? {
                    Some(done) => done,
                    None => self.run_training(context, assignment).await?,
                };
                self.collect_training(context, assignment, ran, &run).await?
            }
        };
        let Harvest { metadata, failed, archive, predictions: _ } = harvest;
        let (config, size) = (metadata.config_id, archive.blob().size_bytes);
        let data = metadata.data(TRAINED, "application/zip", Some(size));
        let drafts = vec![self.draft(Some(id), None, data, archive_content(archive)?).await?];
        let publication = Publication { drafts, link: Some(config), failed };
        Ok(self.0.publisher.publish(assignment, TRAIN, publication).await?)
    }

    /// What an earlier attempt on this machine ran, if its workspace is still there.
    async fn ran(
        &self,
        context: &Context,
        assignment: &Assignment,
    ) -> Result<Option<(Ran, Run)>, Failed> {
        let Some(ran) = context.done_here::<Ran>(RUN).await? else { return Ok(None) };
        let (root, cancel) = (&self.0.model.work_root, assignment.cancel.clone());
        Ok(Run::resume(root, assignment.job, cancel).await?.map(|run| (ran, run)))
    }

    /// What the model gets, and whose config that is.
    pub(super) async fn train_input(
        &self,
        caller: &Caller,
        request: TrainRequest,
    ) -> Result<(ConfigId, TrainInput), Failed> {
        let config = self.config(caller, request.config_id).await?;
        let mut values = config.values();
        if let Some(horizon) = Horizon::resolve(request.periods, None, &values) {
            if let Some(complaint) = horizon.complaint(self.info()) {
                return Err(Failed::new("ValueError", complaint));
            }
            horizon.put_into(&mut values);
        }
        let data = self.adapt(request.data).await?;
        Ok((config.id, TrainInput { config: values, data, geo: request.geo }))
    }

    /// Trains in a workspace, which stays also when the script failed.
    async fn run_training(
        &self,
        context: &Arc<Context>,
        assignment: &mut Assignment,
    ) -> Result<(Ran, Run), Failed> {
        let request: TrainRequest = read_input(assignment).await?;
        let (config, input) = self.train_input(&assignment.caller, request).await?;
        let run = self.begin(context, assignment).await?;

        let started = self.0.clock.now();
        let trained = self.0.model.runner.train(&run, input).await;
        let metadata = Metadata::new(config, started, self.0.clock.now());
        let (metadata, failed) = match trained {
            Ok(trained) => (metadata.with_script(trained.script.as_ref()), None),
            Err(error) => match failure(error, assignment) {
                Ok((output, failed)) => {
                    (metadata.failed().with_script(Some(&output)), Some(failed.error))
                }
                Err(failed) => {
                    run.workspace.remove().await;
                    return Err(failed);
                }
            },
        };
        let ran = Ran { metadata, failed, started: started.micros() };
        if self.0.model.runner.needs_directory() {
            failpoint::reach("train.ran");
            run.workspace.keep().await?;
            context.note_here(RUN, &ran, started).await?;
            failpoint::reach("train.noted");
        }
        Ok((ran, run))
    }

    async fn collect_training(
        &self,
        context: &Context,
        assignment: &Assignment,
        ran: Ran,
        run: &Run,
    ) -> Result<Harvest, Failed> {
        let Ran { metadata, failed, started } = ran;
        let failed = failed.map(Failed::told);
        let archive = Arc::new(self.archive(assignment, run).await?);
        failpoint::reach("train.stored");
        let harvest = Harvest { metadata, failed, archive, predictions: None };
        self.collect(context, &harvest, Time::from_micros(started)).await?;
        Ok(harvest)
    }
}
