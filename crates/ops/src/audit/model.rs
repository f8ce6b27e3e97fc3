//! What an entry is, how the chain is hashed and signed, and how one finds out that it was changed. No
//! I/O in this file.
//!
//! Everything that is hashed or signed is a row of fields: a byte 1, the length in 8 bytes (big endian) and
//! the bytes of the text; or a byte 0 for what is absent. So no two different rows have one encoding.

use std::collections::BTreeMap;

use modelyard_kernel::event::Told;
use modelyard_kernel::{Time, columns};
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// The length of a hash.
pub const HASH: usize = 32;
/// What stands before the first entry.
pub const NOTHING: [u8; HASH] = [0; HASH];
/// Entries after which there is a signed head at the latest, but for those of one batch.
pub const HEAD_EVERY: i64 = 1000;
/// Entries that are taken into the chain at a time.
pub const BATCH: i64 = 256;

const ENTRY: &str = "modelyard audit entry 1";
const HEAD: &str = "modelyard audit head 1";
const ANCHOR: &str = "modelyard audit anchor 1";

/// An entry of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the chain of its tenant, from 1.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// When it happened.
    pub at: Time,
    /// The service that it is about; `@` is the deployment.
    pub service: String,
    /// Who did it.
    pub actor: String,
    /// From where.
    pub address: Option<String>,
    /// By which request or job.
    pub request: Option<String>,
    /// What was done, such as `config.updated`.
    pub action: String,
    /// To what.
    pub subject: String,
    /// What came of it.
    pub outcome: String,
    /// The subject before, as JSON.
    pub before: Option<String>,
    /// The subject after, as JSON.
    pub after: Option<String>,
    /// Of all this and of the hash of the entry before.
    pub hash: Vec<u8>,
}

columns!(Entry: seq, id, at, service, actor, address, request, action, subject, outcome, before, after,
    hash);

/// What is hashed or signed.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn with(self, text: &str) -> Self {
        self.with_one(Some(text))
    }

    fn with_one(mut self, text: Option<&str>) -> Self {
        match text {
            Some(text) => {
                self.0.push(1);
                self.0.extend((text.len() as u64).to_be_bytes());
                self.0.extend(text.as_bytes());
            }
            None => self.0.push(0),
        }
        self
    }
}

impl Entry {
    /// An event at its place in a chain.
    pub fn new(tenant: &str, told: Told, seq: i64, before: &[u8; HASH]) -> Self {
        let mut entry = Self {
            seq,
            id: told.id.to_string(),
            at: told.at,
            service: told.service_id,
            actor: told.actor,
            address: told.address,
            request: told.request.map(|it| it.to_string()),
            action: told.action,
            subject: told.subject,
            outcome: told.outcome,
            before: told.before,
            after: told.after,
            hash: Vec::new(),
        };
        entry.hash = entry.hashed(tenant, before).to_vec();
        entry
    }

    /// What its hash has to be.
    pub fn hashed(&self, tenant: &str, before: &[u8; HASH]) -> [u8; HASH] {
        let Self { seq, id, at, service, actor, address, request, action, .. } = self;
        let fields = Fields::default()
            .with(ENTRY)
            .with(tenant)
            .with(&seq.to_string())
            .with(id)
            .with(&at.to_string())
            .with(service)
            .with(actor)
            .with_one(address.as_deref())
            .with_one(request.as_deref())
            .with(action)
            .with(&self.subject)
            .with(&self.outcome)
            .with_one(self.before.as_deref())
            .with_one(self.after.as_deref());
        Sha256::new().chain_update(before).chain_update(fields.0).finalize().into()
    }
}

/// What is said with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// That the chain is this far.
    Head,
    /// That the chain begins behind it, since what was before was removed as it may.
    Anchor,
}

/// A place of the chain, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The entry.
    pub seq: i64,
    /// Its hash.
    pub hash: Vec<u8>,
    /// When it was signed.
    pub at: Time,
    /// The key that signed.
    pub kid: String,
    /// The public part of that key.
    pub public_key: Vec<u8>,
    /// Ed25519.
    pub signature: Vec<u8>,
}

columns!(Mark: seq, hash, at, kid, public_key, signature);

/// What is signed of a place.
pub fn signed(kind: Kind, tenant: &str, seq: i64, hash: &[u8], at: Time) -> Vec<u8> {
    let what = match kind {
        Kind::Head => HEAD,
        Kind::Anchor => ANCHOR,
    };
    let fields = Fields::default().with(what).with(tenant).with(&seq.to_string()).with(&hex(hash));
    fields.with(&at.to_string()).0
}

/// Bytes, in lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

/// The bytes of hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// What is wrong with a chain, at the first place where something is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq}: {why}")]
pub struct Wrong {
    /// The entry.
    pub seq: i64,
    /// What is wrong.
    pub why: &'static str,
}

