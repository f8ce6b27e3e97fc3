use super::*;
use proptest::prelude::*;

fn check<T>(value: Value, read: impl FnOnce(&Node<'_>) -> Option<T>) -> Result<T, Value> {
    let report = Report::new();
    let read = read(&Node::body(&value, &report));
    match report.finish() {
        Ok(()) => Ok(read.expect("a value or a violation")),
        Err(violations) => {
            assert!(read.is_none(), "a violation and a value");
            Err(serde_json::to_value(violations).unwrap())
        }
    }
}

fn kind<T: std::fmt::Debug>(
    value: Value,
    read: impl FnOnce(&Node<'_>) -> Option<T>,
) -> (String, String) {
    let violations = check(value, read).unwrap_err();
    assert_eq!(violations.as_array().unwrap().len(), 1);
    let text = |key: &str| violations[0][key].as_str().unwrap().to_owned();
    (text("type"), text("msg"))
}

#[test]
fn integers_are_read_leniently() {
    let cases =
        [(json!(7), 7), (json!("7"), 7), (json!(1.0), 1), (json!(true), 1), (json!(-3), -3)];
    for (value, read) in cases {
        assert_eq!(check(value, |node| node.int()), Ok(read));
    }
}

#[test]
fn what_is_no_integer_is_named() {
    let size = "Unable to parse input string as an integer, exceeded maximum size";
    let cases = [
        (
            json!("abc"),
            "int_parsing",
            "Input should be a valid integer, unable to parse string as an integer",
        ),
        (
            json!(1.5),
            "int_from_float",
            "Input should be a valid integer, got a number with a fractional part",
        ),
        (json!(null), "int_type", "Input should be a valid integer"),
        (json!([]), "int_type", "Input should be a valid integer"),
        (json!(1e300), "int_parsing_size", size),
        (json!(u64::MAX), "int_parsing_size", size),
    ];
    for (value, expected, msg) in cases {
        assert_eq!(kind(value, |node| node.int()), (expected.to_owned(), msg.to_owned()));
    }
}

#[test]
fn numbers_are_read_leniently() {
    for (value, read) in [(json!(1), 1.0), (json!("1.5"), 1.5), (json!(true), 1.0)] {
        assert_eq!(check(value, |node| node.float()), Ok(read));
    }
    assert_eq!(kind(json!("x"), |node| node.float()).0, "float_parsing");
    assert_eq!(kind(json!({}), |node| node.float()).0, "float_type");
    assert_eq!(kind(json!("nan"), |node| node.float()).0, "finite_number");
}

#[test]
fn booleans_are_read_leniently() {
    for (value, read) in
        [(json!(true), true), (json!(0), false), (json!(1.0), true), (json!("Yes"), true)]
    {
        assert_eq!(check(value, |node| node.bool()), Ok(read));
    }
    assert_eq!(kind(json!(2), |node| node.bool()).0, "bool_parsing");
    assert_eq!(kind(json!("ja"), |node| node.bool()).0, "bool_parsing");
    assert_eq!(kind(json!(null), |node| node.bool()).0, "bool_type");
}

#[test]
fn strings_are_strings() {
    assert_eq!(check(json!("a"), |node| node.string()), Ok("a".to_owned()));
    let expected = ("string_type".to_owned(), "Input should be a valid string".to_owned());
    assert_eq!(kind(json!(5), |node| node.string()), expected);
}

#[test]
fn ulids_are_given_back_in_upper_case() {
    let id = "01K72PWT05GEXK1S24AVKAZ900";
    assert_eq!(check(json!(id.to_lowercase()), |node| node.ulid()), Ok(id.to_owned()));
    let refused = [
        json!("nope"),
        json!(""),
        json!("8".repeat(26)),
        json!("0000000000000000000000000L"),
        json!("01k72pwt05gexk1s24avkaz9u0"),
        json!("é".repeat(13)),
        json!(5),
        json!(null),
    ];
    for value in refused {
        let expected = ("ulid_format".to_owned(), "Unrecognized format".to_owned());
        assert_eq!(kind(value, |node| node.ulid()), expected);
    }
}

#[test]
fn choices_are_offered() {
    let read = |node: &Node<'_>| node.one_of(&["fast", "slow"]);
    assert_eq!(check(json!("slow"), read), Ok("slow"));
    assert_eq!(
        check(json!("zzz"), read),
        Err(json!([{"type": "literal_error", "loc": ["body"], "input": "zzz",
            "msg": "Input should be 'fast' or 'slow'", "ctx": {"expected": "'fast' or 'slow'"}}]))
    );
}

#[test]
fn the_wrong_containers_are_named() {
    assert_eq!(
        check(json!([]), |node| node.object().map(drop)),
        Err(json!([{"type": "model_attributes_type", "loc": ["body"], "input": [],
            "msg": "Input should be a valid dictionary or object to extract fields from"}]))
    );
    assert_eq!(kind(json!(1), |node| node.dict().map(|_| ())).0, "dict_type");
    assert_eq!(kind(json!("str"), |node| node.list().map(|_| ())).0, "list_type");
}

#[test]
fn all_violations_are_collected_with_their_places() {
    let value = json!({"name": 1, "list": ["a", 2]});
    let report = Report::new();
    let object = Node::body(&value, &report).tagged("train").object().unwrap();
    assert!(object.required("name").unwrap().string().is_none());
    assert!(object.required("data").is_none());
    for item in object.get("list").unwrap().list().unwrap() {
        item.string();
    }
    let found = serde_json::to_value(report.finish().unwrap_err()).unwrap();
    let expected = json!([
        {"type": "string_type", "loc": ["body", "train", "name"],
            "msg": "Input should be a valid string", "input": 1},
        {"type": "missing", "loc": ["body", "train", "data"], "msg": "Field required",
            "input": value},
        {"type": "string_type", "loc": ["body", "train", "list", 1],
            "msg": "Input should be a valid string", "input": 2},
    ]);
    assert_eq!(found, expected);
}

#[test]
fn absent_and_null_are_told_apart_when_asked() {
    let value = json!({"geo": null});
    let report = Report::new();
    let object = Node::body(&value, &report).object().unwrap();
    assert!(object.get("geo").is_some_and(|node| node.is_null()));
    assert!(object.optional("geo").is_none());
    assert!(object.get("tags").is_none());
    assert!(object.required("geo").is_some());
    assert_eq!(object.entries().count(), 1);
    assert!(report.is_empty());
}

#[test]
fn rules_of_our_own_are_value_errors() {
    assert_eq!(
        check(json!([1]), |node| -> Option<()> {
            node.fail_rule("row has 1 cell, expected 2");
            None
        }),
        Err(json!([{"type": "value_error", "loc": ["body"], "input": [1],
            "msg": "Value error, row has 1 cell, expected 2", "ctx": {"error": {}}}]))
    );
}

#[test]
fn bounds_are_checked_in_the_order_that_clients_know() {
    let bounds = Bounds::none().at_least(0).at_most(24);
    assert_eq!(check(json!("24"), |node| node.int_within(&bounds)), Ok(24));
    assert_eq!(
        check(json!(99), |node| node.int_within(&bounds)),
        Err(json!([{"type": "less_than_equal", "loc": ["body"], "input": 99,
            "msg": "Input should be less than or equal to 24", "ctx": {"le": 24}}]))
    );
    let (kind, msg) = kind(json!(-1.0), |node| node.float_within(&bounds));
    assert_eq!(
        (kind.as_str(), msg.as_str()),
        ("greater_than_equal", "Input should be greater than or equal to 0")
    );
}

proptest! {
    #[test]
    fn every_reader_gives_a_value_or_a_violation(text: String, number: f64, index in 0_usize..6) {
        let value = match index {
            0 => json!(text),
            1 => json!(number),
            2 => json!([text]),
            3 => json!({text: number}),
            4 => json!(number.is_nan()),
            _ => Value::Null,
        };
        let _ = check(value.clone(), |node| node.int());
        let _ = check(value.clone(), |node| node.float());
        let _ = check(value.clone(), |node| node.bool());
        let _ = check(value.clone(), |node| node.string());
        let _ = check(value.clone(), |node| node.ulid());
        let _ = check(value.clone(), |node| node.tags());
        let _ = check(value.clone(), |node| node.object().map(drop));
        let _ = check(value, |node| node.list().map(drop));
    }
}
