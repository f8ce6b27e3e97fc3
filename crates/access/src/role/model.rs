//! What a role is, and what comes with one. No I/O in this file.

use std::collections::{BTreeMap, BTreeSet};

use modelyard_kernel::caller::covers;
use modelyard_kernel::db::{self, FromRow, Json, Row};
use modelyard_kernel::form::{Node, shorten};
use modelyard_kernel::{Grants, Time, columns};
use serde::Serialize;
use utoipa::ToSchema;

/// The role that sees and changes nothing.
pub const VIEWER: &str = "viewer";
/// The role that may do everything, in every tenant.
pub const SYSTEM_ADMIN: &str = "system-admin";
/// Everywhere, where a binding says to which service it applies.
pub const EVERYWHERE: &str = "*";

/// What a rule of a service calls `tenant-admin`; no role has this name.
const ADMIN: &str = "admin";
/// How many roles of its own a tenant has at most.
pub(super) const MOST_ROLES: usize = 500;
/// The longest name of a role or a service, in characters.
const LONGEST_NAME: usize = 64;
/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 500;
/// The most entries of one list.
const MOST_ENTRIES: usize = 100;

/// Every permission of the program. A pattern that stands for none of them is a mistake of whoever
/// writes it.
pub const PERMISSIONS: [&str; 28] = [
    "artifacts:read",
    "artifacts:write",
    "audit:read",
    "configs:read",
    "configs:write",
    "info:read",
    "jobs:read",
    "jobs:write",
    "keys:read",
    "keys:write",
    "metrics:read",
    "ml:predict",
    "ml:read",
    "ml:train",
    "roles:read",
    "roles:write",
    "schedules:read",
    "schedules:write",
    "sessions:read",
    "sessions:write",
    "signing_keys:write",
    "system:administer",
    "system:read",
    "tasks:execute",
    "tasks:read",
    "tasks:write",
    "users:read",
    "users:write",
];

/// A role that comes with the program.
struct BuiltIn {
    name: &'static str,
    description: &'static str,
    permissions: &'static [&'static str],
    inherits: &'static [&'static str],
}

/// Each has what the one before it has, and more.
const BUILT_IN: [BuiltIn; 5] = [
    BuiltIn {
        name: VIEWER,
        description: "Sees what a service has and does.",
        permissions: &[
            "info:read",
            "system:read",
            "configs:read",
            "artifacts:read",
            "jobs:read",
            "tasks:read",
            "schedules:read",
            "ml:read",
        ],
        inherits: &[],
    },
    BuiltIn {
        name: "user",
        description: "Trains, predicts and executes tasks.",
        permissions: &[
            "configs:write",
            "artifacts:write",
            "jobs:write",
            "ml:train",
            "ml:predict",
            "tasks:execute",
        ],
        inherits: &[VIEWER],
    },
    BuiltIn {
        name: "operator",
        description: "Writes tasks and schedules, and reads metrics.",
        permissions: &["tasks:write", "schedules:write", "metrics:read"],
        inherits: &["user"],
    },
    BuiltIn {
        name: "tenant-admin",
        description: "Manages the users, keys and roles of a tenant, and reads its audit.",
        permissions: &["users:*", "keys:*", "roles:*", "sessions:*", "audit:read"],
        inherits: &["operator"],
    },
    BuiltIn {
        name: SYSTEM_ADMIN,
        description: "Does everything.",
        permissions: &["*"],
        inherits: &["tenant-admin"],
    },
];

/// A role.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Role {
    /// What it is called.
    #[schema(example = "forecaster")]
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Names of permissions, with `*` for any noun or verb.
    #[schema(value_type = Vec<String>, example = json!(["ml:predict"]))]
    pub permissions: Json<Vec<String>>,
    /// The roles that it has all permissions of.
    #[schema(value_type = Vec<String>, example = json!(["viewer"]))]
    pub inherits: Json<Vec<String>>,
    /// Whether it comes with the program: then nobody can change it.
    pub built_in: bool,
    /// How often it was changed.
    #[serde(skip)]
    pub revision: i64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Time,
}

impl Role {
    /// The columns of a row, in the order that `FromRow` reads. Those of the program have no row.
    pub const COLUMNS: &str =
        "name, description, permissions, inherits, revision, created_at, updated_at";

    /// Its entity tag. The time is in it because a name may be used again once its role is gone.
    pub fn etag(&self) -> String {
        format!("\"{}-{}-{}\"", self.name, self.created_at.micros(), self.revision)
    }
}

