//! Frames as a Parquet file: flat columns that may be null, written a row group at a time.
//!
//! The format is described at <https://parquet.apache.org/docs/file-format/>.

use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};

use super::{Cell, ColumnTypes, FieldType};

/// Rows of a row group, at least, where there are as many. Readers skip and decode by groups, and
/// each costs some bytes of the footer.
const GROUP_ROWS: usize = 64 * 1024;
/// Bytes of memory that the rows of a group take before they are written.
const GROUP_BYTES: usize = 16 << 20;

fn schema(columns: &ColumnTypes) -> Result<TypePtr> {
    let fields = columns.iter().map(|(name, kind)| {
        let (physical, logical) = match kind {
            Some(FieldType::Boolean) => (Physical::BOOLEAN, None),
            Some(FieldType::Integer) => (Physical::INT64, None),
            Some(FieldType::Number) => (Physical::DOUBLE, None),
            // Also what is different things in different rows, and what is null in all.
            Some(FieldType::String | FieldType::Any) | None => {
                (Physical::BYTE_ARRAY, Some(LogicalType::String))
            }
        };
        Type::primitive_type_builder(name, physical)
            .with_logical_type(logical)
            .with_repetition(Repetition::OPTIONAL)
            .build()
            .map(Arc::new)
    });
    let fields = fields.collect::<Result<Vec<_>>>()?;
    Type::group_type_builder("rows").with_fields(fields).build().map(Arc::new)
}

/// Writes a file piece by piece.
#[expect(missing_debug_implementations, reason = "the library's writer has none")]
pub struct ParquetWriter {
    file: SerializedFileWriter<Vec<u8>>,
    rows: Vec<Vec<Cell>>,
    bytes: usize,
}

impl ParquetWriter {
    /// Begins a file.
    ///
    /// # Errors
    /// When the format does not allow such columns.
    pub fn new(columns: &ColumnTypes) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_created_by(concat!("Modelyard ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .build();
        let file = SerializedFileWriter::new(Vec::new(), schema(columns)?, Arc::new(properties))?;
        Ok(Self { file, rows: Vec::new(), bytes: 0 })
    }

    /// Adds rows, each with a cell for each column. `bytes` is about what they take. Gives what of the
    /// file is ready.
    ///
    /// # Errors
    /// When a cell is not what its column was said to hold.
    pub fn push(&mut self, rows: Vec<Vec<Cell>>, bytes: usize) -> Result<Vec<u8>> {
        self.rows.extend(rows);
        self.bytes += bytes;
        if self.rows.len() >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.write_group()?;
        }
        Ok(std::mem::take(self.file.inner_mut()))
    }

    /// Gives the rest of the file.
    ///
    /// # Errors
    /// As [`ParquetWriter::push`].
    pub fn finish(mut self) -> Result<Vec<u8>> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        self.file.into_inner()
    }

    fn write_group(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let mut group = self.file.next_row_group()?;
        let mut index = 0;
        while let Some(mut column) = group.next_column()? {
            match column.untyped() {
                ColumnWriter::BoolColumnWriter(it) => {
                    let (levels, values) = column_of(&rows, index, Cell::as_bool)?;
                    it.write_batch(&values, Some(&levels), None)?;
                }
                ColumnWriter::Int64ColumnWriter(it) => {
                    let (levels, values) = column_of(&rows, index, Cell::as_i64)?;
                    it.write_batch(&values, Some(&levels), None)?;
                }
                ColumnWriter::DoubleColumnWriter(it) => {
                    let (levels, values) = column_of(&rows, index, Cell::as_f64)?;
                    it.write_batch(&values, Some(&levels), None)?;
                }
                ColumnWriter::ByteArrayColumnWriter(it) => {
                    let (levels, values) = column_of(&rows, index, |cell| Some(text_of(cell)))?;
                    it.write_batch(&values, Some(&levels), None)?;
                }
                _ => return Err(ParquetError::General("no column is of such a type".to_owned())),
            }
            column.close()?;
            index += 1;
        }
        group.close()?;
        Ok(())
    }
}

