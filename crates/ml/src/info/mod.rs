//! What a service says about itself: the body of `GET /api/v1/info`, which orchestrators read
//! before anything else.

pub mod contact;
pub mod http;
pub mod model;
#[cfg(test)]
mod tests;

pub use contact::*;
pub use model::*;
