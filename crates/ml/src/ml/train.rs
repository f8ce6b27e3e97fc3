//! The job of a training.

use modelyard_kernel::{Assignment, Failed};
use modelyard_run::artifact::{ArtifactId, NewContent};
use modelyard_run::config::ConfigId;
use modelyard_run::publish::Publication;
use modelyard_run::runner::{Run, TrainInput};

use super::horizon::Horizon;
use super::model::{Metadata, TRAINED, TrainRequest};
use super::{Ml, TRAIN, promised, read_input, script_failed};

impl Ml {
    pub(super) async fn do_train(&self, mut assignment: Assignment) -> Result<(), Failed> {
        let id = promised(&assignment)?;
        let request: TrainRequest = read_input(&mut assignment).await?;
        let config = self.config(&assignment.caller, request.config_id).await?;
        let mut values = config.values();
        if let Some(horizon) = Horizon::resolve(request.periods, None, &values) {
            if let Some(complaint) = horizon.complaint(self.info()) {
                return Err(Failed::new("ValueError", complaint));
            }
            horizon.put_into(&mut values);
        }
        let data = self.adapt(request.data).await?;
        let input = TrainInput { config: values, data, geo: request.geo };
        let run = self.run("train", assignment.cancel.clone()).await?;
        self.train_in(run, &assignment, id, config.id, input).await
    }

    /// Trains in a workspace and publishes it, also when the script failed.
    async fn train_in(
        &self,
        run: Run,
        assignment: &Assignment,
        id: ArtifactId,
        config: ConfigId,
        input: TrainInput,
    ) -> Result<(), Failed> {
        let started = self.0.clock.now();
        let trained = self.0.model.runner.train(&run, input).await;
        let metadata = Metadata::new(config, started, self.0.clock.now());

        let (metadata, failed) = match trained {
            Ok(trained) => (metadata.with_script(trained.script.as_ref()), None),
            Err(error) if error.output().is_some() && !assignment.cancel.is_cancelled() => {
                (metadata.failed().with_script(error.output()), Some(script_failed(&error, id.0)))
            }
            Err(error) => {
                run.workspace.remove().await;
                return Err(error.into());
            }
        };
        let stored = self.archive(assignment, run).await?;
        let data = metadata.data(TRAINED, "application/zip", Some(stored.blob().size_bytes));
        let drafts = vec![self.draft(Some(id), None, data, NewContent::Stored(stored)).await?];
        let publication = Publication { drafts, link: Some(config), failed };
        Ok(self.0.publisher.publish(assignment, TRAIN, publication).await?)
    }
}
