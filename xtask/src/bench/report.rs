//! The figures as a page.

use std::fs;

use anyhow::{Context, Result};

use super::{
    contestant::{
        Contestant::{self, Bare, Ours, Peer},
        Stable,
    },
    process,
    serve::{CLIENTS, Options, Results, median},
};
use crate::shell;

const PAGE: &str = "docs/benchmarks.md";
pub fn render(options: &Options, results: &Results, stable: &Stable) -> Result<String> {
    let mut text = String::new();
    let mut line = |it: &str| {
        text.push_str(it);
        text.push('\n');
    };
    let on = options.date.as_ref().map_or_else(String::new, |date| format!(" on {date}"));
    line(&format!(
        "Measured{on} with `cargo xtask bench serve{} --repeats {} --seconds {}`: medians over {} \
         repeats, each with fresh servers and databases.",
        options.date.as_ref().map_or_else(String::new, |date| format!(" --date {date}")),
        options.repeats,
        options.seconds,
        options.repeats,
    ));
    line("");
    line(&format!("- Machine: {}; {}.", process::machine()?, rustc()?));
    if let Some(versions) = stable.peer_versions()? {
        line(&format!("- Peer: {versions}, one worker, a SQLite file."));
    }
    let others = median(&results.others).unwrap_or_default();
    line(&format!("- Other work on the machine used {others:.2} cores (median over the repeats)."));
    line("");

    line(&format!(
        "Under load, {CLIENTS} clients at once (4 for cycles, which ask for their job every 50 ms):"
    ));
    line("");
    line(
        "| | CPU ms per request: peer | ours | peer ÷ ours | aim | per second: peer | ours | \
         p50 / p99 ms: peer | ours |",
    );
    line("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (what, key, aim) in [
        ("`GET /health`", "health", "100×"),
        ("`GET /api/v1/configs`, 100 rows", "list", "25×"),
        ("`POST /api/v1/configs`", "insert", "50×"),
        ("train → predict, 250 rows", "cycle_250", "10×"),
        ("train → predict, 11,343 rows", "cycle_11343", ""),
    ] {
        let figure =
            |contestant, metric: &str| results.median(contestant, &format!("{key}.{metric}"));
        let latency = |contestant| {
            format!(
                "{} / {}",
                show(figure(contestant, "p50_ms")),
                show(figure(contestant, "p99_ms"))
            )
        };
        let (peer, ours) = (figure(Peer, "cpu_ms"), figure(Ours, "cpu_ms"));
        line(&format!(
            "| {what} | {} | {} | {} | {aim} | {} | {} | {} | {} |",
            show(peer),
            show(ours),
            times(peer, ours),
            show(figure(Peer, "per_second")),
            show(figure(Ours, "per_second")),
            latency(Peer),
            latency(Ours),
        ));
    }
    line("");

    line("One at a time:");
    line("");
    line("| | peer | ours | aim |");
    line("|---|--:|--:|--:|");
    for (what, key, aim) in [
        ("start to the first 200, ms", "start_ms", "< 100"),
        ("resident when idle, MB", "idle_mb", "< 25"),
        ("resident after all this, MB", "after_mb", ""),
        ("`GET /health`, one client, p50 ms", "health.alone_p50_ms", ""),
        ("`GET /health`, one client, p99 ms", "health.alone_p99_ms", ""),
        ("train 250 rows, ms", "cycle_250.train_ms", ""),
        ("predict after 250 rows, ms", "cycle_250.predict_ms", ""),
        ("train 11,343 rows, ms", "cycle_11343.train_ms", ""),
        ("predict after 11,343 rows, ms", "cycle_11343.predict_ms", ""),
        ("five trainings of 50,000 rows, ms", "training.took_ms", ""),
        ("`GET /health` meanwhile, p50 ms", "training.p50_ms", ""),
        ("`GET /health` meanwhile, p99 ms", "training.p99_ms", "< 10"),
    ] {
        let figure = |contestant| show(results.median(contestant, key));
        line(&format!("| {what} | {} | {} | {aim} |", figure(Peer), figure(Ours)));
    }
    line("");

    line(&format!(
        "`GET /health` beside a bare axum server, {CLIENTS} clients at once (ours with request id, \
         logging and metrics on; aim: at most 2× its CPU time):"
    ));
    line("");
    line("| | bare | ours | ours ÷ bare |");
    line("|---|--:|--:|--:|");
    for (what, key) in
        [("CPU ms per request", "health.cpu_ms"), ("per second", "health.per_second")]
    {
        let figure = |contestant: Contestant| results.median(contestant, key);
        let (bare, ours) = (figure(Bare), figure(Ours));
        line(&format!("| {what} | {} | {} | {} |", show(bare), show(ours), times(ours, bare)));
    }
    Ok(text)
}

/// Puts what the benchmark of this name measured in place of what it measured before.
pub fn write(name: &str, text: &str) -> Result<()> {
    let path = shell::root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let page =
        replace(&page, name, text).with_context(|| format!("{PAGE} has lost its two markers"))?;
    fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))?;
    println!("wrote {PAGE}");
    Ok(())
}

/// What stands between a benchmark's two lines is its to rewrite.
fn replace(page: &str, name: &str, text: &str) -> Option<String> {
    let [begin, end] =
        ["begin", "end"].map(|it| format!("<!-- cargo xtask bench {name}: {it} -->"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{text}{end}{after}"))
}

pub fn rustc() -> Result<String> {
    let version = shell::read(std::process::Command::new("rustc").arg("--version"))?;
    Ok(version.trim().to_owned())
}

/// Three significant figures, or a dash for what was not measured.
pub fn show(figure: Option<f64>) -> String {
    match figure {
        None => "–".to_owned(),
        Some(figure) if figure >= 100.0 => format!("{figure:.0}"),
        Some(figure) if figure >= 10.0 => format!("{figure:.1}"),
        Some(figure) if figure >= 1.0 => format!("{figure:.2}"),
        Some(figure) if figure >= 0.1 => format!("{figure:.3}"),
        Some(figure) => format!("{figure:.4}"),
    }
}

pub fn times(more: Option<f64>, less: Option<f64>) -> String {
    match (more, less) {
        (Some(more), Some(less)) if less > 0.0 => format!("{}×", show(Some(more / less))),
        _ => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let page = |of: &str, it: &str| {
            let [begin, end] =
                ["begin", "end"].map(|it| format!("<!-- cargo xtask bench {of}: {it} -->"));
            format!("before\n{begin}\n{it}\n{end}\nafter\n")
        };
        let both = |first: &str, second: &str| page("serve", first) + &page("jobs", second);
        let replaced = replace(&both("old", "old"), "jobs", "new\n").unwrap();
        assert_eq!(replaced, both("old", "new"));
        assert!(replace("no markers", "jobs", "new").is_none());
    }

    #[test]
    fn figures_have_three_significant_digits() {
        assert_eq!(show(Some(0.0163)), "0.0163");
        assert_eq!(show(Some(61.4499)), "61.4");
        assert_eq!(times(Some(5.4), Some(0.1)), "54.0×");
        assert_eq!(times(Some(5.4), None), "–");
    }
}
