//! What strangers send: the functions that `fuzz/` fuzzes, on every test run, over the seeds there and
//! over generated texts.

use std::path::Path;

use modelyard_kernel::form::{Node, Report, parse_body};
use modelyard_run::frame::Frames;
use proptest::prelude::*;

use crate::ml::{TrainRequest, strangers};
use crate::project::{manifest, mlproject};

#[path = "../../../fuzz/entries/ml.rs"]
mod entries;

fn feed(seeds: &str, entry: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(seeds);
    let files: Vec<_> =
        fs_err::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        entry(&fs_err::read(file).unwrap());
    }
}

#[test]
fn seeds_are_read_or_refused() {
    feed("mlproject", entries::mlproject);
    feed("manifest", entries::manifest);
    feed("geo", entries::geo);
    feed("batch", entries::batch);
}

/// Maps that are nearly right, and so get further than random bytes.
fn nearly_a_map() -> impl Strategy<Value = String> {
    let number = prop_oneof![Just("0"), Just("1.5"), Just("\"2\""), Just("null"), Just("1e400")];
    let list = number.prop_map(str::to_owned).prop_recursive(4, 40, 5, |inner| {
        let items = proptest::collection::vec(inner, 0..5);
        items.prop_map(|it| format!("[{}]", it.join(",")))
    });
    let kind = prop_oneof![
        Just("Point"),
        Just("LineString"),
        Just("Polygon"),
        Just("MultiPolygon"),
        Just("GeometryCollection"),
        Just("Circle"),
    ];
    let shape = (kind, list).prop_map(|(kind, list)| {
        format!("{{\"type\":\"{kind}\",\"coordinates\":{list},\"geometries\":{list}}}")
    });
    proptest::collection::vec(shape, 0..4).prop_map(|shapes| {
        let feature =
            |it| format!("{{\"type\":\"Feature\",\"properties\":{{}},\"geometry\":{it}}}");
        let features: Vec<String> = shapes.into_iter().map(feature).collect();
        format!("{{\"type\":\"FeatureCollection\",\"features\":[{}]}}", features.join(","))
    })
}

/// Lines of a file that describes a project, with the words that it may have.
fn nearly_a_project(separator: &'static str) -> impl Strategy<Value = String> {
    let word = "(name|entry_points|train|predict|parameters|command|user_options|type|default|model|\
        service|config|fields|runner|id|timeout|docker_env|python_env|period_type|title)";
    let value = "(1|-0.5|\"a b\"|\\[1, \"x\"\\]|\\{a: 1\\}|\\{a = 1\\}|true|null|\"python x.py \\{train_data\\}\"|&a|\\*a|1979-05-27|'''|)";
    let line = (0_usize..4, word, value).prop_map(move |(depth, word, value)| match depth {
        0 if separator == " = " => format!("[{word}.{word}]\n{word}{separator}{value}"),
        0 => format!("{word}:"),
        depth => format!("{}{word}{separator}{value}", "  ".repeat(depth - 1)),
    });
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text: String) {
        for bytes in [&bytes[..], text.as_bytes()] {
            entries::mlproject(bytes);
            entries::manifest(bytes);
            entries::geo(bytes);
            entries::batch(bytes);
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_looked_at(first: u8, text in "[a-b1,:\"\\[\\]{}\n\\\\ ]{0,60}") {
        entries::batch(&[&[first], text.as_bytes()].concat());
    }

    #[test]
    fn what_is_nearly_right_is_read_or_refused(
        map in nearly_a_map(),
        yaml in nearly_a_project(": "),
        toml in nearly_a_project(" = "),
    ) {
        entries::geo(map.as_bytes());
        entries::mlproject(yaml.as_bytes());
        entries::manifest(toml.as_bytes());
    }
}
