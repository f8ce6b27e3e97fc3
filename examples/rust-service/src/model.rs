//! What is learned: a seasonal regression on log incidence, in three steps that each explain what
//! the step before left over.
//!
//! ```text
//! y(l, t) = log((cases + 1) / population)
//!         = α + β·x(l, t)          the level, season and lagged climate, the same everywhere
//!             + γ(l)·(1, s(t))     the departure of the place l from that level and season
//!             + r(l, t)            what is left, of which some is left over again later:
//!
//! r(l, t + h) = φ(h)·(mean r of the last month, mean r of the last year) + error
//! ```
//!
//! `s` are the [season](Calendar::season) waves, `x` is `s` followed by each covariate 1, 2, …
//! months before. `β`, `γ` and `φ` are fitted by [ridge regression](Ridge). A step with little data
//! falls back on the step before it, so a place with a short history, or none, still gets a
//! forecast.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Options,
    calendar::{Calendar, Period, Season},
    climate::{Covariate, Usual, usual_weather},
    linear::{Ridge, dot, mean},
    table::{InputError, Place, Series, Table},
};

/// Steps ahead for which fading is fitted; what lies further is treated like this step.
pub const LONGEST: usize = 12;

/// All that predicting needs from training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    pub calendar: Calendar,
    /// In months.
    pub n_lags: u8,
    pub ridge: f64,
    /// Of a place whose population is not known.
    pub log_population: f64,
    /// Those in use.
    pub covariates: Vec<Covariate>,
    /// `β`: coefficients of the season waves, then of each covariate at each lag.
    pub shared: Vec<f64>,
    /// `α`: log incidence of a place of which nothing is known.
    pub level: f64,
    /// By location.
    pub places: BTreeMap<String, Learned>,
    /// `φ(1), φ(2), …`: what is left of the last month's and of the last year's anomaly.
    pub fading: [[f64; 2]; LONGEST],
}

/// What sets one place apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// `γ`: level, then season waves, all as departures from what places share.
    pub effect: [f64; 5],
    /// At the end of what was seen of the place.
    pub log_population: f64,
    pub usual: Usual,
    /// `r`: what level, season and climate leave unexplained.
    pub residuals: Series,
}

impl Learned {
    /// How much larger errors are than residuals, which the fit has made small: `√((n + p)/(n − p))`
    /// for `n` residuals and `p` coefficients.
    pub fn inflation(&self) -> f64 {
        let (n, fitted) = (self.residuals.len() as f64, self.effect.len() as f64);
        ((n + fitted) / (n - fitted).max(1.0)).sqrt()
    }
}

impl Model {
    /// Learns from all rows with a case count.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn train(table: &Table, options: &Options) -> Result<Model, InputError> {
        let calendar = table.calendar.ok_or(InputError::NoCases)?;
        let names = options.covariates();
        let seen: Vec<Seen<'_>> = table
            .places
            .iter()
            .filter(|(_, place)| !place.cases.is_empty())
            .map(|(name, place)| Seen {
                name,
                place,
                usual: usual_weather(place, &names, calendar),
            })
            .collect();
        if seen.is_empty() {
            return Err(InputError::NoCases);
        }
        let in_use =
            |name: &&str| Covariate::within(name, seen.iter().map(|it| (it.place, &it.usual)));
        let populations = seen.iter().flat_map(|it| it.place.population.values());
        let mut model = Model {
            calendar,
            n_lags: options.n_lags,
            ridge: options.ridge,
            log_population: mean(populations.map(|people| people.ln())),
            covariates: names.iter().filter_map(in_use).collect(),
            shared: Vec::new(),
            level: 0.0,
            places: BTreeMap::new(),
            fading: [[0.0; 2]; LONGEST],
        };

        let points: Vec<Vec<Point>> = seen.iter().map(|it| model.points(it)).collect();
        model.shared = fit_shared(&points, model.ridge);

        let levels = points.iter().map(|points| {
            mean(points.iter().map(|it| it.incidence - dot(&model.shared, &it.features)))
        });
        model.level = mean(levels);
        for Seen { name, place, usual } in seen {
            let learned = model.fit_place(place, usual);
            model.places.insert(name.clone(), learned);
        }

