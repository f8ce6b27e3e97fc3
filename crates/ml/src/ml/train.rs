//! The job of a training.

use std::sync::Arc;

use modelyard_flow::job::Context;
use modelyard_kernel::{Assignment, Failed};
use modelyard_run::config::ConfigId;
use modelyard_run::publish::Publication;
use modelyard_run::runner::{Run, TrainInput};

use super::collect::{Harvest, archive_content};
use super::horizon::Horizon;
use super::model::{Metadata, TRAINED, TrainRequest};
use super::{Ml, TRAIN, promised, read_input};

impl Ml {
    pub(super) async fn do_train(&self, mut assignment: Assignment) -> Result<(), Failed> {
        let id = promised(&assignment)?;
        let context = self.0.jobs.context(&assignment)?;
        let harvest = match self.collected(&context, &assignment).await? {
            Some(harvest) => harvest,
            None => {
                let request: TrainRequest = read_input(&mut assignment).await?;
                self.train_anew(&context, &assignment, request).await?
            }
        };
        let Harvest { metadata, failed, archive, predictions: _ } = harvest;
        let (config, size) = (metadata.config_id, archive.blob().size_bytes);
        let data = metadata.data(TRAINED, "application/zip", Some(size));
        let drafts = vec![self.draft(Some(id), None, data, archive_content(archive)?).await?];
        let publication = Publication { drafts, link: Some(config), failed };
        Ok(self.0.publisher.publish(&assignment, TRAIN, publication).await?)
    }

    async fn train_anew(
        &self,
        context: &Context,
        assignment: &Assignment,
        request: TrainRequest,
    ) -> Result<Harvest, Failed> {
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
        self.train_in(run, context, assignment, config.id, input).await
    }

    /// Trains in a workspace and collects it, also when the script failed.
    async fn train_in(
        &self,
        run: Run,
        context: &Context,
        assignment: &Assignment,
        config: ConfigId,
        input: TrainInput,
    ) -> Result<Harvest, Failed> {
        let started = self.0.clock.now();
        let trained = self.0.model.runner.train(&run, input).await;
        let metadata = Metadata::new(config, started, self.0.clock.now());

        let (metadata, failed) = match trained {
            Ok(trained) => (metadata.with_script(trained.script.as_ref()), None),
            Err(error) => match self.failure(error, assignment) {
                Ok((output, failed)) => {
                    (metadata.failed().with_script(Some(&output)), Some(failed))
                }
                Err(failed) => {
                    run.workspace.remove().await;
                    return Err(failed);
                }
            },
        };
        let archive = Arc::new(self.archive(assignment, run).await?);
        let harvest = Harvest { metadata, failed, archive, predictions: None };
        self.collect(context, &harvest, started).await?;
        Ok(harvest)
    }
}
