//! Covariates as the model sees them: by how much the weather of the months before departed from
//! what is typical of the place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    calendar::{Calendar, Period},
    linear::mean,
    table::{Place, Series},
};

/// Weather beyond this many typical departures counts as this many: a line through ordinary months
/// says nothing about a cloudburst.
const WIDEST: f64 = 3.0;

/// Covariates of which a doubling matters rather than an added millimetre.
const LOGARITHMIC: [&str; 1] = ["rainfall"];

/// What each month is like at a place, by covariate. Stands in where a value is missing.
pub type Usual = BTreeMap<String, Months>;

/// The averages of January, February, …; None for a month never seen.
pub type Months = [Option<f64>; 12];

/// Something that the incidence depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Covariate {
    /// The column.
    pub name: String,
    /// The typical departure from a place's average: the standard deviation within places.
    pub spread: f64,
}

impl Covariate {
    /// The covariate with this name, unless it is absent or never changes: then there is nothing to
    /// learn from it.
    pub fn within<'a>(
        name: &str,
        places: impl Iterator<Item = (&'a Place, &'a Usual)>,
    ) -> Option<Covariate> {
        let (mut squares, mut largest) = (Vec::new(), 0.0_f64);
        for (place, usual) in places {
            let centre = centre(&months(usual, name));
            for value in place.covariates.get(name).into_iter().flat_map(Series::values) {
                let value = scaled(name, *value);
                squares.push((value - centre).powi(2));
                largest = largest.max(value.abs());
            }
        }
        let spread = mean(squares).sqrt();
        (spread > 1e-9 * largest).then(|| Covariate { name: name.to_owned(), spread })
    }

    /// The weather 1, 2, … `lags` months before `period`, in typical departures from the place's
    /// average. What was usual in the month stands in for what is not known.
    pub fn lagged(
        &self,
        place: &Place,
        usual: &Usual,
        calendar: Calendar,
        period: Period,
        lags: u8,
    ) -> impl Iterator<Item = f64> {
        let Covariate { name, spread } = self;
        let series = place.covariates.get(name);
        let months = months(usual, name);
        let centre = centre(&months);
        let departure = move |at: Period| {
            let seen = series.and_then(|it| it.get(&at)).map(|value| scaled(name, *value));
            let value = seen.or_else(|| months[calendar.month_of_year(at)]);
            value.map_or(0.0, |value| (value - centre) / spread)
        };
        (1..=Period::from(lags)).map(move |lag| {
            let first = period.saturating_sub(lag * calendar.month());
            let days = first..first.saturating_add(calendar.month());
            mean(days.map(departure)).clamp(-WIDEST, WIDEST)
        })
    }
}

/// The average of each month.
pub fn usual_weather(place: &Place, names: &[&str], calendar: Calendar) -> Usual {
    let averages = |name: &str| {
        let mut months: [Vec<f64>; 12] = Default::default();
        for (at, value) in place.covariates.get(name).into_iter().flatten() {
            months[calendar.month_of_year(*at)].push(scaled(name, *value));
        }
        months.map(|values| (!values.is_empty()).then(|| mean(values)))
    };
    names.iter().map(|&name| (name.to_owned(), averages(name))).collect()
}

fn months(usual: &Usual, name: &str) -> Months {
    usual.get(name).copied().unwrap_or_default()
}

/// The average of the year. All months weigh the same, however often each was seen.
fn centre(months: &Months) -> f64 {
    mean(months.iter().copied().flatten())
}

/// A covariate on the scale on which it is taken to act.
fn scaled(name: &str, value: f64) -> f64 {
    if LOGARITHMIC.contains(&name) { value.max(0.0).ln_1p() } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JANUARY: Period = 2023 * 12;

    fn place(temperatures: &[f64]) -> Place {
        let series = (JANUARY..).zip(temperatures.iter().copied()).collect();
        let covariates = [("mean_temperature".to_owned(), series)].into();
        Place { covariates, ..Place::default() }
    }

    fn lagged(place: &Place, period: Period) -> Vec<f64> {
        let usual = usual_weather(place, &["mean_temperature"], Calendar::Monthly);
        let covariate = Covariate::within("mean_temperature", [(place, &usual)].into_iter());
        covariate.unwrap().lagged(place, &usual, Calendar::Monthly, period, 2).collect()
    }

    #[test]
    fn weather_counts_in_standard_deviations_latest_month_first() {
        assert_eq!(lagged(&place(&[20.0, 30.0]), JANUARY + 2), [1.0, -1.0]);
    }

    #[test]
    fn a_missing_value_is_as_usual_in_its_month() {
        let place = place(&[20.0, 30.0]);
        assert_eq!(lagged(&place, JANUARY + 14), [1.0, -1.0]);
        assert_eq!(lagged(&place, JANUARY + 6), [0.0, 0.0], "such a month was never seen");
    }

    #[test]
    fn a_cloudburst_is_cut_off() {
        let mut temperatures = vec![20.0; 40];
        temperatures.push(100.0);
        assert_eq!(lagged(&place(&temperatures), JANUARY + 41)[..1], [WIDEST]);
    }

    #[test]
    fn nothing_is_learned_from_a_covariate_that_never_changes() {
        let place = place(&[0.1 + 0.2; 30]);
        let usual = usual_weather(&place, &["mean_temperature", "rainfall"], Calendar::Monthly);
        let seen = || [(&place, &usual)].into_iter();
        assert_eq!(Covariate::within("mean_temperature", seen()), None);
        assert_eq!(Covariate::within("rainfall", seen()), None);
    }
}
