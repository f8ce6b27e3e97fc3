//! `cargo xtask crash`: the crash tests of the suite for longer: the real program is killed hundreds
//! of times at random moments, on `SQLite` and on PostgreSQL.

use anyhow::{Context, Result, bail, ensure};

use crate::{
    postgres,
    shell::{self, cargo},
};

#[derive(Debug, PartialEq)]
struct Options {
    /// Kills at random moments, per database.
    kills: u32,
    /// Repeats the moments of another run.
    seed: Option<u64>,
}

pub fn run(arguments: &[&str]) -> Result<()> {
    let Options { kills, seed } = read(arguments)?;
    ensure!(
        shell::is_installed("cargo-nextest", &["nextest", "--version"]),
        "the crash tests need nextest: `cargo install cargo-nextest --locked`"
    );
    let (url, _postgres) = postgres::of_tests()?;
    let mut command =
        cargo(&["nextest", "run", "--package", "modelyard", "--test", "it", "--profile", "crash"]);
    command.arg("crash::").env("TEST_DATABASE_URL", url).env("CRASH_KILLS", kills.to_string());
    if let Some(seed) = seed {
        command.env("CRASH_SEED", seed.to_string());
    }
    shell::run(&mut command)
}

fn read(arguments: &[&str]) -> Result<Options> {
    let mut options = Options { kills: 500, seed: None };
    let (pairs, rest) = arguments.as_chunks::<2>();
    for [option, value] in pairs {
        match *option {
            "--kills" => options.kills = value.parse().context("--kills takes a number")?,
            "--seed" => options.seed = Some(value.parse().context("--seed takes a number")?),
            other => bail!("`cargo xtask crash` has no option `{other}`"),
        }
    }
    ensure!(rest.is_empty(), "cannot read `{}`: see `cargo xtask help`", arguments.join(" "));
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        assert_eq!(read(&[]).unwrap(), Options { kills: 500, seed: None });
        let options = read(&["--seed", "7", "--kills", "40"]).unwrap();
        assert_eq!(options, Options { kills: 40, seed: Some(7) });
        assert!(read(&["--seed"]).is_err());
    }
}
