//! What a key is, and what it looks like. No I/O in this file.
//!
//! ```text
//! mk_4kT9aZ0q_Jq0F…43 characters of 256 random bits…9wXcR2aB
//! └─ prefix ─┘                                        └─ 6 characters of CRC-32 over all before
//! ```

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use modelyard_kernel::db::{self, FromRow, Json, Row};
use modelyard_kernel::form::{Bounds, Node, Object, shorten};
use modelyard_kernel::{Time, Ulid, entity_id};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::role::{Binding, read_patterns};

entity_id!(
    /// The id of a key.
    KeyId
);

/// What every key begins with.
pub const MARK: &str = "mk_";
/// Characters that tell keys apart, after the mark.
const SHOWN: usize = 8;
/// Characters of 256 bits.
const SECRET: usize = 43;
/// Characters of the check sum.
const SUM: usize = 6;
const PREFIX: usize = MARK.len() + SHOWN;
/// Characters of a key.
const LENGTH: usize = PREFIX + 1 + SECRET + SUM;
/// Random bytes of which a key is made.
pub(super) const RANDOM: usize = 6 + 32;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The longest name, in characters.
const LONGEST_NAME: usize = 200;
/// The most networks of a key.
const MOST_ADDRESSES: usize = 100;
/// The most that a rate can be.
const MOST_PER_MINUTE: i64 = 1_000_000;
/// How long an old key goes on, at most: a month.
const LONGEST_OVERLAP: i64 = 31 * 24 * 3600;
/// How long an old key goes on unless somebody says.
pub(super) const OVERLAP: u64 = 3600;

/// A key as its owner has it. It is shown once, and kept nowhere.
pub struct KeyText(Zeroizing<String>);

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText")
    }
}

impl KeyText {
    /// The key that these random bytes make.
    pub(super) fn of(random: &[u8; RANDOM]) -> Self {
        let mut bytes = Zeroizing::new(*random);
        let (shown, secret) = bytes.split_at_mut(RANDOM - 32);
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        text.push_str(MARK);
        push_digits::<SHOWN>(&mut text, shown);
        text.push('_');
        push_digits::<SECRET>(&mut text, secret);
        let mut sum = crc32fast::hash(text.as_bytes()).to_be_bytes();
        push_digits::<SUM>(&mut text, &mut sum);
        Self(text)
    }

    /// The text, for whoever is to have it.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What it begins with, for people.
    pub fn prefix(&self) -> &str {
        self.0.get(..PREFIX).unwrap_or_default()
    }

    /// What is stored of it.
    pub(super) fn hash(&self) -> [u8; 32] {
        hash(&self.0)
    }
}

/// Whether a text can be a key: its length, its characters and its check sum are right. What was cut off
/// or misspelt need not be looked for.
pub(crate) fn is_well_formed(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() != LENGTH || !text.starts_with(MARK) || bytes[PREFIX] != b'_' {
        return false;
    }
    let random = bytes[MARK.len()..PREFIX].iter().chain(&bytes[PREFIX + 1..]);
    if !random.into_iter().all(u8::is_ascii_alphanumeric) {
        return false;
    }
    let (before, sum) = bytes.split_at(LENGTH - SUM);
    digits::<SUM>(&mut crc32fast::hash(before).to_be_bytes()) == sum
}

/// What is stored of a key.
pub(super) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn push_digits<const N: usize>(text: &mut String, number: &mut [u8]) {
    let digits = Zeroizing::new(digits::<N>(number));
    text.extend(digits.iter().map(|it| char::from(*it)));
}

/// The last digits of a number to the base 62. `number` has its bytes, the most significant first, and is
/// zero afterwards if there are enough digits.
fn digits<const N: usize>(number: &mut [u8]) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        let mut rest: u16 = 0;
        for byte in number.iter_mut() {
            let all = rest << 8 | u16::from(*byte);
            // The remainder before was below 62, so this is below 256.
            *byte = u8::try_from(all / 62).unwrap_or(u8::MAX);
            rest = all % 62;
        }
        *digit = ALPHABET[usize::from(rest)];
    }
    digits
}

/// A key, without what only its owner has.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Key {
    /// Its id.
    #[schema(value_type = String, example = "01M7W2GJGNPH03KT3S3W4GRB46")]
    pub id: KeyId,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Time,
    /// What it is called.
    #[schema(example = "nightly forecasts")]
    pub name: String,
    /// What it begins with.
    #[schema(example = "mk_4kT9aZ0q")]
    pub prefix: String,
    /// Its roles.
    pub roles: Vec<Binding>,
    /// Names of permissions, with `*` for any noun or verb, to which it is limited; empty: all that its
    /// roles give.
    #[schema(value_type = Vec<String>, example = json!(["ml:predict"]))]
    pub scopes: Json<Vec<String>>,
    /// Networks from which it may be used; empty: any.
    #[schema(value_type = Vec<String>, example = json!(["10.0.0.0/8"]))]
    pub addresses: Json<Vec<String>>,
    /// How often it may be used in a minute, on each node; any number unless given.
    pub per_minute: Option<i64>,
    /// Who made it.
    #[schema(example = "user:01M7W2GK1CC2HZY9FECP19MYJJ")]
    pub created_by: String,
    /// When it ends, if it does.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Time>,
    /// When it was revoked, if it was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Time>,
    /// When it was last used, to the minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Time>,
    /// The user who made it, by itself or by another of its keys.
    #[serde(skip)]
    pub maker_id: Option<Ulid>,
    /// When another took its place, if one did.
    #[serde(skip)]
    pub rotated_at: Option<Time>,
    /// How often it was changed.
    #[serde(skip)]
    pub revision: i64,
}

