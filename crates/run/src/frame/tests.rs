use super::*;
use modelyard_kernel::form::{Node, Report, parse_body};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(value: Value) -> Result<Frame, Value> {
    let report = Report::new();
    let frame = Frame::read(Node::at(&["body", "data"], &value, &report));
    match report.finish() {
        Ok(()) => Ok(frame.expect("a frame or a violation")),
        Err(violations) => Err(serde_json::to_value(violations).unwrap()),
    }
}

fn frame(value: Value) -> Frame {
    read(value).expect("a good frame")
}

fn csv(text: &str) -> Frame {
    Frame::from_csv(text.as_bytes()).expect("a good file")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

mod reading {
    use super::*;

    #[test]
    fn a_frame_is_echoed_with_its_schema() {
        let wire = json!({"columns": ["disease_cases"], "data": [[1], [2.5], [null]],
            "schema": {"fields": [{"name": "disease_cases", "type": "number", "title": "T"}]}});
        assert_eq!(serde_json::to_value(frame(wire.clone())).unwrap(), wire);
        let wire = json!({"columns": ["a", "b"], "data": [["x", true]]});
        assert_eq!(serde_json::to_value(frame(wire.clone())).unwrap(), wire);
        let empty = frame(json!({"columns": [], "data": [], "schema": null}));
        assert_eq!(empty, Frame::default());
        assert!(empty.is_empty());
    }

    #[test]
    fn what_is_missing_or_of_the_wrong_type_is_named() {
        assert_eq!(
            read(json!({"columns": ["a"]})),
            Err(json!([{"type": "missing", "loc": ["body", "data", "data"],
                "msg": "Field required", "input": {"columns": ["a"]}}]))
        );
        assert_eq!(
            read(json!({"columns": "a", "data": [1]})),
            Err(json!([
                {"type": "list_type", "loc": ["body", "data", "columns"],
                    "msg": "Input should be a valid list", "input": "a"},
                {"type": "list_type", "loc": ["body", "data", "data", 0],
                    "msg": "Input should be a valid list", "input": 1},
            ]))
        );
        assert_eq!(
            read(json!({"columns": [1], "data": [[1]]})),
            Err(json!([{"type": "string_type", "loc": ["body", "data", "columns", 0],
                "msg": "Input should be a valid string", "input": 1}]))
        );
    }

    #[test]
    fn a_column_has_one_of_five_types() {
        let expected = "'string', 'integer', 'number', 'boolean' or 'any'";
        assert_eq!(
            read(json!({"columns": ["x"], "data": [[1]],
                "schema": {"fields": [{"name": "x", "type": "date"}]}})),
            Err(json!([{"type": "literal_error", "input": "date",
                "loc": ["body", "data", "schema", "fields", 0, "type"],
                "msg": format!("Input should be {expected}"), "ctx": {"expected": expected}}]))
        );
    }

    fn complaints(value: Value) -> Vec<(Value, String)> {
        let violations = read(value).unwrap_err();
        let violations = violations.as_array().unwrap().iter();
        let complaint = |violation: &Value| {
            assert_eq!(violation["type"], "value_error");
            let msg = violation["msg"].as_str().unwrap().strip_prefix("Value error, ").unwrap();
            (violation["loc"].clone(), msg.to_owned())
        };
        violations.map(complaint).collect()
    }

    #[test]
    fn rows_are_as_long_as_the_columns() {
        assert_eq!(
            complaints(json!({"columns": ["a", "b"], "data": [[1], [1, 2], [1, 2, 3]]})),
            [
                (
                    json!(["body", "data", "data", 0]),
                    "the row has 1 cells, but there are 2 columns".to_owned()
                ),
                (
                    json!(["body", "data", "data", 2]),
                    "the row has 3 cells, but there are 2 columns".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn no_column_is_there_twice_and_no_schema_speaks_of_others() {
        assert_eq!(
            complaints(json!({"columns": ["a", "a"], "data": []})),
            [(json!(["body", "data", "columns", 1]), "column 'a' is there twice".to_owned())]
        );
        assert_eq!(
            complaints(json!({"columns": ["a"], "data": [],
                "schema": {"fields": [{"name": "b", "type": "any"}]}})),
            [(
                json!(["body", "data", "schema", "fields", 0, "name"]),
                "there is no column 'b'".to_owned()
            )]
        );
    }

    #[test]
    fn cells_are_not_nested() {
        assert_eq!(
            complaints(json!({"columns": ["a"], "data": [[[1]], [{}]]})),
            [
                (
                    json!(["body", "data", "data", 0, 0]),
                    "a cell is text, a number, a boolean or null".to_owned()
                ),
                (
                    json!(["body", "data", "data", 1, 0]),
                    "a cell is text, a number, a boolean or null".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn a_thoroughly_wrong_frame_gets_a_short_answer() {
        let row = vec![json!([1]); 50];
        let violations = read(json!({"columns": ["a"], "data": vec![row; 5000]})).unwrap_err();
        assert_eq!(violations.as_array().unwrap().len(), 100);
        assert!(violations.to_string().len() < 100_000);
    }

    proptest! {
        #[test]
        fn any_document_is_a_frame_or_has_violations(
            text in r#"\{"columns":\[("[ab]",?){0,2}\],"data":\[(\[([0-9]{1,2},?){0,2}\],?){0,2}\]\}"#,
            bytes: Vec<u8>,
        ) {
            for body in [text.as_bytes(), &bytes] {
                if let Ok(value) = parse_body(Some("application/json"), body)
                    && let Ok(frame) = read(value)
                {
                    prop_assert!(frame.data.iter().all(|row| row.len() == frame.columns.len()));
                }
            }
        }
    }
}

mod files {
    use super::*;

    #[test]
    fn a_frame_is_written_as_python_writes_it() {
        let frame = frame(json!({
            "columns": ["time_period", "location, or place", "n", "x", "ok"],
            "data": [
                ["2020-01", "a \"b\"", 12_345_678_901_234_567_890_u64, 1e300, true],
                ["2020-02", "two\r\nlines", -1, 1e-5, false],
                [null, "", 0, 24.0, null],
            ],
        }));
        assert_eq!(
            text(frame.to_csv()),
            "time_period,\"location, or place\",n,x,ok\r\n\
             2020-01,\"a \"\"b\"\"\",12345678901234567890,1e+300,True\r\n\
             2020-02,\"two\r\nlines\",-1,1e-05,False\r\n\
             ,,0,24.0,\r\n"
        );
    }

    #[test]
    fn an_empty_cell_alone_in_its_row_is_quoted() {
        let frame = Frame::new(vec!["a".to_owned()], vec![vec![Cell::Null], vec![1.into()]]);
        assert_eq!(text(frame.to_csv()), "a\r\n\"\"\r\n1\r\n");
        assert_eq!(Frame::from_csv(&frame.to_csv()).unwrap(), frame);
        assert_eq!(text(Frame::default().to_csv()), "\r\n");
    }

    #[test]
    fn a_column_has_the_type_that_all_its_cells_share() {
        let read = csv("int,float,mixed,bool,text,codes,nothing,none\n\
             1,1.5,1,true,a,007,,nan\n\
             -2,1e3,2.5,No,1, 1, ,inf\n\
             , ,,YES,,,,\n");
        assert_eq!(read.columns.len(), 8);
        assert_eq!(
            json!(read.data),
            json!([
                [1, 1.5, 1.0, true, "a", "007", null, null],
                [-2, 1000.0, 2.5, false, "1", " 1", null, null],
                [null, null, null, true, null, null, null, null],
            ])
        );
    }

    #[test]
    fn numbers_that_would_lose_something_stay_text() {
        let read = csv("a,b,c\n1234567890123456789012345,00.5,18446744073709551615\n");
        assert_eq!(
            json!(read.data),
            json!([["1234567890123456789012345", "00.5", 18_446_744_073_709_551_615_u64]])
        );
    }

    #[test]
    fn files_of_other_systems_are_read() {
        assert_eq!(csv("\u{feff}a,b\r\n1,2\r\n\r\n3,4").rows(), 2);
        assert_eq!(csv("a\r1\r2\r").rows(), 2);
        assert_eq!(csv(""), Frame::default());
        assert_eq!(csv("\r\n"), Frame::default());
        assert_eq!(csv("a,b\n"), Frame::new(vec!["a".to_owned(), "b".to_owned()], vec![]));
    }

    #[test]
    fn what_is_no_table_is_explained() {
        let explain = |bytes: &[u8]| Frame::from_csv(bytes).unwrap_err().to_string();
        assert_eq!(explain(b"a,b\n1,2\n3\n"), "line 3 has 1 cells, but there are 2 columns");
        assert_eq!(explain(b"a,b,a\n"), "the column `a` is there twice");
        assert_eq!(explain(b"a\n\xff\n"), "the file is not UTF-8 text, see byte 2");
    }

    fn column() -> impl Strategy<Value = Vec<Cell>> {
        fn cells<S: Strategy<Value = Cell>>(cell: S) -> impl Strategy<Value = Vec<Cell>> {
            let cell = prop_oneof![1 => Just(Cell::Null), 4 => cell];
            proptest::collection::vec(cell, 5)
        }
        prop_oneof![
            cells(any::<i64>().prop_map(Cell::from)),
            cells(any::<u64>().prop_map(Cell::from)),
            cells(any::<f64>().prop_map(Cell::from)),
            cells(any::<bool>().prop_map(Cell::from)),
            // A letter at the end keeps text from looking like something else.
            cells("[ -~éα\n\r]{0,8}[g-m]".prop_map(Cell::from)),
        ]
    }

    proptest! {
        #[test]
        fn a_frame_survives_the_round_trip(columns in proptest::collection::vec(column(), 1..6)) {
            let names = (0..columns.len()).map(|index| format!("c\"{index},")).collect();
            let rows = (0..5).map(|row| columns.iter().map(|c| c[row].clone()).collect()).collect();
            let frame = Frame::new(names, rows);
            prop_assert_eq!(Frame::from_csv(&frame.to_csv()).unwrap(), frame);
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes: Vec<u8>, text in "[a-c0-9,\"\r\n. ]{0,60}") {
            let _ = Frame::from_csv(&bytes);
            if let Ok(frame) = Frame::from_csv(text.as_bytes()) {
                let again = Frame::from_csv(&frame.to_csv()).unwrap();
                prop_assert_eq!(again.columns, frame.columns);
            }
        }
    }
}

mod spelling {
    use super::*;

    #[test]
    fn floats_are_printed_as_python_prints_them() {
        let printed =
            |value: f64| text(Frame::new(vec!["x".to_owned()], vec![vec![value.into()]]).to_csv());
        // Recorded from Python 3.13.
        let recorded = [
            (8.333_333_333_333_334, "8.333333333333334"),
            (1e300, "1e+300"),
            (1e-5, "1e-05"),
            (24.0, "24.0"),
            (0.0001, "0.0001"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (-0.0, "-0.0"),
            (165_437_034_038_061.12, "165437034038061.12"),
            (5e-324, "5e-324"),
            (1.5e-7, "1.5e-07"),
            (f64::MAX, "1.7976931348623157e+308"),
        ];
        for (value, expected) in recorded {
            assert_eq!(printed(value), format!("x\r\n{expected}\r\n"));
        }
    }

    #[test]
    fn records_are_printed_as_python_prints_them() {
        let frame = frame(json!({
            "columns": ["time_period", "é", "x"],
            "data": [["2023-04", "naïve 😀\u{7f}\n\"", 24.0], ["2023-05", null, 1e-5]],
        }));
        let mut out = Vec::new();
        frame.write_records(&mut out).unwrap();
        assert_eq!(
            text(out),
            "[{\"time_period\": \"2023-04\", \
             \"\\u00e9\": \"na\\u00efve \\ud83d\\ude00\\u007f\\n\\\"\", \"x\": 24.0}, \
             {\"time_period\": \"2023-05\", \"\\u00e9\": null, \"x\": 1e-05}]"
        );
        let mut out = Vec::new();
        Frame::default().write_records(&mut out).unwrap();
        assert_eq!(text(out), "[]");
    }

    #[test]
    fn any_json_can_be_printed_as_python_prints_it() {
        let mut out = Vec::new();
        write_python_json(&json!({"a": [1, 2.0, true, null], "b": {}, "c": []}), &mut out).unwrap();
        assert_eq!(text(out), r#"{"a": [1, 2.0, true, null], "b": {}, "c": []}"#);
    }

    proptest! {
        #[test]
        fn what_python_style_prints_is_the_same_json(text: String, number: f64) {
            let value = json!([text, number, {text.as_str(): null}]);
            let mut out = Vec::new();
            write_python_json(&value, &mut out).unwrap();
            prop_assert!(out.is_ascii());
            prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), value);
        }
    }
}

mod meaning {
    use super::*;

    fn types(frame: &Frame, required: &[&str]) -> String {
        let required: Vec<String> = required.iter().map(|&name| name.to_owned()).collect();
        let fields = frame.infer_schema(&required).fields;
        fields.iter().map(|field| field.kind.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn canonical_columns_have_their_types_by_agreement() {
        let frame = frame(json!({
            "columns": ["time_period", "location", "disease_cases", "population", "rainfall",
                "mean_temperature", "humidity"],
            "data": [[1, 2, "3", 4.5, null, 6, "7"]],
        }));
        let agreed = "string string number integer number number";
        assert_eq!(types(&frame, &["humidity"]), format!("{agreed} number"));
        assert_eq!(types(&frame, &[]), format!("{agreed} string"));
    }

    #[test]
    fn other_columns_have_the_types_of_their_values() {
        let frame = frame(json!({
            "columns": ["int", "num", "mix", "str", "bool", "any", "null"],
            "data": [[1, 1.5, 1, "a", true, 1, null], [null, 2.5, 1.5, null, false, "a", null]],
        }));
        assert_eq!(types(&frame, &[]), "integer number number string boolean any any");
        assert_eq!(types(&Frame::new(vec!["a".to_owned()], vec![]), &[]), "any");
    }

    #[test]
    fn a_schema_shows_names_and_types_only() {
        let schema = Frame::new(vec!["location".to_owned()], vec![]).infer_schema(&[]);
        let expected = json!({"fields": [{"name": "location", "type": "string"}]});
        assert_eq!(serde_json::to_value(schema).unwrap(), expected);
    }

    #[test]
    fn the_horizon_is_that_of_the_longest_location() {
        let future = frame(json!({"columns": ["location", "time_period"], "data":
            [["a", "1"], ["a", "2"], ["a", "2"], ["b", "1"], ["b", "3"], ["b", "4"]]}));
        assert_eq!(future.horizon(), Some(3));
        let nowhere = frame(json!({"columns": ["time_period"], "data": [["1"], ["2"], ["1"]]}));
        assert_eq!(nowhere.horizon(), Some(2));
        assert_eq!(frame(json!({"columns": ["time_period"], "data": []})).horizon(), None);
        assert_eq!(frame(json!({"columns": ["location"], "data": [["a"]]})).horizon(), None);
    }

    proptest! {
        #[test]
        fn inference_says_something_about_every_column(
            columns in proptest::collection::vec("[a-z]{0,3}", 0..4),
            data in proptest::collection::vec(
                proptest::collection::vec("[0-9a-z.]{0,3}".prop_map(Cell::from), 0..5), 0..5),
        ) {
            // Also for a frame that was made by hand and keeps no promise.
            let frame = Frame::new(columns, data);
            prop_assert_eq!(frame.infer_schema(&[]).fields.len(), frame.columns.len());
            let _ = (frame.to_csv(), frame.horizon());
        }
    }
}
