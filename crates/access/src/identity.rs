//! Who was found behind what somebody presented, and what comes of it.

use std::net::IpAddr;

use ipnet::IpNet;
use modelyard_kernel::{Caller, DEPLOYMENT, Failure, Grants, Kind, Proof, Time, Ulid};

use crate::role::{Binding, EVERYWHERE, RoleBook, Rules};

/// A user or a key, as it was found.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Whose data it may see.
    pub tenant: String,
    /// `key:` or `user:` and its id.
    pub subject: String,
    /// Its id.
    pub id: Ulid,
    /// The user, if it is one.
    pub user: Option<Ulid>,
    /// How it showed who it is.
    pub proof: Proof,
    /// Its roles.
    pub bindings: Vec<Binding>,
    /// The roles of the user who made it, if it is a key that one has made: it may no more than that user.
    pub maker: Option<Vec<Binding>>,
    /// Patterns of permissions to which it is limited; empty: all that its roles give.
    pub scopes: Vec<String>,
    /// When it ends, if it does.
    pub expires_at: Option<Time>,
    /// Networks from which it may come; empty: any.
    pub addresses: Vec<IpNet>,
    /// How often it may come in a minute; any number unless given.
    pub per_minute: Option<u32>,
}

impl Identity {
    /// A user who has logged in, with these roles.
    pub(crate) fn of_user(tenant: &str, user: Ulid, proof: Proof, bindings: Vec<Binding>) -> Self {
        Self {
            tenant: tenant.to_owned(),
            subject: format!("user:{user}"),
            id: user,
            user: Some(user),
            proof,
            bindings,
            maker: None,
            scopes: Vec::new(),
            expires_at: None,
            addresses: Vec::new(),
            per_minute: None,
        }
    }

    /// Whether it has to show a second factor that it has not shown.
    pub(crate) fn lacks_factor(&self, required: bool) -> bool {
        required && matches!(self.proof, Proof::Session { factor_at: None, .. })
    }

    /// The caller that it is in a service, by the roles of its tenant and the rules of the service.
    pub fn caller(&self, book: &RoleBook, service: &str, rules: &Rules) -> Caller {
        let within = self.grants(book, service, rules);
        let mut bindings = self.bindings.iter().chain(self.maker.iter().flatten());
        let is_same = rules.is_empty() && bindings.all(|it| it.applies_to == EVERYWHERE);
        let everywhere = match is_same {
            true => within.clone(),
            false => self.deployment_grants(book),
        };
        Caller::new(&self.subject, &self.tenant, service, within)
            .with_deployment_grants(everywhere)
            .with_proof(self.proof, self.user)
    }

    /// What it may to what belongs to the deployment. No binding names that, so that what is found are the
    /// roles it has everywhere.
    pub(crate) fn deployment_grants(&self, book: &RoleBook) -> Grants {
        self.grants(book, DEPLOYMENT, &Rules::default())
    }

    fn grants(&self, book: &RoleBook, service: &str, rules: &Rules) -> Grants {
        let own = book.grants(&self.bindings, service, rules);
        let own = match &self.maker {
            // Roles that the maker has too give nothing more than the maker's.
            Some(maker) if !self.bindings.iter().all(|it| maker.contains(it)) => {
                own.within(&book.grants(maker, service, rules))
            }
            _ => own,
        };
        if self.scopes.is_empty() { own } else { own.limited_to(&self.scopes) }
    }

    /// Whether it is limited beside its roles.
    pub(crate) fn is_limited(&self) -> bool {
        let Self { scopes, addresses, per_minute, expires_at, .. } = self;
        !scopes.is_empty() || !addresses.is_empty() || per_minute.is_some() || expires_at.is_some()
    }

    /// Whether it may come in at this time and from this address. One that is bound to networks may not
    /// when nobody knows where it comes from.
    pub fn admits(&self, address: Option<IpAddr>, now: Time) -> bool {
        if self.expires_at.is_some_and(|it| it <= now) {
            return false;
        }
        // The address of an IPv4 client is one of IPv6 where a socket listens for both.
        let address = address.map(|it| it.to_canonical());
        self.addresses.is_empty()
            || address.is_some_and(|address| self.addresses.iter().any(|it| it.contains(&address)))
    }
}

/// What everyone hears who is not let in: why is nobody's business.
pub fn refused() -> Failure {
    Failure::new(Kind::Unauthenticated, "unauthenticated", "Invalid API key")
}

