//! What each route wants of its caller: the one place where that is said. A route that is not here is closed to
//! everybody.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::LazyLock;
use std::task::{Context, Poll};

use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use futures_util::future::{BoxFuture, Either};
use http::Method;
use modelyard_kernel::{Caller, Failure, Kind, Permission, Scope};
use modelyard_ops::audit::Recorder;
use tower::{Layer, Service};

use crate::audit::{Asked, Watched};

/// What a route wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: anybody may come.
    Open,
    /// To be a user, whatever it may do: what is there is its own.
    Known,
    /// A permission for the service.
    Service(Permission),
    /// A permission for the deployment.
    Deployment(Permission),
}

/// Nobody need be known.
const OPEN: &str = "-";
/// A user is, whoever it is.
const KNOWN: &str = "known";

/// Method, path, and the permission.
const SERVICE: &[(&str, &str, &str)] = &[
    ("GET", "/", OPEN),
    ("GET", "/accept-invitation", OPEN),
    ("GET", "/api/v1/artifacts", "artifacts:read"),
    ("POST", "/api/v1/artifacts", "artifacts:write"),
    ("POST", "/api/v1/artifacts/$bulk", "artifacts:write"),
    ("GET", "/api/v1/artifacts/$schema", "artifacts:read"),
    ("GET", "/api/v1/artifacts/$stats", "artifacts:read"),
    ("POST", "/api/v1/artifacts/$upload", "artifacts:write"),
    ("GET", "/api/v1/artifacts/{id}", "artifacts:read"),
    ("PUT", "/api/v1/artifacts/{id}", "artifacts:write"),
    ("DELETE", "/api/v1/artifacts/{id}", "artifacts:write"),
    ("GET", "/api/v1/artifacts/{id}/$config", "artifacts:read"),
    ("GET", "/api/v1/artifacts/{id}/$download", "artifacts:read"),
    ("GET", "/api/v1/artifacts/{id}/$expand", "artifacts:read"),
    ("GET", "/api/v1/artifacts/{id}/$metadata", "artifacts:read"),
    ("GET", "/api/v1/artifacts/{id}/$tree", "artifacts:read"),
    ("GET", "/api/v1/configs", "configs:read"),
    ("POST", "/api/v1/configs", "configs:write"),
    ("POST", "/api/v1/configs/$bulk", "configs:write"),
    ("GET", "/api/v1/configs/$schema", "configs:read"),
    ("GET", "/api/v1/configs/$stats", "configs:read"),
    ("GET", "/api/v1/configs/{id}", "configs:read"),
    ("PUT", "/api/v1/configs/{id}", "configs:write"),
    ("DELETE", "/api/v1/configs/{id}", "configs:write"),
    ("GET", "/api/v1/configs/{id}/$artifacts", "configs:read"),
    ("POST", "/api/v1/configs/{id}/$link-artifact", "configs:write"),
    ("POST", "/api/v1/configs/{id}/$unlink-artifact", "configs:write"),
    ("GET", "/api/v1/info", "info:read"),
    ("GET", "/api/v1/jobs", "jobs:read"),
    ("POST", "/api/v1/jobs/$bulk", "jobs:write"),
    ("GET", "/api/v1/jobs/$dead-letters", "jobs:read"),
    ("GET", "/api/v1/jobs/$schema", "jobs:read"),
    ("GET", "/api/v1/jobs/{job_id}", "jobs:read"),
    ("DELETE", "/api/v1/jobs/{job_id}", "jobs:write"),
    ("POST", "/api/v1/jobs/{job_id}/$cancel", "jobs:write"),
    ("POST", "/api/v1/jobs/{job_id}/$discard", "jobs:write"),
    ("GET", "/api/v1/jobs/{job_id}/$logs", "jobs:read"),
    ("POST", "/api/v1/jobs/{job_id}/$retry", "jobs:write"),
    ("GET", "/api/v1/jobs/{job_id}/$steps", "jobs:read"),
    ("GET", "/api/v1/jobs/{job_id}/$stream", "jobs:read"),
    ("POST", "/api/v1/ml/$batch-predict", "ml:predict"),
    ("POST", "/api/v1/ml/$batch-train", "ml:train"),
    ("GET", "/api/v1/ml/$generate-sample-data", "ml:read"),
    ("POST", "/api/v1/ml/$predict", "ml:predict"),
    ("POST", "/api/v1/ml/$train", "ml:train"),
    ("POST", "/api/v1/ml/$validate", "ml:read"),
    ("GET", "/api/v1/queues", "jobs:read"),
    ("POST", "/api/v1/queues/{queue}/$pause", "jobs:write"),
    ("POST", "/api/v1/queues/{queue}/$resume", "jobs:write"),
    ("GET", "/api/v1/schedules", "schedules:read"),
    ("POST", "/api/v1/schedules", "schedules:write"),
    ("POST", "/api/v1/schedules/$bulk", "schedules:write"),
    ("GET", "/api/v1/schedules/$schema", "schedules:read"),
    ("GET", "/api/v1/schedules/{id}", "schedules:read"),
    ("PUT", "/api/v1/schedules/{id}", "schedules:write"),
    ("DELETE", "/api/v1/schedules/{id}", "schedules:write"),
    ("GET", "/api/v1/schedules/{id}/$history", "schedules:read"),
    ("GET", "/api/v1/schedules/{id}/$next", "schedules:read"),
    ("POST", "/api/v1/schedules/{id}/$pause", "schedules:write"),
    ("POST", "/api/v1/schedules/{id}/$resume", "schedules:write"),
    ("POST", "/api/v1/schedules/{id}/$run-now", "schedules:write"),
    ("GET", "/api/v1/system", "system:read"),
    ("GET", "/api/v1/system/apps", "system:read"),
    ("GET", "/api/v1/system/apps/$schema", "system:read"),
    ("GET", "/api/v1/tasks", "tasks:read"),
    ("POST", "/api/v1/tasks", "tasks:write"),
    ("POST", "/api/v1/tasks/$bulk", "tasks:write"),
    ("GET", "/api/v1/tasks/$functions", "tasks:read"),
    ("GET", "/api/v1/tasks/$schema", "tasks:read"),
    ("GET", "/api/v1/tasks/$stats", "tasks:read"),
    ("GET", "/api/v1/tasks/{id}", "tasks:read"),
    ("PUT", "/api/v1/tasks/{id}", "tasks:write"),
    ("DELETE", "/api/v1/tasks/{id}", "tasks:write"),
    ("POST", "/api/v1/tasks/{id}/$execute", "tasks:execute"),
    ("GET", "/docs", OPEN),
    ("GET", "/docs/{asset}", OPEN),
    ("GET", "/health", OPEN),
    ("GET", "/health/$stream", "info:read"),
    ("GET", "/metrics", "metrics:read"),
    ("GET", "/openapi.json", OPEN),
    ("GET", "/redoc", OPEN),
    ("GET", "/reset-password", OPEN),
];

