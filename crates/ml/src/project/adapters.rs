//! Columns that a model wants under other names: `adapters` of an `MLproject`.
//!
//! The orchestrator applies them only to models that it runs itself, so for a served model they
//! are the service's to add.

use modelyard_run::frame::{Cell, Frame};

/// Pairs of the column to add and where its values come from: another column, or `week`, `month`
/// or `year` of the row's `time_period`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapters(pub Vec<(String, String)>);

impl Adapters {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the columns to `frame`. A source that the frame does not have (the target in a future
    /// frame, the week of monthly data) adds nothing, as with the orchestrator.
    pub fn apply(&self, frame: &mut Frame) {
        for (to, from) in &self.0 {
            let Some(values) = values(frame, from) else { continue };
            let at = frame.column(to);
            if at.is_none() {
                frame.columns.push(to.clone());
            }
            for (row, value) in frame.data.iter_mut().zip(values) {
                match at.and_then(|at| row.get_mut(at)) {
                    Some(cell) => *cell = value,
                    None => row.push(value),
                }
            }
            // A schema that does not name every column would be a wrong one.
            frame.schema = None;
        }
    }
}

fn values(frame: &Frame, from: &str) -> Option<Vec<Cell>> {
    let part: fn(&str) -> Option<u32> = match from {
        "week" => week,
        "month" => month,
        "year" => year,
        column => {
            let at = frame.column(column)?;
            return frame.data.iter().map(|row| row.get(at).cloned()).collect();
        }
    };
    let at = frame.column("time_period")?;
    frame.data.iter().map(|row| part(row.get(at)?.as_str()?).map(Cell::from)).collect()
}

/// `2024-W05`, `2024W5` and `2024SunW5` are weeks.
fn week(period: &str) -> Option<u32> {
    period.rsplit_once('W')?.1.parse().ok()
}

/// `2024-05`, also with a day behind it, is a month; a week is not.
fn month(period: &str) -> Option<u32> {
    if period.contains('W') {
        return None;
    }
    period.split('-').nth(1)?.parse().ok()
}

fn year(period: &str) -> Option<u32> {
    period.get(..4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapters(pairs: &[(&str, &str)]) -> Adapters {
        let owned = |(to, from): &(&str, &str)| ((*to).to_owned(), (*from).to_owned());
        Adapters(pairs.iter().map(owned).collect())
    }

    fn frame(columns: &[&str], rows: &[&[Cell]]) -> Frame {
        Frame {
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            data: rows.iter().map(|row| row.to_vec()).collect(),
            schema: None,
        }
    }

    #[test]
    fn columns_are_added_under_the_models_names() {
        let mut data = frame(
            &["time_period", "location", "disease_cases"],
            &[
                &["2024-05".into(), "a".into(), 3.into()],
                &["2024-12".into(), "b".into(), Cell::Null],
            ],
        );
        adapters(&[
            ("Cases", "disease_cases"),
            ("month", "month"),
            ("week", "week"),
            ("ID_year", "year"),
            ("ID_spat", "location"),
            ("E", "population"),
        ])
        .apply(&mut data);
        assert_eq!(
            data,
            frame(
                &[
                    "time_period",
                    "location",
                    "disease_cases",
                    "Cases",
                    "month",
                    "ID_year",
                    "ID_spat"
                ],
                &[
                    &[
                        "2024-05".into(),
                        "a".into(),
                        3.into(),
                        3.into(),
                        5.into(),
                        2024.into(),
                        "a".into()
                    ],
                    &[
                        "2024-12".into(),
                        "b".into(),
                        Cell::Null,
                        Cell::Null,
                        12.into(),
                        2024.into(),
                        "b".into()
                    ],
                ]
            )
        );
    }

    #[test]
    fn weekly_periods_have_a_week_and_no_month() {
        for period in ["2024-W05", "2024W5", "2024SunW5"] {
            let mut data = frame(&["time_period"], &[&[period.into()]]);
            adapters(&[("w", "week"), ("m", "month"), ("y", "year")]).apply(&mut data);
            assert_eq!(data.columns, ["time_period", "w", "y"]);
            assert_eq!(data.data[0][1..], [Cell::from(5), 2024.into()]);
        }
    }

    #[test]
    fn a_column_that_is_there_is_overwritten() {
        let mut data = frame(&["a", "b"], &[&[1.into(), 2.into()]]);
        adapters(&[("b", "a")]).apply(&mut data);
        assert_eq!(data, frame(&["a", "b"], &[&[1.into(), 1.into()]]));
    }
}
