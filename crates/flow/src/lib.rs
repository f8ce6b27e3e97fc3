//! Work that outlives a request.

pub mod job;
pub mod schedule;

#[cfg(test)]
mod strangers;
