//! Frames as places with series of values. Nothing in here knows about dengue.

use std::collections::BTreeMap;

use modelyard::{Cell, Frame};

use crate::calendar::{Calendar, Period, read_period};

/// The column that says when.
pub const TIME_PERIOD: &str = "time_period";
/// The column that says where.
pub const LOCATION: &str = "location";
/// The column that is forecast.
pub const CASES: &str = "disease_cases";
/// The column with the number of people at the location.
pub const POPULATION: &str = "population";

/// Climate grids mark what they do not know with huge values.
const FILL_VALUE: f64 = 1e15;

/// Something about the given data that the caller can put right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error("the {frame} data has no column `{column}`")]
    NoColumn { frame: &'static str, column: &'static str },
    #[error(
        "row {row} of the {frame} data: `{text}` is not a time period; expected one like 2023-01 \
         or 2023-W05"
    )]
    NotAPeriod { frame: &'static str, row: usize, text: String },
    #[error("row {row} of the {frame} data: `{text}` mixes months and weeks")]
    MixedPeriods { frame: &'static str, row: usize, text: String },
    #[error("there are no disease_cases to learn from")]
    NoCases,
    #[error(
        "the model was trained on {} data but the {frame} data is {}",
        .trained.name(),
        .given.name()
    )]
    OtherCalendar { frame: &'static str, trained: Calendar, given: Calendar },
}

/// Values by period, without those that are not known.
pub type Series = BTreeMap<Period, f64>;

/// What is known of one location.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// Not negative.
    pub cases: Series,
    /// Positive.
    pub population: Series,
    /// By column.
    pub covariates: BTreeMap<String, Series>,
}

impl Place {
    /// The cases before the period `start`, with covariates and population of `later` besides.
    pub fn continued_by(&self, later: &Place, start: Period) -> Place {
        let mut place = self.clone();
        place.cases.split_off(&start);
        place.population.extend(&later.population);
        for (name, series) in &later.covariates {
            place.covariates.entry(name.clone()).or_default().extend(series);
        }
        place
    }
}

/// A frame with its rows sorted out.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// None without rows.
    pub calendar: Option<Calendar>,
    /// By location.
    pub places: BTreeMap<String, Place>,
    /// In the order of the frame.
    pub rows: Vec<Row>,
}

/// What a row of the frame is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// As the frame has it.
    pub time_period: Cell,
    /// As the frame has it.
    pub location: Cell,
    /// The key in [`Table::places`].
    pub place: String,
    pub period: Period,
}

impl Table {
    /// Reads cases, population and the covariates with these names; other columns are passed over.
    /// `name` is what errors call the frame. Of rows that repeat a period of a location, the last
    /// value counts.
    ///
    /// # Errors
    /// When `time_period` or `location` is missing, a period cannot be read, or months are mixed
    /// with weeks.
    pub fn read(
        name: &'static str,
        frame: &Frame,
        covariates: &[impl AsRef<str>],
    ) -> Result<Table, InputError> {
        let key = |column| frame.column(column).ok_or(InputError::NoColumn { frame: name, column });
        let (time_period, location) = (key(TIME_PERIOD)?, key(LOCATION)?);
        let (cases, population) = (frame.column(CASES), frame.column(POPULATION));
        let covariates: Vec<(&str, usize)> = covariates
            .iter()
            .map(AsRef::as_ref)
            .filter_map(|name| frame.column(name).map(|column| (name, column)))
            .collect();

        let mut table = Table::default();
        for (at, cells) in frame.data.iter().enumerate() {
            let cell = |column: usize| cells.get(column).unwrap_or(&Cell::Null);
            let number =
                |column: Option<usize>| column.and_then(|column| read_number(cell(column)));

            let text = read_text(cell(time_period));
            let Some((calendar, period)) = read_period(text.trim()) else {
                return Err(InputError::NotAPeriod { frame: name, row: at + 1, text });
            };
            if calendar != *table.calendar.get_or_insert(calendar) {
                return Err(InputError::MixedPeriods { frame: name, row: at + 1, text });
            }
            let row = Row {
                time_period: cell(time_period).clone(),
                location: cell(location).clone(),
                place: read_text(cell(location)),
                period,
            };
            let place = table.places.entry(row.place.clone()).or_default();
            if let Some(cases) = number(cases).filter(|cases| *cases >= 0.0) {
                place.cases.insert(period, cases);
            }
            if let Some(people) = number(population).filter(|people| *people > 0.0) {
                place.population.insert(period, people);
            }
            for (name, column) in &covariates {
                if let Some(value) = read_number(cell(*column)) {
                    let series = place.covariates.entry((*name).to_owned()).or_default();
                    series.insert(period, value);
                }
            }
            table.rows.push(row);
        }
        Ok(table)
    }
}

