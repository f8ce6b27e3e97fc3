//! Reading the query string. Values are text, and are echoed as text when they are wrong.

use serde_json::Value;
use url::form_urlencoded;

use super::{Bounds, Node, Report};

/// The parameters of a query string, decoded.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Takes the text after the `?` apart. Any text is a query string.
    pub fn parse(text: Option<&str>) -> Self {
        let pairs =
            form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect();
        Query { pairs }
    }

    /// The value of a parameter; the last one when it comes twice.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Every parameter, in the client's order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Reads an integer, if the parameter is there; what is wrong with it is reported.
pub fn query_int(report: &Report, name: &str, raw: Option<&str>, bounds: &Bounds) -> Option<i64> {
    read(report, name, raw, |node| node.int_within(bounds))
}

/// Like [`query_int`], for a finite number.
pub fn query_float(report: &Report, name: &str, raw: Option<&str>, bounds: &Bounds) -> Option<f64> {
    read(report, name, raw, |node| node.float_within(bounds))
}

/// Like [`query_int`], for a boolean: `true`, `0`, `yes` and so on.
pub fn query_bool(report: &Report, name: &str, raw: Option<&str>) -> Option<bool> {
    read(report, name, raw, |node| node.bool())
}

/// Like [`query_int`], for one of several words; reported as `literal_error`.
pub fn query_one_of<'s>(
    report: &Report,
    name: &str,
    raw: Option<&str>,
    choices: &[&'s str],
) -> Option<&'s str> {
    read(report, name, raw, |node| node.one_of(choices))
}

/// Like [`query_one_of`]; reported as `enum`.
pub fn query_enum<'s>(
    report: &Report,
    name: &str,
    raw: Option<&str>,
    choices: &[&'s str],
) -> Option<&'s str> {
    read(report, name, raw, |node| node.one_of_enum(choices))
}

fn read<T>(
    report: &Report,
    name: &str,
    raw: Option<&str>,
    read: impl FnOnce(&Node<'_>) -> Option<T>,
) -> Option<T> {
    let value = Value::String(raw?.to_owned());
    read(&Node::at(&["query", name], &value, report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn wire(read: impl FnOnce(&Report)) -> Value {
        let report = Report::new();
        read(&report);
        match report.finish() {
            Ok(()) => json!([]),
            Err(violations) => serde_json::to_value(violations).unwrap(),
        }
    }

    #[test]
    fn parameters_are_decoded_and_the_last_one_wins() {
        let query = Query::parse(Some("a=1&b=x%20y+z&a=2&c&%24d=%C3%A9&bad=%zz%"));
        assert_eq!(query.get("a"), Some("2"));
        assert_eq!(query.get("b"), Some("x y z"));
        assert_eq!(query.get("c"), Some(""));
        assert_eq!(query.get("$d"), Some("é"));
        assert_eq!(query.get("bad"), Some("%zz%"));
        assert_eq!(query.get("e"), None);
        assert_eq!(Query::parse(None).pairs().count(), 0);
    }

    #[test]
    fn absent_parameters_are_nothing_to_report() {
        let report = Report::new();
        assert_eq!(query_int(&report, "page", None, &Bounds::none()), None);
        assert_eq!(query_bool(&report, "enabled", None), None);
        assert!(report.is_empty());
    }

    #[test]
    fn good_parameters_are_read() {
        let report = Report::new();
        let page = Bounds::none().at_least(1);
        assert_eq!(query_int(&report, "page", Some("3"), &page), Some(3));
        assert_eq!(query_float(&report, "x", Some("0.5"), &Bounds::none().above(0.0)), Some(0.5));
        assert_eq!(query_bool(&report, "enabled", Some("false")), Some(false));
        assert_eq!(
            query_one_of(&report, "kind", Some("train"), &["train", "predict"]),
            Some("train")
        );
        assert!(report.is_empty());
    }

    #[test]
    fn integers_out_of_bounds_are_echoed_as_text() {
        let size = Bounds::none().at_least(1).at_most(100);
        assert_eq!(
            wire(|report| _ = query_int(report, "page", Some("0"), &size)),
            json!([{"type": "greater_than_equal", "loc": ["query", "page"],
                "msg": "Input should be greater than or equal to 1", "input": "0", "ctx": {"ge": 1}}])
        );
        assert_eq!(
            wire(|report| _ = query_int(report, "size", Some("101"), &size)),
            json!([{"type": "less_than_equal", "loc": ["query", "size"],
                "msg": "Input should be less than or equal to 100", "input": "101",
                "ctx": {"le": 100}}])
        );
        assert_eq!(
            wire(|report| _ = query_int(report, "page", Some("x"), &size)),
            json!([{"type": "int_parsing", "loc": ["query", "page"], "input": "x",
                "msg": "Input should be a valid integer, unable to parse string as an integer"}])
        );
    }

    #[test]
    fn floats_name_their_bounds_as_floats() {
        let interval = Bounds::none().above(0.0).up_to(60.0);
        assert_eq!(
            wire(|report| _ = query_float(report, "poll_interval", Some("abc"), &interval)),
            json!([{"type": "float_parsing", "loc": ["query", "poll_interval"], "input": "abc",
                "msg": "Input should be a valid number, unable to parse string as a number"}])
        );
        assert_eq!(
            wire(|report| _ = query_float(report, "poll_interval", Some("0"), &interval)),
            json!([{"type": "greater_than", "loc": ["query", "poll_interval"],
                "msg": "Input should be greater than 0", "input": "0", "ctx": {"gt": 0.0}}])
        );
        assert_eq!(
            wire(|report| _ = query_float(report, "poll_interval", Some("61"), &interval)),
            json!([{"type": "less_than_equal", "loc": ["query", "poll_interval"],
                "msg": "Input should be less than or equal to 60", "input": "61",
                "ctx": {"le": 60.0}}])
        );
    }

    #[test]
    fn words_are_offered_when_none_fits() {
        assert_eq!(
            wire(|report| _ = query_one_of(report, "kind", Some("zzz"), &["train", "predict"])),
            json!([{"type": "literal_error", "loc": ["query", "kind"], "input": "zzz",
                "msg": "Input should be 'train' or 'predict'",
                "ctx": {"expected": "'train' or 'predict'"}}])
        );
        assert_eq!(
            wire(|report| _ = query_enum(report, "status_filter", Some("zzz"), &["a", "b", "c"])),
            json!([{"type": "enum", "loc": ["query", "status_filter"], "input": "zzz",
                "msg": "Input should be 'a', 'b' or 'c'", "ctx": {"expected": "'a', 'b' or 'c'"}}])
        );
        assert_eq!(
            wire(|report| _ = query_bool(report, "enabled", Some("zzz"))),
            json!([{"type": "bool_parsing", "loc": ["query", "enabled"], "input": "zzz",
                "msg": "Input should be a valid boolean, unable to interpret input"}])
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_query_string(text: String) {
            let query = Query::parse(Some(&text));
            prop_assert!(query.pairs().count() <= text.len() + 1);
        }
    }
}
