//! `cargo xtask clients`: the programs that people really use with such a service, run against both
//! examples. See `tests/clients/README.md`.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    http::{self, Connection},
    kept::Kept,
    python::{self, Environment},
    shell::{self, cargo},
    steps::Steps,
};

pub fn run(arguments: &[&str]) -> Result<()> {
    let chap = match arguments {
        [] => Chap::Required,
        ["--without-chap"] => Chap::LeftOut,
        other => bail!("`cargo xtask clients` has no option `{}`", other.join(" ")),
    };
    let mut steps = Steps::new();
    all(&mut steps, chap);
    steps.finish()
}

/// What to do about chapkit and chap-core, which need a Python of their own, 3.13.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chap {
    /// A machine that cannot run them fails.
    Required,
    /// A machine that cannot run them says so, now and at the end.
    WherePossible,
    /// Somebody asked to leave them out.
    LeftOut,
}

/// Every client against every example, a step each.
pub fn all(steps: &mut Steps, chap: Chap) {
    let mut without_chap = chap == Chap::LeftOut;
    if without_chap {
        steps.leave_out("chapkit and chap-core", "--without-chap asks for it");
    } else if let (Chap::WherePossible, Err(error)) = (chap, python::version_3_13()) {
        steps.leave_out("chapkit and chap-core", &error.to_string());
        without_chap = true;
    }
    let mut clients = None;
    steps.run("clients: prepare", || {
        clients = Some(Clients::prepare(without_chap)?);
        Ok(())
    });
    let Some(clients) = clients else { return };
    for example in ["dengue", "rust-service"] {
        let mut service = None;
        steps.run(&format!("clients: start {example}"), || {
            service = Some(Service::start(example)?);
            Ok(())
        });
        if let Some(mut service) = service {
            clients.visit(&mut service, steps);
        }
    }
}

/// An example that is up.
struct Service {
    name: &'static str,
    port: u16,
    url: String,
    server: Kept,
}

impl Service {
    fn start(name: &'static str) -> Result<Service> {
        let directory = TempDir::with_prefix("modelyard-clients-")?;
        let port = http::free_port()?;
        let data = directory.path().join("data");
        let mut command = if name == "rust-service" {
            let mut command = Command::new(shell::target().join("debug/rust-service"));
            command.env("PORT", port.to_string()).env("MODELYARD_DATA__DIR", data);
            command
        } else {
            let mut command = Command::new(shell::target().join("debug/modelyard"));
            command.arg("serve").arg(shell::root().join("examples").join(name));
            command.args(["--port", &port.to_string(), "--data-dir"]).arg(data);
            command
        };
        command.current_dir(directory.path());
        let mut server = Kept::start(&mut command, directory, "TERM")?;
        http::wait_until_healthy(&mut server, port, Duration::from_secs(60))?;
        Ok(Service { name, port, url: format!("http://127.0.0.1:{port}"), server })
    }

    /// That it survived its visitors.
    fn is_well(&mut self) -> Result<()> {
        if let Some(status) = self.server.ended() {
            bail!("the server ended with {status}:\n{}", self.server.last_words());
        }
        Connection::open(self.port)?.send("GET", "/health", b"")?.json()?;
        let log = self.server.log();
        let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked at")).collect();
        ensure!(panics.is_empty(), "the server panicked:\n{}", panics.join("\n"));
        Ok(())
    }
}

struct Clients {
    /// chapkit and chap-core, unless they were left out.
    chap: Option<Environment>,
    schemathesis: Environment,
    /// Where the clients run, and leave what they leave.
    directory: TempDir,
}

