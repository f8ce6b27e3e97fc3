//! What a script prints: a part of it is kept for the record, and each line is told as it comes.

use std::mem;

use super::{
    capture::Capture,
    watcher::{Stream, Watcher},
};

/// Of longer lines only the beginning is told.
const LONGEST_LINE: usize = 4 << 10;

/// One of the two streams of a script.
#[derive(Debug)]
pub struct Output<'a> {
    capture: Capture,
    lines: Lines,
    stream: Stream,
    watcher: Option<&'a dyn Watcher>,
}

impl<'a> Output<'a> {
    /// Keeps at most `limit` bytes, see [`Capture`].
    pub fn new(limit: usize, stream: Stream, watcher: Option<&'a dyn Watcher>) -> Self {
        Self { capture: Capture::new(limit), lines: Lines::default(), stream, watcher }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.capture.push(bytes);
        if let Some(watcher) = self.watcher {
            self.lines.push(bytes, &mut |line| watcher.said(self.stream, line));
        }
    }

    /// Tells the last line, should it have no end, and gives what was kept.
    pub fn finish(mut self) -> String {
        if let Some(watcher) = self.watcher {
            self.lines.finish(&mut |line| watcher.said(self.stream, line));
        }
        self.capture.text()
    }
}

/// Cuts what comes in pieces into lines. A carriage return ends a line too, since that is what
/// progress bars write.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    /// Bytes of this line that are not told.
    left_out: usize,
    /// Whether the last line ended in a carriage return.
    returned: bool,
}

impl Lines {
    pub fn push(&mut self, bytes: &[u8], tell: &mut dyn FnMut(&str)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.add(&rest[..end]);
            let returns = rest[end] == b'\r';
            // A progress bar begins with a return as often as it ends with one, and in `\r\n` the
            // second ends nothing any more.
            let is_nothing = self.line.is_empty() && (returns || self.returned);
            if !is_nothing {
                self.end(tell);
            }
            self.returned = returns;
            rest = &rest[end + 1..];
        }
        self.add(rest);
    }

    /// Tells what has come of a line that has no end.
    pub fn finish(&mut self, tell: &mut dyn FnMut(&str)) {
        if !self.line.is_empty() {
            self.end(tell);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let (told, left_out) = bytes.split_at(bytes.len().min(LONGEST_LINE - self.line.len()));
        self.line.extend_from_slice(told);
        self.left_out += left_out.len();
    }

    fn end(&mut self, tell: &mut dyn FnMut(&str)) {
        let mut left_out = mem::take(&mut self.left_out);
        if left_out > 0
            && let Err(error) = str::from_utf8(&self.line)
            && error.error_len().is_none()
        {
            // The cut went through the middle of a character.
            left_out += self.line.len() - error.valid_up_to();
            self.line.truncate(error.valid_up_to());
        }
        let mut text = String::from_utf8_lossy(&self.line);
        // No database takes a NUL in a text.
        if text.contains('\0') {
            text = text.replace('\0', "\u{fffd}").into();
        }
        if left_out > 0 {
            text.to_mut().push_str(&format!(" [... {left_out} bytes left out ...]"));
        }
        tell(&text);
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_LINE, Lines};

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut told, mut lines) = (Vec::new(), Lines::default());
        for piece in pieces {
            lines.push(piece, &mut |line| told.push(line.to_owned()));
        }
        lines.finish(&mut |line| told.push(line.to_owned()));
        told
    }

    #[test]
    fn lines_end_where_they_end_and_not_where_pieces_do() {
        assert_eq!(lines(&[b"one\ntw", b"o\n", b"\nthree"]), ["one", "two", "", "three"]);
        assert_eq!(lines(&[]), [""; 0]);
    }

    #[test]
    fn a_progress_bar_is_a_line_each_time_it_is_drawn() {
        assert_eq!(
            lines(&[b"\r 1%\r 2%\r", b"\n", b"done\r\nnext\r\n"]),
            [" 1%", " 2%", "done", "next"]
        );
    }

    #[test]
    fn a_long_line_keeps_its_beginning() {
        let long = "é".repeat(LONGEST_LINE);
        let told = lines(&[b"x", long.as_bytes(), b"\nnext"]);
        let expected = format!("x{} [... {} bytes left out ...]", &long[..4094], 8192 - 4094);
        assert_eq!(told, [expected.as_str(), "next"]);
    }

    #[test]
    fn what_is_no_text_is_told_as_well_as_it_can_be() {
        assert_eq!(lines(&[b"a\xffb\0c\n"]), ["a\u{fffd}b\u{fffd}c"]);
        assert_eq!(lines(&[&[0; 10_000]]).len(), 1);
    }
}
