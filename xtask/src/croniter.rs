//! `cargo xtask croniter`: when cron expressions fire, as croniter has it. See
//! `tests/clients/compare_croniter.py`.

use std::{fs, process::Command};

use anyhow::Result;

use crate::{
    python::{self, Environment},
    shell::{self, cargo},
};

pub fn run() -> Result<()> {
    let directory = shell::target().join("clients");
    fs::create_dir_all(&directory)?;
    let requirements = shell::root().join("tests/clients/requirements-croniter.txt");
    let environment =
        Environment::prepare(&directory.join("croniter"), &python::any()?, &requirements)?;
    shell::run(&mut cargo(&["build", "--package", "modelyard-flow", "--example", "cron_times"]))?;
    let mut compare = Command::new(environment.program("python"));
    compare.arg(shell::root().join("tests/clients/compare_croniter.py"));
    shell::run(compare.arg(shell::target().join("debug/examples/cron_times")))
}
