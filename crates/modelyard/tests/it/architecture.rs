//! The shape of the whole: which crate leans on which, and whose a table is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom. The order is the ladder in ARCHITECTURE.md: a crate leans only on crates
/// above it. Adding a line here is a decision; removing one is a present.
const LADDER: [(&str, &[&str]); 11] = [
    ("modelyard-kernel", &[]),
    ("modelyard-schema", &["modelyard-kernel"]),
    ("modelyard-testkit", &["modelyard-kernel", "modelyard-schema"]),
    ("modelyard-flow", &["modelyard-kernel"]),
    ("modelyard-access", &["modelyard-kernel", "modelyard-flow"]),
    ("modelyard-ops", &["modelyard-kernel"]),
    ("modelyard-run", &["modelyard-kernel", "modelyard-flow"]),
    ("modelyard-ml", &["modelyard-kernel", "modelyard-flow", "modelyard-run"]),
    (
        "modelyard",
        &[
            "modelyard-kernel",
            "modelyard-schema",
            "modelyard-flow",
            "modelyard-access",
            "modelyard-run",
            "modelyard-ml",
            "modelyard-ops",
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
fn models_do_nothing_but_think() {
    let models: Vec<_> = sources().into_iter().filter(|it| it.0.ends_with("/model.rs")).collect();
    assert!(models.len() >= 5, "only {} models were found", models.len());
    for (path, text) in models {
        for word in ["async fn", ".await", "Conn", "fs_err", "tokio::", "clock.now()"] {
            let line = text.lines().find(|it| it.contains(word) && !it.trim().starts_with("//"));
            assert_eq!(line, None, "{path} has `{word}`");
        }
    }
}

/// Who may make statements without a scope, and why.
const UNSCOPED: [(&str, &str); 11] = [
    ("crates/access/src/key/presented.rs", "finds out whose a key is"),
    ("crates/access/src/session/presented.rs", "finds out whose a session is"),
    ("crates/flow/src/job/claims.rs", "does the work of every tenant"),
    (
        "crates/flow/src/job/together.rs",
        "writes for several services at once, each row with its own",
    ),
    ("crates/kernel/src/db/", "where statements are made"),
    ("crates/kernel/src/event.rs", "takes what was told in all services of a tenant"),
    ("crates/kernel/src/list/sql.rs", "its conditions begin with those of the scope"),
    ("crates/modelyard/src/backup/", "copies the rows of everybody"),
    ("crates/modelyard/src/health/", "asks whether the database answers"),
    ("crates/ops/src/audit/sealer.rs", "looks after the chain of every tenant"),
    ("crates/schema/", "migrations are nobody's"),
];

/// The lines of a text that make a statement without a scope.
fn unscoped(text: &str) -> Vec<&str> {
    let code = |line: &&str| !line.trim_start().starts_with("//");
    // `query` as a word: not `into_query`, not the method of an address.
    let makes = |line: &&str| {
        line.match_indices("query(").any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|it| it.is_alphanumeric() || matches!(it, '_' | '.'))
        })
    };
    text.lines().filter(code).filter(makes).collect()
}

#[test]
fn every_statement_of_a_slice_asks_for_its_scope() {
    let (mut stores, mut excused) = (0, BTreeSet::new());
    for (path, text) in sources().into_iter().filter(|it| !it.0.starts_with("crates/testkit/")) {
        if path.ends_with("/store.rs") {
            assert!(text.contains("scoped("), "{path} has no statements");
            stores += 1;
        }
        let bare = unscoped(&text);
        match UNSCOPED.iter().find(|it| path.starts_with(it.0)) {
            Some((excuse, _)) if !bare.is_empty() => {
                excused.insert(*excuse);
            }
            Some(_) => {}
            None => assert_eq!(bare, [""; 0], "{path} has a statement without a scope"),
        }
        // Under another name it would not be found.
        assert!(!text.contains("query as "), "{path} renames `query`");
    }
    assert!(stores >= 5, "only {stores} stores were found");
    assert_eq!(excused.len(), UNSCOPED.len(), "an excuse is no longer needed: {excused:?}");
}

#[test]
fn statements_without_a_scope_are_seen() {
    let seen = [
        "    query(\"SELECT 1\")",
        "let found = db::query(sql).fetch_all(conn)",
        "modelyard_kernel::db::query(format!(\"DELETE FROM {table}\"))",
        "handle.block_on(query(sql))",
    ];
    for line in seen {
        assert_eq!(unscoped(line), [line]);
    }
    for line in
        ["// query(sql)", "uri.query()", "self.into_query()", "scoped(scope, sql)", "uri.query(x)"]
    {
        assert_eq!(unscoped(line), [""; 0], "{line}");
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

#[test]
fn no_two_schemas_of_the_document_have_one_name() {
    // The document would have one of them, and say of the other what is not true.
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for (path, text) in sources() {
        let derives = text.match_indices("ToSchema").map(|it| it.0);
        for at in derives.filter(|at| text[..*at].rsplit('\n').next().unwrap().contains("derive("))
        {
            let rest = &text[at..];
            let end = rest.find(['{', ';']).unwrap_or(rest.len());
            let head = &rest[..end];
            let words: Vec<&str> = rest.split_whitespace().collect();
            let kind = words.iter().position(|it| matches!(*it, "struct" | "enum"));
            let Some(name) = kind.and_then(|it| words.get(it + 1)) else { continue };
            let name = name.split(['<', '(', '{', ';']).next().unwrap();
            let name = head
                .split_once("schema(as = ")
                .and_then(|it| it.1.split(')').next())
                .unwrap_or(name);
            if let Some(other) = named.insert(name.to_owned(), path.clone()) {
                panic!("`{name}` is a schema of {other} and of {path}");
            }
        }
    }
    assert!(named.len() > 40, "only {} schemas were found", named.len());
}
