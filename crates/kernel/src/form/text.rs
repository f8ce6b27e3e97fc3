//! How names and values are written inside a message.

use std::fmt::Write;

/// The text in quotes, the way Python prints a string: `'it'`, `"it's"`, `'a\nb'`.
pub fn quote(text: &str) -> String {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(mark);
    for character in text.chars() {
        match character {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\\' => quoted.push_str("\\\\"),
            c if c == mark => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push(mark);
    quoted
}

/// As much of a text as a message repeats.
pub fn shorten(text: &str) -> &str {
    const SHOWN_CHARS: usize = 64;
    text.char_indices().nth(SHOWN_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// Alternatives as a phrase: `'a', 'b' or 'c'`. They come quoted, or as they are to be printed.
pub fn choice<S: AsRef<str>>(alternatives: &[S]) -> String {
    let mut phrase = String::new();
    for (index, alternative) in alternatives.iter().enumerate() {
        if index > 0 {
            phrase.push_str(if index + 1 == alternatives.len() { " or " } else { ", " });
        }
        phrase.push_str(alternative.as_ref());
    }
    phrase
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_python_does() {
        assert_eq!(quote("fast"), "'fast'");
        assert_eq!(quote("it's"), "\"it's\"");
        assert_eq!(quote("it's \"x\""), "'it\\'s \"x\"'");
        assert_eq!(quote("a\n\u{1}\\é"), "'a\\n\\x01\\\\é'");
    }

    #[test]
    fn a_message_repeats_the_beginning_of_a_long_text() {
        assert_eq!(shorten("é"), "é");
        assert_eq!(shorten(&"é".repeat(64)), "é".repeat(64));
        assert_eq!(shorten(&"é".repeat(65)), "é".repeat(64));
    }

    #[test]
    fn alternatives_read_as_a_phrase() {
        assert_eq!(choice(&["'a'"]), "'a'");
        assert_eq!(choice(&["'a'", "'b'"]), "'a' or 'b'");
        assert_eq!(choice(&["'a'", "'b'", "'c'"]), "'a', 'b' or 'c'");
    }
}
