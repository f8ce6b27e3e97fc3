//! `cargo xtask test`: everything that must pass, on a machine that has the Rust toolchain,
//! Python 3 and the package registries.

use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::{
    clients::{self, Chap},
    croniter, postgres, python, redis,
    shell::{self, cargo},
    steps::Steps,
};

pub fn run(arguments: &[&str]) -> Result<()> {
    let split = arguments.iter().position(|it| *it == "--").unwrap_or(arguments.len());
    let (options, runner) = arguments.split_at(split);
    let runner = runner.get(1..).unwrap_or_default();
    let (mut fast, mut without_chap) = (false, false);
    for option in options {
        match *option {
            "--fast" => fast = true,
            "--without-chap" => without_chap = true,
            other => bail!("`cargo xtask test` has no option `{other}`"),
        }
    }

    let mut steps = Steps::new();
    steps.run("suite, on SQLite and PostgreSQL", || suite(runner));
    if runner.is_empty() {
        steps.run("doc tests", || shell::run(&mut cargo(&["test", "--workspace", "--doc"])));
        steps.run("tests of the Python example", example);
        if fast {
            steps.leave_out("fire times, as croniter has them", "--fast asks for it");
            steps.leave_out("real clients", "--fast asks for it");
        } else {
            steps.run("fire times, as croniter has them", croniter::run);
            clients::all(
                &mut steps,
                if without_chap { Chap::LeftOut } else { Chap::WherePossible },
            );
        }
    }
    steps.finish()
}

/// Each integration test runs on both databases by itself; it is told where PostgreSQL is.
fn suite(arguments: &[&str]) -> Result<()> {
    let (url, _postgres) = postgres::of_tests()?;
    let (redis_url, _redis) = redis::of_tests()?;
    let mut command = if shell::is_installed("cargo-nextest", &["nextest", "--version"]) {
        cargo(&["nextest", "run", "--workspace", "--profile", "ci"])
    } else {
        // Without nextest, the doc tests would run here and again in their own step.
        let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
        command.args(["--lib", "--bins", "--tests", "--examples"]);
        command
    };
    command.env("TEST_DATABASE_URL", url).env("TEST_REDIS_URL", redis_url);
    shell::run(command.args(arguments))
}

/// The example's scripts have tests of their own, on Python's standard library.
fn example() -> Result<()> {
    let directory = shell::root().join("examples/dengue");
    let mut command = Command::new(python::any()?);
    command.args(["-m", "unittest", "discover", "--verbose"]).current_dir(directory);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    print!("{}{said}", String::from_utf8_lossy(&output.stdout));
    ensure!(output.status.success(), "unittest ended with {}", output.status);
    // Python before 3.12 calls it a success to find nothing.
    ensure!(!said.contains("Ran 0 tests"), "unittest found no test in examples/dengue");
    Ok(())
}
