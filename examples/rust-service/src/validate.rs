//! What `$validate` says of a request before it is run.

use std::collections::BTreeSet;

use modelyard::{Diagnostic, Frame, PredictData, Severity, TrainData};

use crate::{
    Options,
    calendar::{Calendar, Period},
    model::LONGEST,
    table::{CASES, InputError, LOCATION, POPULATION, Row, TIME_PERIOD, Table},
};

/// Checks the data of a training.
pub fn train(options: &Options, input: &TrainData) -> Vec<Diagnostic> {
    let frame = &input.data;
    let mut found = Vec::new();
    let columns = [TIME_PERIOD, LOCATION, CASES, POPULATION].into_iter();
    for column in columns.chain(options.covariates()) {
        if frame.column(column).is_none() {
            let message = format!("the training data has no column `{column}`");
            found.push(diagnostic(Severity::Error, "missing_column", message, "data"));
        }
    }
    match Table::read("training", frame, &options.covariates()) {
        Ok(table) if frame.column(CASES).is_some() => found.extend(few_cases(&table)),
        // Missing columns have been named.
        Ok(_) | Err(InputError::NoColumn { .. }) => {}
        Err(error) => found.push(unreadable(&error, "data")),
    }
    found
}

/// Checks the data of a prediction.
pub fn predict(options: &Options, input: &PredictData) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut read = |name, frame: &Frame| {
        let table = Table::read(name, frame, &options.covariates());
        found.extend(table.as_ref().err().map(|error| unreadable(error, name)));
        found.extend(missing_weather(options, name, frame));
        table.ok()
    };
    let (historic, future) = (read("historic", &input.historic), read("future", &input.future));
    if let (Some(historic), Some(future)) = (historic, future) {
        match different_calendars(&historic, &future) {
            Some(error) => found.push(error),
            None => {
                found.extend(no_history(&historic, &future));
                found.extend(far_ahead(&historic, &future));
            }
        }
    }
    found
}

fn diagnostic(severity: Severity, code: &str, message: String, field: &str) -> Diagnostic {
    Diagnostic { severity, code: code.to_owned(), message, field: Some(field.to_owned()) }
}

fn unreadable(error: &InputError, field: &str) -> Diagnostic {
    let code = match error {
        InputError::NoColumn { .. } => "missing_column",
        InputError::NotAPeriod { .. } => "unreadable_period",
        InputError::MixedPeriods { .. } | InputError::OtherCalendar { .. } => "mixed_periods",
        InputError::NoCases => "no_cases",
    };
    diagnostic(Severity::Error, code, error.to_string(), field)
}

fn few_cases(table: &Table) -> Option<Diagnostic> {
    let counts = table.places.values().flat_map(|place| place.cases.keys());
    let periods = counts.collect::<BTreeSet<&Period>>().len();
    let year = table.calendar.unwrap_or(Calendar::Monthly).year();
    if periods == 0 {
        return Some(unreadable(&InputError::NoCases, "data"));
    }
    let message = || {
        format!(
            "case counts of {periods} periods are too few to know the season; a year has {year}"
        )
    };
    let too_few = usize::try_from(year).is_ok_and(|year| periods < year);
    too_few.then(|| diagnostic(Severity::Warning, "short_history", message(), "data"))
}

/// Only a warning: a prediction does without, where a training would never learn.
fn missing_weather(options: &Options, name: &str, frame: &Frame) -> Vec<Diagnostic> {
    let missing = options.covariates().into_iter().filter(|column| frame.column(column).is_none());
    let diagnose = |column| {
        let message = format!(
            "the {name} data has no column `{column}`; what is usual in the month stands in"
        );
        diagnostic(Severity::Warning, "missing_column", message, name)
    };
    missing.map(diagnose).collect()
}

fn different_calendars(historic: &Table, future: &Table) -> Option<Diagnostic> {
    let (past, coming) = (historic.calendar?, future.calendar?);
    let message =
        format!("the historic data is {} but the future data is {}", past.name(), coming.name());
    (past != coming).then(|| diagnostic(Severity::Error, "mixed_periods", message, "future"))
}

fn no_history(historic: &Table, future: &Table) -> Option<Diagnostic> {
    let is_known = |location| historic.places.get(location).is_some_and(|it| !it.cases.is_empty());
    let unknown: Vec<&str> =
        future.places.keys().filter(|it| !is_known(*it)).map(String::as_str).collect();
    let message = format!(
        "{} of {} locations have no case counts in the historic data, so their forecasts start \
         from a usual month: {}",
        unknown.len(),
        future.places.len(),
        listed(&unknown)
    );
    (!unknown.is_empty()).then(|| diagnostic(Severity::Warning, "no_history", message, "historic"))
}

fn far_ahead(historic: &Table, future: &Table) -> Option<Diagnostic> {
    let steps = |row: &Row| {
        let latest = historic.places.get(&row.place)?.cases.keys().next_back()?;
        usize::try_from(row.period.checked_sub(*latest)?).ok()
    };
    let furthest = future.rows.iter().filter_map(steps).max()?;
    let message = format!(
        "some rows are {furthest} periods after the last case count of their location; beyond \
         {LONGEST} periods an anomaly is taken to fade no further"
    );
    (furthest > LONGEST).then(|| diagnostic(Severity::Warning, "far_ahead", message, "future"))
}

/// A message is no place for a thousand names.
fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let dots = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{dots}", names[..names.len().min(SHOWN)].join(", "))
}