impl FromRow for Role {
    fn from_row(mut row: Row) -> db::Result<Self> {
        Ok(Self {
            name: row.take("name")?,
            description: row.take("description")?,
            permissions: row.take("permissions")?,
            inherits: row.take("inherits")?,
            built_in: false,
            revision: row.take("revision")?,
            created_at: row.take("created_at")?,
            updated_at: row.take("updated_at")?,
        })
    }
}

/// A role to be stored.
#[derive(Clone, Debug)]
pub struct NewRole {
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Names of permissions, with `*` for any noun or verb.
    pub permissions: Vec<String>,
    /// The roles that it has all permissions of.
    pub inherits: Vec<String>,
}

impl NewRole {
    /// Reads a request's body. `named` is the name in the address, if there is one: a role keeps it.
    pub fn read(node: &Node<'_>, named: Option<&str>) -> Option<Self> {
        let object = node.object()?;
        let name = match (named, object.get("name")) {
            (None, None) => object.required("name").and_then(|it| read_name(&it)),
            (None, Some(it)) => read_name(&it),
            (Some(named), None) => Some(named.to_owned()),
            (Some(named), Some(it)) => it.str().map(str::to_owned).filter(|name| {
                let same = name == named;
                if !same {
                    it.fail_rule(format!("A role keeps its name, which is `{}`", shorten(named)));
                }
                same
            }),
        };
        let description =
            object.optional("description").map_or(Some(String::new()), |it| read_description(&it));
        let permissions =
            object.optional("permissions").map_or(Some(Vec::new()), |it| read_patterns(&it));
        let inherits = object.optional("inherits").map_or(Some(Vec::new()), |it| {
            let names = entries(&it)?.into_iter().map(|it| it.string()).collect::<Option<Vec<_>>>();
            names.map(without_repeats)
        });
        Some(Self {
            name: name?,
            description: description?,
            permissions: permissions?,
            inherits: inherits?,
        })
    }
}

/// The items of a list that is not too long.
fn entries<'a>(node: &Node<'a>) -> Option<Vec<Node<'a>>> {
    let items = node.list()?;
    if items.len() > MOST_ENTRIES {
        node.fail_rule(format!("There are at most {MOST_ENTRIES} entries"));
        return None;
    }
    Some(items)
}

fn without_repeats(mut all: Vec<String>) -> Vec<String> {
    all.sort_unstable();
    all.dedup();
    all
}

/// Letters and digits in lower case, in groups joined by single hyphens: how services are called, too.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text.split('-').all(|group| {
            !group.is_empty()
                && group.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit())
        })
}

fn read_name(node: &Node<'_>) -> Option<String> {
    let name = node.str()?;
    if !is_name(name) {
        node.fail_rule(format!(
            "A name has 1 to {LONGEST_NAME} lower-case letters and digits in groups joined by single \
             hyphens"
        ));
        return None;
    }
    if name == ADMIN {
        node.fail_rule("`admin` is another word for `tenant-admin`; take another name");
        return None;
    }
    Some(name.to_owned())
}

fn read_description(node: &Node<'_>) -> Option<String> {
    let text = node.str()?;
    // PostgreSQL's text holds no zero characters.
    if text.chars().count() > LONGEST_DESCRIPTION || text.contains('\0') {
        node.fail_rule(format!("A description has at most {LONGEST_DESCRIPTION} characters"));
        return None;
    }
    Some(text.to_owned())
}

/// Reads names of permissions, with `*` for any noun or verb, each of which stands for one at least.
pub(crate) fn read_patterns(node: &Node<'_>) -> Option<Vec<String>> {
    let read = |it: Node<'_>| {
        let pattern = it.str()?;
        if !PERMISSIONS.iter().any(|permission| covers(pattern, permission)) {
            let shown = shorten(pattern);
            it.fail_rule(format!(
                "There is no permission `{shown}`; one is `ml:predict` or `jobs:*`"
            ));
            return None;
        }
        Some(pattern.to_owned())
    };
    // All are read before any is missed, so that each violation is told.
    let patterns: Vec<Option<String>> = entries(node)?.into_iter().map(read).collect();
    patterns.into_iter().collect::<Option<Vec<_>>>().map(without_repeats)
}

/// That a subject has a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct Binding {
    /// The role.
    #[schema(example = "operator")]
    pub role: String,
    /// The service in which it has it, or `*`.
    #[schema(example = "*")]
    pub applies_to: String,
}

