//! Lists: filter, sort, search, sparse fields, and two ways of paging, the same on every collection.
//!
//! ```text
//! ?name=foo&status=active        equals; [ne] [gt] [gte] [lt] [lte] [in] [contains] as operators
//! ?created_at[gte]=2026-11-01    times as RFC 3339 or a date, each as long as it is precise
//! ?sort=created_at:desc,name     ascending unless it says otherwise
//! ?fields=id,name                only these keys of each item
//! ?q=dengue                      in names and tags
//! ?page=1&size=20                the contract's pages, with a total
//! ?limit=50&cursor=…             from item to item: `next` of one answer is `cursor` of the next
//! ```
//!
//! What may be filtered and sorted is an allow-list per entity, [`Fields`]: nothing of a request's
//! text becomes SQL.

mod cursor;
mod parse;
mod sql;
#[cfg(test)]
mod tests;

pub use parse::{MAX_LIMIT, MAX_SIZE};
use serde::Serialize;
use serde_json::{Map, Value};

/// What lists of an entity may be asked.
#[derive(Debug)]
pub struct Fields {
    /// The table.
    pub table: &'static str,
    /// Keys of an item that may be filtered or sorted by.
    pub fields: &'static [Field],
    /// Every key of an item, for `?fields=`.
    pub keys: &'static [&'static str],
    /// Columns that `?q=` looks into.
    pub search: &'static [&'static str],
    /// The order when none is asked for.
    pub default_sort: Sort,
}

/// A key that may be filtered by.
#[derive(Debug)]
pub struct Field {
    /// The key of an item, which is the column's name as well.
    pub name: &'static str,
    /// Its type.
    pub kind: FieldKind,
    /// Whether it may be sorted by: columns that may be null may not, since paging by cursor would
    /// lose rows.
    pub sortable: bool,
}

impl Field {
    /// A field to filter and sort by.
    pub const fn new(name: &'static str, kind: FieldKind) -> Self {
        Self { name, kind, sortable: true }
    }

    /// A field to filter by.
    pub const fn unsortable(name: &'static str, kind: FieldKind) -> Self {
        Self { name, kind, sortable: false }
    }
}

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// Any text.
    Text,
    /// A ULID.
    Id,
    /// A whole number.
    Int,
    /// True or false.
    Bool,
    /// An instant.
    Time,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A JSON list of words, of which one is meant.
    Tags,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Asc,
    /// Largest first.
    Desc,
}

/// A key and a direction.
pub type Sort = (&'static str, Direction);

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Equal; for tags: among them.
    Eq,
    /// Not equal.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// One of a comma-separated list.
    In,
    /// Has the text in it, the letters of ASCII in any case.
    Contains,
}

/// One condition.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    field: usize,
    operator: Operator,
    values: Vec<crate::db::Value>,
}

/// Which part of the list is wanted.
#[derive(Clone, Debug, PartialEq)]
enum Paging {
    All,
    Page { page: i64, size: i64 },
    Cursor { after: Option<Vec<crate::db::Value>>, limit: i64 },
}

/// A question to a collection.
#[derive(Clone, Debug)]
pub struct ListQuery {
    fields: &'static Fields,
    filters: Vec<Filter>,
    sort: Vec<Sort>,
    only: Option<Vec<&'static str>>,
    search: Option<String>,
    paging: Paging,
}

/// The answer.
#[derive(Debug)]
pub enum Listed<T> {
    /// Every item: what the contract gives unless pages are asked for.
    All(Vec<T>),
    /// The contract's pages.
    Page {
        /// Items of this page.
        items: Vec<T>,
        /// Items of all pages.
        total: i64,
        /// From 1.
        page: i64,
        /// Items per page.
        size: i64,
    },
    /// Items after a cursor.
    Cursor {
        /// Items.
        items: Vec<T>,
        /// The cursor of what follows; `None` at the end.
        next: Option<String>,
    },
}

impl<T> Listed<T> {
    /// The items.
    pub fn into_items(self) -> Vec<T> {
        match self {
            Listed::All(items) | Listed::Page { items, .. } | Listed::Cursor { items, .. } => items,
        }
    }

    /// Changes every item.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Listed<U> {
        let map = |items: Vec<T>| items.into_iter().map(change).collect();
        match self {
            Listed::All(items) => Listed::All(map(items)),
            Listed::Page { items, total, page, size } => {
                Listed::Page { items: map(items), total, page, size }
            }
            Listed::Cursor { items, next } => Listed::Cursor { items: map(items), next },
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Wire<'a, T> {
    All(&'a [T]),
    Page { items: &'a [T], total: i64, page: i64, size: i64, pages: i64 },
    Cursor { items: &'a [T], next: &'a Option<String> },
}

impl<T: Serialize> Listed<T> {
    /// The answer's JSON, each item with the keys that the question wants.
    ///
    /// # Errors
    /// When an item cannot be written as JSON: a defect of ours.
    pub fn to_json(&self, query: &ListQuery) -> serde_json::Result<Vec<u8>> {
        match &query.only {
            None => serde_json::to_vec(&self.wire()),
            Some(only) => {
                let sparse = |items: &[T]| {
                    items
                        .iter()
                        .map(|it| Ok(keep(serde_json::to_value(it)?, only)))
                        .collect::<serde_json::Result<Vec<Value>>>()
                };
                serde_json::to_vec(
                    &match self {
                        Listed::All(items) => Listed::All(sparse(items)?),
                        Listed::Page { items, total, page, size } => Listed::Page {
                            items: sparse(items)?,
                            total: *total,
                            page: *page,
                            size: *size,
                        },
                        Listed::Cursor { items, next } => {
                            Listed::Cursor { items: sparse(items)?, next: next.clone() }
                        }
                    }
                    .wire(),
                )
            }
        }
    }

    fn wire(&self) -> Wire<'_, T> {
        match self {
            Listed::All(items) => Wire::All(items),
            Listed::Page { items, total, page, size } => Wire::Page {
                items,
                total: *total,
                page: *page,
                size: *size,
                pages: (total + size - 1) / (*size).max(1),
            },
            Listed::Cursor { items, next } => Wire::Cursor { items, next },
        }
    }
}

fn keep(item: Value, only: &[&'static str]) -> Value {
    let Value::Object(mut item) = item else { return item };
    let kept: Map<String, Value> =
        only.iter().filter_map(|key| item.remove(*key).map(|it| ((*key).to_owned(), it))).collect();
    Value::Object(kept)
}
