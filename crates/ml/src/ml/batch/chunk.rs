//! From rows to chunks, the same ones each time. No I/O in this file.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use modelyard_kernel::form::shorten;
use modelyard_run::frame::{Cell, Frame};
use serde::{Deserialize, Serialize};

/// How many rows that cannot be used, and chunks that failed, are listed.
pub(super) const MOST_LISTED: usize = 1000;

/// What one group may take, since its rows are in memory together.
const MOST_GROUP_BYTES: usize = 64 << 20;

/// Groups that are remembered, to notice one that comes in several pieces.
const MOST_REMEMBERED: usize = 1 << 20;

/// When a chunk is large enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Rows of a chunk; groups stay whole.
    pub rows: u64,
    /// Bytes of memory that a chunk takes.
    pub bytes: usize,
    /// Whether each group is a chunk of its own.
    pub by_group: bool,
}

/// Rows that are done together.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Its number, from 1.
    pub number: u64,
    /// The first row of the file that is in it, from 1, whether it could be read or not.
    pub first_row: u64,
    /// The last one.
    pub last_row: u64,
    /// What of it could be read.
    pub content: Content,
    /// Rows that could not be used; they are listed already.
    pub unusable: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Rows of cells, and the group that they are when there is only one.
    Rows(Vec<Vec<Cell>>, Option<Cell>),
    /// A request of its own, as JSON.
    Item(Vec<u8>),
}

impl Chunk {
    /// How many rows of the file it stands for.
    pub(super) fn rows(&self) -> u64 {
        self.last_row + 1 - self.first_row
    }
}

/// Rows that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unusable {
    /// The first of them, from 1.
    pub first_row: u64,
    /// The last of them.
    pub last_row: u64,
    /// In a sentence.
    pub error: String,
}

/// A list of rows that could not be used, of which only the first are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Those that are listed.
    pub listed: Vec<Unusable>,
    /// Rows of those that are not.
    pub omitted_rows: u64,
    /// Rows in all.
    pub rows: u64,
}

impl Failures {
    /// Adds rows. Neighbours with the same error are one entry.
    pub fn add(&mut self, first_row: u64, last_row: u64, error: String) {
        let rows = last_row + 1 - first_row;
        self.rows += rows;
        let is_full = self.listed.len() == MOST_LISTED;
        match self.listed.last_mut() {
            Some(last) if last.last_row + 1 == first_row && last.error == error => {
                last.last_row = last_row;
            }
            _ if is_full => self.omitted_rows += rows,
            _ => self.listed.push(Unusable { first_row, last_row, error }),
        }
    }
}

/// Puts rows together.
#[derive(Debug)]
pub struct Chunker {
    sizes: Sizes,
    group_by: Option<(usize, String)>,
    done: u64,
    current: Option<Current>,
    /// Of the groups that have ended.
    seen: HashSet<u64>,
    /// Rows that could not be used.
    pub failures: Failures,
}

#[derive(Debug)]
struct Current {
    first_row: u64,
    last_row: u64,
    rows: Vec<Vec<Cell>>,
    unusable: u64,
    bytes: usize,
    group: Option<Group>,
}

/// The group that comes last in a chunk.
#[derive(Debug)]
struct Group {
    name: Cell,
    /// How many rows of the chunk are before it.
    rows_before: usize,
    first_row: u64,
    bytes: usize,
    /// Why none of its rows can be used.
    refused: Option<String>,
}

impl Chunker {
    /// Chunks of such sizes, in which the rows that have the same in the column `group_by` are
    /// together.
    pub fn new(sizes: Sizes, group_by: Option<(usize, String)>) -> Self {
        let (seen, failures) = (HashSet::new(), Failures::default());
        Self { sizes, group_by, done: 0, current: None, seen, failures }
    }

    /// Takes the next row, which takes so many bytes of memory. Gives the chunk before it when that
    /// is complete.
    pub fn push(
        &mut self,
        number: u64,
        bytes: usize,
        row: Result<Vec<Cell>, String>,
    ) -> Option<Chunk> {
        let row = row.and_then(|row| match &self.group_by {
            Some((place, name)) => match row.get(*place) {
                None | Some(Cell::Null) => Err(format!("the row has no `{}`", shorten(name))),
                Some(group) => Ok((Some(group.clone()), row)),
            },
            None => Ok((None, row)),
        });
        let closed = match &row {
            Ok((group, _)) if self.is_complete(group.as_ref()) => self.close(),
            Err(_) if self.group_by.is_none() && self.is_complete(None) => self.close(),
            _ => None,
        };
        let current = self.current.get_or_insert_with(|| Current::new(number));
        current.last_row = number;
        current.bytes += bytes;
        match row {
            Ok((Some(group), row)) => self.add_to_group(number, bytes, group, row),
            Ok((None, row)) => current.rows.push(row),
            Err(error) => {
                current.unusable += 1;
                self.failures.add(number, number, error);
            }
        }
        closed
    }

