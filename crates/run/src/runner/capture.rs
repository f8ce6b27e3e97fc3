//! Keeping the beginning and the end of a stream of unknown length, in constant memory.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The first and the last bytes of what was pushed.
#[derive(Debug)]
pub struct Capture {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Capture {
    /// Keeps at most `limit` bytes, half of them from the beginning.
    pub fn new(limit: usize) -> Self {
        Self { half: limit / 2, head: Vec::new(), tail: VecDeque::new(), dropped: 0 }
    }

    pub fn push(&mut self, mut bytes: &[u8]) {
        let into_head = bytes.len().min(self.half - self.head.len());
        self.head.extend_from_slice(&bytes[..into_head]);
        bytes = &bytes[into_head..];

        // Of a large piece only the end can stay.
        let skipped = bytes.len().saturating_sub(self.half);
        self.tail.extend(&bytes[skipped..]);
        let excess = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..excess);
        self.dropped += (skipped + excess) as u64;
    }

    /// The text, with a note in the middle if something was dropped there.
    pub fn text(&self) -> String {
        let mut bytes = self.head.clone();
        if self.dropped > 0 {
            bytes.extend(format!("\n[... {} bytes left out ...]\n", self.dropped).as_bytes());
        }
        bytes.extend(&self.tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Reads until the end of the stream. May be dropped at any time: what was read has been given.
pub async fn pump(mut stream: impl AsyncRead + Unpin, mut give: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    // A read error on a pipe means that there is nothing more to come.
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        give(&buffer[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::Capture;

    #[test]
    fn short_output_is_kept_whole() {
        let mut capture = Capture::new(10);
        capture.push(b"01234");
        capture.push(b"56789");
        assert_eq!(capture.text(), "0123456789");
    }

    #[test]
    fn long_output_keeps_its_beginning_and_its_end() {
        let mut capture = Capture::new(10);
        for digit in "0123456789".repeat(100).as_bytes() {
            capture.push(&[*digit]);
        }
        assert_eq!(capture.text(), "01234\n[... 990 bytes left out ...]\n56789");
    }

    #[test]
    fn one_large_piece_is_cut_the_same_way() {
        let mut capture = Capture::new(10);
        capture.push("0123456789".repeat(100).as_bytes());
        assert_eq!(capture.text(), "01234\n[... 990 bytes left out ...]\n56789");
    }
}
