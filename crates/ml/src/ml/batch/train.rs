//! One training of a batch.

use modelyard_kernel::Failed;
use modelyard_kernel::Ulid;
use modelyard_kernel::background::compute_sized;
use modelyard_kernel::form::{Loc, Node, Report, long_integers, shorten};
use modelyard_run::artifact::{ArtifactId, NewContent};
use modelyard_run::config::ConfigId;
use modelyard_run::frame::{Cell, Frame, Frames};

use super::chunk::{Chunk, Content};
use super::model::{CONFIG_COLUMN, Shape};
use super::predict::told;
use super::work::{Made, Running};
use crate::ml::TrainRequest;
use crate::ml::http::read_train;
use crate::ml::model::{Metadata, TRAINED};

/// JSON values of an item, its data frame aside.
const MOST_VALUES: usize = 2 << 20;

impl Running<'_> {
    /// Trains with a group of rows, or as a body of `$train` says.
    pub(super) async fn train_chunk(&self, chunk: &Chunk) -> Result<Made, Failed> {
        if chunk.unusable == chunk.rows() {
            return Ok(Made::default());
        }
        let config_id = self.batch.options.config_id;
        let (request, group) = match &chunk.content {
            Content::Item(json) => {
                let json = json.clone();
                let read = compute_sized(json.len(), move || read_item(&json, config_id));
                (read.await?, Cell::Null)
            }
            Content::Rows(rows, group) => {
                let group = group.clone().unwrap_or_default();
                (self.request(rows.clone(), config_id), group)
            }
        };
        let request = request.map_err(|it| Failed::new("ValueError", it))?;
        let (config, input) = self.ml.train_input(&self.assignment.caller, request).await?;
        let run = self.begin("train", chunk).await?;
        let started = self.ml.0.clock.now();
        let trained = match self.ml.0.model.runner.train(&run, input).await {
            Ok(trained) => trained,
            Err(error) => {
                run.workspace.remove().await;
                return Err(told(error));
            }
        };
        let metadata = Metadata::new(config, started, self.ml.0.clock.now());
        let metadata = metadata.with_script(trained.script.as_ref());
        let archive = self.ml.archive(self.assignment, &run).await;
        run.workspace.remove().await;
        let archive = archive?;
        let data = metadata.data(TRAINED, "application/zip", Some(archive.blob().size_bytes));
        let id = ArtifactId::new(&self.ml.0.clock);
        let draft = self.ml.draft(Some(id), None, data, NewContent::Stored(archive)).await?;
        let frame = Some(listed(chunk, group, config, id));
        let done_rows = chunk.rows() - chunk.unusable;
        Ok(Made { done_rows, historic_rows: 0, frame, artifact: Some((draft, config)) })
    }

    /// The request that the rows of a group are.
    fn request(
        &self,
        mut rows: Vec<Vec<Cell>>,
        config_id: Option<ConfigId>,
    ) -> Result<TrainRequest, String> {
        let mut columns = match &self.batch.shape {
            Shape::Table(layout) => layout.columns.clone(),
            Shape::Items(_) => Vec::new(),
        };
        let mut own = None;
        if let Some(place) = columns.iter().position(|it| it == CONFIG_COLUMN) {
            columns.remove(place);
            let mut names = rows.iter_mut().map(|row| row.remove(place));
            own = names.next().filter(|it| !it.is_null());
            if names.any(|it| own.as_ref().is_some_and(|own| *own != it)) {
                return Err("the rows of the group are of several configs".to_owned());
            }
        }
        let config_id = match own {
            Some(own) => {
                let id = own.as_str().and_then(Ulid::read).map(ConfigId);
                Some(id.ok_or_else(|| format!("{own} is not the id of a config"))?)
            }
            None => config_id,
        };
        let config_id = config_id.ok_or("the rows say no config")?;
        let data = Frame::new(columns, rows);
        Ok(TrainRequest { config_id, data, geo: None, periods: self.batch.options.periods })
    }
}

/// An item that is a body of `$train`, in which the config may be left out.
fn read_item(json: &[u8], config_id: Option<ConfigId>) -> Result<TrainRequest, String> {
    let problem = |it: &dyn std::fmt::Display| format!("the item cannot be read: {it}");
    if !long_integers(json).is_empty() {
        return Err(problem(&"a whole number is too long for 64 bits"));
    }
    let (mut frames, mut rest) =
        Frames::split(json, &["data"], MOST_VALUES).map_err(|it| problem(&it))?;
    if let (Some(fields), Some(id)) = (rest.as_object_mut(), config_id) {
        fields.entry("config_id").or_insert_with(|| id.to_string().into());
    }
    let report = Report::new();
    let request = read_train(&Node::body(&rest, &report), &mut frames);
    if let Err(violations) = report.finish() {
        let first = violations.into_iter().next().map(|it| {
            let place: Vec<String> = it.loc.iter().skip(1).map(step).collect();
            format!("{}: {}", place.join("."), it.msg)
        });
        return Err(problem(&first.unwrap_or_default()));
    }
    request.ok_or_else(|| problem(&"its data frame has no rows"))
}

fn step(loc: &Loc) -> String {
    match loc {
        Loc::Key(key) => shorten(key).to_owned(),
        Loc::Index(index) => index.to_string(),
    }
}

/// The row of the result that says where a training is.
fn listed(chunk: &Chunk, group: Cell, config: ConfigId, artifact: ArtifactId) -> Frame {
    let columns = ["first_row", "last_row", "group", "config_id", "artifact_id"];
    let row = vec![
        chunk.first_row.into(),
        chunk.last_row.into(),
        group,
        config.to_string().into(),
        artifact.to_string().into(),
    ];
    Frame::new(columns.map(str::to_owned).into(), vec![row])
}