impl Key {
    /// The columns of a row, in the order that `FromRow` reads. Roles are in another table.
    pub const COLUMNS: &'static str = "id, created_at, updated_at, name, prefix, scopes, addresses, \
        per_minute, created_by, expires_at, revoked_at, last_used_at, maker_id, rotated_at, revision";

    /// Its entity tag.
    pub fn etag(&self) -> String {
        format!("\"{}-{}\"", self.id, self.revision)
    }

    /// Whether nobody can use it any more.
    pub fn has_ended(&self, now: Time) -> bool {
        self.revoked_at.is_some() || self.expires_at.is_some_and(|it| it <= now)
    }
}

impl FromRow for Key {
    fn from_row(mut row: Row) -> db::Result<Self> {
        Ok(Self {
            id: row.take("id")?,
            created_at: row.take("created_at")?,
            updated_at: row.take("updated_at")?,
            name: row.take("name")?,
            prefix: row.take("prefix")?,
            roles: Vec::new(),
            scopes: row.take("scopes")?,
            addresses: row.take("addresses")?,
            per_minute: row.take("per_minute")?,
            created_by: row.take("created_by")?,
            expires_at: row.take("expires_at")?,
            revoked_at: row.take("revoked_at")?,
            last_used_at: row.take("last_used_at")?,
            maker_id: row.take("maker_id")?,
            rotated_at: row.take("rotated_at")?,
            revision: row.take("revision")?,
        })
    }
}

/// A key to be made.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// What it is called.
    pub name: String,
    /// Its roles.
    pub roles: Vec<Binding>,
    /// Patterns of permissions to which it is limited; empty: all that its roles give.
    pub scopes: Vec<String>,
    /// Networks from which it may be used; empty: any.
    pub addresses: Vec<IpNet>,
    /// How often it may be used in a minute.
    pub per_minute: Option<i64>,
    /// When it ends.
    pub expires_at: Option<Time>,
}

impl NewKey {
    /// Reads a request's body.
    pub fn read(node: &Node<'_>, now: Time) -> Option<Self> {
        let object = node.object()?;
        let name = object.required("name").and_then(|it| read_name(&it));
        let roles = read_or(&object, "roles", Binding::read_all);
        let scopes = read_or(&object, "scopes", read_patterns);
        let addresses = read_or(&object, "addresses", read_addresses);
        let per_minute = read_or(&object, "per_minute", |it| read_rate(it).map(Some));
        let expires_at = read_or(&object, "expires_at", |it| read_end(it, now).map(Some));
        Some(Self {
            name: name?,
            roles: roles?,
            scopes: scopes?,
            addresses: addresses?,
            per_minute: per_minute?,
            expires_at: expires_at?,
        })
    }
}

/// What is to change of a key.
#[derive(Clone, Debug, Default)]
pub struct KeyPatch {
    /// What it is called; as before unless given.
    pub name: Option<String>,
    /// Patterns of permissions to which it is limited; none: all that its roles give.
    pub scopes: Change<Vec<String>>,
    /// Networks from which it may be used; none: any.
    pub addresses: Change<Vec<IpNet>>,
    /// How often it may be used in a minute; none: any number.
    pub per_minute: Change<i64>,
    /// When it ends; none: never.
    pub expires_at: Change<Time>,
}

/// A change of what may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays.
    #[default]
    Keep,
    /// It is this from now on, or absent.
    Set(Option<T>),
}

impl<T> Change<T> {
    /// What it is after the change.
    pub fn of(self, old: Option<T>) -> Option<T> {
        match self {
            Change::Keep => old,
            Change::Set(new) => new,
        }
    }
}

impl KeyPatch {
    /// Reads a request's body, where null takes a setting away.
    pub fn read(node: &Node<'_>, now: Time) -> Option<Self> {
        let object = node.object()?;
        let name = read_or(&object, "name", |it| read_name(it).map(Some));
        let scopes = read_change(&object, "scopes", read_patterns);
        let addresses = read_change(&object, "addresses", read_addresses);
        let per_minute = read_change(&object, "per_minute", read_rate);
        let expires_at = read_change(&object, "expires_at", |it| read_end(it, now));
        Some(Self {
            name: name?,
            scopes: scopes?,
            addresses: addresses?,
            per_minute: per_minute?,
            expires_at: expires_at?,
        })
    }
}