/// The same for what belongs to the deployment.
const DEPLOYMENT: &[(&str, &str, &str)] = &[
    ("GET", "/api/v1/roles", "roles:read"),
    ("POST", "/api/v1/roles", "roles:write"),
    ("GET", "/api/v1/roles/{name}", "roles:read"),
    ("PUT", "/api/v1/roles/{name}", "roles:write"),
    ("DELETE", "/api/v1/roles/{name}", "roles:write"),
    ("GET", "/api/v1/roles/$bindings/{subject_id}", "roles:read"),
    ("PUT", "/api/v1/roles/$bindings/{subject_id}", "roles:write"),
    ("GET", "/api/v1/keys", "keys:read"),
    ("POST", "/api/v1/keys", "keys:write"),
    ("GET", "/api/v1/keys/{id}", "keys:read"),
    ("PATCH", "/api/v1/keys/{id}", "keys:write"),
    ("DELETE", "/api/v1/keys/{id}", "keys:write"),
    ("POST", "/api/v1/keys/{id}/$rotate", "keys:write"),
    ("GET", "/api/v1/users", "users:read"),
    ("POST", "/api/v1/users", "users:write"),
    ("GET", "/api/v1/users/{id}", "users:read"),
    ("PUT", "/api/v1/users/{id}", "users:write"),
    ("DELETE", "/api/v1/users/{id}", "users:write"),
    ("POST", "/api/v1/users/{id}/$disable", "users:write"),
    ("POST", "/api/v1/users/{id}/$enable", "users:write"),
    ("POST", "/api/v1/users/{id}/$end-sessions", "users:write"),
    ("POST", "/api/v1/users/{id}/$invite", "users:write"),
    ("DELETE", "/api/v1/users/{id}/factor", "users:write"),
    ("GET", "/api/v1/audit", "audit:read"),
    ("GET", "/api/v1/audit/{seq}", "audit:read"),
    ("GET", "/api/v1/audit/$export", "audit:read"),
    ("GET", "/api/v1/audit/$verify", "audit:read"),
    ("GET", "/api/v1/account", KNOWN),
    ("PUT", "/api/v1/account", KNOWN),
    ("POST", "/api/v1/account/$change-password", KNOWN),
    ("GET", "/api/v1/account/factor", KNOWN),
    ("POST", "/api/v1/account/factor", KNOWN),
    ("DELETE", "/api/v1/account/factor", KNOWN),
    ("POST", "/api/v1/account/factor/$confirm", KNOWN),
    ("POST", "/api/v1/account/factor/$recovery-codes", KNOWN),
    ("POST", "/api/v1/auth/login", OPEN),
    ("POST", "/api/v1/auth/refresh", OPEN),
    ("POST", "/api/v1/auth/revoke", OPEN),
    ("POST", "/api/v1/auth/$forgot-password", OPEN),
    ("POST", "/api/v1/auth/$reset-password", OPEN),
    ("POST", "/api/v1/auth/$accept-invitation", OPEN),
    ("GET", "/.well-known/jwks.json", OPEN),
    ("POST", "/api/v1/auth/introspect", "sessions:read"),
    ("POST", "/api/v1/auth/$rotate-signing-keys", "signing_keys:write"),
    ("POST", "/api/v1/auth/$step-up", KNOWN),
    ("POST", "/api/v1/auth/logout", KNOWN),
    ("POST", "/api/v1/auth/logout-all", KNOWN),
    ("GET", "/api/v1/auth/session", KNOWN),
    ("GET", "/api/v1/auth/sessions", KNOWN),
    ("DELETE", "/api/v1/auth/sessions/{id}", KNOWN),
];

