//! Frames from clients. Stricter than the services this contract comes from, which take rows of
//! any length and then fail in the middle of a run: here the client hears about it at once.

use std::collections::HashSet;

use modelyard_kernel::form::{Node, Object, quote, shorten};
use serde_json::Value;

use super::{Cell, FieldType, Frame, FrameField, FrameSchema, NotACell};

impl Frame {
    /// Reads a frame, reporting every violation: of the shape, and of what [`Frame`] promises.
    #[expect(clippy::needless_pass_by_value, reason = "so that it fits `and_then(Frame::read)`")]
    pub fn read(node: Node<'_>) -> Option<Frame> {
        let object = node.object()?;
        let columns = object.required("columns").and_then(|node| read_columns(&node));
        let width = columns.as_ref().map(Vec::len);
        let data = object.required("data").and_then(|node| read_rows(&node, width));
        let schema = read_optional_schema(&object, columns.as_deref());
        Some(Frame { columns: columns?, data: data?, schema: schema? })
    }
}

fn read_columns(node: &Node<'_>) -> Option<Vec<String>> {
    let items = node.items()?;
    let mut columns = Vec::with_capacity(items.len());
    let mut seen = HashSet::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let Value::String(name) = item else {
            node.item(index, item).str();
            continue;
        };
        if seen.insert(name.as_str()) {
            columns.push(name.clone());
        } else {
            node.item(index, item)
                .fail_rule(format!("column {} is there twice", quote(shorten(name))));
        }
        if node.report().is_full() {
            return None;
        }
    }
    (columns.len() == items.len()).then_some(columns)
}

fn read_rows(node: &Node<'_>, width: Option<usize>) -> Option<Vec<Vec<Cell>>> {
    let items = node.items()?;
    let mut rows = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match read_row(item, width) {
            Some(row) => rows.push(row),
            None => fail_row(&node.item(index, item), width),
        }
        if node.report().is_full() {
            return None;
        }
    }
    (rows.len() == items.len()).then_some(rows)
}

fn read_row(item: &Value, width: Option<usize>) -> Option<Vec<Cell>> {
    let row = item.as_array()?;
    if width.is_some_and(|width| width != row.len()) {
        return None;
    }
    row.iter().map(Cell::of).collect()
}

fn fail_row(node: &Node<'_>, width: Option<usize>) {
    let Some(row) = node.items() else { return };
    if let Some(width) = width.filter(|width| *width != row.len()) {
        node.fail_rule(format!("the row has {} cells, but there are {width} columns", row.len()));
    }
    for (index, cell) in row.iter().enumerate().filter(|(_, cell)| Cell::of(cell).is_none()) {
        node.item(index, cell).fail_rule(NotACell.to_string());
        if node.report().is_full() {
            return;
        }
    }
}

/// The outer `None` is for a violation, the inner one for no schema.
#[expect(clippy::option_option, reason = "the two mean different things, and both end here")]
fn read_optional_schema(
    object: &Object<'_>,
    columns: Option<&[String]>,
) -> Option<Option<FrameSchema>> {
    match object.optional("schema") {
        Some(node) => read_schema(&node, columns).map(Some),
        None => Some(None),
    }
}

pub(super) fn read_schema(node: &Node<'_>, columns: Option<&[String]>) -> Option<FrameSchema> {
    let object = node.object()?;
    let items = object.required("fields")?.list()?;
    let known: Option<HashSet<&str>> = columns.map(|c| c.iter().map(String::as_str).collect());
    let mut fields = Vec::with_capacity(items.len());
    for item in &items {
        fields.extend(read_field(item, known.as_ref()));
        if node.report().is_full() {
            return None;
        }
    }
    (fields.len() == items.len()).then_some(FrameSchema { fields })
}

fn read_field(node: &Node<'_>, known: Option<&HashSet<&str>>) -> Option<FrameField> {
    let object = node.object()?;
    let name = object.required("name").and_then(|node| read_name(&node, known));
    let kind = object.required("type").and_then(|node| read_type(&node));
    let title = read_text(&object, "title");
    let description = read_text(&object, "description");
    Some(FrameField { name: name?, kind: kind?, title: title?, description: description? })
}

fn read_name(node: &Node<'_>, known: Option<&HashSet<&str>>) -> Option<String> {
    let name = node.string()?;
    if known.is_some_and(|known| !known.contains(name.as_str())) {
        node.fail_rule(format!("there is no column {}", quote(shorten(&name))));
        return None;
    }
    Some(name)
}

fn read_type(node: &Node<'_>) -> Option<FieldType> {
    let chosen = node.one_of(&FieldType::ALL.map(FieldType::as_str))?;
    FieldType::ALL.into_iter().find(|kind| kind.as_str() == chosen)
}

#[expect(clippy::option_option, reason = "a violation, an absent text and a text")]
fn read_text(object: &Object<'_>, name: &str) -> Option<Option<String>> {
    match object.optional(name) {
        Some(node) => node.string().map(Some),
        None => Some(None),
    }
}
