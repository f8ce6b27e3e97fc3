//! Who is asking, and what they may touch.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::Failure;

/// A named right, such as `configs:write`. Slices declare their own as constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission(pub &'static str);

/// Proof that a permission was checked, and the tenant and service it was checked for.
///
/// Store functions ask for a `&Scope`, and [`Caller::permit`] is the only way to get one, so a
/// query that skipped the check or forgot the tenant does not compile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    tenant: Arc<str>,
    service: Arc<str>,
}

impl Scope {
    /// Whose data this is.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The service, among those of the process, that the rows belong to.
    pub fn service(&self) -> &str {
        &self.service
    }
}

/// What a caller may do.
#[derive(Clone, Debug)]
pub enum Grants {
    /// Everything within the scope.
    All,
    /// The named permissions and nothing else.
    Only(Arc<[String]>),
}

/// The authenticated principal behind a request, a job or a command.
#[derive(Clone)]
pub struct Caller {
    subject: Arc<str>,
    scope: Scope,
    grants: Grants,
}

impl Caller {
    /// A caller as authentication found it.
    pub fn new(subject: &str, tenant: &str, service: &str, grants: Grants) -> Self {
        let scope = Scope { tenant: tenant.into(), service: service.into() };
        Self { subject: subject.into(), scope, grants }
    }

    /// The service itself, for work that nobody asked for. `reason` is who the log names.
    pub fn system(reason: &str, tenant: &str, service: &str) -> Self {
        Self::new(reason, tenant, service, Grants::All)
    }

    /// Who this is, for logs and audit.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Checks a permission, and gives the scope that store functions demand.
    ///
    /// # Errors
    /// `permission_denied`, naming the permission.
    pub fn permit(&self, permission: Permission) -> Result<&Scope, Failure> {
        let granted = match &self.grants {
            Grants::All => true,
            Grants::Only(names) => names.iter().any(|it| it == permission.0),
        };
        if granted { Ok(&self.scope) } else { Err(Failure::denied(permission)) }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get::<Caller>().cloned().ok_or_else(Failure::anonymous)
    }
}
