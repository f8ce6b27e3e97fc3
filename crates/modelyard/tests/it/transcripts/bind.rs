//! Which of our ids stands for which of the recording.

use std::collections::{HashMap, HashSet};

/// The ids of a recording, each bound to one of ours where it first appears.
#[derive(Debug, Default)]
pub struct Bindings {
    ours: HashMap<String, String>,
    /// The same, the other way round: two recorded ids are never one of ours.
    recorded: HashMap<String, String>,
    /// Recorded ids of what our server, by a deviation, never makes.
    absent: HashSet<String>,
}

impl Bindings {
    /// Recorded text with our ids in it. An id that no answer has shown was the client's choice.
    pub fn in_our_ids(&mut self, recorded: &str) -> String {
        let mut text = String::with_capacity(recorded.len());
        for piece in pieces(recorded) {
            match piece {
                Piece::Text(it) => text.push_str(it),
                Piece::Id(it) => {
                    let known = it.to_ascii_uppercase();
                    if !self.ours.contains_key(&known) {
                        self.bind(&known, &known);
                    }
                    let ours = &self.ours[&known];
                    let lower = it.chars().any(|c| c.is_ascii_lowercase());
                    text.push_str(&if lower { ours.to_ascii_lowercase() } else { ours.clone() });
                }
            }
        }
        text
    }

    /// Whether our text is the recorded one, but for ids, which are then bound to each other.
    pub fn agree(&mut self, recorded: &str, ours: &str) -> bool {
        let mut pairs = Vec::new();
        let (mut theirs, mut mine) = (pieces(recorded), pieces(ours));
        loop {
            match (theirs.next(), mine.next()) {
                (None, None) => break,
                (Some(Piece::Text(a)), Some(Piece::Text(b))) if a == b => {}
                (Some(Piece::Id(a)), Some(Piece::Id(b))) => pairs.push((a, b)),
                _ => return false,
            }
        }
        let agreed = |(a, b): &(&str, &str)| match (self.ours.get(*a), self.recorded.get(*b)) {
            (None, None) => true,
            (Some(ours), _) => ours == b,
            (None, Some(_)) => false,
        };
        if !pairs.iter().all(agreed) {
            return false;
        }
        for (a, b) in pairs {
            self.bind(a, b);
        }
        true
    }

    /// Notes that what these ids name does not come to be with us.
    pub fn never_made(&mut self, recorded: &str) {
        for piece in pieces(recorded) {
            if let Piece::Id(id) = piece
                && !self.ours.contains_key(id)
            {
                self.absent.insert(id.to_owned());
            }
        }
    }

    /// Whether something is named that does not come to be with us.
    pub fn names_absent(&self, recorded: &str) -> bool {
        pieces(recorded).any(|it| matches!(it, Piece::Id(id) if self.absent.contains(id)))
    }

    fn bind(&mut self, recorded: &str, ours: &str) {
        self.ours.insert(recorded.to_owned(), ours.to_owned());
        self.recorded.insert(ours.to_owned(), recorded.to_owned());
    }
}

/// Whether this is an id and nothing else.
pub fn is_id(text: &str) -> bool {
    const ALPHABET: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut characters = text.chars().map(|c| c.to_ascii_uppercase());
    text.len() == 26
        && text.starts_with(|c| ('0'..='7').contains(&c))
        && characters.all(|c| ALPHABET.contains(c))
}

#[derive(Debug)]
enum Piece<'a> {
    Text(&'a str),
    Id(&'a str),
}

/// Text taken apart at its ids.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut from = 0;
        loop {
            let start = rest[from..].find(|c: char| c.is_ascii_alphanumeric());
            let Some(start) = start.map(|it| it + from) else {
                return Some(Piece::Text(std::mem::take(&mut rest)));
            };
            let end = rest[start..].find(|c: char| !c.is_ascii_alphanumeric());
            let end = end.map_or(rest.len(), |it| it + start);
            let piece = match (is_id(&rest[start..end]), start) {
                (true, 0) => Piece::Id(&rest[..end]),
                (true, _) => Piece::Text(&rest[..start]),
                (false, _) => {
                    from = end;
                    continue;
                }
            };
            let (Piece::Id(taken) | Piece::Text(taken)) = piece;
            rest = &rest[taken.len()..];
            return Some(piece);
        }
    })
}

#[test]
fn ids_are_bound_where_they_first_appear_and_for_good() {
    let (a, b) = ("01M7W2GK1CC2HZY9FECP19MYJK", "01M7W2GK1CC2HZY9FECP19MYJJ");
    let (x, y) = ("01K72PWT05GEXK1S24AVKAZ9VE", "01K72PWT05GEXK1S24AVKAZ9VF");
    let mut bindings = Bindings::default();
    assert!(bindings.agree(&format!("job {a}."), &format!("job {x}.")));
    assert!(bindings.agree(a, x));
    assert!(!bindings.agree(a, y), "bound to another");
    assert!(!bindings.agree(b, x), "another is bound to it");
    assert!(!bindings.agree(&format!("{b}!"), &format!("{y}?")), "the text is another");
    assert_eq!(
        bindings.in_our_ids(&format!("/{}/$tree", a.to_lowercase())),
        format!("/{}/$tree", x.to_lowercase())
    );
    assert_eq!(bindings.in_our_ids(b), b, "the client chose it");
}
