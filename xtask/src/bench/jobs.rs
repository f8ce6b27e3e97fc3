//! `cargo xtask bench jobs`: jobs that do nothing, through the engine on both databases, through a
//! loop that is written by hand on the same PostgreSQL, and through Procrastinate, also there. Each
//! has a database of its own; they take turns, in an order that turns as well. Last, how soon the
//! service answers while a function computes on every core.

use std::{collections::HashMap, fs, path::PathBuf, process::Command, thread};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    contestant::{self, Server},
    load::Load,
    measure::{self, milliseconds},
    payload::Payload,
    process,
    report::{self, rustc, show, times},
    serve::median,
};
use crate::{
    http::{self, Connection},
    postgres::Postgres,
    python::{self, Environment},
    shell::{self, cargo},
};

/// How the command was called.
#[derive(Debug)]
struct Options {
    /// The day of the run, as it shall stand in `docs/benchmarks.md`; without one nothing is
    /// written.
    date: Option<String>,
    repeats: usize,
    /// Jobs per measurement.
    jobs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Contestant {
    /// Procrastinate, a queue on PostgreSQL for Python.
    Peer,
    /// `crates/flow/examples/jobs_load`: claim a row, complete a row.
    ByHand,
    /// Ours, on PostgreSQL.
    Ours,
    /// Ours, on `SQLite`.
    OursOnSqlite,
}

use Contestant::{ByHand, Ours, OursOnSqlite, Peer};

const ALL: [Contestant; 4] = [Peer, ByHand, Ours, OursOnSqlite];

impl Contestant {
    fn name(self) -> &'static str {
        match self {
            Peer => "Procrastinate",
            ByHand => "by hand",
            Ours => "ours, PostgreSQL",
            OursOnSqlite => "ours, SQLite",
        }
    }
}

type Figures = HashMap<(Contestant, String), Vec<f64>>;

pub fn run(arguments: &[&str]) -> Result<()> {
    let options = read(arguments)?;
    let stable = Stable::prepare()?;
    let postgres = Postgres::start_for_figures()?;
    let mut figures = Figures::new();
    for repeat in 0..options.repeats {
        println!("repeat {} of {}", repeat + 1, options.repeats);
        let mut order = ALL;
        order.rotate_left(repeat % ALL.len());
        for contestant in order {
            let measured = stable.measure(contestant, &postgres, options.jobs)?;
            println!("  {:16} {}", contestant.name(), Value::Object(measured.clone()));
            for (what, figure) in measured {
                let Some(figure) = figure.as_f64() else { continue };
                figures.entry((contestant, what)).or_default().push(figure);
            }
        }
    }
    for _ in 0..options.repeats {
        let load = health_while_computing()?;
        for (what, percent) in [("computing_p50_ms", 50), ("computing_p99_ms", 99)] {
            let figure = milliseconds(load.percentile(percent));
            println!("  {what} {figure:.2}");
            figures.entry((OursOnSqlite, what.to_owned())).or_default().push(figure);
        }
    }
    let text = render(&options, &figures, &stable, &postgres)?;
    println!("\n{text}");
    if options.date.is_some() {
        report::write("jobs", &text)?;
    }
    Ok(())
}

fn read(arguments: &[&str]) -> Result<Options> {
    let mut options = Options { date: None, repeats: 5, jobs: 4000 };
    let (pairs, rest) = arguments.as_chunks::<2>();
    for [option, value] in pairs {
        match *option {
            "--date" => options.date = Some((*value).to_owned()),
            "--repeats" => options.repeats = value.parse().context("--repeats takes a number")?,
            "--jobs" => options.jobs = value.parse().context("--jobs takes a number")?,
            other => bail!("`cargo xtask bench jobs` has no option `{other}`"),
        }
    }
    if !rest.is_empty() || options.repeats == 0 || options.jobs < 100 {
        bail!("cannot read `{}`: see `cargo xtask help`", arguments.join(" "));
    }
    Ok(options)
}

/// What was built for a run.
struct Stable {
    ours: PathBuf,
    peer: Environment,
}

impl Stable {
    fn prepare() -> Result<Stable> {
        for (package, example) in [("modelyard-flow", "jobs_load"), ("xtask", "bench_service")] {
            let arguments = ["build", "--release", "--package", package, "--example", example];
            shell::run(&mut cargo(&arguments))?;
        }
        let directory = shell::target().join("bench/jobs-peer");
        fs::create_dir_all(shell::target().join("bench"))?;
        let requirements = shell::root().join("xtask/bench/requirements-jobs.txt");
        let peer = Environment::prepare(&directory, &python::version_3_13()?, &requirements)?;
        Ok(Stable { ours: shell::target().join("release/examples/jobs_load"), peer })
    }

