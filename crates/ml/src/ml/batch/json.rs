//! Cuts a JSON list of values, or the rows of a JSON data frame, out of bytes as they come. Looks only
//! at where a value ends: whether it is one is found out when it is read. No I/O in this file.

use super::split::{Broken, MOST_COLUMNS, Record};

/// The longest key of a data frame, and more than its list of columns.
const MOST_ASIDE: usize = 4 << 20;

/// A file that is being cut.
#[derive(Debug)]
pub(super) struct JsonSplitter {
    state: State,
    value: Value,
    most: usize,
    /// Whether the rows are those of a data frame.
    in_frame: bool,
    /// Whether these have been met.
    has_columns: bool,
    has_rows: bool,
    key: Vec<u8>,
}

/// What comes next, or is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begin,
    /// The first row or the end of the list.
    FirstRow,
    Row,
    InRow,
    AfterRow,
    /// The first key, or the end of the data frame.
    FirstKey,
    Key,
    InKey,
    Colon,
    Field,
    InField,
    AfterField,
    End,
}

/// A value that is under way.
#[derive(Debug, Default)]
struct Value {
    bytes: Vec<u8>,
    depth: u32,
    in_text: bool,
    escaped: bool,
    too_long: bool,
}

/// Whether a value is complete, with this byte or before it.
enum Fed {
    More,
    Done,
    Before,
}

impl Value {
    fn begin(&mut self, byte: u8) {
        self.bytes.clear();
        self.bytes.push(byte);
        self.depth = u32::from(matches!(byte, b'[' | b'{'));
        self.in_text = byte == b'"';
        (self.escaped, self.too_long) = (false, false);
    }

    fn feed(&mut self, byte: u8, most: usize) -> Fed {
        let fed = self.look(byte);
        if !matches!(fed, Fed::Before) {
            if self.bytes.len() < most {
                self.bytes.push(byte);
            } else {
                self.too_long = true;
            }
        }
        fed
    }

    fn look(&mut self, byte: u8) -> Fed {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_text = false;
                    return if self.depth == 0 { Fed::Done } else { Fed::More };
                }
                _ => {}
            }
            return Fed::More;
        }
        match byte {
            b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => {
                return Fed::Before;
            }
            b'"' if self.depth > 0 => self.in_text = true,
            b'[' | b'{' if self.depth > 0 => self.depth += 1,
            b']' | b'}' => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Fed::Done;
                }
            }
            _ => {}
        }
        Fed::More
    }
}

impl JsonSplitter {
    pub(super) fn new(most: usize) -> Self {
        Self {
            state: State::Begin,
            value: Value::default(),
            most,
            in_frame: false,
            has_columns: false,
            has_rows: false,
            key: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<(), Broken> {
        bytes.iter().try_for_each(|byte| self.take(*byte, out))
    }

    pub(super) fn finish(&self) -> Result<(), Broken> {
        match self.state {
            State::End => Ok(()),
            State::Begin => Err(Broken("the file is empty".to_owned())),
            _ => Err(Broken("the JSON ends early".to_owned())),
        }
    }

    fn take(&mut self, byte: u8, out: &mut Vec<Record>) -> Result<(), Broken> {
        match self.state {
            State::InRow | State::InKey | State::InField => return self.go_on(byte, out),
            _ if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') => return Ok(()),
            _ => {}
        }
        self.state = match (self.state, byte) {
            (State::Begin, b'[') => State::FirstRow,
            (State::Begin, b'{') => {
                self.in_frame = true;
                State::FirstKey
            }
            (State::Begin, _) => {
                return Err(Broken("the file is no JSON list and no data frame".to_owned()));
            }
            (State::FirstRow | State::AfterRow, b']') => self.after_rows(),
            (State::AfterRow, b',') => State::Row,
            (State::FirstRow | State::Row, _) if begins_a_value(byte) => {
                self.value.begin(byte);
                State::InRow
            }
            (State::FirstKey | State::AfterField, b'}') => self.after_fields()?,
            (State::AfterField, b',') => State::Key,
            (State::FirstKey | State::Key, b'"') => {
                self.value.begin(byte);
                State::InKey
            }
            (State::Colon, b':') => State::Field,
            (State::Field, b'[') if self.key == b"\"data\"" => self.begin_rows()?,
            (State::Field, _) if begins_a_value(byte) => {
                self.value.begin(byte);
                State::InField
            }
            (State::End, _) => {
                return Err(Broken("there is more after the end of the JSON".to_owned()));
            }
            _ => return Err(Broken("the file is not JSON".to_owned())),
        };
        Ok(())
    }

    /// Within a value.
    fn go_on(&mut self, byte: u8, out: &mut Vec<Record>) -> Result<(), Broken> {
        let most = if self.state == State::InRow { self.most } else { MOST_ASIDE };
        let fed = self.value.feed(byte, most);
        if matches!(fed, Fed::More) {
            return Ok(());
        }
        let too_long = self.value.too_long;
        let bytes = std::mem::take(&mut self.value.bytes);
        self.state = match self.state {
            State::InRow => {
                out.push(if too_long { Record::TooLong } else { Record::Json(bytes) });
                State::AfterRow
            }
            State::InKey => {
                self.key = bytes;
                State::Colon
            }
            _ => {
                if self.key == b"\"columns\"" {
                    if std::mem::replace(&mut self.has_columns, true) {
                        return Err(Broken("`columns` is there twice".to_owned()));
                    }
                    let columns = if too_long { None } else { serde_json::from_slice(&bytes).ok() };
                    let columns: Option<Vec<String>> = columns;
                    let columns = columns.filter(|it| it.len() <= MOST_COLUMNS);
                    out.push(Record::Columns(columns.ok_or_else(|| {
                        Broken(format!("`columns` is not a list of at most {MOST_COLUMNS} names"))
                    })?));
                }
                State::AfterField
            }
        };
        match fed {
            Fed::Before => self.take(byte, out),
            Fed::Done | Fed::More => Ok(()),
        }
    }

    fn begin_rows(&mut self) -> Result<State, Broken> {
        if !self.has_columns {
            return Err(Broken("`columns` must come before `data`".to_owned()));
        }
        if std::mem::replace(&mut self.has_rows, true) {
            return Err(Broken("`data` is there twice".to_owned()));
        }
        Ok(State::FirstRow)
    }

    fn after_rows(&self) -> State {
        if self.in_frame { State::AfterField } else { State::End }
    }

    fn after_fields(&self) -> Result<State, Broken> {
        if self.has_rows {
            return Ok(State::End);
        }
        Err(Broken("the JSON is no list and no data frame: it has no `data`".to_owned()))
    }
}

fn begins_a_value(byte: u8) -> bool {
    !matches!(byte, b',' | b':' | b']' | b'}')
}
