//! `cargo xtask bench serve`: the service beside chapkit and a bare axum server, in one interleaved
//! run: each measurement visits every contestant before the next one begins, and the whole is
//! repeated with fresh servers, in an order that turns.

use std::{collections::HashMap, thread, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    contestant::{Contestant, Server, Stable},
    measure::{self, Cost, milliseconds},
    payload::Payload,
    process, report,
};

/// Clients at once, for what is measured under load.
pub const CLIENTS: usize = 16;

/// How the command was called.
#[derive(Debug)]
pub struct Options {
    /// The day of the run, as it shall stand in `docs/benchmarks.md`; without one nothing is
    /// written.
    pub date: Option<String>,
    pub repeats: usize,
    /// How long each load lasts.
    pub seconds: u64,
    pub contestants: Vec<Contestant>,
}

pub fn run(arguments: &[&str]) -> Result<()> {
    let options = read(arguments)?;
    let stable = Stable::prepare(&options.contestants)?;
    let mut results = Results::default();
    for repeat in 0..options.repeats {
        println!("repeat {} of {}", repeat + 1, options.repeats);
        let mut order = options.contestants.clone();
        order.rotate_left(repeat % options.contestants.len());
        once(&stable, &order, &options, &mut results)?;
    }
    let text = report::render(&options, &results, &stable)?;
    println!("\n{text}");
    if options.date.is_some() {
        report::write("serve", &text)?;
    }
    Ok(())
}

fn read(arguments: &[&str]) -> Result<Options> {
    let mut options =
        Options { date: None, repeats: 5, seconds: 3, contestants: Contestant::ALL.to_vec() };
    let (pairs, rest) = arguments.as_chunks::<2>();
    for [option, value] in pairs {
        match *option {
            "--date" => options.date = Some((*value).to_owned()),
            "--repeats" => options.repeats = value.parse().context("--repeats takes a number")?,
            "--seconds" => options.seconds = value.parse().context("--seconds takes a number")?,
            "--only" => options.contestants.retain(|it| it.name() == *value),
            other => bail!("`cargo xtask bench serve` has no option `{other}`"),
        }
    }
    if !rest.is_empty() || options.contestants.is_empty() || options.repeats == 0 {
        bail!("cannot read `{}`: see `cargo xtask help`", arguments.join(" "));
    }
    if options.date.is_some() && options.contestants.len() < Contestant::ALL.len() {
        bail!("docs/benchmarks.md compares: --date does not go with --only");
    }
    Ok(options)
}