/// A chain in which nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sound {
    /// How many entries were looked at.
    pub entries: i64,
    /// The last of them; 0 when there is none.
    pub last: i64,
    /// Its hash.
    pub hash: [u8; HASH],
    /// Until where a signature vouches for them.
    pub signed_to: i64,
}

/// The public keys that are known, by name.
pub type Keys = BTreeMap<String, Vec<u8>>;

/// Looks at a chain from its beginning to its end.
#[derive(Debug)]
pub struct Verifier {
    tenant: String,
    keys: Keys,
    /// Before the first entry that is looked at.
    begins: i64,
    last: i64,
    hash: [u8; HASH],
    signed_to: i64,
    /// The last head, unless its key is known.
    doubtful: Option<i64>,
}

impl Verifier {
    /// One of a whole chain. `keys` are those that sign now or did until a while ago.
    ///
    /// # Errors
    /// When the beginning is signed by nobody who may.
    pub fn new(tenant: &str, keys: Keys, anchor: Option<&Mark>) -> Result<Self, Wrong> {
        let mut it = Self::after(tenant, keys, 0, NOTHING);
        if let Some(mark) = anchor {
            let why = "the beginning of the chain is not signed by a key that is known";
            let wrong = Wrong { seq: mark.seq, why };
            let known = it.keys.get(&mark.kid).is_some_and(|key| *key == mark.public_key);
            if !known || !is_signed(Kind::Anchor, tenant, mark) {
                return Err(wrong);
            }
            it.hash = mark.hash.as_slice().try_into().map_err(|_| wrong)?;
            (it.begins, it.last, it.signed_to) = (mark.seq, mark.seq, mark.seq);
        }
        Ok(it)
    }

    /// One of a piece of a chain, whose beginning is believed.
    pub fn after(tenant: &str, keys: Keys, seq: i64, hash: [u8; HASH]) -> Self {
        let (tenant, doubtful) = (tenant.to_owned(), None);
        Self { tenant, keys, begins: seq, last: seq, hash, signed_to: seq, doubtful }
    }

    /// The next entry.
    ///
    /// # Errors
    /// When it is not the next, or not as it was.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), Wrong> {
        let due = self.last + 1;
        if entry.seq > due {
            return Err(Wrong { seq: due, why: "the entry is missing" });
        }
        if entry.seq < due {
            return Err(Wrong { seq: entry.seq, why: "the entry was inserted" });
        }
        let hash = entry.hashed(&self.tenant, &self.hash);
        if entry.hash != hash {
            return Err(Wrong { seq: due, why: "the entry is not what its hash says" });
        }
        (self.last, self.hash) = (due, hash);
        if self.last - self.signed_to > HEAD_EVERY + 2 * BATCH {
            return Err(Wrong { seq: due, why: "nobody has signed the chain for too long" });
        }
        Ok(())
    }

    /// The head at the last entry, or at one that is missing.
    ///
    /// # Errors
    /// When it does not vouch for what is there.
    pub fn head(&mut self, mark: &Mark) -> Result<(), Wrong> {
        let seq = mark.seq;
        if seq > self.last {
            return Err(Wrong { seq: self.last + 1, why: "the entry is missing at the end" });
        }
        if seq < self.last || mark.hash != self.hash {
            return Err(Wrong { seq, why: "the entry is not the one that was signed" });
        }
        if !is_signed(Kind::Head, &self.tenant, mark) {
            return Err(Wrong { seq, why: "the signature of the head is wrong" });
        }
        match self.keys.get(&mark.kid) {
            Some(key) if *key == mark.public_key => self.doubtful = None,
            Some(_) => return Err(Wrong { seq, why: "the key of the head is another one" }),
            // Of an earlier key only the next head tells that it was one.
            None => self.doubtful = Some(seq),
        }
        self.signed_to = seq;
        Ok(())
    }

    /// The last entry that was looked at.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// There is no more.
    ///
    /// # Errors
    /// When the last head is signed by nobody who may.
    pub fn finish(self) -> Result<Sound, Wrong> {
        if let Some(seq) = self.doubtful {
            return Err(Wrong { seq, why: "the last head is not signed by a key that is known" });
        }
        let Self { begins, last, hash, signed_to, .. } = self;
        Ok(Sound { entries: last - begins, last, hash, signed_to })
    }
}

/// Whether a place is signed by the key that it names.
fn is_signed(kind: Kind, tenant: &str, mark: &Mark) -> bool {
    let text = signed(kind, tenant, mark.seq, &mark.hash, mark.at);
    UnparsedPublicKey::new(&ED25519, &mark.public_key).verify(&text, &mark.signature).is_ok()
}
