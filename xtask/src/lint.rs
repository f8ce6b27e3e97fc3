//! `cargo xtask lint`: what a reviewer should not have to say.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    shell::{self, cargo},
    steps::Steps,
};

pub fn run() -> Result<()> {
    let mut steps = Steps::new();
    steps.run("formatting", || shell::run(&mut cargo(&["fmt", "--all", "--check"])));
    steps.run("clippy", || {
        // With the object stores, which nothing else compiles.
        let mut clippy = cargo(&["clippy", "--workspace", "--all-targets", "--all-features"]);
        shell::run(clippy.args(["--quiet", "--", "-D", "warnings"]))
    });
    // They have a workspace of their own, which nothing else compiles.
    steps.run("fuzz targets", || {
        let mut check = cargo(&["check", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]);
        shell::run(check.arg("--target-dir").arg(shell::target().join("fuzz")))
    });
    steps.run("documentation", || {
        let mut rustdoc = cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
        rustdoc.arg("--document-private-items");
        shell::run(rustdoc.env("RUSTDOCFLAGS", "-D warnings"))
    });
    if shell::is_installed("cargo-deny", &["--version"]) {
        steps.run("dependencies", dependencies);
    } else {
        println!("\n== dependencies: not checked, because cargo-deny is not installed");
    }
    steps.run("no paths of one machine", no_machine_paths);
    steps.run("no half merges", no_half_merges);
    steps.finish()
}

/// Licences, sources, bans and duplicates. The advisories live in a database that has to be fetched,
/// and this must run without: `cargo deny check advisories` is a chore of its own.
fn dependencies() -> Result<()> {
    // Offline needs every manifest at hand, of other platforms' crates too.
    shell::run(&mut cargo(&["fetch", "--locked", "--quiet"]))?;
    println!("advisories are not checked here: their database has to be fetched");
    let mut deny = cargo(&["deny", "--offline", "check", "--hide-inclusion-graph"]);
    shell::run(deny.args(["bans", "licenses", "sources"]))
}

/// A path that exists on one person's machine helps nobody else, and tells where it was written.
fn no_machine_paths() -> Result<()> {
    nowhere(r"(^|[^A-Za-z0-9_.])/(work|root|farm|home/[a-z]+|Users/[a-z]+|tmp/bash_jobs)/")
}

/// What `git merge` leaves where two changes met, also in files that nothing compiles.
fn no_half_merges() -> Result<()> {
    nowhere("^(<<<<<<<|>>>>>>>) ")
}

fn nowhere(pattern: &str) -> Result<()> {
    let mut grep = Command::new("git");
    grep.args(["grep", "--line-number", "-I", "--extended-regexp", pattern]);
    let output = grep.current_dir(shell::root()).output()?;
    match output.status.code() {
        Some(1) => Ok(()),
        Some(0) => bail!("committed:\n{}", String::from_utf8_lossy(&output.stdout)),
        _ => bail!("git grep: {}", String::from_utf8_lossy(&output.stderr)),
    }
}
