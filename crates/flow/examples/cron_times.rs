//! Prints when cron expressions fire, for `tests/clients/compare_croniter.py`: one line of seconds
//! since 1970 for each line `expression<TAB>time zone<TAB>after<TAB>until` that it reads.

use std::io::{BufRead, BufWriter, Write};

use modelyard_flow::schedule::cron::Cron;
use modelyard_kernel::Time;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let [expression, zone, after, until] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("four fields are expected: {line}").into());
        };
        let cron = Cron::read(expression, zone).map_err(|it| format!("{line}: {it}"))?;
        let seconds = |text: &str| text.parse().map(|it: i64| Time::from_micros(it * 1_000_000));
        let (after, until) = (seconds(after)?, seconds(until)?);
        let times = std::iter::successors(cron.next(after), |it| cron.next(*it));
        for time in times.take_while(|it| *it <= until) {
            write!(out, "{} ", time.micros() / 1_000_000)?;
        }
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}
