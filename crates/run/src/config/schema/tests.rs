use super::*;
use modelyard_kernel::form::{Node, Report};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Peer config.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct PeerConfig {
    prediction_periods: i64,
    /// Number of lags
    #[schemars(range(min = 0, max = 24))]
    n_lags: i64,
    precision: f64,
    mode: Mode,
    sleep_s: f64,
    fail_train: bool,
    fail_predict: bool,
}

impl Default for PeerConfig {
    fn default() -> Self {
        PeerConfig {
            prediction_periods: 3,
            n_lags: 3,
            precision: 0.01,
            mode: Mode::Fast,
            sleep_s: 0.0,
            fail_train: false,
            fail_predict: false,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Slow,
}

/// The same by hand, as a project's files would say it.
fn peer_by_hand() -> ConfigSchema {
    let bounds = Bounds::none().at_least(0).at_most(24);
    let lags = Field::new("n_lags", FieldKind::Integer).with_default(3).within(bounds);
    let mode = FieldKind::Enum(vec![json!("fast"), json!("slow")]);
    ConfigSchema::new("PeerConfig")
        .with_description("Peer config.")
        .with_field(lags.with_description("Number of lags"))
        .with_field(Field::new("precision", FieldKind::Number).with_default(0.01))
        .with_field(Field::new("mode", mode).with_default("fast"))
        .with_field(Field::new("sleep_s", FieldKind::Number).with_default(0.0))
        .with_field(Field::new("fail_train", FieldKind::Boolean).with_default(false))
        .with_field(Field::new("fail_predict", FieldKind::Boolean).with_default(false))
}

/// As recorded from the service that this contract comes from.
const RECORDED: &str = r#"{"additionalProperties":true,"description":"Peer config.","properties":{"prediction_periods":{"default":3,"title":"Prediction Periods","type":"integer"},"additional_continuous_covariates":{"default":[],"items":{"type":"string"},"title":"Additional Continuous Covariates","type":"array"},"n_lags":{"default":3,"description":"Number of lags","maximum":24,"minimum":0,"title":"N Lags","type":"integer"},"precision":{"default":0.01,"title":"Precision","type":"number"},"mode":{"default":"fast","enum":["fast","slow"],"title":"Mode","type":"string"},"sleep_s":{"default":0.0,"title":"Sleep S","type":"number"},"fail_train":{"default":false,"title":"Fail Train","type":"boolean"},"fail_predict":{"default":false,"title":"Fail Predict","type":"boolean"}},"title":"PeerConfig","type":"object"}"#;

fn read(schema: &ConfigSchema, data: Value) -> Result<Value, Value> {
    let report = Report::new();
    let read = schema.read(Node::at(&["body", "data"], &data, &report));
    match report.finish() {
        Ok(()) => Ok(Value::Object(read.expect("a config or a violation"))),
        Err(violations) => {
            assert!(read.is_none(), "a violation and a config");
            Err(serde_json::to_value(violations).unwrap())
        }
    }
}

fn kinds(schema: &ConfigSchema, data: Value) -> Vec<String> {
    let violations = read(schema, data).unwrap_err();
    let kind = |violation: &Value| violation["type"].as_str().unwrap().to_owned();
    violations.as_array().unwrap().iter().map(kind).collect()
}

mod rendering {
    use super::*;

    #[test]
    fn a_rust_type_has_the_schema_that_clients_know() {
        assert_eq!(ConfigSchema::of::<PeerConfig>().json_schema().to_string(), RECORDED);
    }

    #[test]
    fn a_schema_by_hand_looks_the_same() {
        assert_eq!(peer_by_hand().json_schema().to_string(), RECORDED);
    }

    #[test]
    fn fields_without_a_default_are_required() {
        let schema = ConfigSchema::new("C")
            .with_field(Field::new("path", FieldKind::String))
            .with_field(Field::new("other", FieldKind::String).optional())
            .with_field(Field::new("seeds", FieldKind::Boolean).with_hidden_default(json!([1])));
        let rendered = schema.json_schema();
        assert_eq!(rendered["required"], json!(["path"]));
        assert_eq!(rendered["properties"]["seeds"], json!({"title": "Seeds", "type": "boolean"}));
        let keys: Vec<_> = rendered.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["additionalProperties", "properties", "required", "title", "type"]);
    }

    #[test]
    fn null_is_an_alternative() {
        let bounds = Bounds::none().at_least(0);
        let field = Field::new("n", FieldKind::Integer).nullable().within(bounds);
        let schema = ConfigSchema::new("C").with_field(field.with_default(Value::Null));
        assert_eq!(
            schema.json_schema()["properties"]["n"].to_string(),
            r#"{"anyOf":[{"minimum":0,"type":"integer"},{"type":"null"}],"default":null,"title":"N"}"#
        );
    }

    #[test]
    fn a_single_choice_is_a_constant() {
        let kind = |values: Value| FieldKind::Enum(values.as_array().unwrap().clone());
        let schema = ConfigSchema::new("C")
            .with_field(Field::new("one", kind(json!(["a"]))))
            .with_field(Field::new("mixed", kind(json!([1, "a"]))));
        let properties = &schema.json_schema()["properties"];
        assert_eq!(properties["one"], json!({"const": "a", "title": "One", "type": "string"}));
        assert_eq!(properties["mixed"], json!({"enum": [1, "a"], "title": "Mixed"}));
    }

    #[test]
    fn titles_are_made_of_names() {
        let cases = [
            ("n_lags", "N Lags"),
            ("sleep_s", "Sleep S"),
            ("use-GPU", "Use-Gpu"),
            ("n2o_level", "N2O Level"),
            ("_hidden", "Hidden"),
            ("ÉTÉ", "Été"),
        ];
        for (name, expected) in cases {
            assert_eq!(Field::new(name, FieldKind::String).title, expected, "{name}");
        }
    }
}

mod from_types {
    use super::*;