#[cfg(test)]
mod tests {
    use modelyard_kernel::Permission;

    use super::*;

    fn identity(bindings: &[(&str, &str)], scopes: &[&str]) -> Identity {
        let bind =
            |it: &(&str, &str)| Binding { role: it.0.to_owned(), applies_to: it.1.to_owned() };
        Identity {
            tenant: "t".to_owned(),
            subject: "key:x".to_owned(),
            id: Ulid::read("01JCSEED00000000000000KEY1").unwrap(),
            user: None,
            proof: Proof::None,
            bindings: bindings.iter().map(bind).collect(),
            maker: None,
            scopes: scopes.iter().map(|it| (*it).to_owned()).collect(),
            expires_at: None,
            addresses: Vec::new(),
            per_minute: None,
        }
    }

    fn caller(identity: &Identity) -> Caller {
        identity.caller(&RoleBook::new([]), "dengue", &Rules::default())
    }

    #[test]
    fn a_role_in_a_service_is_none_in_the_deployment() {
        let it = caller(&identity(&[("tenant-admin", "dengue"), ("viewer", "*")], &[]));
        assert!(it.permit(Permission("users:write")).is_ok());
        assert!(it.permit_in_deployment(Permission("users:write")).is_err());
        assert!(it.permit_in_deployment(Permission("configs:read")).is_ok());
        let it = caller(&identity(&[("tenant-admin", "other")], &[]));
        assert!(it.permit(Permission("configs:read")).is_err());
    }

    #[test]
    fn scopes_limit_what_roles_give() {
        let it = caller(&identity(&[("tenant-admin", "*")], &["ml:*", "users:read"]));
        assert!(it.permit(Permission("ml:predict")).is_ok());
        assert!(it.permit(Permission("configs:read")).is_err());
        assert!(it.permit_in_deployment(Permission("users:read")).is_ok());
        assert!(it.permit_in_deployment(Permission("users:write")).is_err());
        let it = caller(&identity(&[("viewer", "*")], &["ml:*"]));
        assert!(it.permit(Permission("ml:train")).is_err(), "scopes give nothing");
    }

    #[test]
    fn a_key_may_no_more_than_its_maker() {
        let mut it = identity(&[("tenant-admin", "*")], &[]);
        let may = |it: &Identity| {
            let caller = caller(it);
            let deployment = caller.permit_in_deployment(Permission("users:write")).is_ok();
            (deployment, caller.permit(Permission("configs:read")).is_ok())
        };
        assert_eq!(may(&it), (true, true));
        for (role, applies_to, wanted) in [
            ("tenant-admin", "*", (true, true)),
            ("system-admin", "*", (true, true)),
            ("tenant-admin", "dengue", (false, true)),
            ("tenant-admin", "other", (false, false)),
            ("viewer", "*", (false, true)),
        ] {
            let binding = Binding { role: role.to_owned(), applies_to: applies_to.to_owned() };
            it.maker = Some(vec![binding]);
            assert_eq!(may(&it), wanted, "{role} {applies_to}");
        }
        it.maker = Some(Vec::new());
        assert_eq!(may(&it), (false, false));
    }

    #[test]
    fn rules_of_a_service_hold_for_limited_keys_too() {
        let rules = [("ml:train".to_owned(), vec!["admin".to_owned()])].into_iter().collect();
        let rules = Rules::new(rules);
        let may = |role| {
            let it = identity(&[(role, "*")], &["ml:*"]);
            it.caller(&RoleBook::new([]), "s", &rules).permit(Permission("ml:train")).is_ok()
        };
        assert!(may("tenant-admin") && !may("user"));
    }

    #[test]
    fn an_address_is_within_the_networks_or_unknown() {
        let mut it = identity(&[], &[]);
        let now = Time::from_micros(10);
        assert!(it.admits(None, now));
        it.addresses = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let from = |text: &str| it.admits(Some(text.parse().unwrap()), now);
        assert!(from("10.1.2.3") && from("::ffff:10.1.2.3") && from("2001:db8::1"));
        assert!(!from("11.1.2.3") && !from("::1") && !it.admits(None, now));
        it.addresses.clear();
        it.expires_at = Some(now);
        assert!(!it.admits(None, now) && it.admits(None, Time::from_micros(9)));
    }
}