/// Routes that are no operations of the API, and not in its document.
pub const UNDESCRIBED: [(&str, &str); 1] = [("GET", "/docs/{asset}")];

type Needs = HashMap<(&'static str, &'static str), Need>;

static NEEDS: LazyLock<Needs> = LazyLock::new(|| {
    let service = SERVICE.iter().map(|(method, path, name)| {
        let need = match *name {
            OPEN => Need::Open,
            name => Need::Service(Permission(name)),
        };
        ((*method, *path), need)
    });
    let deployment = DEPLOYMENT.iter().map(|(method, path, name)| {
        let need = match *name {
            OPEN => Need::Open,
            KNOWN => Need::Known,
            name => Need::Deployment(Permission(name)),
        };
        ((*method, *path), need)
    });
    service.chain(deployment).collect()
});

/// What a route wants; `None` when nobody said so, and then nobody may.
pub fn need(method: &Method, path: &str) -> Option<Need> {
    // A HEAD is a GET whose body is not wanted.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let needs: &HashMap<(&str, &str), Need> = &NEEDS;
    needs.get(&(method, path)).copied()
}

/// Turns away whoever lacks what a route wants, before it does anything. A layer of routes: it runs when
/// it is known which one is meant.
///
/// It also tells the audit of what is refused, and that somebody looks at what administrators look at.
#[derive(Clone, Debug)]
pub struct Guard {
    recorder: Option<Recorder>,
}

impl Guard {
    /// A guard that tells `recorder`, if there is one.
    pub fn new(recorder: Option<Recorder>) -> Self {
        Self { recorder }
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, recorder: self.recorder.clone() }
    }
}

/// A route that is asked only by those who may.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    recorder: Option<Recorder>,
}

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<
        Watched<S::Future>,
        Either<
            Ready<Result<Response, Infallible>>,
            BoxFuture<'static, Result<Response, Infallible>>,
        >,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let need = needed(&request);
        let asked = self.asked(&request, need);
        if let Err(failure) = check(&request, need) {
            let response = failure.into_response();
            if let Some(asked) = asked {
                asked.tell(&response);
            }
            return Either::Right(Either::Left(ready(Ok(response))));
        }
        let Some((recorder, scope)) = self.looks(&request, need) else {
            return Either::Left(Watched::new(self.inner.call(request), asked));
        };
        let what = Asked::named(request.method(), request.uri());
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Either::Right(Either::Right(Box::pin(async move {
            if let Err(failure) = recorder.looks(&scope, what).await {
                return Ok(failure.into_response());
            }
            Watched::new(inner.call(request), asked).await
        })))
    }
}

impl<S> Guarded<S> {
    /// What is told if it is refused.
    fn asked(&self, request: &Request, need: Option<Need>) -> Option<Asked> {
        let recorder = self.recorder.clone()?;
        let caller = request.extensions().get::<Caller>()?.clone();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let deployment = matches!(need, Some(Need::Known | Need::Deployment(_)));
        Some(Asked { caller, deployment, method, uri, recorder })
    }

