//! Forecasting with a [`Model`]: `log cases = expected + φ(h)·anomaly + log population + error`.

use std::collections::{BTreeMap, BTreeSet};

use modelyard::Frame;

use crate::{
    Options,
    calendar::Period,
    climate::usual_weather,
    model::{LONGEST, Learned, Model, log_incidence, log_population},
    samples::{ErrorPath, PastErrors, Steps},
    table::{InputError, LOCATION, Place, Row, Series, TIME_PERIOD, Table},
};

/// Keeps `exp` finite on absurd input; far above the log of any real count.
const LARGEST_LOG: f64 = 30.0;

/// One place at the moment of forecasting.
#[derive(Debug)]
pub struct Forecast {
    place: Place,
    pub learned: Learned,
    /// The last period with a case count.
    latest: Option<Period>,
    anomaly: [f64; 2],
}

impl Forecast {
    /// Where a place stands. One that training did not see is learned now, from its own history.
    pub fn start(model: &Model, location: &str, place: Place) -> Self {
        let learned = model.places.get(location).cloned().unwrap_or_else(|| {
            let usual = usual_weather(&place, &model.covariate_names(), model.calendar);
            model.fit_place(&place, usual)
        });
        let Some(latest) = place.cases.keys().next_back().copied() else {
            return Forecast { place, learned, latest: None, anomaly: [0.0; 2] };
        };
        let last_year = log_incidence(&place, learned.log_population)
            .filter(|(at, _)| *at > latest.saturating_sub(model.calendar.year()));
        let residuals: Series = last_year
            .map(|(at, incidence)| (at, incidence - model.expected(&place, &learned, at)))
            .collect();
        let anomaly = model.anomaly(&residuals, latest);
        Forecast { place, learned, latest: Some(latest), anomaly }
    }

    /// How far `period` lies from the last case count, not from the end of the table: reports come
    /// in late.
    pub fn steps(&self, period: Period) -> usize {
        let Some(latest) = self.latest else { return LONGEST };
        let steps = period.saturating_sub(latest).max(1);
        usize::try_from(steps).map_or(LONGEST, |steps| steps.min(LONGEST))
    }

    /// The log of the cases without any error.
    pub fn centre(&self, model: &Model, period: Period) -> f64 {
        model.expected(&self.place, &self.learned, period)
            + model.carried(&self.anomaly, self.steps(period))
            + log_population(&self.place, period, self.learned.log_population)
    }
}

/// What the rows of a future table may turn out to be: `sample_0`, `sample_1`, … for each row, in
/// its order.
///
/// # Errors
/// When the model was trained on months and the tables have weeks, or the other way round.
pub fn predict(
    model: &Model,
    historic: &Table,
    future: &Table,
    options: &Options,
) -> Result<Frame, InputError> {
    for (table, frame) in [(historic, "historic"), (future, "future")] {
        let (trained, given) = (model.calendar, table.calendar.unwrap_or(model.calendar));
        if given != trained {
            return Err(InputError::OtherCalendar { frame, trained, given });
        }
    }

    let mut wanted: BTreeMap<&str, BTreeSet<Period>> = BTreeMap::new();
    for Row { place, period, .. } in &future.rows {
        wanted.entry(place).or_default().insert(*period);
    }
    let mut past = PastErrors::new(model, options.n_samples.into(), options.seed);
    let mut forecasts: BTreeMap<&str, (Forecast, Vec<ErrorPath>)> = BTreeMap::new();
    for (location, periods) in wanted {
        let Some(&first) = periods.first() else { continue };
        let place = continued(historic, future, location, first);
        let forecast = Forecast::start(model, location, place);
        let steps: Steps = periods.iter().map(|period| forecast.steps(*period)).collect();
        let errors = past.draw(location, &forecast.learned, &steps);
        forecasts.insert(location, (forecast, errors));
    }

    let keys = [TIME_PERIOD.to_owned(), LOCATION.to_owned()];
    let samples = (0..options.n_samples).map(|sample| format!("sample_{sample}"));
    let columns = keys.into_iter().chain(samples).collect();
    let data = future.rows.iter().map(|Row { time_period, location, place, period }| {
        let (forecast, errors) = &forecasts[place.as_str()];
        let (steps, centre) = (forecast.steps(*period), forecast.centre(model, *period));
        let samples = errors.iter().map(|path| whole_cases(centre + path.at(steps)).into());
        [time_period.clone(), location.clone()].into_iter().chain(samples).collect()
    });
    Ok(Frame::new(columns, data.collect()))
}

/// A place as the two tables have it. What they say of cases from `first` on, which is to be
/// forecast, is not looked at.
pub fn continued(historic: &Table, future: &Table, location: &str, first: Period) -> Place {
    let past = historic.places.get(location).cloned().unwrap_or_default();
    let later = future.places.get(location).cloned().unwrap_or_default();
    past.continued_by(&later, first)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the logarithm is limited, and below zero there are no cases"
)]
fn whole_cases(log_cases: f64) -> u64 {
    log_cases.min(LARGEST_LOG).exp_m1().round().max(0.0) as u64
}