    /// The last chunk.
    pub fn finish(&mut self) -> Option<Chunk> {
        self.close()
    }

    /// Whether a chunk ends before a row of this group.
    fn is_complete(&self, group: Option<&Cell>) -> bool {
        let Some(current) = &self.current else { return false };
        let goes_on = group.is_some() && current.group.as_ref().map(|it| &it.name) == group;
        if goes_on {
            return false;
        }
        if self.sizes.by_group && current.group.is_some() {
            return true;
        }
        current.last_row + 1 - current.first_row >= self.sizes.rows
            || current.bytes >= self.sizes.bytes
    }

    fn add_to_group(&mut self, number: u64, bytes: usize, group: Cell, row: Vec<Cell>) {
        let Some(current) = &mut self.current else { return };
        if current.group.as_ref().is_none_or(|it| it.name != group) {
            let known = match &self.group_by {
                Some((_, column)) => self.seen.contains(&hash(&group)).then(|| {
                    let name = group.to_string();
                    format!(
                        "the rows of {} are in several places; sort the file by `{}`",
                        shorten(&name),
                        shorten(column)
                    )
                }),
                None => None,
            };
            if let Some(before) = &current.group
                && self.seen.len() < MOST_REMEMBERED
            {
                self.seen.insert(hash(&before.name));
            }
            current.group = Some(Group {
                name: group,
                rows_before: current.rows.len(),
                first_row: number,
                bytes: 0,
                refused: known,
            });
        }
        let Some(last) = &mut current.group else { return };
        last.bytes += bytes;
        if last.bytes > MOST_GROUP_BYTES && last.refused.is_none() {
            let error = format!("the group takes more than {MOST_GROUP_BYTES} bytes");
            let dropped = current.rows.split_off(last.rows_before.min(current.rows.len()));
            if !dropped.is_empty() {
                // Bad rows in between are listed already, so that these are counted by themselves.
                current.unusable += dropped.len() as u64;
                let last_row = last.first_row + (dropped.len() as u64 - 1);
                self.failures.add(last.first_row, last_row, error.clone());
            }
            last.refused = Some(error);
        }
        match &last.refused {
            Some(error) => {
                current.unusable += 1;
                self.failures.add(number, number, error.clone());
            }
            None => current.rows.push(row),
        }
    }

    fn close(&mut self) -> Option<Chunk> {
        let Current { first_row, last_row, rows, unusable, bytes: _, group } =
            self.current.take()?;
        self.done += 1;
        if let Some(group) = &group
            && self.seen.len() < MOST_REMEMBERED
        {
            self.seen.insert(hash(&group.name));
        }
        let group = group.filter(|_| self.sizes.by_group).map(|it| it.name);
        let (number, content) = (self.done, Content::Rows(rows, group));
        Some(Chunk { number, first_row, last_row, content, unusable })
    }
}

impl Current {
    fn new(first_row: u64) -> Self {
        let (rows, group) = (Vec::new(), None);
        Self { first_row, last_row: first_row, rows, unusable: 0, bytes: 0, group }
    }
}

/// Groups are told apart by it within one reading.
fn hash(group: &Cell) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(group)
}

/// What is known and what is to be predicted: a row belongs to the future when its `target` is
/// missing. The future has no such column.
pub fn halves(columns: &[String], rows: Vec<Vec<Cell>>, target: &str) -> (Frame, Frame) {
    let place = columns.iter().position(|it| it == target);
    let is_known = |row: &Vec<Cell>| {
        let cell = place.and_then(|it| row.get(it));
        cell.is_some_and(|it| !it.is_null() && *it != "")
    };
    let (historic, mut future): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_known);
    let mut names = columns.to_vec();
    if let Some(place) = place {
        names.remove(place);
        for row in &mut future {
            row.remove(place);
        }
    }
    (Frame::new(columns.to_vec(), historic), Frame::new(names, future))
}