columns!(Binding: role, applies_to);

impl Binding {
    /// That a subject has a role everywhere.
    pub fn everywhere(role: &str) -> Self {
        Self { role: role.to_owned(), applies_to: EVERYWHERE.to_owned() }
    }

    /// Whether whoever has it may do everything.
    pub(super) fn is_admin(&self) -> bool {
        self.role == SYSTEM_ADMIN && self.applies_to == EVERYWHERE
    }

    /// Reads a list of them. That the roles exist is checked where they are given.
    pub fn read_all(node: &Node<'_>) -> Option<Vec<Self>> {
        let all: Vec<Option<Self>> = entries(node)?.iter().map(Self::read).collect();
        let mut all = all.into_iter().collect::<Option<Vec<_>>>()?;
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    fn read(node: &Node<'_>) -> Option<Self> {
        let object = node.object()?;
        let role = object.required("role").and_then(|it| it.string());
        let applies_to = object.optional("applies_to").map_or(Some(EVERYWHERE.to_owned()), |it| {
            let text = it.str()?;
            if text != EVERYWHERE && !is_name(text) {
                it.fail_rule(format!("`{}` is neither a service id nor `*`", shorten(text)));
                return None;
            }
            Some(text.to_owned())
        });
        Some(Self { role: role?, applies_to: applies_to? })
    }
}

/// Whether a name is that of a role that comes with the program.
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.iter().any(|it| it.name == name)
}

/// The roles that come with the program.
pub fn built_in() -> impl Iterator<Item = Role> {
    BUILT_IN.iter().map(|it| Role {
        name: it.name.to_owned(),
        description: it.description.to_owned(),
        permissions: Json(it.permissions.iter().map(|it| (*it).to_owned()).collect()),
        inherits: Json(it.inherits.iter().map(|it| (*it).to_owned()).collect()),
        built_in: true,
        revision: 1,
        created_at: Time::from_micros(0),
        updated_at: Time::from_micros(0),
    })
}

/// Every role of a tenant, by name.
#[derive(Clone, Debug, Default)]
pub struct RoleBook(BTreeMap<String, (Vec<String>, Vec<String>)>);

impl RoleBook {
    /// The roles of the program, and these.
    pub fn new(own: impl IntoIterator<Item = Role>) -> Self {
        let all = own.into_iter().chain(built_in());
        Self(all.map(|it| (it.name, (it.permissions.0, it.inherits.0))).collect())
    }

    /// Whether there is such a role.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What roles with all that they inherit stand for.
    pub fn patterns<'a>(&'a self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        self.patterns_of(&self.closure(names))
    }

    fn patterns_of<'a>(&'a self, roles: &BTreeSet<&str>) -> BTreeSet<&'a str> {
        let all = roles.iter().filter_map(|it| self.0.get(*it));
        all.flat_map(|it| it.0.iter().map(String::as_str)).collect()
    }

    /// Roles with all that they inherit.
    pub fn closure<'a>(&'a self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let mut all = BTreeSet::new();
        let mut open: Vec<&str> = names.into_iter().collect();
        while let Some(name) = open.pop() {
            let Some((name, (_, inherits))) = self.0.get_key_value(name) else { continue };
            if all.insert(name.as_str()) {
                open.extend(inherits.iter().map(String::as_str));
            }
        }
        all
    }

    /// What the roles of `bindings` that apply to a service grant there. `rules` says for some
    /// permissions which roles have them, whatever the roles themselves say.
    pub fn grants(&self, bindings: &[Binding], service: &str, rules: &Rules) -> Grants {
        let applies = |it: &&Binding| it.applies_to == EVERYWHERE || it.applies_to == service;
        let roles = self.closure(bindings.iter().filter(applies).map(|it| it.role.as_str()));
        let mut names = self.patterns_of(&roles);
        let mut taken = Vec::new();
        if !roles.contains(SYSTEM_ADMIN) {
            for (permission, wanted) in &rules.0 {
                if wanted.iter().any(|it| roles.contains(known_as(it))) {
                    names.insert(permission);
                } else {
                    taken.push(format!("-{permission}"));
                }
            }
        }
        Grants::Only(names.into_iter().map(str::to_owned).chain(taken).collect())
    }
}

/// `admin` is another word for `tenant-admin`.
fn known_as(role: &str) -> &str {
    if role == ADMIN { "tenant-admin" } else { role }
}

