//! Who is asking, and what they may touch.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::{Failure, Time, Ulid};

/// A named right, such as `configs:write`. Slices declare their own as constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission(pub &'static str);

/// The service of rows that belong to the deployment itself: users, keys, roles. No service has this id.
pub const DEPLOYMENT: &str = "@";

/// What only a user may, to what is its own.
const OWN: Permission = Permission("account:own");

/// Proof that a permission was checked, and the tenant and service it was checked for.
///
/// Store functions ask for a `&Scope`, and [`Caller::permit`] is the only way to get one, so a
/// query that skipped the check or forgot the tenant does not compile. Two scopes are the same when they are about
/// the same rows, whoever asks.
#[derive(Clone, Debug)]
pub struct Scope {
    tenant: Arc<str>,
    service: Arc<str>,
    actor: Arc<Actor>,
}

/// Who does something, and from where: what an [event](crate::event) says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// A user or a key with its id, such as `user:01J…`, or what part of the service itself it is.
    pub subject: Arc<str>,
    /// The address of the client, when there is one.
    pub address: Option<IpAddr>,
    /// The request, when there is one.
    pub request: Option<Ulid>,
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.tenant == other.tenant && self.service == other.service
    }
}

impl Eq for Scope {}

impl Hash for Scope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tenant.hash(state);
        self.service.hash(state);
    }
}

impl Scope {
    /// Who asks.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The same rows; events say that somebody else asks.
    #[must_use]
    pub fn with_actor(&self, actor: Actor) -> Self {
        Self { actor: Arc::new(actor), ..self.clone() }
    }

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
    /// The named permissions and nothing else. `configs:*` is every verb of that noun, `*:read` that
    /// verb of every noun, and `*` everything; `-ml:train` takes back what another name gives.
    Only(Arc<[String]>),
}

impl Grants {
    /// Nothing.
    pub fn none() -> Self {
        Self::Only(Arc::default())
    }

    /// Whether a permission is among them.
    pub fn allow(&self, permission: Permission) -> bool {
        match self {
            Grants::All => true,
            Grants::Only(names) => {
                let taken = names.iter().filter_map(|it| it.strip_prefix('-'));
                names.iter().any(|it| covers(it, permission.0))
                    && !taken.into_iter().any(|it| covers(it, permission.0))
            }
        }
    }

    /// Whether everything that `pattern` stands for is among them, by one name: what several names give
    /// only together is not. A pattern that takes back is, since it gives nothing.
    pub fn covers_pattern(&self, pattern: &str) -> bool {
        match self {
            Grants::All => true,
            Grants::Only(_) if pattern.starts_with('-') => true,
            Grants::Only(names) => {
                let mut taken = names.iter().filter_map(|it| it.strip_prefix('-'));
                names.iter().any(|it| covers(it, pattern))
                    && !taken.any(|it| meet(it, pattern).is_some())
            }
        }
    }

    /// What of them `limits` cover as well: a permission is allowed afterwards when both allow it.
    #[must_use]
    pub fn limited_to(&self, limits: &[String]) -> Self {
        let Grants::Only(names) = self else { return Self::Only(limits.into()) };
        let (mut kept, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for name in names.iter() {
            if name.starts_with('-') {
                taken.insert(name.clone());
                continue;
            }
            for limit in limits {
                if limit.starts_with('-') {
                    taken.insert(limit.clone());
                } else if let Some(both) = meet(name, limit) {
                    kept.insert(both);
                }
            }
        }
        kept.extend(taken);
        Self::Only(kept.into_iter().collect())
    }

    /// What of them is among `most` as well.
    #[must_use]
    pub fn within(&self, most: &Grants) -> Self {
        match most {
            Grants::All => self.clone(),
            Grants::Only(names) => self.limited_to(names),
        }
    }
}

/// The pattern of what two patterns stand for both, if there is anything.
fn meet(one: &str, other: &str) -> Option<String> {
    if one == "*" || one == other {
        return Some(other.to_owned());
    }
    if other == "*" {
        return Some(one.to_owned());
    }
    let (one, other) = (one.split_once(':')?, other.split_once(':')?);
    let noun = meet_words(one.0, other.0)?;
    let verb = meet_words(one.1, other.1)?;
    Some(format!("{noun}:{verb}"))
}

fn meet_words<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    match (one, other) {
        ("*", it) | (it, "*") => Some(it),
        _ => (one == other).then_some(one),
    }
}