/// A cell as text. Codes of locations, and months like 202301, may have come as numbers.
fn read_text(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Text(text) => text.as_str().to_owned(),
        other => other.to_string(),
    }
}

/// A number, also one in a column of text; None for an empty cell, `NA`, `inf` and fill values.
fn read_number(cell: &Cell) -> Option<f64> {
    let number = match cell {
        Cell::Number(number) => number.as_f64(),
        Cell::Text(text) => text.as_str().trim().parse().ok(),
        Cell::Null | Cell::Bool(_) => None,
    };
    number.filter(|number| number.abs() < FILL_VALUE)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn frame(columns: &[&str], data: Value) -> Frame {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        Frame::new(columns, serde_json::from_value(data).unwrap())
    }

    fn read(frame: &Frame) -> Result<Table, InputError> {
        Table::read("training", frame, &["rainfall"])
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let columns = [TIME_PERIOD, LOCATION, CASES, POPULATION, "rainfall", "note"];
        let data = json!([
            ["2023-01", "A", 4, 1000, "NA", "x"],
            ["2023-02", "A", null, 0, 3.5, null],
            ["2023-03", "A", -1, "1200", "inf", 7],
            ["2023-04", "A", " 5 ", -99, 1e20, true],
            ["2023-05"],
        ]);
        let table = read(&frame(&columns, data)).unwrap();
        let january = 2023 * 12;
        let place = Place {
            cases: [(january, 4.0), (january + 3, 5.0)].into(),
            population: [(january, 1000.0), (january + 2, 1200.0)].into(),
            covariates: [("rainfall".to_owned(), [(january + 1, 3.5)].into())].into(),
        };
        let places = [(String::new(), Place::default()), ("A".to_owned(), place)];
        assert_eq!(table.places, places.into());
        assert_eq!(table.rows.len(), 5);
        assert_eq!(table.calendar, Some(Calendar::Monthly));
    }

    #[test]
    fn codes_and_months_may_be_numbers() {
        let table = read(&frame(&[TIME_PERIOD, LOCATION, CASES], json!([[202301, 17, 4]])));
        let row = Row {
            time_period: 202301.into(),
            location: 17.into(),
            place: "17".to_owned(),
            period: 2023 * 12,
        };
        assert_eq!(table.unwrap().rows, [row]);
    }

    #[test]
    fn errors_say_where_to_look() {
        let message = |frame: &Frame| read(frame).unwrap_err().to_string();
        let columns = [TIME_PERIOD, LOCATION];
        assert_eq!(
            message(&frame(&columns, json!([["2023-01", "A"], ["soon", "A"]]))),
            "row 2 of the training data: `soon` is not a time period; expected one like 2023-01 or \
             2023-W05",
        );
        assert_eq!(
            message(&frame(&columns, json!([["2023-01", "A"], ["2023-W02", "A"]]))),
            "row 2 of the training data: `2023-W02` mixes months and weeks",
        );
        assert_eq!(
            message(&frame(&[TIME_PERIOD], json!([]))),
            "the training data has no column `location`",
        );
    }

    #[test]
    fn a_place_goes_on_with_the_weather_of_the_future_and_no_cases_from_it() {
        let weather = |series: &[(Period, f64)]| {
            BTreeMap::from([("rainfall".to_owned(), series.iter().copied().collect())])
        };
        let past = Place {
            cases: [(1, 10.0), (2, 20.0)].into(),
            population: [(1, 100.0)].into(),
            covariates: weather(&[(1, 1.0), (2, 2.0)]),
        };
        let future = Place {
            cases: [(2, 99.0), (3, 99.0)].into(),
            population: [(2, 110.0)].into(),
            covariates: weather(&[(2, 2.5), (3, 3.0)]),
        };
        let expected = Place {
            cases: [(1, 10.0)].into(),
            population: [(1, 100.0), (2, 110.0)].into(),
            covariates: weather(&[(1, 1.0), (2, 2.5), (3, 3.0)]),
        };
        assert_eq!(past.continued_by(&future, 2), expected);
    }
}
