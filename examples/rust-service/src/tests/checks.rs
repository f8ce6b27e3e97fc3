//! What `$validate` finds.

use modelyard::{Diagnostic, TrainData};

use super::{Request, blank, remove, set};
use crate::{Options, calendar::Calendar, validate};

fn monthly() -> Request {
    Request::of(Calendar::Monthly)
}

/// `severity code field: message` of each finding.
fn lines(found: &[Diagnostic]) -> Vec<String> {
    let line = |it: &Diagnostic| {
        let Diagnostic { severity, code, message, field } = it;
        let severity = format!("{severity:?}").to_lowercase();
        format!("{severity} {code} {}: {message}", field.as_deref().unwrap_or("-"))
    };
    found.iter().map(line).collect()
}

fn train(request: &Request) -> Vec<String> {
    let data = request.training.clone();
    let input = TrainData {
        data,
        geo: None,
        cancel: Default::default(),
        report: Default::default(),
        job: None,
    };
    lines(&validate::train(&Options::default(), &input))
}

fn predict(request: &Request) -> Vec<String> {
    lines(&validate::predict(&Options::default(), &request.predict_data()))
}

#[test]
fn nothing_is_found_in_good_data() {
    for request in [monthly(), Request::of(Calendar::Weekly)] {
        assert_eq!(train(&request), [""; 0]);
        assert_eq!(predict(&request), [""; 0]);
    }
}

#[test]
fn every_missing_column_is_named() {
    let mut request = monthly();
    for frame in request.frames() {
        for column in ["location", "disease_cases", "population", "mean_temperature"] {
            remove(frame, column);
        }
    }
    let expected = [
        "error missing_column data: the training data has no column `location`",
        "error missing_column data: the training data has no column `disease_cases`",
        "error missing_column data: the training data has no column `population`",
        "error missing_column data: the training data has no column `mean_temperature`",
    ];
    assert_eq!(train(&request), expected);
    let expected = [
        "error missing_column historic: the historic data has no column `location`",
        "warning missing_column historic: the historic data has no column `mean_temperature`; what \
         is usual in the month stands in",
        "error missing_column future: the future data has no column `location`",
        "warning missing_column future: the future data has no column `mean_temperature`; what is \
         usual in the month stands in",
    ];
    assert_eq!(predict(&request), expected);
}

#[test]
fn a_covariate_that_the_config_names_is_looked_for() {
    let options = Options {
        additional_continuous_covariates: vec!["humidity".to_owned()],
        ..Options::default()
    };
    let data = monthly().training;
    let input = TrainData {
        data,
        geo: None,
        cancel: Default::default(),
        report: Default::default(),
        job: None,
    };
    let expected = ["error missing_column data: the training data has no column `humidity`"];
    assert_eq!(lines(&validate::train(&options, &input)), expected);
}

#[test]
fn less_than_a_year_of_cases_is_warned_about() {
    let mut request = monthly();
    request.training.data.retain(|row| row[0].as_str() <= Some("2017-11"));
    let expected = "warning short_history data: case counts of 11 periods are too few to know the \
                    season; a year has 12";
    assert_eq!(train(&request), [expected]);
}

#[test]
fn data_without_cases_is_no_training_data() {
    let mut request = monthly();
    blank(&mut request.training, "disease_cases", |_| true);
    let expected = "error no_cases data: there are no disease_cases to learn from";
    assert_eq!(train(&request), [expected]);
}

#[test]
fn unreadable_and_mixed_periods_are_found() {
    let mut request = monthly();
    set(&mut request.training, "time_period", |at, row| match at {
        4 => "May".into(),
        _ => row[0].clone(),
    });
    let expected = "error unreadable_period data: row 5 of the training data: `May` is not a time \
                    period; expected one like 2023-01 or 2023-W05";
    assert_eq!(train(&request), [expected]);

    request.future = Request::of(Calendar::Weekly).future;
    let expected =
        "error mixed_periods future: the historic data is monthly but the future data is weekly";
    assert_eq!(predict(&request), [expected]);
}

#[test]
fn places_without_history_are_named_but_no_more_than_a_few() {
    let mut request = monthly();
    request.historic.data.retain(|row| row[1] == "Ånäs");
    let expected = "warning no_history historic: 2 of 3 locations have no case counts in the \
                    historic data, so their forecasts start from a usual month: Ban, Thong, Cua Lo";
    assert_eq!(predict(&request), [expected]);

    set(&mut request.future, "location", |at, _| format!("place {at:02}").into());
    let found = predict(&request);
    assert!(
        found[0].ends_with(": place 00, place 01, place 02, place 03, place 04, …"),
        "{found:?}"
    );
}

#[test]
fn a_forecast_far_from_the_last_report_is_warned_about() {
    let mut request = monthly();
    request.historic.data.retain(|row| row[0].as_str() <= Some("2022-02"));
    let expected = "warning far_ahead future: some rows are 16 periods after the last case count of \
                    their location; beyond 12 periods an anomaly is taken to fade no further";
    assert_eq!(predict(&request), [expected]);
}
