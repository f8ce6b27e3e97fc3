//! Bodies are read directly as they are read the long way.

use std::fmt::Debug;

use modelyard_kernel::form::parse_body;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::*;

const ID: &str = "01M7W2GK0TW2TS583RRGA4PB56";

fn long<T>(body: &[u8], read: fn(&Node<'_>, &mut Frames) -> Option<T>) -> Option<T> {
    let value = parse_body(Some("application/json"), body).ok()?;
    let report = Report::new();
    let request = read(&Node::body(&value, &report), &mut Frames::default());
    report.finish().ok().and(request)
}

/// Whether the direct way took it; what it takes, the long way takes, and it is the same.
#[track_caller]
fn compare<T: Debug>(body: &[u8], read: fn(&Node<'_>, &mut Frames) -> Option<T>) -> bool {
    let direct = read_direct(body, 1_000_000, read);
    if let Ok(direct) = &direct {
        let long = long(body, read);
        let shown = String::from_utf8_lossy(body);
        assert_eq!(Some(format!("{direct:?}")), long.map(|it| format!("{it:?}")), "{shown}");
    }
    direct.is_ok()
}

fn compare_all(body: &[u8]) -> [bool; 3] {
    [compare(body, read_train), compare(body, read_predict), compare(body, ValidateRequest::read)]
}

const FRAME: &str = r#"{"columns": ["a", "b"], "data": [["x", 1.0], [null, true]],
    "schema": {"fields": [{"name": "a", "type": "string", "extra": [1]}]}}"#;

#[test]
fn good_bodies_are_read_directly() {
    let geo = r#"{"type": "FeatureCollection", "features": []}"#;
    let rest = format!(
        r#""geo": {geo}, "run_info": {{"prediction_length": "3"}}, "type": "train", "else": [[{{}}]]"#
    );
    let body = format!(r#" {{"data": {FRAME}, "config_id": "{ID}", {rest}}} "#);
    assert_eq!(compare_all(body.as_bytes()), [true, false, true]);
    let frames = format!(r#""future": {FRAME}, "historic": {FRAME}"#);
    let body = format!(r#"{{"artifact_id": "{ID}", "type": "predict", {frames}}}"#);
    assert_eq!(compare_all(body.as_bytes()), [false, true, true]);
}

#[test]
fn only_so_many_values_are_made_of_the_rest() {
    let body = |rest: &str| format!(r#"{{"config_id": "{ID}", "data": {FRAME}, "rest": {rest}}}"#);
    let read = |rest: &str| read_direct(body(rest).as_bytes(), 100, read_train);
    assert!(read(&format!("[{}0]", "0,".repeat(50))).is_ok());
    let error = read(&format!("[{}0]", "0,".repeat(100))).unwrap_err();
    assert!(error.starts_with("there are too many JSON values"), "{error}");
}

#[test]
fn what_is_wrong_is_said() {
    let say = |frame: &str| {
        let body = format!(r#"{{"config_id": "{ID}", "data": {frame}}}"#);
        let error = read_direct(body.as_bytes(), 100, read_train).unwrap_err();
        error.split(" at line").next().unwrap_or_default().to_owned()
    };
    let ragged = r#"{"columns": ["a"], "data": [[1], []]}"#;
    assert_eq!(say(ragged), "the row has 0 cells, but there are 1 columns");
    let nested = r#"{"columns": ["a"], "data": [[[]]]}"#;
    assert_eq!(say(nested), "invalid type: sequence, expected text, a number, a boolean or null");
    let twice = r#"{"columns": ["a", "a"], "data": []}"#;
    assert_eq!(say(twice), "column 'a' is there twice");
    assert_eq!(say(r#"{"columns": [], "data": []}"#), "a frame has no rows");
}

/// Mostly one of `good`, now and then one of `odd`.
fn mostly(
    good: &'static [&'static str],
    odd: &'static [&'static str],
) -> impl Strategy<Value = String> {
    prop_oneof![30 => select(good), 1 => select(odd)].prop_map(str::to_owned)
}

fn cell() -> impl Strategy<Value = String> {
    mostly(
        &[
            "1",
            "1.0",
            "-0",
            "-0.0",
            "1e5",
            "1E-7",
            "0.1",
            "null",
            "true",
            "false",
            "\"\"",
            "\"a\"",
            "12345678901234567890",
            "123456789012345678901234567890",
            "-9223372036854775809",
            r#""\u00e9\ud83d\ude00""#,
            "\"é and more than twenty-two bytes\"",
            "5e-324",
        ],
        &[
            "[]",
            "{}",
            "[1]",
            "1e999",
            r#""\ud800""#,
            "NaN",
            "01",
            "nul",
            "\"\u{1}\"",
            r#"{"$serde_json::private::RawValue": "5"}"#,
            r#"{"$serde_json::private::Number": "5"}"#,
        ],
    )
}

fn schema() -> impl Strategy<Value = String> {
    mostly(
        &[
            "null",
            r#"{"fields": []}"#,
            r#"{"fields": [{"name": "a", "type": "any", "title": null}]}"#,
            r#"{"fields": [{"name": "a", "type": "any", "x": 1, "name": "b"}], "x": {}}"#,
        ],
        &[
            "[[]]",
            "[]",
            "{}",
            r#"{"fields": [["a", "any", null, null]]}"#,
            r#"{"fields": [{"name": "a", "type": {"any": null}}]}"#,
            r#"{"fields": [{"name": "z", "type": "any"}]}"#,
            r#"{"fields": [], "fields": 1}"#,
            r#"{"$serde_json::private::RawValue": "{\"fields\": []}"}"#,
        ],
    )
}

fn frame() -> impl Strategy<Value = String> {
    let columns = mostly(&[r#"["a","b"]"#], &["[]", r#"["a"]"#, r#"["a","a"]"#, "[1, 2]", "null"]);
    let row = prop_oneof![30 => 2..3_usize, 1 => 0..4_usize]
        .prop_flat_map(|width| proptest::collection::vec(cell(), width))
        .prop_map(|cells| format!("[{}]", cells.join(" , ")));
    let rows =
        proptest::collection::vec(row, 0..4).prop_map(|rows| format!("[{}]", rows.join(",")));
    let data = prop_oneof![30 => rows, 1 => mostly(&["{}", "null", "[null]", "\"\""], &["[[]]"])];
    let other = mostly(&[r#""schema": null"#], &[r#""x": 1"#, r#""data": []"#, r#""columns": []"#]);
    let fields = (columns, data, schema(), other).prop_map(|(columns, data, schema, other)| {
        [
            format!(r#""columns": {columns}"#),
            format!(r#""data":{data}"#),
            format!(r#""schema": {schema}"#),
            other,
        ]
    });
    let object = (fields, 0..20_usize).prop_flat_map(|(fields, how)| {
        let [columns, data, schema, other] = fields;
        let fields = match how {
            0 => vec![columns, data, schema, other],
            1 => vec![columns],
            2 => vec![data],
            3..10 => vec![columns, data, schema],
            _ => vec![columns, data],
        };
        Just(fields).prop_shuffle().prop_map(|fields| format!("{{{}}}", fields.join(", ")))
    });
    prop_oneof![30 => object, 1 => mostly(&["null", "[]", r#"[["a"],[[1]]]"#], &["1"])]
}

fn body() -> impl Strategy<Value = String> {
    let ids = mostly(&["\"01M7W2GK0TW2TS583RRGA4PB56\""], &["\"01m7w2gk0tw2ts583rrga4pb56\"", "5"]);
    let geo = mostly(
        &["null", r#"{"type": "FeatureCollection", "features": []}"#],
        &["{}", r#"{"type": "FeatureCollection", "features": [], "features": 1}"#, "[1e999]"],
    );
    let info = mostly(
        &["null", "{}", r#"{"prediction_periods": 3}"#, r#"{"prediction_periods": "3"}"#],
        &[
            "3",
            r#"{"prediction_periods": 1.5}"#,
            r#"{"prediction_periods": 1, "prediction_periods": {}}"#,
        ],
    );
    let other = mostly(
        &["1", "[[], {}]", "\"\""],
        &[r#""\ud800""#, "1e999", r#"{"$serde_json::private::RawValue": "["}"#],
    );
    let kind = mostly(&["\"train\"", "\"predict\""], &["\"x\"", "1"]);
    let name = mostly(
        &["other"],
        &["data", "geo", "type", "$serde_json::private::RawValue", r"\u0064ata"],
    );
    (ids, [frame(), frame(), frame()], geo, info, (name, other), kind).prop_flat_map(
        |(id, [data, historic, future], geo, info, (name, other), kind)| {
            let fields = [
                format!(r#""config_id": {id}"#),
                format!(r#""artifact_id": {id}"#),
                format!(r#""data": {data}"#),
                format!(r#""historic":{historic}"#),
                format!(r#""future": {future}"#),
                format!(r#""geo": {geo}"#),
                format!(r#""run_info": {info}"#),
                format!(r#""{name}": {other}"#),
                format!(r#""type": {kind}"#),
            ];
            let all = fields.to_vec();
            let fields = prop_oneof![3 => Just(all.clone()), 1 => subsequence(all, 3..9)];
            fields.prop_shuffle().prop_map(|fields| format!("{{{}}}", fields.join(",\n")))
        },
    )
}

proptest! {
    #[test]
    fn any_body_is_read_directly_as_it_is_read_the_long_way(text in body()) {
        compare_all(text.as_bytes());
    }

    #[test]
    fn so_is_any_body_with_a_mistake(text in body(), at: Index, byte: u8, how in 0..3) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => _ = bytes.remove(at),
            _ => bytes.truncate(at),
        }
        compare_all(&bytes);
    }
}

#[test]
fn the_bodies_above_are_good_often_enough() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let taken = (0..500).filter(|_| {
        let text = body().new_tree(&mut runner).expect("a body").current();
        compare_all(text.as_bytes()).contains(&true)
    });
    let taken = taken.count();
    assert!((100..400).contains(&taken), "{taken} of 500");
}

#[test]
fn depth_is_as_deep_as_the_long_way_allows() {
    // `LargeBody` goes the long way with all that is deeper.
    for depth in 120..126 {
        let rest = "[".repeat(depth) + &"]".repeat(depth);
        let body = format!(r#"{{"config_id": "{ID}", "data": {FRAME}, "rest": {rest}}}"#);
        assert!(compare(body.as_bytes(), read_train), "{depth}");
    }
}