    /// Where and as whom it is told that somebody looks at what administrators look at, if that is so.
    fn looks(&self, request: &Request, need: Option<Need>) -> Option<(Recorder, Scope)> {
        let Some(Need::Deployment(permission)) = need else { return None };
        let recorder = self.recorder.as_ref().filter(|it| it.tells_reads())?;
        if !request.method().is_safe() {
            return None;
        }
        let caller = request.extensions().get::<Caller>()?;
        let scope = caller.permit_in_deployment(permission).ok()?;
        Some((recorder.clone(), scope.clone()))
    }
}

fn needed(request: &Request) -> Option<Need> {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    need(request.method(), below_service(path.unwrap_or_default()))
}

fn check(request: &Request, need: Option<Need>) -> Result<(), Failure> {
    let caller = || request.extensions().get::<Caller>().ok_or_else(Failure::anonymous);
    match need {
        Some(Need::Open) => Ok(()),
        Some(Need::Known) => caller()?.permit_own().map(drop),
        Some(Need::Service(permission)) => caller()?.permit(permission).map(drop),
        Some(Need::Deployment(permission)) => caller()?.permit_in_deployment(permission).map(drop),
        None => Err(Failure::new(
            Kind::Denied,
            "route_undeclared",
            "nobody said who may come here, so nobody may",
        )),
    }
}

/// The path within a service, where several are served.
pub(crate) fn below_service(path: &str) -> &str {
    match path.strip_prefix("/services/") {
        Some(below) => below.find('/').map_or("/", |at| &below[at..]),
        None => path,
    }
}

/// Whether nobody need be known at a route's path, whatever is done there.
pub fn is_open(path: &str) -> bool {
    OPEN_PATHS.contains(below_service(path))
}

/// Whether a route is about administration: whatever belongs to the deployment, and is not what everybody
/// has of their own. A method that its path has not is, where another one of that path is.
pub(crate) fn is_administrative(method: &Method, path: &str) -> bool {
    let path = below_service(path);
    match need(method, path) {
        Some(need) => matches!(need, Need::Deployment(_)),
        None => ADMINISTRATIVE_PATHS.contains(path),
    }
}

static ADMINISTRATIVE_PATHS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let it = NEEDS.iter().filter(|it| matches!(it.1, Need::Deployment(_)));
    it.map(|((_, path), _)| *path).collect()
});

static OPEN_PATHS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let open = SERVICE.iter().chain(DEPLOYMENT).filter(|it| it.2 == OPEN);
    open.map(|(_, path, _)| *path).collect()
});

/// Every method and path of which somebody said what it wants.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    SERVICE.iter().chain(DEPLOYMENT).map(|(method, path, _)| (*method, *path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_a_service_are_those_of_the_service() {
        assert_eq!(below_service("/api/v1/jobs"), "/api/v1/jobs");
        assert_eq!(below_service("/services/a/api/v1/jobs"), "/api/v1/jobs");
        assert_eq!(below_service("/services/a"), "/");
    }

    #[test]
    fn administration_is_what_belongs_to_the_deployment_and_to_nobody_alone() {
        for (method, path, is) in [
            (Method::GET, "/api/v1/users", true),
            (Method::GET, "/services/a/api/v1/users", true),
            (Method::HEAD, "/api/v1/roles", true),
            (Method::OPTIONS, "/api/v1/users/{id}/$disable", true),
            (Method::DELETE, "/api/v1/audit", true),
            (Method::POST, "/api/v1/auth/$rotate-signing-keys", true),
            (Method::POST, "/api/v1/auth/introspect", true),
            (Method::POST, "/api/v1/auth/login", false),
            (Method::GET, "/api/v1/account", false),
            (Method::DELETE, "/api/v1/auth/sessions/{id}", false),
            (Method::GET, "/api/v1/system", false),
            (Method::POST, "/api/v1/configs", false),
            (Method::PUT, "/api/v1/configs", false),
            (Method::POST, "/", false),
        ] {
            assert_eq!(is_administrative(&method, path), is, "{method} {path}");
        }
    }

    #[test]
    fn no_route_is_there_twice() {
        assert_eq!(all().count(), NEEDS.len());
    }

    #[test]
    fn a_head_is_a_get_and_what_nobody_said_is_closed() {
        let jobs = Some(Need::Service(Permission("jobs:read")));
        assert_eq!(need(&Method::GET, "/api/v1/jobs"), jobs);
        assert_eq!(need(&Method::HEAD, "/api/v1/jobs"), jobs);
        assert_eq!(need(&Method::POST, "/api/v1/jobs"), None);
        assert_eq!(need(&Method::GET, "/health"), Some(Need::Open));
    }
}
