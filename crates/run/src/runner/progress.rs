//! The file to which a script appends what it has to tell: how far it has come, and which
//! checkpoint is complete. One JSON object a line, see `docs/scripts.md`.
//!
//! The file belongs to the script, so nothing of what is in it can fail a run: what cannot be
//! read is told once, in the log.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io, mem,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use modelyard_kernel::Progress;
use serde::Deserialize;

use super::checkpoint::{CheckpointName, FileTime};

/// No line is longer.
const LONGEST_LINE: usize = 64 << 10;

/// What follows in the file is not read.
const LARGEST_FILE: u64 = 64 << 20;

/// How much is read at a time.
const READ: usize = 64 << 10;

/// How far rounding may take a sum of parts beyond the whole.
const ROUNDING: f64 = 1e-6;

/// What one line says.
#[derive(Debug, Deserialize)]
struct Line {
    progress: Option<f64>,
    message: Option<String>,
    counters: Option<BTreeMap<String, f64>>,
    checkpoint: Option<String>,
}

impl Line {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        // Derived readers take a list for an object.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err("it is no JSON object".to_owned());
        }
        let line: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let Self { progress, message, counters, checkpoint } = &line;
        let says_nothing =
            progress.is_none() && message.is_none() && counters.is_none() && checkpoint.is_none();
        if says_nothing {
            return Err("it has no `progress`, `message`, `counters` or `checkpoint`".to_owned());
        }
        if progress.is_some_and(|it| !(-ROUNDING..=1.0 + ROUNDING).contains(&it)) {
            return Err("`progress` is from 0 to 1".to_owned());
        }
        let is_no_name =
            |it: &String| it.len() > Progress::COUNTER_BYTES || it.contains(char::is_control);
        if counters.iter().flatten().any(|(name, _)| is_no_name(name)) {
            return Err(format!(
                "names of counters have at most {} bytes",
                Progress::COUNTER_BYTES
            ));
        }
        Ok(line)
    }
}

/// What a script told since it was last heard.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    /// Everything it has told of its progress so far, if that is new.
    pub progress: Option<Progress>,
    /// The newest checkpoint.
    pub checkpoint: Option<CheckpointName>,
    /// What is wrong with what it wrote. Once a run.
    pub complaint: Option<String>,
}

/// Reads lines as they come, in pieces.
#[derive(Debug, Default)]
pub struct Told {
    line: Vec<u8>,
    /// Whether this line is too long, and the rest of it is not looked at.
    skipping: bool,
    progress: Progress,
    complained: bool,
}

impl Told {
    pub fn push(&mut self, bytes: &[u8], news: &mut News) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.add(&rest[..end], news);
            let line = mem::take(&mut self.line);
            if !mem::take(&mut self.skipping) && !line.trim_ascii().is_empty() {
                let read = Line::read(&line).and_then(|line| self.take(line, news));
                read.unwrap_or_else(|reason| {
                    self.complain(news, &format!("a line of MODELYARD_PROGRESS: {reason}"));
                });
            }
            rest = &rest[end + 1..];
        }
        self.add(rest, news);
    }

    /// The script has ended, and with it its last line. When that was cut off, nobody is to blame.
    pub fn finish(&mut self, news: &mut News) {
        let line = mem::take(&mut self.line);
        if let Ok(line) = Line::read(&line) {
            let _cut_off = self.take(line, news);
        }
    }

    fn add(&mut self, bytes: &[u8], news: &mut News) {
        if self.skipping {
            return;
        }
        if self.line.len() + bytes.len() > LONGEST_LINE {
            self.skipping = true;
            self.line = Vec::new();
            let most = format!("a line of MODELYARD_PROGRESS is longer than {LONGEST_LINE} bytes");
            self.complain(news, &most);
            return;
        }
        self.line.extend_from_slice(bytes);
    }

    /// What a line does not name stays as it was.
    fn take(&mut self, line: Line, news: &mut News) -> Result<(), String> {
        let Line { progress, message, counters, checkpoint } = line;
        let checkpoint = checkpoint.map(|it| CheckpointName::read(&it)).transpose()?;
        if checkpoint.is_some() {
            news.checkpoint = checkpoint;
        }
        if progress.is_none() && message.is_none() && counters.is_none() {
            return Ok(());
        }
        let counters = counters.unwrap_or_default();
        let added = counters.keys().filter(|it| !self.progress.counters.contains_key(*it)).count();
        if self.progress.counters.len() + added > Progress::COUNTERS {
            return Err(format!("there are more than {} counters", Progress::COUNTERS));
        }
        self.progress.counters.extend(counters);
        if let Some(fraction) = progress {
            self.progress.fraction = Some(fraction.clamp(0.0, 1.0));
        }
        if let Some(message) = message {
            self.progress.message = Some(short(&message));
        }
        news.progress = Some(self.progress.clone());
        Ok(())
    }

    fn complain(&mut self, news: &mut News, complaint: &str) {
        if !mem::replace(&mut self.complained, true) {
            // It may quote what the script wrote.
            news.complaint = Some(short(complaint));
        }
    }
}