/// A field, or what it is by default when it is absent or null.
fn read_or<T: Default>(
    object: &Object<'_>,
    name: &str,
    read: impl FnOnce(&Node<'_>) -> Option<T>,
) -> Option<T> {
    object.optional(name).map_or_else(|| Some(T::default()), |it| read(&it))
}

fn read_change<T>(
    object: &Object<'_>,
    name: &str,
    read: impl FnOnce(&Node<'_>) -> Option<T>,
) -> Option<Change<T>> {
    match object.get(name) {
        None => Some(Change::Keep),
        Some(it) if it.is_null() => Some(Change::Set(None)),
        Some(it) => read(&it).map(|it| Change::Set(Some(it))),
    }
}

fn read_name(node: &Node<'_>) -> Option<String> {
    let name = node.str()?.trim();
    let length = name.chars().count();
    // PostgreSQL's text holds no zero characters, and a log no line breaks.
    if length == 0 || length > LONGEST_NAME || name.chars().any(char::is_control) {
        node.fail_rule(format!("A name is one line of 1 to {LONGEST_NAME} characters"));
        return None;
    }
    Some(name.to_owned())
}

fn read_rate(node: &Node<'_>) -> Option<i64> {
    node.int_within(&Bounds::none().at_least(1).at_most(MOST_PER_MINUTE))
}

fn read_end(node: &Node<'_>, now: Time) -> Option<Time> {
    let text = node.str()?;
    let end = text.parse().ok().filter(|it: &Time| *it > now);
    if end.is_none() {
        let shown = shorten(text);
        node.fail_rule(format!("`{shown}` is no time to come, such as 2030-01-01T00:00:00Z"));
    }
    end
}

fn read_addresses(node: &Node<'_>) -> Option<Vec<IpNet>> {
    let items = node.list()?;
    if items.len() > MOST_ADDRESSES {
        node.fail_rule(format!("There are at most {MOST_ADDRESSES} networks"));
        return None;
    }
    // All are read before any is missed, so that each violation is told.
    let networks: Vec<Option<IpNet>> = items.iter().map(read_address).collect();
    networks.into_iter().collect()
}

fn read_address(node: &Node<'_>) -> Option<IpNet> {
    let text = node.str()?;
    let network = text.parse::<IpNet>().ok().map(|it| it.trunc());
    let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    if network.is_none() {
        let shown = shorten(text);
        node.fail_rule(format!("`{shown}` is no network, such as 10.0.0.0/8 or 2001:db8::/32"));
    }
    network
}

/// Reads for how many seconds an old key goes on.
pub(super) fn read_overlap(node: &Node<'_>) -> Option<u64> {
    let bounds = Bounds::none().at_least(0).at_most(LONGEST_OVERLAP);
    let read = |it: &Node<'_>| it.int_within(&bounds).and_then(|it| u64::try_from(it).ok());
    let object = node.object()?;
    object.optional("overlap_seconds").map_or(Some(OVERLAP), |it| read(&it))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random() -> impl Strategy<Value = [u8; RANDOM]> {
        proptest::collection::vec(any::<u8>(), RANDOM).prop_map(|it| it.try_into().unwrap())
    }

    #[test]
    fn a_key_has_its_form() {
        let key = KeyText::of(&[0xff; RANDOM]);
        let text = key.text();
        assert_eq!(text.len(), 61);
        assert!(text.starts_with(key.prefix()) && key.prefix().len() == 11);
        assert_eq!(text.as_bytes()[11], b'_');
        let nothing = KeyText::of(&[0; RANDOM]);
        assert_eq!(&nothing.text()[..55], format!("mk_00000000_{}", "0".repeat(43)));
        assert_eq!(format!("{key:?}"), "KeyText");
    }

    #[test]
    fn digits_are_those_of_the_number() {
        assert_eq!(&digits::<3>(&mut [1, 0]), b"048");
        assert_eq!(&digits::<2>(&mut [61]), b"0z");
        // All 256 bits are in the 43 digits.
        let mut most = [0xff; 32];
        let _digits: [u8; SECRET] = digits(&mut most);
        assert_eq!(most, [0; 32]);
    }

    proptest! {
        #[test]
        fn every_key_is_well_formed_and_no_other(one in random(), other in random()) {
            let (key, another) = (KeyText::of(&one), KeyText::of(&other));
            prop_assert!(is_well_formed(key.text()));
            prop_assert_eq!(key.hash(), hash(key.text()));
            prop_assert_eq!(one == other, key.text() == another.text());
        }

        #[test]
        fn a_misspelt_key_is_not_well_formed(
            random in random(), at in 0..LENGTH, by in "[ -~]", cut in 0..LENGTH,
        ) {
            let text = KeyText::of(&random).text().to_owned();
            prop_assert!(!is_well_formed(&text[..cut]));
            prop_assert!(!is_well_formed(&text[cut + 1..]));
            let longer = format!("{text}{by}");
            prop_assert!(!is_well_formed(&longer));
            let mut misspelt = text.clone();
            misspelt.replace_range(at..=at, &by);
            prop_assert_eq!(is_well_formed(&misspelt), misspelt == text);
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _answer = is_well_formed(&text);
        }
    }
}