impl Clients {
    fn prepare(without_chap: bool) -> Result<Clients> {
        let environment = |name: &str, python: &Path| {
            let directory = shell::target().join("clients").join(name);
            let requirements = format!("tests/clients/requirements-{name}.txt");
            fs::create_dir_all(shell::target().join("clients"))?;
            Environment::prepare(&directory, python, &shell::root().join(requirements))
        };
        let chap =
            if without_chap { None } else { Some(environment("chap", &python::version_3_13()?)?) };
        let schemathesis = environment("schemathesis", &python::any()?)?;
        shell::run(&mut cargo(&["build", "--package", "modelyard", "--package", "rust-service"]))?;

        let directory = TempDir::with_prefix("modelyard-clients-")?;
        // `chapkit test` wants to run in a project that depends on chapkit.
        let project =
            "[project]\nname = \"clients\"\nversion = \"0\"\ndependencies = [\"chapkit\"]\n";
        fs::write(directory.path().join("pyproject.toml"), project)?;
        Ok(Clients { chap, schemathesis, directory })
    }

    fn visit(&self, service: &mut Service, steps: &mut Steps) {
        let Service { name, url, .. } = &*service;
        if let Some(chap) = &self.chap {
            steps.run(&format!("chapkit test, {name}"), || {
                let mut test = self.command(chap, "chapkit");
                test.args(["test", "--url", url, "--delay", "0", "--verbose", "--seed", "7"]);
                shell::run(&mut test)
            });
            steps.run(&format!("chapkit artifact, {name}"), || self.artifacts(chap, url));
            steps.run(&format!("chap eval, {name}"), || self.evaluation(chap, name, url));
        }
        steps.run(&format!("schemathesis, {name}"), || self.schemathesis(url));
        steps.run(&format!("{name} is well afterwards"), || service.is_well());
    }

    /// What `chapkit test` trained is listed, and comes down as a sound zip file.
    fn artifacts(&self, chap: &Environment, url: &str) -> Result<()> {
        let list =
            shell::read(self.command(chap, "chapkit").args(["artifact", "list", "--url", url]))?;
        print!("{list}");
        let workspace = list
            .lines()
            .find(|line| line.contains("ml_training_workspace"))
            .and_then(|line| line.split_whitespace().next())
            .context("no training workspace is listed")?;
        let zip = self.directory.path().join("workspace.zip");
        let mut download = self.command(chap, "chapkit");
        download.args(["artifact", "download", workspace, "--url", url, "--force", "--output"]);
        shell::run(download.arg(&zip))?;
        shell::run(self.command(chap, "python").args(["-m", "zipfile", "--test"]).arg(&zip))
    }

    /// A backtest by chap-core, whose result must hold a forecast for each location.
    fn evaluation(&self, chap: &Environment, name: &str, url: &str) -> Result<()> {
        let dataset = shell::root().join("examples/dengue/data/training.csv");
        let result = self.directory.path().join(format!("{name}.nc"));
        let mut eval = self.command(chap, "chap");
        eval.args(["eval", "--model-name", url, "--backtest-params.n-splits", "2"]);
        eval.arg("--dataset-csv").arg(&dataset).arg("--output-file").arg(&result);
        shell::run(&mut eval)?;
        let check = shell::root().join("tests/clients/check_evaluation.py");
        shell::run(self.command(chap, "python").arg(check).arg(&result).arg(&dataset))
    }

    /// Requests made up from our own OpenAPI document; see `tests/clients/README.md` for what is
    /// left out and why.
    fn schemathesis(&self, url: &str) -> Result<()> {
        let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance";
        let mut run = self.command(&self.schemathesis, "schemathesis");
        run.args(["run", &format!("{url}/openapi.json"), "--checks", checks]);
        run.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "20"]);
        run.args(["--generation-deterministic", "--request-timeout", "30", "--no-color"]);
        // Where there is a user or a key, nobody comes in who is not known.
        run.args(["--exclude-path-regex", r"\$(stream|execute)$|^/api/v1/(users|keys)$"]);
        shell::run(&mut run)
    }

    fn command(&self, environment: &Environment, program: &str) -> Command {
        let mut command = Command::new(environment.program(program));
        command.current_dir(self.directory.path()).env("PYTHONUNBUFFERED", "1");
        command
    }
}
