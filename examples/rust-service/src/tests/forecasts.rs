//! Forecasts from training data to samples, through the model as it is stored in between.

use modelyard::{Cell, Frame};

use super::{Request, add, assert_complete, blank, remove, samples, set, write_period};
use crate::{
    Options,
    calendar::Calendar,
    model::Model,
    samples::{PastErrors, Steps, paths},
    table::Table,
};

fn options() -> Options {
    Options { n_samples: 20, ..Options::default() }
}

fn monthly() -> Request {
    Request::of(Calendar::Monthly)
}

async fn forecast(request: &Request) -> Vec<Vec<u64>> {
    forecast_with(request, &options()).await
}

async fn forecast_with(request: &Request, options: &Options) -> Vec<Vec<u64>> {
    let forecast = request.forecast(options).await.unwrap();
    assert_complete(&forecast, request, options);
    samples(&forecast)
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn total(samples: &[Vec<u64>]) -> u64 {
    samples.iter().flatten().sum()
}

/// Only the rows of one place, under another name.
fn only(frame: &Frame, place: &str, name: &str) -> Frame {
    let mut frame = frame.clone();
    frame.data.retain(|row| row[1] == place);
    set(&mut frame, "location", |_, _| name.into());
    frame
}

/// Only the months up to this one.
fn until(frame: &mut Frame, month: &str) {
    frame.data.retain(|row| row[0].as_str() <= Some(month));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_samples_and_another_seed_others() {
    let request = monthly();
    let first = forecast(&request).await;
    assert_eq!(forecast(&request).await, first);
    assert_ne!(forecast_with(&request, &Options { seed: 2, ..options() }).await, first);
}

#[tokio::test]
async fn rows_in_another_order_get_the_same_forecasts() {
    let mut request = monthly();
    let mut expected = forecast(&request).await;
    expected.reverse();
    request.future.data.reverse();
    assert_eq!(forecast(&request).await, expected);
}

#[tokio::test]
async fn a_season_without_noise_is_forecast_as_it_is() {
    let cases = |row: &[Cell]| {
        let month: usize = row[0].as_str().unwrap()[5..].parse().unwrap();
        [100, 140, 190, 260, 190, 140, 100, 80, 70, 70, 70, 80][month - 1]
    };
    let mut request = monthly();
    for frame in request.frames() {
        set(frame, "disease_cases", |_, row| cases(row).into());
        set(frame, "population", |_, _| 100_000.into());
    }
    let found = forecast(&request).await;
    for (row, samples) in request.future.data.iter().zip(&found) {
        let (expected, found) = (cases(row), median(samples));
        assert!(found.abs_diff(expected) < expected / 5, "{found} instead of {expected}");
    }
}

#[tokio::test]
async fn what_is_missing_is_filled_in_or_passed_over() {
    let mut request = monthly();
    for frame in request.frames() {
        blank(frame, "disease_cases", |at| at % 3 != 0);
        for (column, hole) in [("population", 1), ("rainfall", 2), ("mean_temperature", 3)] {
            blank(frame, column, |at| at % 4 == hole);
        }
    }
    forecast(&request).await;
}

#[tokio::test]
async fn fill_values_and_words_count_as_missing() {
    let mut request = monthly();
    let mut with_gaps = request.clone();
    let words: [Cell; 5] =
        [9.969_21e36.into(), "inf".into(), "NaN".into(), "n/a".into(), false.into()];
    for (frame, gaps) in request.frames().into_iter().zip(with_gaps.frames()) {
        set(frame, "rainfall", |at, row| match at % 6 {
            5 => row.last().unwrap().clone(),
            word => words[word].clone(),
        });
        set(gaps, "rainfall", |at, row| match at % 6 {
            5 => row.last().unwrap().clone(),
            _ => Cell::Null,
        });
    }
    assert_eq!(forecast(&request).await, forecast(&with_gaps).await);
}

#[tokio::test]
async fn absent_columns_are_done_without() {
    let mut request = monthly();
    for column in ["rainfall", "mean_temperature", "population"] {
        for frame in request.frames() {
            remove(frame, column);
        }
        forecast(&request).await;
    }
}

#[tokio::test]
async fn columns_nobody_asked_for_change_nothing() {
    let mut request = monthly();
    let expected = forecast(&request).await;
    for frame in request.frames() {
        add(frame, "", |at| at.into());
        add(frame, "remark, of late", |_| "a, b".into());
        add(frame, "sample_0", |_| Cell::Null);
    }
    assert_eq!(forecast(&request).await, expected);
}

#[tokio::test]
async fn where_nothing_ever_changes_nothing_will() {
    let mut request = monthly();
    for frame in request.frames() {
        for (column, value) in [("rainfall", 0.1), ("mean_temperature", 27.3)] {
            set(frame, column, |_, _| value.into());
        }
        set(frame, "population", |_, _| 100_000.into());
        set(frame, "disease_cases", |_, _| 4.into());
    }
    assert!(forecast(&request).await.iter().flatten().all(|cases| *cases == 4));
}

#[tokio::test]
async fn a_place_that_training_did_not_see_is_learned_from_its_own_history() {
    let mut request = monthly();
    request.historic = only(&request.historic, "Ånäs", "New");
    set(&mut request.historic, "disease_cases", |at, _| (4000 + at).into());
    request.future = only(&request.future, "Ånäs", "New");
    for samples in forecast(&request).await {
        assert!((2000..8000).contains(&median(&samples)), "{samples:?}");
    }
}

#[tokio::test]
async fn a_place_without_any_case_is_forecast_at_the_level_of_the_others() {
    let mut request = monthly();
    let usual = forecast(&request).await;
    let (least, most) =
        (usual.iter().map(|it| median(it)).min(), usual.iter().map(|it| median(it)).max());
    let unknown = |frame: &Frame| {
        let mut place = only(frame, "Ban, Thong", "New");
        set(&mut place, "disease_cases", |_, _| Cell::Null);
        place
    };
    // With its weather, in training as well; then without any history.
    let (training, historic) = (unknown(&request.training), unknown(&request.historic));
    request.training.data.extend(training.data);
    request.future = unknown(&request.future);
    for historic in [historic, Frame::new(request.historic.columns.clone(), Vec::new())] {
        request.historic = historic;
        for samples in forecast(&request).await {
            let found = Some(median(&samples));
            assert!(least <= found && found <= most, "{found:?} beside {least:?} to {most:?}");
        }
    }
}

#[tokio::test]
async fn one_place_is_enough() {
    let mut request = monthly();
    for frame in request.frames() {
        *frame = only(frame, "Cua Lo", "Cua Lo");
    }
    forecast(&request).await;
}

#[tokio::test]
async fn short_histories_down_to_one_row_are_enough() {
    for month in ["2017-01", "2017-02", "2017-03", "2017-06", "2018-01"] {
        for ridge in [10.0, 0.0] {
            let mut request = monthly();
            until(&mut request.training, month);
            request.historic = request.training.clone();
            let options = Options { ridge, ..options() };
            forecast_with(&request, &options).await;
            for frame in request.frames() {
                *frame = only(frame, "Cua Lo", "Cua Lo");
            }
            forecast_with(&request, &options).await;
        }
    }
}

#[tokio::test]
async fn a_horizon_past_the_longest_fitted_one_is_forecast() {
    let mut request = monthly();
    until(&mut request.training, "2018-12");
    let later = request.historic.clone();
    until(&mut request.historic, "2020-08");
    request.future = later;
    request.future.data.retain(|row| row[0].as_str() > Some("2020-08"));
    assert!(request.future.horizon() > Some(12));
    forecast(&request).await;
}

#[tokio::test]
async fn weeks_are_forecast_as_months_are() {
    let weekly = Request::of(Calendar::Weekly);
    forecast(&weekly).await;
    let mut short = weekly.clone();
    until(&mut short.training, &write_period(Calendar::Weekly, 20));
    forecast(&short).await;
}

#[tokio::test]
async fn cases_of_the_months_to_forecast_change_nothing() {
    let mut request = monthly();
    let expected = forecast(&request).await;
    request.future.columns.push("disease_cases".to_owned());
    for row in &mut request.future.data {
        row.push(100_000.into());
    }
    let mut leak = request.future.clone();
    let (columns, order) = (&request.historic.columns, &leak.columns);
    let order: Vec<usize> =
        columns.iter().map(|name| order.iter().position(|it| it == name).unwrap()).collect();
    for row in &mut leak.data {
        *row = order.iter().map(|column| row[*column].clone()).collect();
    }
    request.historic.data.extend(leak.data);
    assert_eq!(forecast(&request).await, expected);
}

#[tokio::test]
async fn places_that_report_late_are_forecast_from_their_last_report() {
    let mut request = monthly();
    let on_time = forecast(&request).await;
    until(&mut request.historic, "2022-09");
    let late = forecast(&request).await;
    assert_ne!(late, on_time);
}

#[tokio::test]
async fn higher_cases_of_late_raise_the_forecast() {
    let mut request = monthly();
    // Outbreaks of a year and a half, so that what is high stays high for long.
    let cases = |month: usize| 20 + month % 12 + 80 * (month / 18 % 2);
    set(&mut request.training, "disease_cases", |at, _| cases(at % 72).into());
    let mut totals = Vec::new();
    for cases in [20, 200] {
        set(&mut request.historic, "disease_cases", |_, _| cases.into());
        totals.push(total(&forecast(&request).await));
    }
    assert!(totals[0] < totals[1], "{totals:?}");
}

#[tokio::test]
async fn absurd_numbers_stay_numbers() {
    let mut request = monthly();
    for frame in request.frames() {
        set(frame, "population", |_, _| 1e-300.into());
        set(frame, "disease_cases", |at, _| if at % 2 == 0 { 1e14.into() } else { 0.into() });
        set(frame, "rainfall", |at, _| (1e12 * at as f64).into());
        set(frame, "mean_temperature", |at, _| if at % 3 == 0 { (-1e14).into() } else { 0.into() });
    }
    for ridge in [10.0, 0.0] {
        forecast_with(&request, &Options { ridge, n_lags: 12, ..options() }).await;
    }
}

#[tokio::test]
async fn a_covariate_that_drives_cases_improves_the_forecast() {
    let mut request = monthly();
    // Two numbers without a season, the second of which is the first a month later.
    let humidity = |at: usize| 40 + (at * 37) % 50;
    let driven = |at: usize| 5 * humidity(at) - 190;
    for frame in request.frames() {
        *frame = only(frame, "Ånäs", "Ånäs");
    }
    let first = request.training.rows() - request.historic.rows();
    let last = request.training.rows();
    for (frame, start) in request.frames().into_iter().zip([0, first, last]) {
        add(frame, "humidity", |at| humidity(start + at + 1).into());
        set(frame, "disease_cases", |at, _| driven(start + at).into());
    }
    let mut errors = Vec::new();
    for names in [vec![], vec!["humidity".to_owned()]] {
        let options =
            Options { n_lags: 1, additional_continuous_covariates: names, ..Options::default() };
        let medians = forecast_with(&request, &options).await;
        let medians = medians.iter().map(|samples| median(samples));
        let error = medians.enumerate().map(|(at, found)| found.abs_diff(driven(last + at) as u64));
        errors.push(error.sum::<u64>());
    }
    assert!(errors[1] * 2 < errors[0], "{errors:?}");
}

#[tokio::test]
async fn a_sample_takes_its_errors_from_one_past_month_in_all_places() {
    let table = Table::read("training", &monthly().training, &options().covariates()).unwrap();
    let model = Model::train(&table, &options()).unwrap();
    let steps = Steps::from([1, 2, 3]);
    let mut past = PastErrors::new(&model, 60, 1);
    let drawn: Vec<_> = model
        .places
        .iter()
        .map(|(location, learned)| {
            let known = paths(&model, learned, &steps);
            let drawn = past.draw(location, learned, &steps);
            let origin = |path| known.iter().find(|(_, it)| it[0] == path).map(|(at, _)| *at);
            drawn.into_iter().map(|path| origin(path).unwrap()).collect::<Vec<_>>()
        })
        .collect();
    // The last three months have no path of their own, for what followed them is not known.
    let differing = (0..60).filter(|&at| drawn.iter().any(|place| place[at] != drawn[0][at]));
    assert!(differing.count() <= 3);
}

#[tokio::test]
async fn nothing_to_forecast_is_an_empty_forecast() {
    let mut request = monthly();
    request.future.data.clear();
    assert_eq!(forecast(&request).await, Vec::<Vec<u64>>::new());
}

#[tokio::test]
async fn nothing_to_learn_from_is_an_error_that_says_so() {
    let mut request = monthly();
    blank(&mut request.training, "disease_cases", |_| true);
    let mut requests = vec![request.clone()];
    remove(&mut request.training, "disease_cases");
    requests.push(request.clone());
    request.training.data.clear();
    requests.push(request);
    for request in requests {
        let error = request.train(&options()).await.unwrap_err();
        assert_eq!(error.to_string(), "InputError: there are no disease_cases to learn from");
    }
}

#[tokio::test]
async fn weeks_for_a_model_of_months_are_an_error_that_says_so() {
    let model = monthly().train(&options()).await.unwrap();
    let mut request = monthly();
    request.future = Request::of(Calendar::Weekly).future;
    let error = request.predict(&options(), model).await.unwrap_err();
    assert_eq!(
        error.message(),
        "the model was trained on monthly data but the future data is weekly",
    );
}
