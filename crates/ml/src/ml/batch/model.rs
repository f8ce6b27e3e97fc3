//! What is asked of a batch, and what is kept of one. No I/O in this file.

use modelyard_kernel::Ulid;
use modelyard_kernel::form::{Bounds, Node, Object, shorten};
use modelyard_run::artifact::ArtifactId;
use modelyard_run::config::ConfigId;
use modelyard_run::frame::Cell;
use serde::{Deserialize, Serialize};

use super::chunk::{Sizes, Unusable};
use super::split::{Broken, Format};
use super::table::Layout;

/// Type of the artifact that a batch of predictions makes.
pub const BATCH_PREDICTED: &str = "ml_batch_prediction";
/// Type of the artifact that a batch of trainings makes.
pub const BATCH_TRAINED: &str = "ml_batch_training";

/// Rows of a chunk unless the request says otherwise.
const CHUNK_ROWS: u64 = 1000;
/// The most that it may say.
const MOST_CHUNK_ROWS: i64 = 100_000;
/// Chunks of one batch. Each is a row in the journal of its job, so in a large file they have more
/// rows than was asked for.
const MOST_CHUNKS: u64 = 2000;
/// Bytes of memory that the rows of a chunk take; more in a file that would have too many of them, but
/// never more than the second.
const CHUNK_BYTES: u64 = 16 << 20;
const MOST_CHUNK_BYTES: u64 = 64 << 20;
/// Cells of a table. A line of two bytes is a row of as many cells as there are columns, so that the
/// size of a file says little about them.
pub(super) const MOST_CELLS: u64 = MOST_CHUNKS * MOST_CHUNK_BYTES / size_of::<Cell>() as u64;
/// Bytes of the names of all columns together, as in the header line of a CSV file.
pub(super) const MOST_NAME_BYTES: usize = MOST_ROW_BYTES;
/// Trainings of one batch.
pub(super) const MOST_TRAININGS: u64 = 2000;
/// Chunks at a time unless the request says otherwise, and at most.
const PARALLEL: usize = 2;
const MOST_PARALLEL: usize = 8;
/// The longest row of a table.
const MOST_ROW_BYTES: usize = 1 << 20;
/// The longest item that is a request of its own.
const MOST_ITEM_BYTES: usize = 64 << 20;

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Predict,
    Train,
}

/// What the result is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    Csv,
    Ndjson,
    Parquet,
}

impl Output {
    const WORDS: [&str; 3] = ["csv", "ndjson", "parquet"];

    fn of(word: &str) -> Self {
        match word {
            "ndjson" => Self::Ndjson,
            "parquet" => Self::Parquet,
            _ => Self::Csv,
        }
    }

    /// The content type of the result.
    pub(super) fn media(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// How a batch is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// The training to predict with.
    pub artifact_id: Option<ArtifactId>,
    /// The config to train with, where an item does not say its own.
    pub config_id: Option<ConfigId>,
    /// What the file is written in, when the request says so beside `Content-Type`.
    pub format: Option<Format>,
    /// Rows of a chunk.
    pub chunk_rows: u64,
    /// The column whose neighbours with the same value stay together.
    pub group_by: Option<String>,
    /// What the result is written in.
    pub output: Output,
    /// Chunks at a time.
    pub parallel: usize,
    /// The horizon, in periods.
    pub periods: Option<i64>,
}

impl Options {
    /// Reads the parameters of a request, reporting every violation.
    pub fn read(node: &Node<'_>, operation: Operation) -> Option<Self> {
        let object = node.object()?;
        let id = |node: Node<'_>| node.ulid().and_then(|it| Ulid::read(&it));
        let (artifact_id, config_id) = match operation {
            Operation::Predict => (object.required("artifact_id").and_then(id), None),
            Operation::Train => (None, object.optional("config_id").and_then(id)),
        };
        let format = object.optional("format").and_then(|it| it.one_of(&Format::WORDS));
        let output = object.optional("output").and_then(|it| it.one_of(&Output::WORDS));
        let number = |name, least: i64, most: i64| number(&object, name, least, most);
        let chunk_rows = number("chunk_rows", 1, MOST_CHUNK_ROWS);
        let parallel = number("parallel", 1, i64::try_from(MOST_PARALLEL).unwrap_or(1));
        let periods = number("prediction_periods", 0, i64::from(u32::MAX));
        let group_by = object.optional("group_by").and_then(|it| it.string());
        Some(Self {
            artifact_id: artifact_id.map(ArtifactId),
            config_id: config_id.map(ConfigId),
            format: format.and_then(Format::of),
            chunk_rows: chunk_rows.and_then(|it| u64::try_from(it).ok()).unwrap_or(CHUNK_ROWS),
            group_by: group_by.filter(|it| !it.is_empty()),
            output: output.map_or(Output::Csv, Output::of),
            parallel: parallel.and_then(|it| usize::try_from(it).ok()).unwrap_or(PARALLEL),
            periods,
        })
    }
}

fn number(object: &Object<'_>, name: &str, least: i64, most: i64) -> Option<i64> {
    object.optional(name)?.int_within(&Bounds::none().at_least(least).at_most(most))
}

/// The column that says which config each row is for.
pub(super) const CONFIG_COLUMN: &str = "config_id";

/// What the parts of a file are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Shape {
    /// Rows of cells.
    Table(Layout),
    /// So many requests, each a JSON value.
    Items(u64),
}