/// Whether a permission is one of those that `pattern` stands for.
pub fn covers(pattern: &str, permission: &str) -> bool {
    if pattern == "*" || pattern == permission {
        return true;
    }
    let (Some((noun, verb)), Some(of)) = (pattern.split_once(':'), permission.split_once(':'))
    else {
        return false;
    };
    (noun == "*" || noun == of.0) && (verb == "*" || verb == of.1)
}

/// How a caller showed who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Not at all: everyone may come in.
    None,
    /// Not at all, since this is the service itself, or its command line.
    System,
    /// By a key of the settings.
    Setting,
    /// By a key of the deployment.
    Key {
        /// The key.
        id: Ulid,
    },
    /// By a login.
    Session {
        /// The session.
        id: Ulid,
        /// When the user last showed who it is.
        proved_at: Time,
        /// When the user last showed a second factor, if there was one.
        factor_at: Option<Time>,
    },
}

/// The authenticated principal behind a request, a job or a command.
#[derive(Clone)]
pub struct Caller {
    scope: Scope,
    grants: Grants,
    /// What it may do to what belongs to no service.
    deployment: Scope,
    deployment_grants: Grants,
    user: Option<Ulid>,
    proof: Proof,
}

impl Caller {
    /// A caller as authentication found it.
    pub fn new(subject: &str, tenant: &str, service: &str, grants: Grants) -> Self {
        let actor = Arc::new(Actor { subject: subject.into(), address: None, request: None });
        let scope = Scope { tenant: tenant.into(), service: service.into(), actor };
        let deployment = Scope { service: DEPLOYMENT.into(), ..scope.clone() };
        let (deployment_grants, user, proof) = (grants.clone(), None, Proof::None);
        Self { scope, grants, deployment, deployment_grants, user, proof }
    }

    /// With where it asks from, and by which request.
    #[must_use]
    pub fn with_origin(self, address: Option<IpAddr>, request: Option<Ulid>) -> Self {
        let subject = Arc::clone(&self.scope.actor.subject);
        let actor = Arc::new(Actor { subject, address, request });
        let deployment = Scope { actor: Arc::clone(&actor), ..self.deployment };
        Self { scope: Scope { actor, ..self.scope }, deployment, ..self }
    }

    /// With other grants for what belongs to the deployment and not to a service.
    #[must_use]
    pub fn with_deployment_grants(self, deployment_grants: Grants) -> Self {
        Self { deployment_grants, ..self }
    }

    /// With how it showed who it is, and the user that it is, if it is one.
    #[must_use]
    pub fn with_proof(self, proof: Proof, user: Option<Ulid>) -> Self {
        Self { proof, user, ..self }
    }

    /// The service itself, for work that nobody asked for. `reason` is who the log names.
    pub fn system(reason: &str, tenant: &str, service: &str) -> Self {
        Self::new(reason, tenant, service, Grants::All).with_proof(Proof::System, None)
    }

    /// Who this is, for logs and audit.
    pub fn subject(&self) -> &str {
        &self.scope.actor.subject
    }

    /// Who this is and from where it asks.
    pub fn actor(&self) -> &Actor {
        &self.scope.actor
    }

    /// Whose data it may touch.
    pub fn tenant(&self) -> &str {
        &self.scope.tenant
    }

    /// Of which service.
    pub fn service(&self) -> &str {
        &self.scope.service
    }

    /// The user, if it is one.
    pub fn user(&self) -> Option<Ulid> {
        self.user
    }

    /// How it showed who it is.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// Checks a permission for what belongs to the deployment, such as users and keys.
    ///
    /// # Errors
    /// `permission_denied`, naming the permission.
    pub fn permit_in_deployment(&self, permission: Permission) -> Result<&Scope, Failure> {
        match self.deployment_grants.allow(permission) {
            true => Ok(&self.deployment),
            false => Err(Failure::denied(permission)),
        }
    }

    /// Whether it may do in the deployment everything that a pattern stands for: nobody gives more than
    /// they have.
    pub fn covers_in_deployment(&self, pattern: &str) -> bool {
        self.deployment_grants.covers_pattern(pattern)
    }

    /// The scope of what everybody may do to what is their own, such as their sessions, with who they
    /// are.
    ///
    /// # Errors
    /// `permission_denied` when it is no user.
    pub fn permit_own(&self) -> Result<(&Scope, Ulid), Failure> {
        match self.user {
            Some(user) => Ok((&self.deployment, user)),
            None => Err(Failure::denied(OWN)),
        }
    }

