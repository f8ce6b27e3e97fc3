//! As in `run.rs`, what is fuzzed of `modelyard-ml`.

use std::collections::BTreeMap;

use super::{Frames, Node, Report, TrainRequest, manifest, mlproject, parse_body};

/// An `MLproject` that somebody else wrote.
pub fn mlproject(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(problems) = mlproject::read(&text, &BTreeMap::new()) {
        assert!(!problems.is_empty());
    }
}

/// A `modelyard.toml`.
pub fn manifest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(problems) = manifest::read(&text) {
        assert!(!problems.is_empty());
    }
}

/// A request with a map.
pub fn geo(bytes: &[u8]) {
    let Ok(geo) = parse_body(Some("application/json"), bytes) else { return };
    let is_null = geo.is_null();
    let body = serde_json::json!({"config_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "geo": geo,
        "data": {"columns": ["a"], "data": [[1]]}});
    let report = Report::new();
    let request = TrainRequest::read(&Node::body(&body, &report), &mut Frames::default());
    assert_eq!(request.is_some(), report.is_empty());
    if let Some(request) = request {
        assert_eq!(request.geo.is_none(), is_null);
    }
    if let Err(violations) = report.finish() {
        let answer = serde_json::to_vec(&violations).expect("violations have a JSON");
        assert!(answer.len() < 1_000_000);
    }
}
