//! Lower and upper bounds of numbers.

use serde_json::{Map, Number, Value};

use super::Node;

/// The range that a number must be in; empty by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    /// At most.
    pub le: Option<Number>,
    /// Less than.
    pub lt: Option<Number>,
    /// At least.
    pub ge: Option<Number>,
    /// Greater than.
    pub gt: Option<Number>,
}

impl Bounds {
    /// No bounds at all.
    pub fn none() -> Self {
        Bounds::default()
    }

    pub fn at_least(mut self, minimum: impl Into<Number>) -> Self {
        self.ge = Some(minimum.into());
        self
    }

    pub fn at_most(mut self, maximum: impl Into<Number>) -> Self {
        self.le = Some(maximum.into());
        self
    }

    /// Greater than `bound`, which is a finite number; otherwise there is no such bound.
    pub fn above(mut self, bound: f64) -> Self {
        self.gt = Number::from_f64(bound);
        self
    }

    /// At most `bound`, which is a finite number; otherwise there is no such bound.
    pub fn up_to(mut self, bound: f64) -> Self {
        self.le = Number::from_f64(bound);
        self
    }

    /// True when `value` keeps the bounds; otherwise the first broken one is reported at `node`.
    pub fn allow_int(&self, value: i64, node: &Node<'_>) -> bool {
        self.check(node, |bound| compare_int(value, bound), Number::clone)
    }

    /// Like [`Bounds::allow_int`]. The bounds of a float are shown as floats.
    pub fn allow_float(&self, value: f64, node: &Node<'_>) -> bool {
        let shown = |bound: &Number| {
            bound.as_f64().and_then(Number::from_f64).unwrap_or_else(|| bound.clone())
        };
        self.check(node, |bound| value.partial_cmp(&bound.as_f64()?), shown)
    }

    fn check(
        &self,
        node: &Node<'_>,
        compare: impl Fn(&Number) -> Option<std::cmp::Ordering>,
        shown: impl Fn(&Number) -> Number,
    ) -> bool {
        let rules = [
            (&self.le, "le", "less_than_equal", "less than or equal to"),
            (&self.lt, "lt", "less_than", "less than"),
            (&self.ge, "ge", "greater_than_equal", "greater than or equal to"),
            (&self.gt, "gt", "greater_than", "greater than"),
        ];
        for (bound, key, kind, phrase) in rules {
            let Some(bound) = bound else { continue };
            let ordering = compare(bound);
            let kept = match key {
                "le" => ordering.is_some_and(std::cmp::Ordering::is_le),
                "lt" => ordering.is_some_and(std::cmp::Ordering::is_lt),
                "ge" => ordering.is_some_and(std::cmp::Ordering::is_ge),
                _ => ordering.is_some_and(std::cmp::Ordering::is_gt),
            };
            if !kept {
                let mut ctx = Map::new();
                ctx.insert(key.to_owned(), Value::Number(shown(bound)));
                let msg = format!("Input should be {phrase} {}", plain(bound));
                node.fail(kind, msg, Some(Value::Object(ctx)));
                return false;
            }
        }
        true
    }
}

fn compare_int(value: i64, bound: &Number) -> Option<std::cmp::Ordering> {
    if let Some(bound) = bound.as_i64() {
        return Some(value.cmp(&bound));
    }
    if bound.is_u64() {
        return Some(std::cmp::Ordering::Less);
    }
    #[expect(clippy::cast_precision_loss, reason = "a fractional bound is small")]
    let value = value as f64;
    value.partial_cmp(&bound.as_f64()?)
}

/// The number without a needless fraction: `0.0` as `0`, `0.5` as `0.5`.
fn plain(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float.to_string(),
        _ => number.to_string(),
    }
}
