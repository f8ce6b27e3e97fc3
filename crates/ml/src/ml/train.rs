//! The job of a training, in steps: run the script in a workspace, collect the workspace, publish it.

use std::sync::Arc;

use modelyard_kernel::{Assignment, Caller, Failed};
use modelyard_run::artifact::ArtifactId;
use modelyard_run::config::ConfigId;
use modelyard_run::publish::Publication;
use modelyard_run::runner::{Run, TrainInput};

use super::attempt::Attempt;
use super::collect::{Harvest, archive_content};
use super::horizon::Horizon;
use super::model::{Metadata, TRAINED, TrainRequest};
use super::ran::Ran;
use super::{Ml, TRAIN, failure, promised, read_input};

impl Ml {
    pub(super) async fn do_train(&self, mut assignment: Assignment) -> Result<(), Failed> {
        let id = promised(&assignment)?;
        let attempt = Attempt::new(self, &assignment)?;
        let done = self.train_in_steps(&attempt, &mut assignment, id).await;
        attempt.clear(&assignment, done).await
    }

    async fn train_in_steps(
        &self,
        attempt: &Arc<Attempt>,
        assignment: &mut Assignment,
        id: ArtifactId,
    ) -> Result<(), Failed> {
        let harvest = match self.collected(&attempt.context, assignment).await? {
            Some(harvest) => harvest,
            None => {
                let (ran, run) = match attempt.ran(assignment).await? {
                    Some(done) => done,
                    None => self.run_training(attempt, assignment).await?,
                };
                self.collect_run(attempt, assignment, ran, &run).await?
            }
        };
        let Harvest { metadata, failed, archive, predictions: _ } = harvest;
        let (config, size) = (metadata.config_id, archive.blob().size_bytes);
        let data = metadata.data(TRAINED, "application/zip", Some(size));
        let drafts = vec![self.draft(Some(id), None, data, archive_content(archive)?).await?];
        let publication = Publication { drafts, link: Some(config), failed };
        Ok(self.0.publisher.publish(assignment, TRAIN, publication).await?)
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
        attempt: &Arc<Attempt>,
        assignment: &mut Assignment,
    ) -> Result<(Ran, Run), Failed> {
        let request: TrainRequest = read_input(assignment).await?;
        let (config, input) = self.train_input(&assignment.caller, request).await?;
        let run = self.begin(attempt, assignment).await?;

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
        let ran = Ran::new(metadata, failed, started, None);
        attempt.note_run(&ran, &run).await?;
        Ok((ran, run))
    }
}
