//! As in `run.rs`, what is fuzzed of `modelyard-ml`.

use std::collections::BTreeMap;

use super::strangers::{Format, Look, Reader, Sizes};
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

/// The file of a batch, behind a byte that says what it is written in and how it is cut.
pub fn batch(bytes: &[u8]) {
    let Some((first, file)) = bytes.split_first() else { return };
    let format = match first & 3 {
        0 => Format::Csv,
        1 => Format::Ndjson,
        _ => Format::Json,
    };
    let group_by = (first & 4 != 0).then_some("a");
    let mut look = match first & 8 {
        0 => Look::at_table(format, group_by.map(str::to_owned)),
        _ => Look::at_items(format),
    };
    if look.push(file).is_err() {
        return;
    }
    let Ok(shape) = look.finish() else { return };
    let sizes = Sizes { rows: 2, bytes: 100, by_group: first & 16 != 0 };
    let mut reader =
        Reader::new(format, shape, group_by, sizes).expect("it was found when it was looked at");
    let piece = usize::from(first >> 5) + 1;
    let mut last = 0;
    for piece in file.chunks(piece).map(Some).chain([None]) {
        let taken = match piece {
            Some(piece) => reader.push(piece),
            None => reader.finish(),
        };
        taken.expect("it was read when it was looked at");
        while let Some(chunk) = reader.next_chunk() {
            assert_eq!(chunk.first_row, last + 1);
            last = chunk.last_row;
        }
    }
    assert!(last > 0 && reader.failures().rows <= last);
}
