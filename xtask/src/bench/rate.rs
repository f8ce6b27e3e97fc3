//! `cargo xtask bench rate`: what deciding about rate limits costs.

use anyhow::Result;

use crate::shell::{self, cargo};

pub fn run() -> Result<()> {
    shell::run(&mut cargo(&[
        "run",
        "--release",
        "--package",
        "modelyard-ops",
        "--example",
        "bench_rate",
    ]))
}
