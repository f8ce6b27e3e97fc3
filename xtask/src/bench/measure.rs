//! The measurements: each takes a server that is up, and gives figures.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    contestant::Server,
    load::{self, Load},
    payload::{self, Payload},
};
use crate::http::Connection;

/// What one kind of request costs.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// The server's CPU time per request.
    pub cpu_ms: f64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Every figure in milliseconds goes through here.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Of what `run` asks the server.
pub fn cost(server: &Server, run: impl FnOnce() -> Result<Load>) -> Result<Cost> {
    let before = server.cpu_time();
    let load = run()?;
    let spent = server.cpu_time().saturating_sub(before);
    let requests = load.requests() as f64;
    Ok(Cost {
        cpu_ms: milliseconds(spent) / requests,
        per_second: requests / load.elapsed.as_secs_f64(),
        p50_ms: milliseconds(load.percentile(50)),
        p99_ms: milliseconds(load.percentile(99)),
    })
}

/// Answers without a body of ours: `GET` over and over.
pub fn get(server: &Server, path: &str, clients: usize, time: Duration) -> Result<Cost> {
    cost(server, || {
        load::run(server.port, clients, time, |connection, _| {
            let answer = connection.send("GET", path, b"")?;
            ensure!(answer.status == 200, "GET {path} gave {}", answer.status);
            Ok(())
        })
    })
}

/// Puts `count` configs there, and gives the id of the last.
pub fn make_configs(server: &Server, count: usize) -> Result<String> {
    let mut connection = Connection::open(server.port)?;
    let mut id = None;
    for number in 0..count {
        let answer = connection.send("POST", "/api/v1/configs", &payload::config(number))?;
        id = answer.json()?["id"].as_str().map(str::to_owned);
    }
    id.context("no config has an id")
}

/// `POST /api/v1/configs` over and over, each with a name of its own.
pub fn insert(server: &Server, clients: usize, time: Duration) -> Result<Cost> {
    cost(server, || {
        load::run(server.port, clients, time, |connection, number| {
            let body = payload::config(1_000 + number);
            let answer = connection.send("POST", "/api/v1/configs", &body)?;
            ensure!(answer.status == 201, "POST /api/v1/configs gave {}", answer.status);
            Ok(())
        })
    })
}

/// Train → predict cycles by four clients at once, who ask for their job's state every 50 ms.
pub fn cycles(server: &Server, payload: &Payload, time: Duration) -> Result<Cost> {
    cost(server, || {
        load::run(server.port, 4, time, |connection, _| {
            cycle(connection, payload, Patience::Steady).map(|_| ())
        })
    })
}

/// How long one training and one prediction take when nobody else asks for anything.
pub fn lone_cycle(server: &Server, payload: &Payload) -> Result<(Duration, Duration)> {
    cycle(&mut Connection::open(server.port)?, payload, Patience::Eager)
}

fn cycle(
    connection: &mut Connection,
    payload: &Payload,
    patience: Patience,
) -> Result<(Duration, Duration)> {
    let began = Instant::now();
    let trained = submit(connection, "/api/v1/ml/$train", &payload.train, patience)?;
    let between = Instant::now();
    submit(connection, "/api/v1/ml/$predict", &payload.predict(&trained), patience)?;
    Ok((between - began, between.elapsed()))
}

/// How a client waits for a job.
#[derive(Debug, Clone, Copy)]
enum Patience {
    /// Every 50 ms, as a polite client would: asking costs the server little.
    Steady,
    /// From 2 ms to 20 ms, to see soon when the job is done.
    Eager,
}

/// Submits a job, waits until it is completed, and gives the id of its artifact.
fn submit(
    connection: &mut Connection,
    path: &str,
    body: &[u8],
    patience: Patience,
) -> Result<String> {
    let submitted = connection.send("POST", path, body)?.json()?;
    let job = submitted["job_id"].as_str().context("no job_id")?;
    let artifact = submitted["artifact_id"].as_str().context("no artifact_id")?;
    let mut pause = match patience {
        Patience::Steady => Duration::from_millis(50),
        Patience::Eager => Duration::from_millis(2),
    };
    loop {
        thread::sleep(pause);
        let record = connection.send("GET", &format!("/api/v1/jobs/{job}"), b"")?.json()?;
        match record["status"].as_str() {
            Some("completed") => return Ok(artifact.to_owned()),
            Some("failed" | "canceled") => bail!("the job failed: {record}"),
            _ => {}
        }
        if matches!(patience, Patience::Eager) {
            pause = (pause * 3 / 2).min(Duration::from_millis(20));
        }
    }
}

/// `GET /health` every 10 ms, from the moment when the trainings are submitted until the last is
/// completed. A request that waits behind a stall counts from when it was due, not from when it
/// could be sent: else a stall of a second would count once. A hundred a second are well within what
/// every contestant can answer when it does nothing else.
pub fn health_while_training(server: &Server, payload: &Payload, trainings: usize) -> Result<Load> {
    const EVERY: Duration = Duration::from_millis(10);
    thread::scope(|scope| {
        let trainings: Vec<_> = (0..trainings)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(server.port)?;
                    submit(&mut connection, "/api/v1/ml/$train", &payload.train, Patience::Steady)
                })
            })
            .collect();
        let mut connection = Connection::open(server.port)?;
        let (began, mut latencies) = (Instant::now(), Vec::new());
        let mut due = began;
        while trainings.iter().any(|training| !training.is_finished()) {
            due += EVERY;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let answer = connection.send("GET", "/health", b"")?;
            ensure!(answer.status == 200, "GET /health gave {}", answer.status);
            latencies.push(due.elapsed());
        }
        for training in trainings {
            training.join().expect("a client does not panic")?;
        }
        latencies.sort_unstable();
        Ok(Load { elapsed: began.elapsed(), latencies })
    })
}
