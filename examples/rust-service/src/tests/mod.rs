//! The model as a whole. What a module promises on its own is tested beside it.

mod checks;
mod forecasts;
mod same_as_python;
mod served;
mod strange_data;

use modelyard::{Cell, Frame, ModelError, PredictData, TrainData};

use crate::{Options, calendar::Calendar, model::Model, predict, train};

/// Data as a client sends it.
#[derive(Clone, Debug)]
struct Request {
    training: Frame,
    historic: Frame,
    future: Frame,
}

impl Request {
    /// Three places over six years, with two and a half years of history and six periods to come.
    ///
    /// The counts are a season that rain brings, times a bit of noise.
    fn of(calendar: Calendar) -> Self {
        let periods = 6 * calendar.year();
        let row = |place: i32, at: i32| {
            let season = f64::from(at) * std::f64::consts::TAU / f64::from(calendar.year());
            let noise = f64::from((at * 7919 + place * 104_729).rem_euclid(1000)) / 1000.0;
            let rain = (100.0 - 90.0 * (season - 1.0).cos() + 40.0 * noise).round();
            let temperature = ((26.0 + 4.0 * season.sin() + noise) * 100.0).round() / 100.0;
            let cases = ((3.0 - season.cos()) * (1.0 + noise) * f64::from(place + 1) * 9.0).round();
            let population = 100_000 * (place + 1) + 1000 * (at / calendar.year());
            let name = ["Ånäs", "Ban, Thong", "Cua Lo"][place.unsigned_abs() as usize % 3];
            vec![
                write_period(calendar, at).into(),
                name.into(),
                cases.into(),
                population.into(),
                rain.into(),
                temperature.into(),
            ]
        };
        let frame = |from: i32, to: i32, with_cases: bool| {
            let mut columns = COLUMNS.map(str::to_owned).to_vec();
            let rows = (0..3).flat_map(|place| (from..to).map(move |at| row(place, at)));
            let mut data: Vec<Vec<Cell>> = rows.collect();
            if !with_cases {
                columns.remove(2);
                for row in &mut data {
                    row.remove(2);
                }
            }
            Frame::new(columns, data)
        };
        Request {
            training: frame(0, periods, true),
            historic: frame(periods * 7 / 12, periods, true),
            future: frame(periods, periods + 6, false),
        }
    }

    fn frames(&mut self) -> [&mut Frame; 3] {
        [&mut self.training, &mut self.historic, &mut self.future]
    }

    async fn train(&self, options: &Options) -> Result<Model, ModelError> {
        let data = self.training.clone();
        train(
            options.clone(),
            TrainData {
                data,
                geo: None,
                cancel: Default::default(),
                report: Default::default(),
                job: None,
            },
        )
        .await
    }

    async fn predict(&self, options: &Options, model: Model) -> Result<Frame, ModelError> {
        predict(options.clone(), model, self.predict_data()).await
    }

    fn predict_data(&self) -> PredictData {
        let Request { training: _, historic, future } = self.clone();
        PredictData {
            historic,
            future,
            geo: None,
            cancel: Default::default(),
            report: Default::default(),
            job: None,
        }
    }

    /// Trains, stores the model as the server does, and forecasts with what it reads back.
    async fn forecast(&self, options: &Options) -> Result<Frame, ModelError> {
        let model = self.train(options).await?;
        let stored = serde_json::to_vec(&model)?;
        self.predict(options, serde_json::from_slice(&stored)?).await
    }
}

const COLUMNS: [&str; 6] =
    ["time_period", "location", "disease_cases", "population", "rainfall", "mean_temperature"];

/// Months are counted from 2017; so are weeks, of which each year is given 52.
fn write_period(calendar: Calendar, at: i32) -> String {
    let (year, number) = (2017 + at / calendar.year(), at % calendar.year() + 1);
    match calendar {
        Calendar::Monthly => format!("{year}-{number:02}"),
        Calendar::Weekly => format!("{year}-W{number:02}"),
    }
}

/// Replaces the cells of a column, by the number of the row and by its cells.
fn set(frame: &mut Frame, column: &str, with: impl Fn(usize, &[Cell]) -> Cell) {
    let Some(column) = frame.column(column) else { return };
    for (at, row) in frame.data.iter_mut().enumerate() {
        row[column] = with(at, row);
    }
}

/// Empties the cells of a column in some rows.
fn blank(frame: &mut Frame, column: &str, is_missing: impl Fn(usize) -> bool) {
    let Some(column) = frame.column(column) else { return };
    for (_, row) in frame.data.iter_mut().enumerate().filter(|(at, _)| is_missing(*at)) {
        row[column] = Cell::Null;
    }
}

/// Adds a column.
fn add(frame: &mut Frame, column: &str, with: impl Fn(usize) -> Cell) {
    frame.columns.push(column.to_owned());
    for (at, row) in frame.data.iter_mut().enumerate() {
        row.push(with(at));
    }
}

fn remove(frame: &mut Frame, column: &str) {
    let Some(column) = frame.column(column) else { return };
    frame.columns.remove(column);
    for row in &mut frame.data {
        row.remove(column);
    }
}

/// The samples of each row.
#[track_caller]
fn samples(forecast: &Frame) -> Vec<Vec<u64>> {
    let read = |cell: &Cell| cell.as_u64().expect("a whole number of cases");
    forecast.data.iter().map(|row| row[2..].iter().map(read).collect()).collect()
}

/// Fails unless there is a full forecast for each row of the future, in its order.
#[track_caller]
fn assert_complete(forecast: &Frame, request: &Request, options: &Options) {
    let keys = |frame: &Frame| {
        let columns = ["time_period", "location"].map(|name| frame.column(name).unwrap());
        let of = |row: &Vec<Cell>| columns.map(|column| row[column].clone());
        frame.data.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(keys(forecast), keys(&request.future));
    assert_eq!(forecast.columns.len(), 2 + usize::from(options.n_samples));
    assert!(samples(forecast).iter().all(|it| it.len() == usize::from(options.n_samples)));
}
