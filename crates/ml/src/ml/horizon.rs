//! How far ahead: the horizon of a run, and whether the model allows it. No I/O in this file.

use modelyard_run::config::schema::PREDICTION_PERIODS;
use modelyard_run::frame::Frame;
use modelyard_run::runner::{Diagnostic, Severity};
use serde_json::{Map, Value};

use super::model::error;
use crate::info::ServiceInfo;

/// The number of periods, and who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Horizon {
    pub(super) periods: i64,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    RunInfo,
    Future,
    Config,
}

impl Horizon {
    /// The client's word, else the future frame's length, else the config's.
    pub(super) fn resolve(
        asked: Option<i64>,
        future: Option<&Frame>,
        config: &Map<String, Value>,
    ) -> Option<Self> {
        let future = || future.and_then(Frame::horizon).and_then(|it| i64::try_from(it).ok());
        let config = || config.get(PREDICTION_PERIODS).and_then(Value::as_i64);
        let with = |source| move |periods| Self { periods, source };
        asked
            .map(with(Source::RunInfo))
            .or_else(|| future().map(with(Source::Future)))
            .or_else(|| config().map(with(Source::Config)))
    }

    /// The config that the model gets: with the horizon of this run.
    pub(super) fn put_into(self, config: &mut Map<String, Value>) {
        config.insert(PREDICTION_PERIODS.to_owned(), self.periods.into());
    }

    /// What is wrong with it, in the contract's words.
    pub(super) fn complaint(self, info: &ServiceInfo) -> Option<String> {
        let source = match self.source {
            Source::RunInfo => "run_info",
            Source::Future => "future",
            Source::Config => "config",
        };
        let (min, max) = (info.min_prediction_periods, info.max_prediction_periods);
        let it = format!("{PREDICTION_PERIODS} ({}, from {source})", self.periods);
        if self.periods > i64::from(max) {
            return Some(format!("{it} exceeds the maximum allowed value ({max})"));
        }
        (self.periods < i64::from(min))
            .then(|| format!("{it} is below the minimum allowed value ({min})"))
    }

    /// The same as a diagnostic.
    pub(super) fn diagnose(self, info: &ServiceInfo) -> Option<Diagnostic> {
        let field = match self.source {
            Source::RunInfo => "run_info.prediction_periods",
            Source::Future => "future",
            Source::Config => "config.prediction_periods",
        };
        self.complaint(info).map(|it| error("prediction_periods_out_of_bounds", it, field))
    }
}

/// A warning when the client's word and its future frame differ.
pub(super) fn mismatch(asked: Option<i64>, future: &Frame) -> Option<Diagnostic> {
    let asked = asked?;
    let implied = future.horizon().and_then(|it| i64::try_from(it).ok())?;
    (asked != implied).then(|| Diagnostic {
        severity: Severity::Warning,
        code: "prediction_periods_mismatch".to_owned(),
        message: format!(
            "run_info.prediction_periods ({asked}) does not match the horizon implied by the future frame ({implied}); run info wins"
        ),
        field: Some("future".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(periods: i64) -> Map<String, Value> {
        json!({"prediction_periods": periods}).as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn the_clients_word_wins_over_the_frame_and_the_frame_over_the_config() {
        let future = Frame::new(
            vec!["time_period".into(), "location".into()],
            vec![vec!["2023-01".into(), "a".into()], vec!["2023-02".into(), "a".into()]],
        );
        let periods =
            |asked, future| Horizon::resolve(asked, future, &config(7)).map(|it| it.periods);
        assert_eq!(periods(Some(5), Some(&future)), Some(5));
        assert_eq!(periods(None, Some(&future)), Some(2));
        assert_eq!(periods(None, None), Some(7));
    }

    #[test]
    fn bounds_are_named_with_their_source() {
        let mut info = ServiceInfo::new("m", "M");
        (info.min_prediction_periods, info.max_prediction_periods) = (1, 12);
        let complaint =
            |n| Horizon::resolve(None, None, &config(n)).and_then(|it| it.complaint(&info));
        assert_eq!(
            complaint(99).as_deref(),
            Some("prediction_periods (99, from config) exceeds the maximum allowed value (12)")
        );
        assert_eq!(
            complaint(0).as_deref(),
            Some("prediction_periods (0, from config) is below the minimum allowed value (1)")
        );
        assert_eq!(complaint(12), None);
    }
}
