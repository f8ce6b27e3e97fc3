//! `docs/security.md` says which test proves what: the tests are there, and its counts and its list of what is
//! open are those of its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::files;

/// What the third cell of a row begins with; a longer one before what it begins with itself.
const STATES: [&str; 5] = ["met, no test", "met", "documented", "does not apply", "open"];

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

struct Row<'a> {
    requirements: Vec<String>,
    state: &'static str,
    tests: Vec<&'a str>,
}

/// The rows of requirements.
fn rows(page: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for line in page.lines() {
        let Some(line) = line.strip_prefix("| ") else { continue };
        let cells: Vec<&str> = line.trim_end_matches(" |").split(" | ").collect();
        if requirements_in(cells[0]).is_empty() {
            continue;
        }
        let [which, _, here, tests] = cells[..] else { panic!("four cells were expected: {line}") };
        let state = STATES.iter().find(|it| here.starts_with(**it));
        let state = *state.unwrap_or_else(|| panic!("{which} is none of {STATES:?}: {here}"));
        let tests = tests.split('`').skip(1).step_by(2).collect();
        rows.push(Row { requirements: all_of(which), state, tests });
    }
    rows
}

/// `1.2.3, 2.1.1–2.1.3` one by one.
fn all_of(cell: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in cell.split(", ") {
        let (first, last) = part.split_once('–').unwrap_or((part, part));
        let number = |it: &str| {
            let (section, number) = it.rsplit_once('.').unwrap();
            (section.to_owned(), number.parse::<u32>().unwrap())
        };
        let ((section, first), (same, last)) = (number(first), number(last));
        assert!(section == same && first <= last, "{part} is no range");
        found.extend((first..=last).map(|it| format!("{section}.{it}")));
    }
    found
}

/// Every `1.2.3` of a text.
fn requirements_in(text: &str) -> Vec<&str> {
    let words = text.split(|it: char| !it.is_ascii_digit() && it != '.');
    let is_one =
        |it: &&str| it.split('.').count() == 3 && it.split('.').all(|it| it.parse::<u32>().is_ok());
    words.map(|it| it.trim_end_matches('.')).filter(is_one).collect()
}

/// Every function of the sources.
fn functions() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for directory in ["crates", "xtask"] {
        for path in files(&root().join(directory)) {
            if !path.ends_with(".rs") {
                continue;
            }
            let text = fs_err::read_to_string(path).unwrap();
            for rest in text.split("fn ").skip(1) {
                let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
                found.insert(rest.chars().take_while(|it| is_name(*it)).collect());
            }
        }
    }
    found
}

#[test]
fn what_the_table_of_requirements_says_is_so() {
    let page = fs_err::read_to_string(root().join("docs/security.md")).unwrap();
    let rows = rows(&page);
    let functions = functions();
    let mut counts = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for Row { requirements, state, tests } in &rows {
        for it in requirements {
            assert!(seen.insert(it.clone()), "{it} is there twice");
        }
        *counts.entry(*state).or_insert(0) += requirements.len();
        let gone: Vec<_> = tests.iter().filter(|it| !functions.contains(**it)).collect();
        assert!(gone.is_empty(), "{requirements:?}: there are no tests {gone:?}");
        let is_proved = !tests.is_empty() || *state != "met";
        assert!(is_proved, "{requirements:?} is met, and no test is named");
    }
    for state in STATES {
        let line = format!("| {state} | {} |", counts.get(state).copied().unwrap_or(0));
        assert!(page.contains(&line), "the counts have no `{line}`");
    }
    assert!(page.contains(&format!("| all | {} |", seen.len())), "there are {} rows", seen.len());

    let (_, open) = page.split_once("\n## What is open\n").unwrap();
    let named: BTreeSet<_> = requirements_in(open).into_iter().map(str::to_owned).collect();
    let rows = rows.iter().filter(|it| it.state == "open");
    let open: BTreeSet<_> = rows.flat_map(|it| it.requirements.clone()).collect();
    assert_eq!(named, open, "what is open and what is said to be");
}