    /// Everything, once, with a database made for it.
    fn measure(
        &self,
        contestant: Contestant,
        postgres: &Postgres,
        jobs: usize,
    ) -> Result<serde_json::Map<String, Value>> {
        let directory = TempDir::with_prefix("modelyard-bench-")?;
        let sqlite = format!("sqlite:{}", directory.path().join("jobs.db").display());
        let (url, jobs) = (postgres.url(), jobs.to_string());
        let ours = |arguments: &[&str]| {
            let mut command = Command::new(&self.ours);
            command.args(arguments);
            command
        };
        let mut command = match contestant {
            Ours => ours(&["engine", &url, &jobs]),
            OursOnSqlite => ours(&["engine", &sqlite, &jobs]),
            ByHand => ours(&["by-hand", &url, &jobs]),
            Peer => {
                let mut command = Command::new(self.peer.program("python"));
                command.arg(shell::root().join("xtask/bench/peer_jobs.py")).args([&url, &jobs]);
                command
            }
        };
        let printed = shell::read(&mut command)?;
        serde_json::from_str(&printed).with_context(|| format!("no figures: {printed}"))
    }

    /// What the peer is made of.
    fn peer_versions(&self) -> Result<String> {
        let script = "import platform; from importlib.metadata import version; \
                      print(f\"Procrastinate {version('procrastinate')}, \
                      psycopg {version('psycopg')}, Python {platform.python_version()}\")";
        let python = self.peer.program("python");
        Ok(shell::read(Command::new(python).args(["-c", script]))?.trim().to_owned())
    }
}

/// `GET /health`, due every 10 ms, while a function computes on every core for seconds.
fn health_while_computing() -> Result<Load> {
    let cores = thread::available_parallelism()?.get();
    let (directory, port) = (TempDir::with_prefix("modelyard-bench-")?, http::free_port()?);
    let mut command = contestant::ours(directory.path(), port);
    command.env("MODELYARD_JOBS__CONCURRENCY", cores.to_string());
    let server = Server::start(&mut command, directory, port)?;
    let config = json!({"name": "computes", "data": {"compute_seconds": 4.0}}).to_string();
    let mut connection = Connection::open(port)?;
    let made = connection.send("POST", "/api/v1/configs", config.as_bytes())?.json()?;
    let id = made["id"].as_str().context("no config has an id")?;
    measure::health_while_training(&server, &Payload::new(id, 250, 5), cores)
}

fn render(
    options: &Options,
    figures: &Figures,
    stable: &Stable,
    postgres: &Postgres,
) -> Result<String> {
    let Options { date, repeats, jobs } = options;
    let mut text = String::new();
    let mut line = |it: &str| {
        text.push_str(it);
        text.push('\n');
    };
    let of = |contestant, what: &str| median(figures.get(&(contestant, what.to_owned()))?);
    let on = date.as_ref().map_or_else(String::new, |date| format!(" on {date}"));
    let with = date.as_ref().map_or_else(String::new, |date| format!(" --date {date}"));
    line(&format!(
        "Measured{on} with `cargo xtask bench jobs{with} --repeats {repeats} --jobs {jobs}`: medians \
         over {repeats} repeats, each with a fresh database."
    ));
    line("");
    line(&format!("- Machine: {}; {}.", process::machine()?, rustc()?));
    line(&format!(
        "- Peer: {}. Database: {}, as it is installed, with its queries counted.",
        stable.peer_versions()?,
        postgres.version()?
    ));
    line("");
    line(
        "| jobs a second | Procrastinate | by hand | ours, PostgreSQL | ÷ peer | ÷ by hand | ours, \
         SQLite |",
    );
    line("|---|--:|--:|--:|--:|--:|--:|");
    for (what, key, aims) in [
        ("enqueued and completed, both at once", "per_second", [" (aim: 5×)", " (aim: 0.6×)"]),
        ("enqueued, each in a transaction", "enqueued_per_second", ["", ""]),
        ("enqueued, 100 in a transaction", "enqueued_in_bulk_per_second", ["", ""]),
        ("completed, of those that wait", "completed_per_second", ["", ""]),
    ] {
        line(&format!(
            "| {what} | {} | {} | {} | {}{} | {}{} | {} |",
            show(of(Peer, key)),
            show(of(ByHand, key)),
            show(of(Ours, key)),
            times(of(Ours, key), of(Peer, key)),
            aims[0],
            times(of(Ours, key), of(ByHand, key)),
            aims[1],
            show(of(OursOnSqlite, key)),
        ));
    }
    line("");
    line("| | Procrastinate | by hand | ours, PostgreSQL | ours, SQLite | aim |");
    line("|---|--:|--:|--:|--:|--:|");
    for (what, key, aim) in [
        ("from commit to start at 50 jobs a second, p50 ms", "pick_up_p50_ms", ""),
        ("p99 ms", "pick_up_p99_ms", ""),
        ("queries a second when idle", "idle_queries_per_second", "≤ 1"),
    ] {
        let [peer, by_hand, ours, sqlite] = ALL.map(|it| show(of(it, key)));
        line(&format!("| {what} | {peer} | {by_hand} | {ours} | {sqlite} | {aim} |"));
    }
    line("");
    let computing = |what: &str| show(of(OursOnSqlite, what));
    line(&format!(
        "While a train function computes on every core, `GET /health` takes {} ms at p50 and {} ms at \
         p99 (aim: < 20).",
        computing("computing_p50_ms"),
        computing("computing_p99_ms"),
    ));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = read(&["--repeats", "3", "--date", "2026-01-01"]).unwrap();
        assert_eq!((options.repeats, options.date.as_deref()), (3, Some("2026-01-01")));
        assert!(read(&["--jobs", "1"]).is_err());
        assert!(read(&["--only", "peer"]).is_err());
    }
}