/// The values of a column, and for each row whether it has one (1) or null (0).
fn column_of<T>(
    rows: &[Vec<Cell>],
    index: usize,
    value: impl Fn(&Cell) -> Option<T>,
) -> Result<(Vec<i16>, Vec<T>)> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    for cell in rows.iter().map(|row| row.get(index).unwrap_or(&Cell::Null)) {
        levels.push(i16::from(!cell.is_null()));
        if !cell.is_null() {
            let other = || ParquetError::General("a cell is not of its column's type".to_owned());
            values.push(value(cell).ok_or_else(other)?);
        }
    }
    Ok((levels, values))
}

fn text_of(cell: &Cell) -> ByteArray {
    match cell {
        Cell::Text(text) => text.as_str().as_bytes().to_vec().into(),
        other => other.to_string().into_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    use serde_json::json;

    use super::super::Frame;
    use super::*;

    fn frame(value: serde_json::Value) -> Frame {
        serde_json::from_value(value).unwrap()
    }

    fn written(frames: Vec<Frame>) -> Bytes {
        let mut kinds = ColumnTypes::of(frames[0].columns.clone());
        frames.iter().for_each(|it| kinds.learn(it));
        let mut writer = ParquetWriter::new(&kinds).unwrap();
        let mut file = Vec::new();
        for it in frames {
            file.extend(writer.push(it.data, 10).unwrap());
        }
        file.extend(writer.finish().unwrap());
        file.into()
    }

    fn rows(file: Bytes) -> Vec<Vec<(String, Field)>> {
        let reader = SerializedFileReader::new(file).unwrap();
        let rows = reader.get_row_iter(None).unwrap();
        rows.map(|row| {
            row.unwrap().get_column_iter().map(|it| (it.0.clone(), it.1.clone())).collect()
        })
        .collect()
    }

    #[test]
    fn columns_have_the_type_that_fits_all_of_their_cells() {
        let columns = json!(["place", "cases", "rate", "known", "mixed", "none", "large"]);
        let huge = u64::MAX;
        let file = written(vec![
            frame(json!({"columns": columns, "data": [["a", 1, 1, true, 1, null, huge]]})),
            frame(json!({"columns": columns, "data": [["b", null, 1.5, false, "x", null, 1]]})),
        ]);
        let text = |it: &str| Field::Str(it.to_owned());
        let expected = [
            ("place", text("a"), text("b")),
            ("cases", Field::Long(1), Field::Null),
            ("rate", Field::Double(1.0), Field::Double(1.5)),
            ("known", Field::Bool(true), Field::Bool(false)),
            ("mixed", text("1"), text("x")),
            ("none", Field::Null, Field::Null),
            ("large", Field::Double(18_446_744_073_709_551_615.0), Field::Double(1.0)),
        ];
        let found = rows(file);
        assert_eq!(found.len(), 2);
        for (index, (name, first, second)) in expected.into_iter().enumerate() {
            assert_eq!(found[0][index], (name.to_owned(), first));
            assert_eq!(found[1][index], (name.to_owned(), second));
        }
    }

    #[test]
    fn many_rows_are_several_groups_and_little_is_held() {
        let mut kinds = ColumnTypes::of(vec!["n".to_owned()]);
        let part = |from: usize| {
            let rows = (from..from + 1000).map(|it| vec![Cell::from(it)]).collect();
            Frame::new(vec!["n".to_owned()], rows)
        };
        kinds.learn(&part(0));
        let mut writer = ParquetWriter::new(&kinds).unwrap();
        let mut file = Vec::new();
        for from in (0..200_000).step_by(1000) {
            file.extend(writer.push(part(from).data, 1000).unwrap());
            assert!(writer.rows.len() < GROUP_ROWS);
        }
        file.extend(writer.finish().unwrap());
        let reader = SerializedFileReader::new(Bytes::from(file.clone())).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 4);
        let values: Vec<Field> = rows(file.into()).into_iter().map(|it| it[0].1.clone()).collect();
        assert!(values.into_iter().eq((0..200_000).map(Field::Long)));
    }

    #[test]
    fn no_rows_are_a_file_with_columns() {
        let file = written(vec![frame(json!({"columns": ["a", ""], "data": []}))]);
        let reader = SerializedFileReader::new(file.clone()).unwrap();
        assert_eq!(reader.metadata().file_metadata().schema_descr().num_columns(), 2);
        assert!(rows(file).is_empty());
    }
}