    /// Checks a permission, and gives the scope that store functions demand.
    ///
    /// # Errors
    /// `permission_denied`, naming the permission.
    pub fn permit(&self, permission: Permission) -> Result<&Scope, Failure> {
        match self.grants.allow(permission) {
            true => Ok(&self.scope),
            false => Err(Failure::denied(permission)),
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("subject", &self.subject()).finish_non_exhaustive()
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get::<Caller>().cloned().ok_or_else(Failure::anonymous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_nouns_and_verbs() {
        let cases = [
            ("*", "a:b", true),
            ("a:b", "a:b", true),
            ("a:*", "a:b", true),
            ("*:b", "a:b", true),
            ("a", "a:b", false),
            ("a:", "a:b", false),
            ("b:*", "a:b", false),
            ("*:a", "a:b", false),
            ("", "a:b", false),
            ("*:*", "a:b", true),
        ];
        for (pattern, permission, is) in cases {
            assert_eq!(covers(pattern, permission), is, "{pattern} {permission}");
        }
    }

    #[test]
    fn what_is_taken_back_is_not_granted() {
        let grants = Grants::Only(["*".to_owned(), "-ml:*".to_owned()].into());
        assert!(grants.allow(Permission("jobs:read")) && !grants.allow(Permission("ml:train")));
    }

    fn only(names: &[&str]) -> Grants {
        Grants::Only(names.iter().map(|it| (*it).to_owned()).collect())
    }

    #[test]
    fn a_pattern_is_covered_by_one_that_is_as_wide() {
        let cases: [(&[&str], &str, bool); 13] = [
            (&["*"], "*", true),
            (&["*"], "a:*", true),
            (&["a:*"], "a:b", true),
            (&["a:*"], "a:*", true),
            (&["a:b"], "a:*", false),
            (&["a:*"], "*:b", false),
            (&["a:*", "b:*"], "*", false),
            (&["*:b"], "a:b", true),
            (&["*", "-a:b"], "a:*", false),
            (&["*", "-a:b"], "*", false),
            (&["*", "-a:b"], "c:*", true),
            (&[], "a:b", false),
            (&[], "-a:b", true),
        ];
        for (names, pattern, is) in cases {
            assert_eq!(only(names).covers_pattern(pattern), is, "{names:?} {pattern}");
        }
        assert!(Grants::All.covers_pattern("*"));
        let caller = Caller::new("a", "t", "s", Grants::All).with_deployment_grants(only(&["a:b"]));
        assert!(caller.covers_in_deployment("a:b") && !caller.covers_in_deployment("a:*"));
    }

    fn pattern() -> impl proptest::strategy::Strategy<Value = String> {
        "-?(\\*|(a|b|\\*):(x|y|\\*)|a)"
    }

    proptest::proptest! {
        #[test]
        fn limited_grants_allow_what_both_allow(
            names in proptest::collection::vec(pattern(), 0..5),
            limits in proptest::collection::vec(pattern(), 0..5),
        ) {
            let (grants, within) = (Grants::Only(names.into()), Grants::Only(limits.clone().into()));
            let limited = grants.limited_to(&limits);
            for permission in ["a:x", "a:y", "b:x", "b:y", "c:z", "a"].map(Permission) {
                let both = grants.allow(permission) && within.allow(permission);
                proptest::prop_assert_eq!(limited.allow(permission), both, "{:?}", permission);
                proptest::prop_assert_eq!(grants.within(&within).allow(permission), both);
                proptest::prop_assert_eq!(
                    Grants::All.limited_to(&limits).allow(permission),
                    within.allow(permission)
                );
            }
        }

        #[test]
        fn who_covers_a_pattern_has_all_that_it_stands_for(
            names in proptest::collection::vec(pattern(), 0..5),
            pattern in pattern(),
        ) {
            let (grants, one) = (Grants::Only(names.into()), Grants::Only([pattern.clone()].into()));
            if grants.covers_pattern(&pattern) {
                for permission in ["a:x", "a:y", "b:x", "b:y", "c:z", "a"].map(Permission) {
                    proptest::prop_assert!(!one.allow(permission) || grants.allow(permission));
                }
            }
        }
    }

    #[test]
    fn what_is_granted_in_a_service_is_not_granted_in_the_deployment() {
        let write = Permission("users:write");
        let caller = Caller::new("a", "t", "s", Grants::All).with_deployment_grants(Grants::none());
        assert_eq!(caller.permit(write).unwrap().service(), "s");
        assert!(caller.permit_in_deployment(write).is_err());
        let caller = Caller::new("a", "t", "s", Grants::All);
        assert_eq!(caller.permit_in_deployment(write).unwrap().service(), DEPLOYMENT);
        assert!(caller.permit_own().is_err());
    }
}
