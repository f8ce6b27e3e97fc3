//! Numbers and JSON in Python's spelling, which scripts and clients of this contract know.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Number;
use serde_json::ser::{Formatter, Serializer};

/// Writes JSON as Python's `json.dumps` does: `, ` and `: ` between things, only ASCII characters,
/// floats as Python prints them.
///
/// # Errors
/// Those of `out`, and those of a value that has no JSON.
pub fn write_json(value: &impl Serialize, out: impl Write) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, PythonFormatter)).map_err(io::Error::from)
}

/// Writes a number as Python prints it: `24.0`, `1e-05`, `1e+300`.
pub(super) fn write_number(number: &Number, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    match number.as_f64() {
        // JSON spells finite floats as Python does, except for those close to zero.
        Some(value) if number.is_f64() && value != 0.0 && value.abs() < 1e-4 => tiny(value, out),
        _ => write!(out, "{number}"),
    }
}

fn tiny(value: f64, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    let scientific = format!("{value:e}");
    match scientific.split_once("e-") {
        Some((digits, exponent)) => write!(out, "{digits}e-{exponent:0>2}"),
        None => out.write_all(scientific.as_bytes()),
    }
}

struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_f64<W: Write + ?Sized>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        match Number::from_f64(value) {
            Some(number) => write_number(&number, out),
            None => out.write_all(b"null"),
        }
    }

    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !c.is_ascii() || c == '\u{7f}') {
            out.write_all(&rest.as_bytes()[..at])?;
            let mut characters = rest[at..].chars();
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        out.write_all(rest.as_bytes())
    }
}
