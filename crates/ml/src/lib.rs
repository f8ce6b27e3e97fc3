//! Models as services: what a model says about itself, and the projects that models come from.

pub mod info;
pub mod ml;
pub mod project;
pub mod sample;

#[cfg(test)]
mod strangers;
