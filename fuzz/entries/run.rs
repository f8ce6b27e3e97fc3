//! What is fuzzed: the functions that meet the bytes of strangers. Included by the fuzz targets and by
//! the tests of `modelyard-run`; whoever includes it imports the names that it takes from `super`.

use std::io::Cursor;

use super::{
    ArchiveLimits, Bounds, ConfigSchema, Field, FieldKind, Frame, Frames, Length, ListQuery, News,
    Node, Report, TASK_FIELDS, Told, extract, parse_body, read_range, unpack,
};

/// No answer to any request is longer, however wrong the request was.
const LONGEST_ANSWER: usize = 1_000_000;

/// A request that carries a frame.
pub fn body(bytes: &[u8]) {
    let Ok(value) = parse_body(Some("application/json"), bytes) else { return };
    let report = Report::new();
    let frame = Frame::read(Node::body(&value, &report));
    assert_eq!(frame.is_some(), report.is_empty());
    if let Some(frame) = &frame {
        let schema = frame.infer_schema(&[]);
        assert_eq!(schema.fields.len(), frame.columns.len());
        assert!(frame.horizon().unwrap_or_default() <= frame.rows());
        frame.write_records(std::io::sink()).expect("a frame has records");
        csv(&frame.to_csv());
    }
    assert!(directly(bytes).is_none_or(|direct| Some(direct) == frame));
    check_answer(report);
}

/// The frame on its shorter way.
fn directly(bytes: &[u8]) -> Option<Frame> {
    let body = [b"{\"data\":", bytes, b"}"].concat();
    let (mut frames, rest) = Frames::split(&body, &["data"], 1000).ok()?;
    let report = Report::new();
    let object = Node::body(&rest, &report).object()?;
    frames.required(&object, "data")
}

/// A file that a model left behind.
pub fn csv(bytes: &[u8]) {
    let Ok(frame) = Frame::from_csv(bytes) else { return };
    assert!(frame.data.iter().all(|row| row.len() == frame.columns.len()));
    if let Ok(again) = Frame::from_csv(&frame.to_csv()) {
        assert_eq!(again.rows(), frame.rows());
    }
}

/// A request that carries a config.
pub fn config(bytes: &[u8]) {
    let Ok(value) = parse_body(Some("application/json"), bytes) else { return };
    let report = Report::new();
    let data = schema().read(Node::body(&value, &report));
    assert_eq!(data.is_some(), report.is_empty());
    if let Some(data) = data {
        assert!(data.contains_key("prediction_periods") && data.contains_key("path"));
    }
    check_answer(report);
}

/// The query of a list, which may be a cursor's too.
pub fn list(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for query in [text.to_string(), format!("sort=command,created_at:desc&cursor={text}")] {
        let Err(failure) = ListQuery::read(Some(&query), &TASK_FIELDS, &[("enabled", "enabled")])
        else {
            continue;
        };
        assert!(matches!(failure.status().as_u16(), 400 | 422));
        let problem = failure.problem(&"/api/v1/tasks".parse().expect("a path"), "", "");
        let answer = serde_json::to_vec(&problem).expect("a problem has a JSON");
        assert!(answer.len() < LONGEST_ANSWER);
    }
}

/// A `Range` of content, whose size is the first byte's.
pub fn range(bytes: &[u8]) {
    let Some((size, text)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    for size in [u64::from(*size), u64::MAX - u64::from(*size)] {
        if let Ok(Some(range)) = read_range(&text, size) {
            assert!(range.start < range.end && range.end <= size);
        }
    }
}

/// The archive of a workspace, which a client may have uploaded.
pub fn archive(bytes: &[u8]) {
    let limits = ArchiveLimits { total_bytes: 10_000, entries: 20 };
    let above = tempfile::tempdir().expect("a directory");
    let files = above.path().join("files");
    fs_err::create_dir(&files).expect("another in it");
    let extracted = extract(Cursor::new(bytes), &files, limits);
    let unpacked = unpack(Cursor::new(bytes), limits);
    assert_eq!(fs_err::read_dir(above.path()).expect("it is still there").count(), 1);
    if extracted.is_ok() {
        for (name, content) in unpacked.expect("what becomes files is read into memory as well") {
            assert_eq!(fs_err::read(files.join(name)).expect("a file"), content);
        }
    }
}

/// What a script tells while it runs, which comes in pieces.
pub fn progress(bytes: &[u8]) {
    let (mut whole, mut in_pieces) = (Told::default(), Told::default());
    let (mut news, mut again) = (News::default(), News::default());
    whole.push(bytes, &mut news);
    for piece in bytes.chunks(7) {
        in_pieces.push(piece, &mut again);
    }
    whole.finish(&mut news);
    in_pieces.finish(&mut again);
    assert_eq!(news, again);
    let News { progress, checkpoint, complaint } = news;
    if let Some(progress) = progress {
        assert!(progress.fraction.is_none_or(|it| (0.0..=1.0).contains(&it)));
        assert!(progress.message.is_none_or(|it| it.len() <= 1024 && !it.contains('\0')));
        assert!(progress.counters.len() <= 64);
        assert!(progress.counters.values().all(|it| it.is_finite()));
    }
    if let Some(name) = checkpoint {
        let parts = std::path::Path::new(name.as_str()).components();
        assert!(parts.eq([std::path::Component::Normal(name.as_str().as_ref())]));
    }
    assert!(complaint.is_none_or(|it| it.len() <= 1024));
}

fn check_answer(report: Report) {
    if let Err(violations) = report.finish() {
        let answer = serde_json::to_vec(&violations).expect("violations have a JSON");
        assert!(answer.len() < LONGEST_ANSWER);
    }
}

/// A schema with a field of every kind.
fn schema() -> ConfigSchema {
    let lags = Field::new("n_lags", FieldKind::Integer).with_default(3);
    let path = Field::new("path", FieldKind::String);
    let list = FieldKind::List(Box::new(FieldKind::Number));
    let modes = FieldKind::Enum(vec!["fast".into(), 1.into(), serde_json::Value::Null]);
    let short = Length { min: Some(1), max: Some(3) };
    ConfigSchema::new("Fuzzed")
        .with_field(lags.within(Bounds::none().at_least(0).at_most(24)).nullable())
        .with_field(Field::new("precision", FieldKind::Number).optional())
        .with_field(path.with_length(short))
        .with_field(Field::new("flag", FieldKind::Boolean).with_hidden_default(false))
        .with_field(Field::new("mode", modes).optional())
        .with_field(Field::new("weights", list).with_length(short).optional())
        .with_field(Field::new("free", FieldKind::Any(serde_json::json!({}))).optional())
}
