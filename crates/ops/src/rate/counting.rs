//! Where it is remembered what has been used: a decision about several limits is one step.

use std::fmt;

use async_trait::async_trait;

use super::model::{Policy, State};

/// How many limits one request may be counted by.
pub const MOST_LIMITS: usize = 16;

/// Remembers what was used. Each has its own clock: that of the process, or of the server that several
/// processes share.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Takes `cost` of every limit when all of them allow it, and nothing otherwise.
    ///
    /// # Errors
    /// When it cannot be known what was used.
    async fn take(&self, counts: &[Count<'_>], cost: u64) -> Result<Taken, StoreError>;

    /// Corrects what was taken at a time: see [`Policy::settle`].
    ///
    /// # Errors
    /// When it cannot be known what was used.
    async fn settle(
        &self,
        counts: &[Count<'_>],
        at: i64,
        taken: u64,
        actual: u64,
    ) -> Result<(), StoreError>;
}

/// A limit, and the name of whom it counts.
#[derive(Clone, Copy, Debug)]
pub struct Count<'a> {
    /// The name, which no other limit has.
    pub key: &'a str,
    /// The limit.
    pub policy: &'a Policy,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The time, in microseconds since 1970.
    pub at: i64,
    /// Whether it was taken.
    pub allowed: bool,
    /// What is used now of each limit.
    pub states: Vec<State>,
}

/// Nobody knows what was used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server does not answer in time.
    #[error("it does not answer in time")]
    Silent,
    /// The server, or the way to it, fails.
    #[error("{0}")]
    Failed(String),
    /// More limits than there may be.
    #[error("more than {MOST_LIMITS} limits for one request")]
    TooMany,
}