/// One line of text for people.
fn short(message: &str) -> String {
    let plain = message.replace(char::is_control, " ");
    let end = plain.floor_char_boundary(Progress::MESSAGE_BYTES);
    plain[..end].trim().to_owned()
}

/// Follows the file as it grows.
#[derive(Debug)]
pub struct Tail {
    file: File,
    offset: u64,
    told: Told,
    gave_up: bool,
}

impl Tail {
    /// Makes the file anew. It is held open, so a script that puts another in its place is not
    /// heard.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(path)?;
        Ok(Self { file, offset: 0, told: Told::default(), gave_up: false })
    }

    /// Whether there may be something to read. Does not block for long.
    pub fn has_news(&self) -> bool {
        !self.gave_up && self.file.metadata().is_ok_and(|it| it.len() != self.offset)
    }

    /// Reads what is new. Blocks.
    pub fn read(&mut self) -> io::Result<News> {
        let mut news = News::default();
        if self.gave_up {
            return Ok(news);
        }
        if self.file.metadata()?.len() < self.offset {
            // It was emptied, by `>` in a place of `>>`.
            (self.offset, self.told.line) = (0, Vec::new());
        }
        let mut buffer = vec![0; READ];
        loop {
            if self.offset >= LARGEST_FILE {
                self.gave_up = true;
                let complaint = "MODELYARD_PROGRESS has become too large and is not read further";
                news.complaint = Some(complaint.to_owned());
                return Ok(news);
            }
            let length = self.file.read_at(&mut buffer, self.offset)?;
            if length == 0 {
                return Ok(news);
            }
            self.offset += length as u64;
            self.told.push(&buffer[..length], &mut news);
        }
    }

    /// When something was written to it last: nothing that was read is from later.
    pub fn time(&self) -> io::Result<FileTime> {
        let metadata = self.file.metadata()?;
        Ok((metadata.mtime(), metadata.mtime_nsec()))
    }

    /// As [`Tail::read`], for the last time.
    pub fn finish(&mut self) -> io::Result<News> {
        let mut news = self.read()?;
        self.told.finish(&mut news);
        Ok(news)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heard(text: &str) -> News {
        let mut news = News::default();
        Told::default().push(text.as_bytes(), &mut news);
        news
    }

    #[test]
    fn a_line_adds_to_those_before() {
        let news = heard(
            "{\"progress\": 0.25, \"message\": \"epoch 1\", \"counters\": {\"epoch\": 1, \"loss\": 2.5}}\n\
             {\"progress\": 0.5, \"counters\": {\"epoch\": 2}}\n\n\
             {\"checkpoint\": \"epoch-1\", \"later\": [1]}\n{\"checkpoint\": \"epoch-2\"}\n",
        );
        let counters = [("epoch", 2.0), ("loss", 2.5)].map(|(name, it)| (name.to_owned(), it));
        let progress = Progress {
            fraction: Some(0.5),
            message: Some("epoch 1".to_owned()),
            counters: counters.into(),
        };
        let checkpoint = Some(CheckpointName::read("epoch-2").unwrap());
        assert_eq!(news, News { progress: Some(progress), checkpoint, complaint: None });
    }

    #[test]
    fn what_is_wrong_is_said_once_and_the_rest_is_heard() {
        for (line, reason) in [
            ("half", "it is no JSON object"),
            ("[0.5, null, null, null]", "it is no JSON object"),
            ("{\"progres\": 0.5}", "it has no `progress`, `message`, `counters` or `checkpoint`"),
            ("{\"progress\": 40}", "`progress` is from 0 to 1"),
            ("{\"progress\": NaN}", "expected value at line 1 column 14"),
            ("{\"checkpoint\": \"../x\"}", "`../x` is no name of a checkpoint"),
            ("{\"progress\": 0.1, \"progress\": 0.2}", "duplicate field `progress`"),
        ] {
            let news = heard(&format!("{line}\n{line}\n{{\"progress\": 1.0000000002}}\n"));
            let complaint = news.complaint.unwrap();
            assert!(complaint.contains(reason), "{complaint}");
            assert_eq!(news.progress.unwrap().fraction, Some(1.0));
        }
    }

    #[test]
    fn counters_and_messages_are_bounded() {
        let mut told = Told::default();
        let mut news = News::default();
        for name in 0..100 {
            let line = format!("{{\"counters\": {{\"{name}\": {name}}}}}\n");
            told.push(line.as_bytes(), &mut news);
        }
        let message = format!("{{\"message\": \"a\\u0000\\n{}\"}}\n", "é".repeat(5000));
        told.push(message.as_bytes(), &mut news);
        let progress = news.progress.unwrap();
        assert_eq!(progress.counters.len(), 64);
        assert!(news.complaint.unwrap().contains("more than 64 counters"));
        let message = progress.message.unwrap();
        assert!(message.starts_with("a  éé") && message.len() == 1023, "{message}");
    }

    #[test]
    fn a_complaint_is_no_longer_than_a_message() {
        let complaint = heard(&format!("{{\"progress\": \"{}\"}}\n", "x".repeat(60_000))).complaint;
        assert!(complaint.unwrap().len() <= Progress::MESSAGE_BYTES);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let (mut told, mut news) = (Told::default(), News::default());
        for _ in 0..100 {
            told.push(&[b'x'; 10_000], &mut news);
            assert!(told.line.len() <= LONGEST_LINE);
        }
        assert!(news.complaint.is_some());
        told.push(b"\n{\"progress\": 0.5}", &mut news);
        assert_eq!(news.progress, None);
        told.finish(&mut news);
        assert_eq!(news.progress.unwrap().fraction, Some(0.5));
    }

    #[test]
    fn a_file_that_was_emptied_is_read_from_its_beginning() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tail = Tail::create(file.path()).unwrap();
        let fraction = |news: News| news.progress.and_then(|it| it.fraction);
        fs_err::write(file.path(), "{\"progress\": 0.125}\n{\"progress").unwrap();
        assert_eq!(fraction(tail.read().unwrap()), Some(0.125));
        fs_err::write(file.path(), "{\"progress\": 0.5}\n").unwrap();
        assert_eq!(fraction(tail.read().unwrap()), Some(0.5));
        assert!(!tail.has_news());
    }

    proptest! {
        #[test]
        fn where_pieces_end_makes_no_difference(
            lines in proptest::collection::vec("(\\{\"progress\": 0\\.[0-9]\\}|[a-z{]{0,4})", 0..6),
            cut: prop::sample::Index,
        ) {
            let text = lines.join("\n");
            let (mut whole, mut pieces) = (Told::default(), Told::default());
            let (mut expected, mut news) = (News::default(), News::default());
            whole.push(text.as_bytes(), &mut expected);
            let (first, second) = text.as_bytes().split_at(cut.index(text.len() + 1));
            pieces.push(first, &mut news);
            pieces.push(second, &mut news);
            prop_assert_eq!(news, expected);
        }
    }
}
