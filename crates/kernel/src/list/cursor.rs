//! Cursors: the sort values of the last item, in a text that clients need not understand.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value as JsonValue;

use super::parse::to_json;
use super::{Direction, FieldKind, ListQuery};
use crate::Time;
use crate::db::Value;

/// The longest cursor that is looked at.
const MAX_LEN: usize = 4096;

/// The order, so that a cursor of one order is not used in another.
fn order(query: &ListQuery) -> String {
    let sign = |it: &Direction| if *it == Direction::Asc { '+' } else { '-' };
    query.sort.iter().map(|(name, direction)| format!("{}{name}", sign(direction))).collect()
}

pub(super) fn encode(values: &[Value], query: &ListQuery) -> String {
    let mut list = vec![JsonValue::from(order(query))];
    list.extend(values.iter().map(to_json));
    URL_SAFE_NO_PAD.encode(JsonValue::Array(list).to_string())
}

pub(super) fn decode(text: &str, query: &ListQuery) -> Option<Vec<Value>> {
    if text.len() > MAX_LEN {
        return None;
    }
    let list: Vec<JsonValue> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (first, values) = list.split_first()?;
    if first.as_str()? != order(query) || values.len() != query.sort.len() {
        return None;
    }
    values
        .iter()
        .zip(&query.sort)
        .map(|(value, (name, _))| {
            let field = query.fields.fields.iter().find(|it| it.name == *name)?;
            match field.kind {
                FieldKind::Int => value.as_i64().map(Value::Int),
                FieldKind::Bool => {
                    value.as_bool().or_else(|| value.as_i64().map(|it| it != 0)).map(Value::Bool)
                }
                FieldKind::Time => value.as_str()?.parse::<Time>().ok().map(Value::Time),
                _ => value.as_str().filter(|it| !it.contains('\0')).map(Value::from),
            }
        })
        .collect()
}
