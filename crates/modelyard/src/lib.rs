//! Modelyard as a library: describe a model with [`Service::builder`], and serve it.
//!
//! ```no_run
//! # use modelyard::{Service, ServiceInfo};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! Service::builder(ServiceInfo::new("my-model", "My model")).serve().await?;
//! # Ok(()) }
//! ```

pub mod access;
mod app;
pub mod audit;
pub mod backup;
pub mod data_dir;
mod health;
mod http;
pub mod init;
pub mod logging;
mod metrics;
mod openapi;
mod page;
pub mod permissions;
mod process;
mod registration;
pub mod server;
pub mod service;
pub mod settings;
mod system;
pub mod worker;

pub use modelyard_kernel::part::{Checked, Progress};
pub use modelyard_kernel::{Health, form::Bounds};
pub use modelyard_ml::info::{AssessedStatus, ModelMetadata, PeriodType, ServiceId, ServiceInfo};
pub use modelyard_ops::rate::{Per, RateLimiting};
pub use modelyard_run::artifact::{Access, Hierarchy};
pub use modelyard_run::config::schema::{ConfigSchema, Field, FieldKind};
pub use modelyard_run::frame::{Cell, Frame};
pub use modelyard_run::runner::{
    ConfigFormat, Diagnostic, Limits, Model, ModelError, ModelRunner, PredictData, Reporter,
    RunJob, Runner, Severity, ShellRunner, ShellSpec, TrainData, functions,
};
pub use modelyard_run::task::TaskContext;
pub use server::Server;
pub use service::{Service, ServiceBuilder};