        model.fading = model.fit_fading();
        Ok(model)
    }

    /// The names of the covariates in use.
    pub fn covariate_names(&self) -> Vec<&str> {
        self.covariates.iter().map(|it| it.name.as_str()).collect()
    }

    /// `α + β·x + γ·(1, s)`: log incidence as level, season and climate have it, anomalies left
    /// out.
    pub fn expected(&self, place: &Place, learned: &Learned, period: Period) -> f64 {
        let features = self.features(place, &learned.usual, period);
        let own = with_level(self.calendar.season(period));
        self.level + dot(&self.shared, &features) + dot(&learned.effect, &own)
    }

    /// The mean residual of the month and of the year that end with `period`.
    pub fn anomaly(&self, residuals: &Series, period: Period) -> [f64; 2] {
        [self.calendar.month(), self.calendar.year()].map(|span| {
            let last = residuals.range(period.saturating_sub(span - 1)..=period);
            mean(last.map(|(_, residual)| *residual))
        })
    }

    /// What is left of an anomaly after 1 to [`LONGEST`] steps.
    pub fn carried(&self, anomaly: &[f64; 2], steps: usize) -> f64 {
        let fading = steps.checked_sub(1).and_then(|at| self.fading.get(at));
        fading.map_or(0.0, |fading| dot(fading, anomaly))
    }

    /// Learns a place by what the places of the training share.
    ///
    /// Its level is its own after a few months; a season that differs from the shared one takes
    /// some years to believe.
    pub fn fit_place(&self, place: &Place, usual: Usual) -> Learned {
        let last = place.cases.keys().next_back().copied().unwrap_or(0);
        let mut learned = Learned {
            effect: [0.0; 5],
            log_population: log_population(place, last, self.log_population),
            usual,
            residuals: Series::new(),
        };
        let r = self.ridge;
        let mut fit = Ridge::new(&[1.0, r, r, r, r]);
        for (at, incidence) in log_incidence(place, self.log_population) {
            let unexplained = incidence - self.expected(place, &learned, at);
            learned.residuals.insert(at, unexplained);
            fit.add(&with_level(self.calendar.season(at)), unexplained);
        }
        learned.effect = fit.solve_array();
        for (at, residual) in &mut learned.residuals {
            *residual -= dot(&learned.effect, &with_level(self.calendar.season(*at)));
        }
        learned
    }

    /// `x`: season waves, then each covariate 1, 2, … months before in typical departures from the
    /// place's average.
    fn features(&self, place: &Place, usual: &Usual, period: Period) -> Vec<f64> {
        let mut features = self.calendar.season(period).to_vec();
        for covariate in &self.covariates {
            features.extend(covariate.lagged(place, usual, self.calendar, period, self.n_lags));
        }
        features
    }

    fn points(&self, seen: &Seen<'_>) -> Vec<Point> {
        let incidence = log_incidence(seen.place, self.log_population);
        incidence
            .map(|(at, incidence)| Point {
                features: self.features(seen.place, &seen.usual, at),
                incidence,
            })
            .collect()
    }

    /// How much of an anomaly is left 1, 2, … periods later, in all places alike.
    fn fit_fading(&self) -> [[f64; 2]; LONGEST] {
        let mut fits = [(); LONGEST].map(|()| Ridge::new(&[self.ridge; 2]));
        for learned in self.places.values() {
            for at in learned.residuals.keys() {
                let anomaly = self.anomaly(&learned.residuals, *at);
                for (steps, fit) in (1..).zip(&mut fits) {
                    if let Some(residual) = learned.residuals.get(&at.saturating_add(steps)) {
                        fit.add(&anomaly, *residual);
                    }
                }
            }
        }
        fits.map(Ridge::solve_array)
    }
}

/// A place to learn from.
struct Seen<'a> {
    name: &'a String,
    place: &'a Place,
    usual: Usual,
}

/// What was seen in one period at one place.
struct Point {
    features: Vec<f64>,
    incidence: f64,
}

/// `β`: season and climate as they act everywhere, judged by the changes within each place.
///
/// Neighbours share their weather and their epidemics, so a month in which fifty places report is
/// closer to one observation than to fifty: the penalty grows with the number of places.
fn fit_shared(places: &[Vec<Point>], ridge: f64) -> Vec<f64> {
    let columns = places.iter().flatten().next().map_or(0, |point| point.features.len());
    let mut fit = Ridge::new(&vec![ridge * places.len() as f64; columns]);
    for points in places {
        let average = mean(points.iter().map(|point| point.incidence));
        let centre: Vec<f64> = (0..columns)
            .map(|column| mean(points.iter().map(|point| point.features[column])))
            .collect();
        for Point { features, incidence } in points {
            let row: Vec<f64> =
                features.iter().zip(&centre).map(|(value, middle)| value - middle).collect();
            fit.add(&row, incidence - average);
        }
    }
    fit.solve()
}

/// `y` of each period with a case count. Cases count one more than reported, so that a month
/// without any has a logarithm.
pub fn log_incidence(place: &Place, otherwise: f64) -> impl Iterator<Item = (Period, f64)> {
    place
        .cases
        .iter()
        .map(move |(at, cases)| (*at, cases.ln_1p() - log_population(place, *at, otherwise)))
}

/// By the nearest census in time, the earlier of two.
pub fn log_population(place: &Place, period: Period, otherwise: f64) -> f64 {
    let before = place.population.range(..=period).next_back();
    let after = place.population.range(period..).next();
    let nearest = before.into_iter().chain(after).min_by_key(|(at, _)| at.abs_diff(period));
    nearest.map_or(otherwise, |(_, people)| people.ln())
}

fn with_level([a, b, c, d]: Season) -> [f64; 5] {
    [1.0, a, b, c, d]
}
