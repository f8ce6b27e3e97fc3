//! A whole server on a port, asked as its clients ask it.

#![expect(clippy::unwrap_used, reason = "tests panic loudly")]

mod api;
mod architecture;
mod artifact_model;
mod audit;
mod behaviour;
mod crash;
mod docs;
mod peer_model;
mod permissions;
mod security;
mod support;
mod task_model;
mod template;
mod transcripts;
