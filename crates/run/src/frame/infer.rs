//! What the columns of a frame hold: known from the contract, or seen from the values.

use super::{Cell, FieldType, Frame, FrameField, FrameSchema};

/// Columns that mean the same in every service.
const CANONICAL: [(&str, FieldType); 6] = [
    ("time_period", FieldType::String),
    ("location", FieldType::String),
    ("disease_cases", FieldType::Number),
    ("population", FieldType::Integer),
    ("rainfall", FieldType::Number),
    ("mean_temperature", FieldType::Number),
];

impl Frame {
    /// Says what the columns hold: canonical columns and `required_covariates` have their types by
    /// agreement, the others by their values.
    pub fn infer_schema(&self, required_covariates: &[String]) -> FrameSchema {
        let field = |(index, name): (usize, &String)| {
            let kind = canonical(name)
                .or_else(|| required_covariates.contains(name).then_some(FieldType::Number))
                .unwrap_or_else(|| self.infer_column(index));
            FrameField { name: name.clone(), kind, title: None, description: None }
        };
        FrameSchema { fields: self.columns.iter().enumerate().map(field).collect() }
    }

    fn infer_column(&self, index: usize) -> FieldType {
        let values = self.data.iter().filter_map(|row| row.get(index));
        let kinds = values.filter_map(type_of);
        kinds.reduce(common).unwrap_or(FieldType::Any)
    }
}

/// What the columns of several frames hold, which is known when all were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnTypes {
    names: Vec<String>,
    types: Vec<Option<FieldType>>,
}

impl ColumnTypes {
    /// These columns, of which nothing is known.
    pub fn of(names: Vec<String>) -> Self {
        let types = vec![None; names.len()];
        Self { names, types }
    }

    /// Looks at a frame, which may lack some of the columns.
    pub fn learn(&mut self, frame: &Frame) {
        for (name, kind) in self.names.iter().zip(&mut self.types) {
            let Some(index) = frame.column(name) else { continue };
            let cells = frame.data.iter().filter_map(|row| row.get(index));
            *kind = cells.filter_map(stored_type).chain(*kind).reduce(common);
        }
    }

    /// The columns, each with the type that fits all of its cells; `None` when all were null.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<FieldType>)> {
        self.names.iter().map(String::as_str).zip(self.types.iter().copied())
    }

    /// The names of the columns.
    pub fn into_names(self) -> Vec<String> {
        self.names
    }
}

fn canonical(name: &str) -> Option<FieldType> {
    CANONICAL.iter().find(|(column, _)| *column == name).map(|(_, kind)| *kind)
}

fn type_of(cell: &Cell) -> Option<FieldType> {
    match cell {
        Cell::Null => None,
        Cell::Bool(_) => Some(FieldType::Boolean),
        Cell::Number(number) if number.is_f64() => Some(FieldType::Number),
        Cell::Number(_) => Some(FieldType::Integer),
        Cell::Text(_) => Some(FieldType::String),
    }
}

/// As [`type_of`], but whole numbers that no common format has as such are not.
fn stored_type(cell: &Cell) -> Option<FieldType> {
    let kind = type_of(cell)?;
    let is_too_large = kind == FieldType::Integer && cell.as_i64().is_none();
    Some(if is_too_large { FieldType::Number } else { kind })
}

fn common(one: FieldType, other: FieldType) -> FieldType {
    use FieldType::{Any, Integer, Number};
    match (one, other) {
        (one, other) if one == other => one,
        (Integer, Number) | (Number, Integer) => Number,
        _ => Any,
    }
}
