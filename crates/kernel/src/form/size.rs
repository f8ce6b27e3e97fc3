//! How much is in a JSON text, found out before it is parsed: parsed, a value of two bytes can take
//! hundreds.

/// Upper bounds, exact for the depth of well-formed JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Values: lists, objects, and what is in them. An object counts as three, because it takes that
    /// much memory.
    pub values: usize,
    /// How deep lists and objects are nested.
    pub depth: usize,
}

impl Size {
    /// Looks at each byte once.
    pub fn of(json: &[u8]) -> Size {
        // A list or object begins with a bracket, and has one comma fewer than values.
        let mut size = Size { values: 1, depth: 0 };
        let (mut depth, mut is_text) = (0_usize, false);
        let mut bytes = json.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => is_text = !is_text,
                b'\\' if is_text => _ = bytes.next(),
                _ if is_text => {}
                b',' => size.values += 1,
                b'[' | b'{' => {
                    size.values += if *byte == b'{' { 3 } else { 1 };
                    depth += 1;
                    size.depth = size.depth.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn of(text: &str) -> (usize, usize) {
        let Size { values, depth } = Size::of(text.as_bytes());
        (values, depth)
    }

    #[test]
    fn commas_and_brackets_tell_how_much_there_is() {
        assert_eq!(of("5"), (1, 0));
        assert_eq!(of("[1, 2, 3]"), (4, 1));
        assert_eq!(of(r#"{"a": [1], "b": {"c": null}}"#), (9, 2));
        assert_eq!(of(r#"["[,\",{", "\\", 2]"#), (4, 1));
        assert_eq!(of("]]]["), (2, 1));
    }

    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(count).sum(),
            Value::Object(map) => map.values().map(count).sum(),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn no_document_has_more_values(text: String, key in "[\\[\\]{},\"\\\\]{0,4}") {
            let value = json!([text, {key.as_str(): [key, [], {}]}, [[text]]]);
            let size = Size::of(value.to_string().as_bytes());
            prop_assert!(size.values >= count(&value));
            prop_assert_eq!(size.depth, 4);
            let _ = Size::of(text.as_bytes());
        }
    }
}
