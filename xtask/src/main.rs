//! `cargo xtask`: the project's chores, one file per command. A fresh machine has cargo and little
//! else, so there is no make, no just, and no shell script that knows more than this does.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]
#![expect(
    clippy::disallowed_methods,
    reason = "a command-line tool: it reads the real environment, clock and files, and its errors \
              name the file through their context"
)]

mod bench;
mod clients;
mod crash;
mod croniter;
mod http;
mod kept;
mod lint;
mod postgres;
mod python;
mod redis;
mod shell;
mod steps;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  test [--fast] [--without-chap] [-- ARGUMENTS]
      Everything that must pass: the suite on SQLite and on a throw-away PostgreSQL and Redis, doc
      tests, the Python example's own tests, croniter, and the real clients. --fast leaves croniter and the
      clients out. ARGUMENTS go to the test runner, and then only the suite runs.
  lint
      Formatting, clippy, rustdoc, cargo-deny where it is installed, and paths of one machine.
  clients [--without-chap]
      chapkit, chap-core and schemathesis against both examples. chap-core needs Python 3.13.
  crash [--kills N] [--seed N]
      The suite's crash tests for longer: the program is killed N times (500) at random moments on
      each database. --seed repeats the moments of another run.
  croniter
      When 200 cron expressions fire in five time zones over ten years, beside croniter.
  bench serve [--date YYYY-MM-DD] [--repeats N] [--seconds N] [--only ours|peer|bare]
      The service beside chapkit and a bare axum server; with --date, docs/benchmarks.md is
      rewritten.
  bench jobs [--date YYYY-MM-DD] [--repeats N] [--jobs N]
      Jobs that do nothing: the engine on both databases beside a loop by hand and Procrastinate;
      with --date, docs/benchmarks.md is rewritten.
  bench auth [--date YYYY-MM-DD] [--repeats N] [--seconds N] [--pairs N]
      What it costs to know who asks, how many log in, and whether the time of a refused login tells
      that there is such a user; with --date, docs/benchmarks.md is rewritten.
  bench rate
      What deciding about rate limits costs, in CPU time.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["test", rest @ ..] => test::run(rest),
        ["lint"] => lint::run(),
        ["clients", rest @ ..] => clients::run(rest),
        ["crash", rest @ ..] => crash::run(rest),
        ["croniter"] => croniter::run(),
        ["bench", rest @ ..] => bench::run(rest),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(anyhow::anyhow!("cannot read `{}`\n\n{USAGE}", other.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
