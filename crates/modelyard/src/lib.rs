//! Placeholder.

pub mod health;
pub mod http;
pub mod init;
pub mod metrics;
pub mod page;
pub mod system;