/// Which roles have a permission in one service, as its author says: `{"ml:train": ["admin"]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(BTreeMap<String, Vec<String>>);

impl Rules {
    /// These rules.
    pub fn new(rules: BTreeMap<String, Vec<String>>) -> Self {
        Self(rules)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The permissions that whoever has one of `roles` has by them.
    pub(super) fn tied_to<'a>(
        &'a self,
        roles: &'a BTreeSet<&str>,
    ) -> impl Iterator<Item = &'a str> {
        let names_one = |wanted: &[String]| wanted.iter().any(|it| roles.contains(known_as(it)));
        self.0.iter().filter(move |it| names_one(it.1)).map(|it| it.0.as_str())
    }

    /// Checks that they are about permissions that there are: one that is misspelt would protect nothing.
    ///
    /// # Errors
    /// The first permission that there is not.
    pub fn check(&self) -> Result<(), UnknownPermission> {
        match self.0.keys().find(|it| !PERMISSIONS.contains(&it.as_str())) {
            Some(name) => Err(UnknownPermission(name.clone())),
            None => Ok(()),
        }
    }
}

/// A rule about a permission that there is not.
#[derive(Debug, thiserror::Error)]
#[error("there is no permission `{0}`; there are: {list}", list = PERMISSIONS.join(", "))]
pub struct UnknownPermission(String);

#[cfg(test)]
mod tests {
    use modelyard_kernel::Permission;

    use super::*;

    fn bound(role: &str, applies_to: &str) -> Binding {
        Binding { role: role.to_owned(), applies_to: applies_to.to_owned() }
    }

    fn role(name: &str, permissions: &[&str], inherits: &[&str]) -> Role {
        let list = |of: &[&str]| Json(of.iter().map(|it| (*it).to_owned()).collect());
        Role {
            name: name.to_owned(),
            permissions: list(permissions),
            inherits: list(inherits),
            ..built_in().next().unwrap()
        }
    }

    #[test]
    fn each_role_has_what_the_one_before_has() {
        let book = RoleBook::default();
        assert!(book.closure(["user"]).is_empty());
        let book = RoleBook::new([]);
        let names: Vec<&str> = BUILT_IN.iter().map(|it| it.name).collect();
        for (index, name) in names.iter().enumerate() {
            let closure: Vec<&str> = book.closure([*name]).into_iter().collect();
            let mut expected = names[..=index].to_vec();
            expected.sort_unstable();
            assert_eq!(closure, expected);
        }
    }

    #[test]
    fn a_rule_about_what_there_is_not_is_found() {
        let rule = |name: &str| Rules::new([(name.to_owned(), vec!["user".to_owned()])].into());
        assert!(rule("ml:train").check().is_ok());
        let unknown = rule("ml:trian").check().unwrap_err().to_string();
        assert!(unknown.starts_with("there is no permission `ml:trian`; there are: "), "{unknown}");
    }

    #[test]
    fn a_binding_applies_where_it_says() {
        let book = RoleBook::new([role("forecaster", &["ml:predict"], &["viewer"])]);
        let bindings = [bound("forecaster", "dengue"), bound("gone", "*")];
        let may = |service, permission| {
            book.grants(&bindings, service, &Rules::default()).allow(Permission(permission))
        };
        assert!(may("dengue", "ml:predict") && may("dengue", "configs:read"));
        assert!(!may("dengue", "ml:train") && !may("other", "configs:read"));
    }

    #[test]
    fn rules_of_a_service_say_who_has_a_permission() {
        let book = RoleBook::new([]);
        let rules =
            Rules::new([("ml:train".to_owned(), vec!["admin".to_owned()])].into_iter().collect());
        let may =
            |role| book.grants(&[bound(role, "*")], "s", &rules).allow(Permission("ml:train"));
        assert!(!may("user") && !may("operator") && may("tenant-admin") && may("system-admin"));
    }

    #[test]
    fn roles_that_inherit_from_each_other_end() {
        let book = RoleBook::new([role("a", &["x:y"], &["b"]), role("b", &[], &["a"])]);
        assert_eq!(book.closure(["b"]).len(), 2);
        assert_eq!(book.patterns(["b"]), BTreeSet::from(["x:y"]));
    }

    #[test]
    fn what_the_program_grants_it_knows() {
        for role in built_in() {
            for pattern in &role.permissions.0 {
                assert!(PERMISSIONS.iter().any(|it| covers(pattern, it)), "{pattern}");
            }
        }
    }
}
