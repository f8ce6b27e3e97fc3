//! The figures of `cargo xtask bench auth` as a page.

use std::thread;

use anyhow::{Context, Result};

use super::{
    super::{
        process,
        report::{rustc, show, times},
        serve::{CLIENTS, median},
    },
    Figures, KEYS, LOGINS_AT_ONCE, Options, ROUTES, WAYS,
    pairs::Pairs,
};

pub fn render(
    options: &Options,
    figures: &Figures,
    refused: &Pairs,
    control: &Pairs,
) -> Result<String> {
    let Options { date, repeats, seconds, pairs } = options;
    let mut text = String::new();
    let mut line = |it: &str| {
        text.push_str(it);
        text.push('\n');
    };
    let of = |what: &str| median(figures.get(what)?);
    let less = |more: Option<f64>, less: Option<f64>| Some(more? - less?);
    let on = date.as_ref().map_or_else(String::new, |date| format!(" on {date}"));
    let with = date.as_ref().map_or_else(String::new, |date| format!(" --date {date}"));
    line(&format!(
        "Measured{on} with `cargo xtask bench auth{with} --repeats {repeats} --seconds {seconds} \
         --pairs {pairs}`: medians over {repeats} repeats, each with fresh servers and databases."
    ));
    line("");
    line(&format!("- Machine: {}; {}.", process::machine()?, rustc()?));
    let others = of("others").unwrap_or_default();
    line(&format!("- Other work on the machine used {others:.2} cores (median over the repeats)."));
    line("");
    line(&format!("Requests, {CLIENTS} clients at once (aims: under 30 µs more, 0.8×):"));
    line("");
    line(
        "| shown | `GET /api/v1/info`: CPU µs | more | per second | ÷ nobody | `GET \
         /api/v1/configs/{id}`: CPU µs | more | per second | ÷ nobody |",
    );
    line("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (way, shown) in WAYS {
        let cells = ROUTES.map(|route| {
            let figure = |way: &str, what: &str| of(&format!("{route}.{way}.{what}"));
            let (cpu, per_second) = (figure(way, "cpu_us"), figure(way, "per_second"));
            let (more, share) = match way {
                "nobody" => (None, None),
                _ => (less(cpu, figure("nobody", "cpu_us")), figure("nobody", "per_second")),
            };
            format!(
                "{} | {} | {} | {}",
                show(cpu),
                signed(more),
                show(per_second),
                times(per_second, share)
            )
        });
        line(&format!("| {shown} | {} |", cells.join(" | ")));
    }
    line("");
    let (keys, nobody) = (of("rounds.keys.cpu_us"), of("rounds.nobody.cpu_us"));
    line(&format!(
        "With {KEYS} keys in turn, of which the gate remembers none, `GET /api/v1/info` takes {} µs of \
         CPU time, {} more than the same requests where nobody is known ({}).",
        show(keys),
        signed(less(keys, nobody)),
        show(nobody),
    ));
    line("");
    line(&format!("Logins, {LOGINS_AT_ONCE} clients at once (aim: 0.8× a second):"));
    line("");
    line("| | CPU ms | ÷ Argon2id | per second | a core | ÷ Argon2id |");
    line("|---|--:|--:|--:|--:|--:|");
    let cores = thread::available_parallelism()?.get() as f64;
    for (what, shown) in [
        ("argon2", "Argon2id by itself"),
        ("login.right", "a right password"),
        ("login.wrong", "a wrong password"),
        ("login.nobody", "an unknown user"),
    ] {
        let figure = |what: &str, figure: &str| of(&format!("{what}.{figure}"));
        let (cpu, per_second) = (figure(what, "cpu_ms"), figure(what, "per_second"));
        line(&format!(
            "| {shown} | {} | {} | {} | {} | {} |",
            show(cpu),
            times(cpu, figure("argon2", "cpu_ms")),
            show(per_second),
            show(per_second.map(|it| it / cores)),
            times(per_second, figure("argon2", "per_second")),
        ));
    }
    line("");
    let (known, unknown) = refused.means().context("there are no pairs")?;
    line(&format!(
        "Refused logins one after the other, {pairs} pairs of a known and an unknown user: {known:.0} \
         and {unknown:.0} µs on average."
    ));
    line("");
    line("| | µs | standard error | is | would have been found, power 95 % |");
    line("|---|--:|--:|---|--:|");
    for (what, pairs, percent) in [
        ("known less unknown, all pairs", refused, 0),
        ("without the tenth at either end", refused, 10),
        ("as a control: unknown less unknown, all pairs", control, 0),
        ("without the tenth at either end", control, 10),
    ] {
        let found = pairs.trimmed(percent).context("there are no pairs")?;
        line(&format!(
            "| {what} | {:+.0} | {:.0} | {} | {:.0} µs, {:.2} % of a login |",
            found.mean,
            found.error,
            if found.is_found() { "more than chance" } else { "chance" },
            found.would_be_found(),
            found.would_be_found() * 100.0 / unknown,
        ));
    }
    Ok(text)
}

/// A difference, with its sign; nothing for what is the base.
fn signed(figure: Option<f64>) -> String {
    figure.map_or_else(String::new, |it| format!("{it:+.1}"))
}
