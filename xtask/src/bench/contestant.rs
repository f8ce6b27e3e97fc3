//! Who is measured, and how each is built and started.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::process;
use crate::{
    http,
    kept::Kept,
    python::{self, Environment},
    shell::{self, cargo},
};

/// The peer's service; our own is `xtask/examples/bench_service.rs`.
const PEER_SERVICE: &str = "xtask/bench/peer_service.py";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contestant {
    /// `xtask/examples/bench_service.rs`, on `SQLite`.
    Ours,
    /// chapkit under uvicorn with one worker, on a `SQLite` file.
    Peer,
    /// `xtask/examples/bare_axum.rs`, which has `GET /health` and nothing else.
    Bare,
}

impl Contestant {
    pub const ALL: [Contestant; 3] = [Contestant::Peer, Contestant::Ours, Contestant::Bare];

    pub fn name(self) -> &'static str {
        match self {
            Contestant::Ours => "ours",
            Contestant::Peer => "peer",
            Contestant::Bare => "bare",
        }
    }

    /// Whether it is a model service, or only answers `GET /health`.
    pub fn is_service(self) -> bool {
        self != Contestant::Bare
    }
}

/// What was built for a run.
#[derive(Debug)]
pub struct Stable {
    peer: Option<Environment>,
}

impl Stable {
    pub fn prepare(contestants: &[Contestant]) -> Result<Stable> {
        let mut build = cargo(&["build", "--release", "--package", "xtask"]);
        let mut builds = false;
        for (contestant, example) in
            [(Contestant::Ours, "bench_service"), (Contestant::Bare, "bare_axum")]
        {
            if contestants.contains(&contestant) {
                build.args(["--example", example]);
                builds = true;
            }
        }
        if builds {
            shell::run(&mut build)?;
        }
        let peer = if contestants.contains(&Contestant::Peer) {
            let directory = shell::target().join("bench/peer");
            fs::create_dir_all(shell::target().join("bench"))?;
            let requirements = shell::root().join("xtask/bench/requirements-peer.txt");
            Some(Environment::prepare(&directory, &python::version_3_13()?, &requirements)?)
        } else {
            None
        };
        let stable = Stable { peer };
        // Once before it counts: Python compiles its sources at the first start.
        for contestant in contestants {
            stable.start(*contestant)?;
        }
        Ok(stable)
    }

    /// Starts one with a database of its own, and waits until it is healthy.
    pub fn start(&self, contestant: Contestant) -> Result<Server> {
        let directory = TempDir::with_prefix("modelyard-bench-")?;
        let port = http::free_port()?;
        let mut command = match contestant {
            Contestant::Ours => ours(directory.path(), port),
            Contestant::Peer => {
                // The peer copies its working directory into each workspace: give it this one file.
                fs::create_dir(directory.path().join("service"))?;
                let service = directory.path().join("service/peer_service.py");
                fs::copy(shell::root().join(PEER_SERVICE), service)?;
                let database = directory.path().join("peer.db");
                let peer = self.peer.as_ref().context("the peer was not prepared")?;
                let mut command = Command::new(peer.program("python"));
                command.args(["-m", "uvicorn", "peer_service:app", "--port", &port.to_string()]);
                command.env("DATABASE_URL", format!("sqlite+aiosqlite:///{}", database.display()));
                command.env("TMPDIR", directory.path());
                // Without its compiled sources it would start more slowly than it does in real life.
                command.env_remove("PYTHONDONTWRITEBYTECODE");
                command
            }
            Contestant::Bare => {
                let mut command = Command::new(example("bare_axum"));
                command.arg(port.to_string());
                command
            }
        };
        let working = directory.path().join("service");
        command.current_dir(if working.exists() { &working } else { directory.path() });
        Server::start(&mut command, directory, port)
    }

    /// What the peer is made of: the versions of chapkit, uvicorn and Python.
    pub fn peer_versions(&self) -> Result<Option<String>> {
        let Some(peer) = &self.peer else { return Ok(None) };
        let script = "import platform; from importlib.metadata import version; \
                      print(f\"chapkit {version('chapkit')}, uvicorn {version('uvicorn')}, \
                      Python {platform.python_version()}\")";
        let versions = shell::read(Command::new(peer.program("python")).args(["-c", script]))?;
        Ok(Some(versions.trim().to_owned()))
    }
}

/// Our service, with its data in `directory`.
pub fn ours(directory: &Path, port: u16) -> Command {
    let mut command = Command::new(example("bench_service"));
    command.env("PORT", port.to_string()).env("MODELYARD_DATA__DIR", directory.join("data"));
    command.current_dir(directory);
    command
}

fn example(name: &str) -> PathBuf {
    shell::target().join("release/examples").join(name)
}

/// A contestant that is up.
#[derive(Debug)]
pub struct Server {
    pub port: u16,
    /// From starting the process to its first 200.
    pub start: Duration,
    kept: Kept,
}

impl Server {
    /// Starts one that is to listen on `port`, and waits until it is healthy.
    pub fn start(command: &mut Command, directory: TempDir, port: u16) -> Result<Server> {
        let began = Instant::now();
        let mut kept = Kept::start(command, directory, "TERM")?;
        http::wait_until_healthy(&mut kept, port, Duration::from_secs(60))?;
        Ok(Server { port, start: began.elapsed(), kept })
    }

    pub fn cpu_time(&self) -> Duration {
        process::cpu_time(self.kept.id())
    }

    pub fn resident_bytes(&self) -> u64 {
        process::resident_bytes(self.kept.id())
    }

    pub fn last_words(&self) -> String {
        self.kept.last_words()
    }
}
