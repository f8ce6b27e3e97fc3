//! What keeps a deployment usable for all who share it, and accountable to them.

pub mod audit;
pub mod rate;
#[cfg(test)]
mod strangers;
