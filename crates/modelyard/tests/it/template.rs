//! The Rust program that `modelyard init` makes, built as its author would.

use std::path::Path;
use std::process::Command;

use crate::support::program::BINARY;

#[test]
fn a_new_rust_project_builds_with_this_checkout() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directory = tempfile::tempdir().unwrap();
    let init = Command::new(BINARY)
        .args(["init", "tiny", "--template", "rust-fn", "--modelyard"])
        .arg(&workspace)
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(init.status.success(), "{init:?}");
    let said = String::from_utf8(init.stdout).unwrap();
    assert!(said.ends_with("\nNext: cd ./tiny && cargo run --release\n"), "{said}");

    let project = directory.path().join("tiny");
    // The versions that are downloaded already, and flags as here, so that most is built already.
    fs_err::copy(workspace.join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    let target = Path::new(BINARY).parent().and_then(Path::parent).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        // What cargo says of this crate would have others built again that look at it.
        if name.to_str().is_some_and(|it| ours.iter().any(|ours| it.starts_with(ours))) {
            cargo.env_remove(name);
        }
    }
    let check = cargo
        .args(["check", "--offline", "--target-dir"])
        .arg(target)
        .args(["--config", "profile.dev.debug=\"line-tables-only\""])
        .args(["--config", "profile.dev.package.\"*\".debug=false"])
        .args(["--config", "profile.dev.package.sha2.opt-level=3"])
        .current_dir(&project)
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}
