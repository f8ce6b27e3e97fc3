use proptest::prelude::*;

use super::*;

static FIELDS: Fields = Fields {
    table: "things",
    fields: &[
        Field::new("id", FieldKind::Id),
        Field::new("name", FieldKind::Text),
        Field::new("created_at", FieldKind::Time),
        Field::unsortable("status", FieldKind::OneOf(&["on", "off"])),
        Field::unsortable("tags", FieldKind::Tags),
    ],
    keys: &["id", "name", "created_at", "status", "tags"],
    search: &["name", "tags"],
    default_sort: ("id", Direction::Asc),
};

fn read(query: &str) -> Result<ListQuery, crate::Failure> {
    ListQuery::read(Some(query), &FIELDS, &[("own", "status")])
}

#[test]
fn a_whole_question_is_understood() {
    let it = read("name=foo&created_at[gte]=2026-11-01&status[in]=on,off&tags=a&sort=created_at:desc,name&fields=id,name&q=Den&own=on").unwrap();
    assert_eq!(it.filters.len(), 5);
    assert_eq!(
        it.sort,
        [("created_at", Direction::Desc), ("name", Direction::Asc), ("id", Direction::Asc)]
    );
    assert_eq!(it.only, Some(vec!["id", "name"]));
    assert_eq!(it.search.as_deref(), Some("den"));
}

#[test]
fn what_is_unknown_is_answered_with_what_is_valid() {
    for (query, code, valid) in [
        ("nam=foo", "filter_unknown", "`created_at`"),
        ("name[like]=x", "operator_unknown", "`contains`"),
        ("name[gte=x", "filter_unknown", "`name`"),
        ("sort=status", "sort_unknown", "`created_at`"),
        ("sort=name:up", "sort_unknown", "`desc`"),
        ("fields=id,nope", "field_unknown", "`tags`"),
        ("status=maybe", "filter_invalid", "`off`"),
        ("created_at=soon", "filter_invalid", "2026"),
        ("cursor=nonsense", "cursor_invalid", "next"),
    ] {
        let failure = read(query).unwrap_err();
        assert_eq!(failure.code(), code, "{query}");
        assert!(failure.detail().contains(valid), "{query}: {}", failure.detail());
    }
}

#[test]
fn everything_that_is_wrong_is_listed_and_the_first_named() {
    let found = |query: &str| {
        let failure = read(query).unwrap_err();
        let uri = "/things".parse().unwrap();
        let problem = Value::from(failure.problem(&uri, "", ""));
        let errors = problem["errors"].as_array().unwrap().clone();
        let found: Vec<String> = errors
            .iter()
            .map(|it| format!("{} {} {}", it["loc"][1], it["type"], it["input"]).replace('"', ""))
            .collect();
        (failure.status().as_u16(), failure.code().to_owned(), found)
    };
    let (status, code, errors) = found(
        "page=0&nope=1&sort=nope,name:up&fields=nope,id&id[foo]=1&size=1000&status[in]=a,b&own=x",
    );
    assert_eq!((status, code.as_str()), (400, "filter_unknown"));
    assert_eq!(
        errors,
        [
            "nope filter_unknown 1",
            "sort sort_unknown nope,name:up",
            "sort sort_unknown nope,name:up",
            "fields field_unknown nope,id",
            "id[foo] operator_unknown 1",
            "status[in] filter_invalid a,b",
            "status[in] filter_invalid a,b",
            "page greater_than_equal 0",
            "size less_than_equal 1000",
            "own enum x",
        ]
    );
    // What only the contract's parameters say is the contract's violation.
    let (status, code, errors) = found("limit=0&own=x");
    assert_eq!((status, code.as_str()), (422, "validation_failed"));
    assert_eq!(errors, ["limit greater_than_equal 0", "own enum x"]);
    // Without an order nothing is known of a cursor.
    assert_eq!(found("cursor=x&sort=nope").2, ["sort sort_unknown nope"]);
    let (_, code, errors) = found(&"nope=1&".repeat(60));
    assert_eq!((code.as_str(), errors.len()), ("filter_unknown", 51));
}

#[test]
fn a_text_to_look_for_has_an_end() {
    // SQLite gives up on a pattern of 50,000 bytes, and every other character may need an escape.
    for query in ["q=", "name[contains]="] {
        assert!(read(&format!("{query}{}", "%C3%A5".repeat(1000))).is_ok(), "{query}");
        let failure = read(&format!("{query}{}", "a".repeat(1001))).unwrap_err();
        assert_eq!((failure.code(), failure.status().as_u16()), ("filter_invalid", 400), "{query}");
        assert!(failure.detail().contains("1000 characters"), "{}", failure.detail());
    }
    assert!(read(&format!("name={}", "a".repeat(60_000))).is_ok());
}

#[test]
fn a_time_is_as_long_as_it_is_precise() {
    for (text, seconds) in [
        ("2026-11-01", 86_400.0),
        ("2026-11-01T10:00:00Z", 1.0),
        ("2026-11-01T10:00:00", 1.0),
        ("2026-11-01T10:00:00.5Z", 0.1),
        ("2026-11-01T10:00:00.123456Z", 1e-6),
        ("2026-11-01T10:00:00.123456789Z", 1e-6),
    ] {
        let it = read(&format!("created_at={text}")).unwrap();
        let [crate::db::Value::Time(from), crate::db::Value::Time(until)] =
            it.filters[0].values[..]
        else {
            panic!("{text}: {:?}", it.filters);
        };
        let micros = std::time::Duration::from_secs_f64(seconds).as_micros();
        assert_eq!(u128::try_from(until.micros() - from.micros()).unwrap(), micros, "{text}");
    }
}

#[test]
fn no_fields_at_all_are_all_fields() {
    assert!(read("fields=").unwrap().wants("tags"));
}

#[test]
fn pages_out_of_bounds_are_violations() {
    for query in ["page=0&size=2", "page=1&size=101", "page=x&size=1", "limit=0"] {
        assert_eq!(read(query).unwrap_err().code(), "validation_failed", "{query}");
    }
}

proptest! {
    #[test]
    fn no_query_string_panics(query in ".{0,200}") {
        let _answer = read(&query);
    }

    #[test]
    fn cursors_come_back_as_they_went(name in "[^\0]{0,40}", micros in 0_i64..4_000_000_000_000_000) {
        let query = read("sort=name,created_at:desc").unwrap();
        let values = vec![
            crate::db::Value::Text(name),
            crate::db::Value::Time(crate::Time::from_micros(micros)),
            crate::db::Value::Text("01M7W2GJGNPH03KT3S3W4GRB46".to_owned()),
        ];
        let text = cursor::encode(&values, &query);
        prop_assert_eq!(cursor::decode(&text, &query), Some(values));
        prop_assert_eq!(cursor::decode(&text, &read("sort=name").unwrap()), None);
    }
}
