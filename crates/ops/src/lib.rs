//! What keeps a deployment usable for all who share it.

pub mod rate;
#[cfg(test)]
mod strangers;
