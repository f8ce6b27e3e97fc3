//! A run of named steps that goes on after a failure, so that one run tells everything, and says at
//! its end what passed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What ran so far, in order.
pub struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    failure: Option<String>,
}

impl Steps {
    pub fn new() -> Steps {
        Steps { done: Vec::new() }
    }

    /// Runs one step and keeps what became of it.
    pub fn run(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        println!("\n== {name}");
        let started = Instant::now();
        let failure = step().err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            eprintln!("== {name} failed: {failure}");
        }
        self.done.push(Step { name: name.to_owned(), took: started.elapsed(), failure });
    }

    /// Prints one line per step, and last a count that people and programs can read.
    pub fn finish(self) -> Result<()> {
        println!();
        for Step { name, took, failure } in &self.done {
            let word = if failure.is_none() { "passed" } else { "FAILED" };
            println!("{word}  {:>6.1} s  {name}", took.as_secs_f64());
            if let Some(failure) = failure {
                println!("        {failure}");
            }
        }
        let failed = self.done.iter().filter(|step| step.failure.is_some()).count();
        println!("steps: {} passed, {failed} failed", self.done.len() - failed);
        if failed > 0 {
            bail!("{failed} of {} steps failed", self.done.len());
        }
        Ok(())
    }
}