impl Shape {
    /// The longest part of such a file.
    pub(super) fn most_bytes(is_table: bool) -> usize {
        if is_table { MOST_ROW_BYTES } else { MOST_ITEM_BYTES }
    }

    /// How many parts there are.
    pub(super) fn rows(&self) -> u64 {
        match self {
            Self::Table(layout) => layout.rows,
            Self::Items(items) => *items,
        }
    }
}

/// A batch, as its job has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// How it is to be done.
    pub options: Options,
    /// What the file is written in.
    pub format: Format,
    /// What is in it.
    pub shape: Shape,
    /// Its content.
    pub hash: String,
    /// Bytes of it.
    pub size_bytes: u64,
}

impl Batch {
    /// When a chunk is large enough: as was asked for, or larger when there would be too many.
    pub fn sizes(&self, operation: Operation) -> Sizes {
        let rows = self.options.chunk_rows.max(self.shape.rows().div_ceil(MOST_CHUNKS));
        let cells = match &self.shape {
            Shape::Table(layout) => layout.rows.saturating_mul(layout.columns.len() as u64),
            Shape::Items(_) => 0,
        };
        let all = self.size_bytes.saturating_add(cells.saturating_mul(size_of::<Cell>() as u64));
        let bytes = all.div_ceil(MOST_CHUNKS).clamp(CHUNK_BYTES, MOST_CHUNK_BYTES);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Sizes { rows, bytes, by_group: operation == Operation::Train }
    }

    /// Refuses more trainings than one batch may have.
    pub(super) fn check(&self, operation: Operation) -> Result<(), Broken> {
        let trainings = match &self.shape {
            Shape::Items(items) => *items,
            Shape::Table(layout) => layout.groups,
        };
        if operation == Operation::Train && trainings > MOST_TRAININGS {
            return Err(Broken(format!(
                "a batch has at most {MOST_TRAININGS} trainings, and this one {trainings}"
            )));
        }
        Ok(())
    }
}

/// What the job of a batch is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Order {
    /// A file that came with the request.
    Taken(Box<Batch>),
    /// A file that is looked at when the job begins.
    Stored(StoredFile),
}

/// A batch whose file is the content of an artifact, for schedules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Whose content is the file.
    pub source_artifact_id: ArtifactId,
    /// How it is to be done.
    pub options: Options,
}

impl StoredFile {
    /// Reads `{"source_artifact_id": …}` with the parameters of a request beside it, reporting every
    /// violation.
    pub fn read(node: &Node<'_>, operation: Operation) -> Option<Self> {
        let object = node.object()?;
        for (name, field) in object.entries() {
            let of_other = match operation {
                Operation::Predict => "config_id",
                Operation::Train => "artifact_id",
            };
            if !Self::FIELDS.contains(&name) || name == of_other {
                field.fail_rule(format!("A batch has no `{}`", shorten(name)));
            }
        }
        let source = object.required("source_artifact_id").and_then(|it| it.ulid());
        let options = Options::read(node, operation);
        let source = source.and_then(|it| Ulid::read(&it))?;
        Some(Self { source_artifact_id: ArtifactId(source), options: options? })
    }

