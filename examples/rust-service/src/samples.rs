//! Errors to draw from: what forecasts from past periods would have got wrong.
//!
//! A sample of a forecast is its centre plus one past error. All rows of sample 7 take their errors
//! from one past forecast, at the steps ahead that they are themselves, so sample 7 is one possible
//! future, and a sum over places or months of it means something.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    calendar::Period,
    model::{LONGEST, Learned, Model},
    random::Random,
};

/// A place with fewer past forecasts to judge its errors by borrows those of all places.
const ENOUGH_PATHS: usize = 24;

/// How far ahead a place is forecast: each step from 1 to [`LONGEST`].
pub type Steps = BTreeSet<usize>;

/// The errors that the forecast from one past period made, in log incidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorPath([f64; LONGEST]);

impl ErrorPath {
    /// The error `steps` ahead; 0 for a step that the path was not made for.
    pub fn at(&self, steps: usize) -> f64 {
        steps.checked_sub(1).and_then(|at| self.0.get(at)).copied().unwrap_or(0.0)
    }

    /// The path with the errors that are known for all the steps, if they are.
    fn of(steps: &Steps, error: impl Fn(usize) -> Option<f64>) -> Option<Self> {
        let mut path = ErrorPath::default();
        for &ahead in steps {
            *path.0.get_mut(ahead.checked_sub(1)?)? = error(ahead)?;
        }
        Some(path)
    }
}

/// Paths by the period they start from: one of a place, or those of many places.
pub type Paths = BTreeMap<Period, Vec<ErrorPath>>;

/// Draws errors, the same ones for the same seed.
#[derive(Debug)]
pub struct PastErrors<'a> {
    model: &'a Model,
    seed: u32,
    /// For each sample, the past period whose forecast it repeats the errors of.
    origins: Vec<Period>,
    everywhere: BTreeMap<Steps, Paths>,
}

impl<'a> PastErrors<'a> {
    /// Chooses the origins of `count` samples: all past periods in turn, so that a hundred samples
    /// do not hang on which of them luck has drawn.
    pub fn new(model: &'a Model, count: usize, seed: u32) -> Self {
        let periods: BTreeSet<Period> =
            model.places.values().flat_map(|learned| learned.residuals.keys().copied()).collect();
        let mut periods: Vec<Period> = periods.into_iter().collect();
        Random::new(seed, "origins").shuffle(&mut periods);
        // A model that was trained has seen some period.
        periods.extend(periods.is_empty().then_some(0));
        let origins = periods.into_iter().cycle().take(count).collect();
        PastErrors { model, seed, origins, everywhere: BTreeMap::new() }
    }

    /// One path for each sample: what happened from its origin on, at this place if it has a
    /// history; where that is not known, what happened at some other time.
    pub fn draw(&mut self, location: &str, learned: &Learned, steps: &Steps) -> Vec<ErrorPath> {
        let own = paths(self.model, learned, steps);
        let paths = if own.len() < ENOUGH_PATHS {
            let everywhere = || paths_everywhere(self.model, steps);
            self.everywhere.entry(steps.clone()).or_insert_with(everywhere)
        } else {
            &own
        };
        let anything: Vec<ErrorPath> = paths.values().flatten().copied().collect();
        let mut random = Random::new(self.seed, &format!("errors of {location}"));
        let mut choose = |origin| {
            let choice = paths.get(origin).unwrap_or(&anything);
            random.choose(choice).copied().unwrap_or_default()
        };
        self.origins.iter().map(&mut choose).collect()
    }
}

/// The paths of a place: `√((n + p)/(n − p)) · (r(t + h) − φ(h)·a(t))` from each period `t` from
/// which the residuals are known at all the steps `h`.
pub fn paths(model: &Model, learned: &Learned, steps: &Steps) -> Paths {
    let (residuals, inflation) = (&learned.residuals, learned.inflation());
    let path = |origin: &Period| {
        let anomaly = model.anomaly(residuals, *origin);
        let path = ErrorPath::of(steps, |ahead| {
            let residual = residuals.get(&origin.checked_add(Period::try_from(ahead).ok()?)?)?;
            Some(inflation * (residual - model.carried(&anomaly, ahead)))
        });
        path.map(|path| (*origin, vec![path]))
    };
    residuals.keys().filter_map(path).collect()
}

/// The paths of all places. If no history is long enough for one, single residuals held.
pub fn paths_everywhere(model: &Model, steps: &Steps) -> Paths {
    let mut merged = Paths::new();
    for learned in model.places.values() {
        for (origin, paths) in paths(model, learned, steps) {
            merged.entry(origin).or_default().extend(paths);
        }
    }
    if merged.is_empty() {
        for learned in model.places.values() {
            for (at, residual) in &learned.residuals {
                let held = learned.inflation() * residual;
                merged.entry(*at).or_default().extend(ErrorPath::of(steps, |_| Some(held)));
            }
        }
    }
    merged
}
