//! Counting for several processes, in a Redis that they share: one script for each decision, at the
//! time of the server.

use std::fmt;
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, ErrorKind, RedisError, Script};
use async_trait::async_trait;
use tokio::time::timeout;

use super::counting::{Count, MOST_LIMITS, Store, StoreError, Taken};
use super::model::{Period, Policy, Rule, State};

/// How long a decision may take; after that it is as if there were no server.
const PATIENCE: Duration = Duration::from_millis(250);

/// Remembers in a Redis.
///
/// One connection carries the questions of all requests at once, and is made again when it is lost.
pub struct RedisStore {
    connection: ConnectionManager,
    script: Script,
    /// Tests hold time still.
    #[cfg(test)]
    pub(super) clock: Option<modelyard_kernel::Clock>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisStore")
    }
}

impl RedisStore {
    /// Will ask the server at this address, such as `redis://:password@host:6379/0`. It need not be
    /// there yet.
    ///
    /// # Errors
    /// When the address is none.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let client = Client::open(url).map_err(failed)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(1)
            .set_max_delay(PATIENCE);
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(failed)?;
        Ok(Self {
            connection,
            script: Script::new(include_str!("script.lua")),
            #[cfg(test)]
            clock: None,
        })
    }

    /// Runs the script; the server knows it by its hash, and is sent its text when it does not.
    async fn run(
        &self,
        act: &str,
        counts: &[Count<'_>],
        cost: u64,
        (at, taken): (i64, u64),
    ) -> Result<Taken, StoreError> {
        if counts.len() > MOST_LIMITS {
            return Err(StoreError::TooMany);
        }
        let mut call = self.script.prepare_invoke();
        call.arg(act).arg(self.now()).arg(cost).arg(at).arg(taken);
        for Count { key, policy } in counts {
            call.key(*key);
            match policy.rule() {
                Rule::Rate { burst, weight, drain } => {
                    call.arg("rate").arg(burst * weight).arg(weight).arg(drain);
                }
                Rule::Quota => {
                    call.arg("quota").arg(policy.count()).arg(window(policy)).arg(0);
                }
            }
        }
        let mut connection = self.connection.clone();
        let answer = timeout(PATIENCE, call.invoke_async::<Vec<i64>>(&mut connection)).await;
        let answer = answer.map_err(|_| StoreError::Silent)?.map_err(failed)?;
        read(&answer, counts.len()).ok_or_else(|| StoreError::Failed("no answer".to_owned()))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests have a time of their own")]
    fn now(&self) -> &'static str {
        ""
    }

    #[cfg(test)]
    fn now(&self) -> String {
        self.clock.as_ref().map_or_else(String::new, |it| it.now().micros().to_string())
    }
}

/// The length of a quota's windows; a month has none.
fn window(policy: &Policy) -> i64 {
    match policy.period() {
        Period::Month => 0,
        other => other.micros(),
    }
}

fn read(answer: &[i64], limits: usize) -> Option<Taken> {
    let [allowed, at, states @ ..] = answer else { return None };
    let states: Option<Vec<State>> = states
        .chunks(2)
        .map(|it| match it {
            [at, used] => Some(State { at: *at, used: u64::try_from(*used).ok()? }),
            _ => None,
        })
        .collect();
    let states = states.filter(|it| it.len() == limits)?;
    Some(Taken { at: *at, allowed: *allowed == 1, states })
}

/// What the log may know: never the address, which may have a password.
fn failed(error: RedisError) -> StoreError {
    match error.kind() {
        ErrorKind::InvalidClientConfig => {
            StoreError::Failed("the address is none of Redis".to_owned())
        }
        _ if error.is_timeout() => StoreError::Silent,
        _ => StoreError::Failed(error.to_string()),
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn take(&self, counts: &[Count<'_>], cost: u64) -> Result<Taken, StoreError> {
        self.run("take", counts, cost, (0, 0)).await
    }

    async fn settle(
        &self,
        counts: &[Count<'_>],
        at: i64,
        taken: u64,
        actual: u64,
    ) -> Result<(), StoreError> {
        self.run("settle", counts, actual, (at, taken)).await.map(drop)
    }
}