    const FIELDS: [&str; 9] = [
        "source_artifact_id",
        "artifact_id",
        "config_id",
        "format",
        "chunk_rows",
        "group_by",
        "output",
        "parallel",
        "prediction_periods",
    ];
}

/// What came of a chunk, as the journal has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How often it was tried.
    pub attempts: u32,
    /// Rows that were predicted for, or items that were trained.
    #[serde(default)]
    pub done_rows: u64,
    /// Rows of what is known.
    #[serde(default)]
    pub historic_rows: u64,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The columns of its result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Its result: a data frame as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<KeptResult>,
}

/// A result: in the journal, or by the hash of what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeptResult {
    Small(String),
    Large(String),
}

/// What is said of a batch, in its artifact's `metadata`.
#[derive(Clone, Debug, Serialize)]
pub struct Metadata {
    /// `success` or `failed`.
    pub status: &'static str,
    /// Of the training, for predictions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_id: Option<ConfigId>,
    pub started_at: String,
    pub completed_at: String,
    pub duration_seconds: f64,
    /// Rows, or items, of the file.
    pub rows: u64,
    /// Those that were predicted for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_rows: Option<u64>,
    /// Those that say what is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub historic_rows: Option<u64>,
    /// Those that were trained with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_rows: Option<u64>,
    /// Those that could not be used, and those of chunks that failed.
    pub failed_rows: u64,
    pub chunks: u64,
    pub failed_chunks: u64,
    /// Chunks that were tried more than once.
    pub retried_chunks: u64,
    /// The first of those that failed.
    pub failures: Vec<Unusable>,
    /// How many rows failed that `failures` does not list.
    pub omitted_rows: u64,
}

#[cfg(test)]
mod tests {
    use modelyard_kernel::form::Report;
    use serde_json::json;

    use super::*;

    fn batch(rows: u64, size_bytes: u64) -> Batch {
        let value = json!({"artifact_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "chunk_rows": "10"});
        let report = Report::new();
        let options = Options::read(&Node::at(&["query"], &value, &report), Operation::Predict);
        report.finish().unwrap();
        Batch {
            options: options.unwrap(),
            format: Format::Ndjson,
            shape: Shape::Items(rows),
            hash: String::new(),
            size_bytes,
        }
    }

    #[test]
    fn chunks_grow_with_the_file_so_that_there_are_not_too_many() {
        let sizes = |rows, bytes| batch(rows, bytes).sizes(Operation::Predict);
        let small = Sizes { rows: 10, bytes: 16 << 20, by_group: false };
        assert_eq!(sizes(1, 1), small);
        assert_eq!(sizes(20_000, 1 << 30), small);
        assert_eq!(sizes(10_000_000, 1).rows, 5000);
        assert_eq!(sizes(1, 64 << 30).bytes, (64_usize << 30).div_ceil(2000));
        assert_eq!(sizes(1, 1 << 40).bytes, 64 << 20);
    }

    #[test]
    fn every_wrong_parameter_is_reported() {
        let value = json!({"chunk_rows": "0", "parallel": "9", "output": "xls", "format": "tsv",
            "group_by": "location", "config_id": "x", "prediction_periods": "-1"});
        let report = Report::new();
        Options::read(&Node::at(&["query"], &value, &report), Operation::Train);
        let wrong = report.finish().unwrap_err();
        let places: Vec<String> = wrong
            .iter()
            .map(|it| serde_json::to_value(it).unwrap()["loc"][1].to_string())
            .collect();
        assert_eq!(
            places,
            [
                "\"config_id\"",
                "\"format\"",
                "\"output\"",
                "\"chunk_rows\"",
                "\"parallel\"",
                "\"prediction_periods\""
            ]
        );
    }
}
