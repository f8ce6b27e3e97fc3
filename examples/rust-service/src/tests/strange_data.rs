//! Data as nobody would send it on purpose: an error or a whole forecast, and never a panic.

use modelyard::{Cell, Frame};
use serde_json::json;

use super::{Request, assert_complete};
use crate::{Options, calendar::Calendar, random::Random, validate};

/// Rounds of the test; each makes up other data.
const ROUNDS: u32 = 150;

fn cells() -> Vec<Cell> {
    let cells = json!([
        null,
        true,
        "",
        " ",
        "NA",
        "nan",
        "-inf",
        "1e400",
        "٣",
        "2023-W53",
        "2023-02-30",
        0,
        -0.0,
        -1,
        1e-308,
        1e14,
        1e308,
        18_446_744_073_709_551_615_u64,
        "x".repeat(300),
    ]);
    serde_json::from_value(cells).unwrap()
}

/// Puts strange cells anywhere, in any order of rows, of which not all are left.
fn spoil(frame: &mut Frame, random: &mut Random, cells: &[Cell], spare_periods: bool) {
    for (column, cell) in frame.data.iter_mut().flat_map(|row| row.iter_mut().enumerate()) {
        let is_hit = random.choose(&[true, false, false, false]) == Some(&true);
        if is_hit && !(spare_periods && column == 0) {
            *cell = random.choose(cells).cloned().unwrap_or_default();
        }
    }
    random.shuffle(&mut frame.data);
    frame.data.truncate(*random.choose(&[0, 1, 7, 40, 200]).unwrap());
}

#[tokio::test]
async fn strange_data_gives_an_error_or_a_whole_forecast() {
    let (cells, mut forecasts) = (cells(), 0);
    for round in 0..ROUNDS {
        let mut random = Random::new(round, "strange data");
        let calendar = random.choose(&[Calendar::Monthly, Calendar::Weekly]).copied().unwrap();
        let mut request = Request::of(calendar);
        for frame in request.frames() {
            // A strange period ends a run, so most rounds go without.
            spoil(frame, &mut random, &cells, round % 8 != 0);
        }
        let options = Options {
            n_samples: *random.choose(&[1, 3, 50]).unwrap(),
            n_lags: *random.choose(&[0, 1, 12]).unwrap(),
            ridge: *random.choose(&[0.0, 1e-9, 10.0, 1e6]).unwrap(),
            seed: round,
            additional_continuous_covariates: vec!["population".to_owned(), "location".to_owned()],
        };
        if let Ok(forecast) = request.forecast(&options).await {
            assert_complete(&forecast, &request, &options);
            forecasts += 1;
        }
        validate::predict(&options, &request.predict_data());
    }
    assert!(forecasts > ROUNDS / 3, "only {forecasts} of {ROUNDS} were forecast at all");
}
