//! What a service runs and what it runs on: configurations, frames, artifacts, and the runners.

pub mod artifact;
pub mod config;
pub mod ear;
pub mod frame;
pub mod publish;
pub mod runner;
pub mod task;

#[cfg(test)]
mod strangers;
