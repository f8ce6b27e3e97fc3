//! Load: clients that ask, wait for the answer, and ask again.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::http::Connection;

/// What the clients saw.
#[derive(Debug, Clone)]
pub struct Load {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// One per request, in ascending order.
    pub latencies: Vec<Duration>,
}

impl Load {
    pub fn requests(&self) -> usize {
        self.latencies.len()
    }

    pub fn percentile(&self, percent: usize) -> Duration {
        let index = (self.latencies.len() * percent / 100).min(self.latencies.len().max(1) - 1);
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// Lets `clients` clients, each with a connection of its own, call `visit` over and over until `time`
/// is up; a call that has begun is finished. `visit` gets the connection and a number that no other
/// call gets.
pub fn run(
    port: u16,
    clients: usize,
    time: Duration,
    visit: impl Fn(&mut Connection, usize) -> Result<()> + Sync,
) -> Result<Load> {
    let (started, number) = (Instant::now(), AtomicUsize::new(0));
    let latencies = Mutex::new(Vec::new());
    let client = || -> Result<()> {
        let mut connection = Connection::open(port)?;
        let mut seen = Vec::new();
        while started.elapsed() < time {
            let asked = Instant::now();
            visit(&mut connection, number.fetch_add(1, Ordering::Relaxed))?;
            seen.push(asked.elapsed());
        }
        latencies.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
        Ok(())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|it| it.join().expect("a client does not panic"))
    })?;
    let elapsed = started.elapsed();
    let mut latencies = latencies.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(!latencies.is_empty(), "no request was made");
    latencies.sort_unstable();
    Ok(Load { elapsed, latencies })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let latencies = (1..=100).map(Duration::from_millis).collect();
        let load = Load { elapsed: Duration::from_secs(1), latencies };
        assert_eq!(load.percentile(50), Duration::from_millis(51));
        assert_eq!(load.percentile(99), Duration::from_millis(100));
    }
}
