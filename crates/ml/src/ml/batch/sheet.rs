//! The file in which the results of a batch are put together.

use modelyard_kernel::{Failure, Kind, Result};
#[cfg(feature = "parquet")]
use modelyard_run::frame::ParquetWriter;
use modelyard_run::frame::{Cell, ColumnTypes, Frame};

use super::model::Output;

/// A file to which results are added in turn.
pub(super) struct Sheet {
    columns: Vec<String>,
    form: Form,
}

enum Form {
    Csv,
    Ndjson,
    #[cfg(feature = "parquet")]
    Parquet(Box<ParquetWriter>),
}

impl Output {
    /// Refuses what this build does not write.
    pub(super) fn check(self) -> Result<()> {
        if self == Output::Parquet && !cfg!(feature = "parquet") {
            let detail = "this server is built without Parquet; ask for `output=csv` or `ndjson`";
            return Err(Failure::new(Kind::Invalid, "not_implemented", detail));
        }
        Ok(())
    }

    /// Whether all results have to be seen before the first is written.
    pub(super) fn has_types(self) -> bool {
        self == Output::Parquet
    }
}

impl Sheet {
    /// Begins a file with these columns.
    pub(super) fn new(output: Output, columns: ColumnTypes) -> Result<Self> {
        output.check()?;
        let form = match output {
            #[cfg(feature = "parquet")]
            Output::Parquet => {
                let writer = ParquetWriter::new(&columns).map_err(Failure::internal)?;
                Form::Parquet(Box::new(writer))
            }
            Output::Ndjson => Form::Ndjson,
            _ => Form::Csv,
        };
        Ok(Self { columns: columns.into_names(), form })
    }

    /// What the file begins with.
    pub(super) fn header(&self) -> Vec<u8> {
        match &self.form {
            Form::Csv if !self.columns.is_empty() => {
                Frame::new(self.columns.clone(), Vec::new()).to_csv()
            }
            _ => Vec::new(),
        }
    }

    /// Adds a result, a data frame as JSON, with a cell for each column. Gives what of the file is ready.
    pub(super) fn push(&mut self, json: &[u8]) -> Result<Vec<u8>> {
        let mut frame: Frame = serde_json::from_slice(json)?;
        if frame.columns != self.columns {
            frame = widened(frame, &self.columns);
        }
        let mut out = Vec::with_capacity(json.len());
        match &mut self.form {
            Form::Csv => frame.write_csv_rows(&mut out).map_err(Failure::internal)?,
            Form::Ndjson => frame.write_ndjson(&mut out).map_err(Failure::internal)?,
            #[cfg(feature = "parquet")]
            Form::Parquet(writer) => {
                out = writer.push(frame.data, json.len()).map_err(Failure::internal)?;
            }
        }
        Ok(out)
    }

    /// What the file ends with.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        match self.form {
            Form::Csv | Form::Ndjson => Ok(Vec::new()),
            #[cfg(feature = "parquet")]
            Form::Parquet(writer) => writer.finish().map_err(Failure::internal),
        }
    }
}

fn widened(frame: Frame, columns: &[String]) -> Frame {
    let places: Vec<Option<usize>> = columns.iter().map(|it| frame.column(it)).collect();
    let cell = |row: &Vec<Cell>, place: &Option<usize>| {
        place.and_then(|it| row.get(it)).cloned().unwrap_or_default()
    };
    let widen = |row: Vec<Cell>| places.iter().map(|it| cell(&row, it)).collect();
    Frame::new(columns.to_vec(), frame.data.into_iter().map(widen).collect())
}
