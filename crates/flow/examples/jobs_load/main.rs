//! Our side of `cargo xtask bench jobs`: jobs that do nothing, through the engine of `flow::job` or
//! through a loop that is written by hand, which is as little as a queue on PostgreSQL can be.
//!
//! ```text
//! jobs_load engine|by-hand URL JOBS
//! ```
//!
//! `URL` is a server on which a database is made, or a `sqlite:` path. Prints the figures as JSON.

mod by_hand;
mod engine;
mod measure;
mod server;

use std::error::Error;

/// Clients that submit at the same time, and workers.
pub const AT_ONCE: usize = 8;

/// What everything here may end with.
pub type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures")]
async fn main() -> Done {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [contestant, url, jobs] = arguments.as_slice() else {
        return Err("jobs_load engine|by-hand URL JOBS".into());
    };
    let jobs = jobs.parse()?;
    let figures = match (*contestant, url.starts_with("sqlite:")) {
        ("engine", true) => measure::all(engine::Engine::open(url).await?, jobs, None).await?,
        ("engine", false) => {
            let database = server::Database::make(url).await?;
            measure::all(engine::Engine::open(&database.url).await?, jobs, Some(&database)).await?
        }
        ("by-hand", false) => {
            let database = server::Database::make(url).await?;
            measure::all(by_hand::ByHand::open(&database.url).await?, jobs, Some(&database)).await?
        }
        _ => return Err(format!("there is no `{contestant}` on {url}").into()),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