/// Everything, once, with servers and databases made for it.
fn once(
    stable: &Stable,
    order: &[Contestant],
    options: &Options,
    results: &mut Results,
) -> Result<()> {
    let before = (process::machine_cpu_time(), process::cpu_time(std::process::id()));
    let began = std::time::Instant::now();
    let mut all = Vec::new();
    for contestant in order {
        let server = stable.start(*contestant)?;
        results.add(*contestant, "start_ms", milliseconds(server.start));
        all.push((*contestant, server));
    }
    thread::sleep(Duration::from_secs(1));
    for (contestant, server) in &all {
        results.add(*contestant, "idle_mb", megabytes(server));
    }

    let time = Duration::from_secs(options.seconds);
    for (contestant, server) in &all {
        let explain = || format!("{}: {}", contestant.name(), server.last_words());
        let cost = measure::get(server, "/health", CLIENTS, time).with_context(explain)?;
        results.add_cost(*contestant, "health", cost);
        let alone = measure::get(server, "/health", 1, Duration::from_secs(1))?;
        results.add(*contestant, "health.alone_p50_ms", alone.p50_ms);
        results.add(*contestant, "health.alone_p99_ms", alone.p99_ms);
    }

    let services: Vec<_> = all.iter().filter(|(it, _)| it.is_service()).collect();
    let mut payloads = Vec::new();
    for (_, server) in &services {
        let config = measure::make_configs(server, 100)?;
        payloads.push(
            [(250, 5), (11_343, 57), (50_000, 50)]
                .map(|(rows, locations)| Payload::new(&config, rows, locations)),
        );
    }
    let visits = || services.iter().zip(&payloads).map(|((it, server), them)| (*it, server, them));
    for (contestant, server, _) in visits() {
        let cost = measure::get(server, "/api/v1/configs", CLIENTS, time)?;
        results.add_cost(contestant, "list", cost);
    }
    for (what, index, lone) in [("cycle_250", 0, 5), ("cycle_11343", 1, 3)] {
        for (contestant, server, payloads) in visits() {
            let payload = &payloads[index];
            results.add_cost(contestant, what, measure::cycles(server, payload, time)?);
            for _ in 0..lone {
                let (train, predict) = measure::lone_cycle(server, payload)?;
                results.add(contestant, &format!("{what}.train_ms"), milliseconds(train));
                results.add(contestant, &format!("{what}.predict_ms"), milliseconds(predict));
            }
        }
    }
    for (contestant, server, payloads) in visits() {
        let load = measure::health_while_training(server, &payloads[2], 5)?;
        results.add(contestant, "training.p50_ms", milliseconds(load.percentile(50)));
        results.add(contestant, "training.p99_ms", milliseconds(load.percentile(99)));
        results.add(contestant, "training.took_ms", milliseconds(load.elapsed));
    }
    // Last, because it leaves thousands of configs behind.
    for (contestant, server, _) in visits() {
        results.add_cost(contestant, "insert", measure::insert(server, CLIENTS, time)?);
    }
    for (contestant, server) in &all {
        results.add(*contestant, "after_mb", megabytes(server));
    }

    // What neither we nor the servers used of the machine: how noisy the run was.
    let machine = process::machine_cpu_time().saturating_sub(before.0);
    let own = process::cpu_time(std::process::id()).saturating_sub(before.1);
    results.others.push(machine.saturating_sub(own).as_secs_f64() / began.elapsed().as_secs_f64());
    Ok(())
}

fn megabytes(server: &Server) -> f64 {
    server.resident_bytes() as f64 / 1e6
}

/// Every figure of every repeat.
#[derive(Debug, Default)]
pub struct Results {
    figures: HashMap<(Contestant, String), Vec<f64>>,
    /// Cores that other work on the machine used, per repeat.
    pub others: Vec<f64>,
}

impl Results {
    fn add(&mut self, contestant: Contestant, what: &str, figure: f64) {
        self.figures.entry((contestant, what.to_owned())).or_default().push(figure);
    }

    fn add_cost(&mut self, contestant: Contestant, what: &str, cost: Cost) {
        let Cost { cpu_ms, per_second, p50_ms, p99_ms } = cost;
        println!(
            "  {:5} {what:12} {cpu_ms:9.3} CPU ms, {per_second:9.1} per second, p50 {p50_ms:.2} ms, \
             p99 {p99_ms:.2} ms",
            contestant.name(),
        );
        self.add(contestant, &format!("{what}.cpu_ms"), cpu_ms);
        self.add(contestant, &format!("{what}.per_second"), per_second);
        self.add(contestant, &format!("{what}.p50_ms"), p50_ms);
        self.add(contestant, &format!("{what}.p99_ms"), p99_ms);
    }

    /// The median over all repeats; nothing when it was not measured.
    pub fn median(&self, contestant: Contestant, what: &str) -> Option<f64> {
        median(self.figures.get(&(contestant, what.to_owned()))?)
    }
}

pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_comparison_cannot_be_written_from_one_contestant() {
        assert!(read(&["--date", "2026-01-01", "--only", "peer"]).is_err());
        assert!(read(&["--only", "nobody"]).is_err());
        assert_eq!(read(&["--repeats", "7"]).unwrap().repeats, 7);
    }
}
