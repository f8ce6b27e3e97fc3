//! The shape of the whole: which crate leans on which, and whose a table is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom. The order is the ladder in ARCHITECTURE.md: a crate leans only on crates
/// above it. Adding a line here is a decision; removing one is a present.
const LADDER: [(&str, &[&str]); 9] = [
    ("modelyard-kernel", &[]),
    ("modelyard-schema", &["modelyard-kernel"]),
    ("modelyard-testkit", &["modelyard-kernel", "modelyard-schema"]),
    ("modelyard-flow", &["modelyard-kernel"]),
    ("modelyard-run", &["modelyard-kernel", "modelyard-flow"]),
    ("modelyard-ml", &["modelyard-kernel", "modelyard-flow", "modelyard-run"]),
    (
        "modelyard",
        &[
            "modelyard-kernel",
            "modelyard-schema",
            "modelyard-flow",
            "modelyard-run",
            "modelyard-ml",
        ],
    ),
    ("rust-service", &["modelyard"]),
    ("xtask", &[]),
];

/// Copies tables whole, whatever is in them.
const COPIES_ALL: &str = "crates/modelyard/src/backup";

/// Words before the name of a table.
const BEFORE_A_TABLE: [&str; 5] = ["FROM", "INTO", "UPDATE", "JOIN", "TABLE"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every source file of the crates, tests aside: its path from the root, and its text.
pub fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root().join("crates")];
    while let Some(directory) = directories.pop() {
        for entry in fs_err::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !matches!(name, "tests" | "templates" | "target") {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") && !name.contains("tests") {
                let text = fs_err::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                let shown = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((shown, text));
            }
        }
    }
    found.retain(|it| it.0.contains("/src/"));
    found.sort();
    assert!(found.len() > 100, "{} files", found.len());
    found
}

#[test]
fn crates_lean_only_on_those_above_them() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let ladder = BTreeMap::from(LADDER);

    let mut met = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        met.insert(name);
        let allowed = ladder.get(name).unwrap_or_else(|| panic!("`{name}` is not on the ladder"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let wanted = dependency["name"].as_str().unwrap();
            let ours = dependency["path"].is_string() && dependency["kind"] != "dev";
            assert!(!ours || allowed.contains(&wanted), "`{name}` may not lean on `{wanted}`");
        }
    }
    let gone: Vec<_> = ladder.keys().filter(|it| !met.contains(**it)).collect();
    assert!(gone.is_empty(), "{gone:?} are on the ladder, and there are no such crates");
}

/// The tables that a text names in SQL.
fn tables(text: &str) -> BTreeSet<&'static str> {
    let words: Vec<&str> = text
        .split(|it: char| !(it.is_alphanumeric() || it == '_'))
        .filter(|it| !it.is_empty())
        .collect();
    let pairs = words.windows(2).filter(|it| BEFORE_A_TABLE.contains(&it[0]));
    pairs
        .filter_map(|it| modelyard_schema::TABLES.iter().find(|table| **table == it[1]))
        .copied()
        .collect()
}

#[test]
fn a_table_is_touched_by_one_folder() {
    let mut owners: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources() {
        let mut touched = tables(&text);
        // What lists may be asked names its table without SQL.
        for table in modelyard_schema::TABLES {
            if text.contains(&format!("table: \"{table}\"")) {
                touched.insert(table);
            }
        }
        let folder = path.rsplit_once('/').unwrap().0;
        for table in touched.into_iter().filter(|_| folder != COPIES_ALL) {
            owners.entry(table).or_default().insert(folder.to_owned());
        }
    }
    for table in modelyard_schema::TABLES {
        let folders = owners.get(table).unwrap_or_else(|| panic!("nobody touches `{table}`"));
        assert_eq!(folders.len(), 1, "`{table}` is touched by {folders:?}");
    }
}

#[test]
fn every_statement_of_a_slice_asks_for_its_scope() {
    let stores: Vec<_> = sources().into_iter().filter(|it| it.0.ends_with("/store.rs")).collect();
    assert!(stores.len() >= 5, "only {} stores were found", stores.len());
    for (path, text) in stores {
        assert!(text.contains("scoped("), "{path} has no statements");
        let bare = text.lines().find(|it| it.trim_start().starts_with("query("));
        assert_eq!(bare, None, "{path} has a statement without a scope");
    }
}

#[test]
fn tables_are_seen_in_sql() {
    assert_eq!(tables("SELECT a FROM configs WHERE b"), BTreeSet::from(["configs"]));
    assert_eq!(
        tables("\"INSERT INTO\n  artifacts (x) SELECT 1 FROM blobs\""),
        BTreeSet::from(["artifacts", "blobs"])
    );
    assert_eq!(tables("the configs of a service, from jobs"), BTreeSet::new());
}