    #[derive(Debug, Serialize, Deserialize, JsonSchema)]
    struct Rich {
        required: String,
        maybe: Option<u32>,
        /// In any order.
        #[serde(default)]
        documented: Documented,
        choice: Option<Mode>,
        inlined: Option<Inlined>,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        modes: Vec<Mode>,
        #[serde(default = "two")]
        #[schemars(title = "How many", range(max = 9))]
        count: u8,
        #[serde(default)]
        #[schemars(length(min = 1, max = 3))]
        word: String,
        #[serde(default)]
        priors: Priors,
        #[serde(default)]
        sizes: Vec<u32>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unknown_default: Vec<String>,
        free: Value,
    }

    #[derive(Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    #[schemars(inline)]
    enum Inlined {
        Fast,
        Slow,
    }

    #[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
    enum Documented {
        /// The first.
        #[default]
        One,
        /// The second.
        Two,
    }

    #[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
    struct Priors {
        mean: f64,
        inner: Vec<Inner>,
    }

    #[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
    struct Inner {
        x: i32,
    }

    fn two() -> u8 {
        2
    }

    #[test]
    fn fields_keep_what_the_type_says() {
        let schema = ConfigSchema::of::<Rich>();
        let rendered = schema.json_schema();
        let property = |name: &str| rendered["properties"][name].to_string();
        assert_eq!(rendered["required"], json!(["required", "free"]));
        assert_eq!(property("required"), r#"{"title":"Required","type":"string"}"#);
        assert_eq!(
            property("maybe"),
            r#"{"anyOf":[{"minimum":0,"type":"integer"},{"type":"null"}],"default":null,"title":"Maybe"}"#
        );
        assert_eq!(
            property("documented"),
            r#"{"default":"One","description":"In any order.","enum":["One","Two"],"title":"Documented","type":"string"}"#
        );
        assert_eq!(
            property("choice"),
            r#"{"anyOf":[{"enum":["fast","slow"],"type":"string"},{"type":"null"}],"default":null,"title":"Choice"}"#
        );
        assert_eq!(property("inlined"), property("choice").replace("Choice", "Inlined"));
        assert_eq!(
            property("modes"),
            r#"{"default":[],"items":{"enum":["fast","slow"],"type":"string"},"title":"Modes","type":"array"}"#
        );
        assert_eq!(
            property("count"),
            r#"{"default":2,"maximum":9,"minimum":0,"title":"How many","type":"integer"}"#
        );
        assert_eq!(
            property("word"),
            r#"{"default":"","maxLength":3,"minLength":1,"title":"Word","type":"string"}"#
        );
        assert_eq!(property("free"), r#"{"title":"Free"}"#);
        assert_eq!(
            property("unknown_default"),
            r#"{"items":{"type":"string"},"title":"Unknown Default","type":"array"}"#
        );
    }

    #[test]
    fn nested_types_come_with_their_definitions() {
        let rendered = ConfigSchema::of::<Rich>().json_schema();
        assert_eq!(
            rendered["properties"]["priors"].to_string(),
            r##"{"$ref":"#/$defs/Priors","default":{"mean":0.0,"inner":[]}}"##
        );
        let definitions = rendered["$defs"].as_object().unwrap();
        assert_eq!(definitions.keys().collect::<Vec<_>>(), ["Inner", "Priors"]);
        assert_eq!(definitions["Priors"]["title"], "Priors");
        assert_eq!(definitions["Priors"]["properties"]["mean"]["type"], "number");
    }

    #[test]
    fn what_is_read_can_be_deserialised() {
        let schema = ConfigSchema::of::<Rich>();
        let data = json!({"required": "r", "free": {"a": [null]}, "maybe": "7", "sizes": [1]});
        let read = read(&schema, data).unwrap();
        let rich: Rich = serde_json::from_value(read).unwrap();
        assert_eq!((rich.maybe, rich.count, rich.sizes), (Some(7), 2, vec![1]));
    }

    #[test]
    fn the_type_has_the_last_word() {
        let schema = ConfigSchema::of::<Rich>();
        let violations =
            read(&schema, json!({"required": "", "free": 1, "priors": {"mean": "x"}})).unwrap_err();
        assert_eq!(violations[0]["type"], "value_error");
        assert_eq!(violations[0]["loc"], json!(["body", "data"]));
        let msg = violations[0]["msg"].as_str().unwrap();
        assert!(msg.starts_with("Value error, invalid type: string \"x\", expected f64"), "{msg}");
    }

    #[test]
    fn lengths_are_checked() {
        let schema = ConfigSchema::of::<Rich>();
        let data = |word: &str| json!({"required": "r", "free": 1, "word": word});
        let violations = read(&schema, data("four")).unwrap_err();
        assert_eq!(violations[0]["msg"], "String should have at most 3 characters");
        assert_eq!(violations[0]["ctx"], json!({"max_length": 3}));
        let violations = read(&schema, data("")).unwrap_err();
        assert_eq!(violations[0]["msg"], "String should have at least 1 character");
    }
}

mod reading {
    use super::*;

    fn defaults() -> Value {
        json!({"prediction_periods": 3, "additional_continuous_covariates": [], "n_lags": 3,
            "precision": 0.01, "mode": "fast", "sleep_s": 0.0, "fail_train": false,
            "fail_predict": false})
    }

    #[test]
    fn defaults_are_filled_in() {
        for schema in [ConfigSchema::of::<PeerConfig>(), peer_by_hand()] {
            assert_eq!(read(&schema, json!({})).unwrap().to_string(), defaults().to_string());
            assert_eq!(Value::Object(schema.defaults()), defaults());
        }
    }

    #[test]
    fn further_keys_follow_in_the_order_of_the_client() {
        let sent = json!({"zz": null, "n_lags": 5, "custom_extra": {"x": [1, 2]}});
        let mut expected = defaults();
        expected["n_lags"] = json!(5);
        expected["zz"] = json!(null);
        expected["custom_extra"] = json!({"x": [1, 2]});
        assert_eq!(read(&peer_by_hand(), sent).unwrap().to_string(), expected.to_string());
    }

    #[test]
    fn values_are_coerced() {
        let sent =
            json!({"n_lags": "7", "precision": 1, "fail_train": "yes", "prediction_periods": 6.0});
        let read = read(&peer_by_hand(), sent).unwrap();
        assert_eq!(read["n_lags"], 7);
        assert_eq!(read["precision"].to_string(), "1.0");
        assert_eq!(read["fail_train"], true);
        assert_eq!(read["prediction_periods"].to_string(), "6");
    }

    #[test]
    fn nested_options_are_lifted_up() {
        let sent = json!({"user_option_values": {"n_lags": 11, "zz": 1, "yy": 2}, "yy": 3,
            "additional_continuous_covariates": ["rainfall"]});
        let mut expected = defaults();
        expected["additional_continuous_covariates"] = json!(["rainfall"]);
        expected["n_lags"] = json!(11);
        expected["yy"] = json!(3);
        expected["zz"] = json!(1);
        assert_eq!(read(&peer_by_hand(), sent).unwrap().to_string(), expected.to_string());
    }

    #[test]
    fn nested_options_that_are_no_object_stay_where_they_are() {
        let read = read(&peer_by_hand(), json!({"user_option_values": [1]})).unwrap();
        assert_eq!(read["user_option_values"], json!([1]));
    }

    #[test]
    fn every_violation_is_reported() {
        let sent = json!({"n_lags": "abc", "mode": "zzz", "prediction_periods": null});
        assert_eq!(
            read(&peer_by_hand(), sent),
            Err(json!([
                {"type": "int_type", "loc": ["body", "data", "prediction_periods"],
                    "msg": "Input should be a valid integer", "input": null},
                {"type": "int_parsing", "loc": ["body", "data", "n_lags"], "input": "abc",
                    "msg": "Input should be a valid integer, unable to parse string as an integer"},
                {"type": "literal_error", "loc": ["body", "data", "mode"],
                    "msg": "Input should be 'fast' or 'slow'", "input": "zzz",
                    "ctx": {"expected": "'fast' or 'slow'"}},
            ]))
        );
    }

    #[test]
    fn bounds_and_fractions_are_reported_as_clients_know_them() {
        let schema = ConfigSchema::of::<PeerConfig>();
        assert_eq!(
            read(&schema, json!({"n_lags": 99})),
            Err(json!([{"type": "less_than_equal", "loc": ["body", "data", "n_lags"],
                "msg": "Input should be less than or equal to 24", "input": 99, "ctx": {"le": 24}}]))
        );
        assert_eq!(kinds(&schema, json!({"n_lags": 1.5})), ["int_from_float"]);
        assert_eq!(
            read(&schema, json!([])),
            Err(json!([{"type": "model_attributes_type", "loc": ["body", "data"], "input": [],
                "msg": "Input should be a valid dictionary or object to extract fields from"}]))
        );
    }

    #[test]
    fn required_fields_are_missed() {
        let schema = ConfigSchema::new("C").with_field(Field::new("path", FieldKind::String));
        assert_eq!(
            read(&schema, json!({"user_option_values": {"a": 1}, "b": 2})),
            Err(json!([{"type": "missing", "loc": ["body", "data", "path"],
                "msg": "Field required", "input": {"b": 2, "a": 1}}]))
        );
        let optional = Field::new("path", FieldKind::String).optional();
        let read = read(&schema.with_field(optional), json!({})).unwrap();
        assert!(read.get("path").is_none());
    }

    #[test]
    fn lists_are_read_item_by_item() {
        let covariates = json!({"additional_continuous_covariates": ["a", 1, null]});
        assert_eq!(kinds(&peer_by_hand(), covariates), ["string_type", "string_type"]);
        let length = Length { min: Some(1), max: Some(2) };
        let list = FieldKind::List(Box::new(FieldKind::Integer));
        let schema = ConfigSchema::new("C").with_field(Field::new("l", list).with_length(length));
        assert_eq!(read(&schema, json!({"l": ["1", 2.0]})).unwrap()["l"], json!([1, 2]));
        assert_eq!(
            read(&schema, json!({"l": []})).unwrap_err()[0],
            json!({"type": "too_short", "loc": ["body", "data", "l"], "input": [],
                "msg": "List should have at least 1 item after validation, not 0",
                "ctx": {"field_type": "List", "min_length": 1, "actual_length": 0}})
        );
        assert_eq!(kinds(&schema, json!({"l": [1, 2, 3]})), ["too_long"]);
    }

    #[test]
    fn choices_need_not_be_text() {
        let kind = FieldKind::Enum(vec![json!(1), json!(2.5), json!(true), json!(null)]);
        let schema = ConfigSchema::new("C").with_field(Field::new("e", kind));
        assert_eq!(read(&schema, json!({"e": 1.0})).unwrap()["e"].to_string(), "1");
        let violation = &read(&schema, json!({"e": "1"})).unwrap_err()[0];
        assert_eq!(violation["msg"], "Input should be 1, 2.5, True or None");
    }

    #[test]
    fn null_is_taken_where_it_may_be() {
        let field = Field::new("n", FieldKind::Integer).nullable().with_default(4);
        let schema = ConfigSchema::new("C").with_field(field);
        assert_eq!(read(&schema, json!({"n": null})).unwrap()["n"], Value::Null);
        assert_eq!(kinds(&schema, json!({"n": []})), ["int_type"]);
    }

    proptest! {
        #[test]
        fn what_was_read_is_read_again_unchanged(
            lags in 0..=24_i64, precision: f64, extra in "[a-z]{1,5}", text: String,
        ) {
            let sent = json!({"n_lags": lags.to_string(), "precision": precision,
                "user_option_values": {extra: text}});
            for schema in [ConfigSchema::of::<PeerConfig>(), peer_by_hand()] {
                if let Ok(once) = read(&schema, sent.clone()) {
                    prop_assert_eq!(read(&schema, once.clone()), Ok(once));
                }
            }
        }

        #[test]
        fn any_document_is_a_config_or_has_violations(bytes: Vec<u8>, text in r#"\{("(n_lags|mode|user_option_values)":[0-9\[\]{}"]{0,3},?){0,3}\}"#) {
            for body in [&bytes, text.as_bytes()] {
                if let Ok(value) = serde_json::from_slice::<Value>(body) {
                    let _ = read(&peer_by_hand(), value);
                }
            }
        }
    }
}
