//! Who may come where is said once, for every route.

mod leaks;
mod probe;

use std::collections::BTreeSet;

use modelyard::permissions;
use modelyard_testkit::{TestDatabase, run};

use crate::support::{files, start_model};

#[test]
fn every_route_says_what_it_wants_and_every_saying_is_of_a_route() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (server, client) = start_model(&database).await;
        let document = client.get("/openapi.json").await.expect(200).body;
        let mut routes = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                routes.insert((method.to_uppercase(), path.clone()));
            }
        }
        let undescribed = permissions::UNDESCRIBED;
        let described = permissions::all().filter(|it| !undescribed.contains(it));
        let said: BTreeSet<_> =
            described.map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
        let undeclared: Vec<_> = routes.difference(&said).collect();
        assert!(undeclared.is_empty(), "nobody said who may come there: {undeclared:?}");
        let gone: Vec<_> = said.difference(&routes).collect();
        assert!(gone.is_empty(), "there are no such routes: {gone:?}");
        server.stop().await;
    });
}

/// What roles may do beside reading, as the specification has it: each also has what those before it
/// have. Not taken from the code under test.
const LADDER: [(&str, &[&str]); 5] = [
    (
        "viewer",
        &[
            "info:read",
            "system:read",
            "configs:read",
            "artifacts:read",
            "jobs:read",
            "tasks:read",
            "schedules:read",
            "ml:read",
        ],
    ),
    (
        "user",
        &[
            "configs:write",
            "artifacts:write",
            "jobs:write",
            "ml:train",
            "ml:predict",
            "tasks:execute",
        ],
    ),
    ("operator", &["tasks:write", "schedules:write", "metrics:read"]),
    (
        "tenant-admin",
        &[
            "users:read",
            "users:write",
            "keys:read",
            "keys:write",
            "roles:read",
            "roles:write",
            "sessions:read",
            "audit:read",
        ],
    ),
    ("system-admin", &["signing_keys:write"]),
];

/// Never ends for whoever may follow it.
const ENDLESS: &str = "/health/$stream";

/// What somebody with a role may.
fn granted(role: &str) -> BTreeSet<&'static str> {
    let mut granted = BTreeSet::new();
    for (name, more) in LADDER {
        granted.extend(more);
        if name == role {
            return granted;
        }
    }
    BTreeSet::new()
}

#[test]
fn what_is_routed_beside_the_document_says_what_it_wants() {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    for path in files(&sources) {
        if !path.ends_with(".rs") || path.ends_with("tests.rs") {
            continue;
        }
        let text = fs_err::read_to_string(path).unwrap();
        let routes = text.split(".route(\"").skip(1);
        found.extend(routes.filter_map(|it| it.split('"').next()).map(str::to_owned));
    }
    assert!(found.contains("/docs/{asset}"), "{found:?}");
    let said: BTreeSet<_> = permissions::all().map(|it| it.1).collect();
    let undeclared: Vec<_> = found.iter().filter(|it| !said.contains(it.as_str())).collect();
    assert!(undeclared.is_empty(), "nobody said who may come there: {undeclared:?}");
}
