//! The configs of a service.

pub mod schema;
