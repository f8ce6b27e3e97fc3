//! What a slice brings to the running service.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;

/// Everything the assembly needs to know about a slice, collected in one value.
#[derive(Default)]
pub struct Part {
    /// What the slice is called in logs.
    pub name: &'static str,
    /// Its HTTP routes with their documentation.
    pub routes: OpenApiRouter,
    /// What its health depends on.
    pub health: Vec<HealthCheck>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How well something does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is well.
    Healthy,
    /// Works, but somebody should look.
    Degraded,
    /// Does not work.
    Unhealthy,
}

/// The answer of a check: a state, and a sentence when there is something to say.
pub type Checked = (Health, Option<String>);

/// A named question about health, asked at most once a second however many clients ask.
#[derive(Clone)]
pub struct HealthCheck {
    /// The key in `checks`.
    pub name: &'static str,
    /// Asks.
    pub ask: Arc<dyn Fn() -> BoxFuture<'static, Checked> + Send + Sync>,
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HealthCheck").field(&self.name).finish()
    }
}
