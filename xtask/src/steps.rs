//! A run of named steps that goes on after a failure, so that one run tells everything, and says at
//! its end what passed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What ran so far, in order.
pub struct Steps {
    done: Vec<Step>,
    not_run: Vec<(String, String)>,
}

struct Step {
    name: String,
    took: Duration,
    failure: Option<String>,
}

impl Steps {
    pub fn new() -> Steps {
        Steps { done: Vec::new(), not_run: Vec::new() }
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

    /// Says of a step, now and at the end, that it is not run, and why.
    pub fn leave_out(&mut self, name: &str, why: &str) {
        println!("\n== {name}: NOT RUN: {why}");
        self.not_run.push((name.to_owned(), why.to_owned()));
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
        for (name, why) in &self.not_run {
            println!("NOT RUN           {name}\n        {why}");
        }
        let failed = self.done.iter().filter(|step| step.failure.is_some()).count();
        let passed = self.done.len() - failed;
        println!("steps: {passed} passed, {failed} failed, {} skipped", self.not_run.len());
        if failed > 0 {
            bail!("{failed} of {} steps failed", self.done.len());
        }
        Ok(())
    }
}
