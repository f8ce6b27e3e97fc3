//! The audit as a file: a line of JSON for each entry and each head, in their order, which anybody can check who
//! has the public keys. No I/O in this file.
//!
//! ```text
//! {"type":"audit","version":1,"tenant":"default","after":0,"hash":"00…","anchor":null}
//! {"type":"key","kid":"01…","public_key":"…"}
//! {"type":"entry","seq":1,…,"hash":"…"}
//! {"type":"head","seq":1,…,"signature":"…"}
//! {"type":"end","last":1}
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use modelyard_kernel::Time;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::model::{Entry, Keys, Mark, Sound, Verifier, Wrong, hex, unhex};

/// An entry as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct Shown {
    /// Its place in the chain, from 1.
    #[schema(example = 42)]
    pub seq: i64,
    /// Its id.
    #[schema(example = "01M7W2GJGNPH03KT3S3W4GRB46")]
    pub id: String,
    /// When it happened.
    #[schema(format = DateTime, example = "2026-11-20T08:52:32.940128Z")]
    pub at: String,
    /// The service that it is about; `@` is the deployment.
    #[schema(example = "dengue")]
    pub service: String,
    /// Who did it: a user or a key by its id, or a part of the service itself.
    #[schema(example = "user:01M7W2GJGNPH03KT3S3W4GRB46")]
    pub actor: String,
    /// From where.
    pub address: Option<String>,
    /// By which request, or by which job.
    pub request: Option<String>,
    /// What was done.
    #[schema(example = "config.updated")]
    pub action: String,
    /// To what.
    #[schema(example = "01M7W2GJGNPH03KT3S3W4GRB46")]
    pub subject: String,
    /// What came of it: `done` or `denied`.
    #[schema(example = "done")]
    pub outcome: String,
    /// What it was before; secrets and what is personal are left out.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Box<RawValue>>,
    /// What it is now.
    #[schema(value_type = Option<Object>)]
    pub after: Option<Box<RawValue>>,
    /// SHA-256 of all this and of the hash of the entry before.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: String,
}

impl From<Entry> for Shown {
    fn from(entry: Entry) -> Self {
        let Entry { seq, id, at, service, actor, address, request, action, .. } = entry;
        let Entry { subject, outcome, before, after, hash, .. } = entry;
        let (at, hash) = (at.to_string(), hex(&hash));
        let (before, after) = (before.map(raw), after.map(raw));
        Self {
            seq,
            id,
            at,
            service,
            actor,
            address,
            request,
            action,
            subject,
            outcome,
            before,
            after,
            hash,
        }
    }
}

/// The text as it is, or as a text when somebody has made something else of it.
fn raw(text: String) -> Box<RawValue> {
    let quoted = serde_json::Value::String(text.clone()).to_string();
    let is_line = !text.contains(['\n', '\r']);
    let whole =
        if is_line { RawValue::from_string(text) } else { RawValue::from_string(quoted.clone()) };
    whole.or_else(|_| RawValue::from_string(quoted)).unwrap_or_default()
}

impl Shown {
    /// The entry, unless something in it is none.
    fn entry(self) -> Option<Entry> {
        let Self { seq, id, at, service, actor, address, request, action, .. } = self;
        let Self { subject, outcome, before, after, hash, .. } = self;
        let text = |it: Box<RawValue>| it.get().to_owned();
        let read: Time = at.parse().ok()?;
        // Another way to write the same time would be another text.
        (read.to_string() == at).then_some(())?;
        Some(Entry {
            seq,
            id,
            at: read,
            service,
            actor,
            address,
            request,
            action,
            subject,
            outcome,
            before: before.map(text),
            after: after.map(text),
            hash: unhex(&hash)?,
        })
    }
}

/// A head or an anchor as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ShownMark {
    seq: i64,
    hash: String,
    at: String,
    kid: String,
    public_key: String,
    signature: String,
}

impl From<&Mark> for ShownMark {
    fn from(mark: &Mark) -> Self {
        Self {
            seq: mark.seq,
            hash: hex(&mark.hash),
            at: mark.at.to_string(),
            kid: mark.kid.clone(),
            public_key: URL_SAFE_NO_PAD.encode(&mark.public_key),
            signature: URL_SAFE_NO_PAD.encode(&mark.signature),
        }
    }
}

impl ShownMark {
    fn mark(self) -> Option<Mark> {
        Some(Mark {
            seq: self.seq,
            hash: unhex(&self.hash)?,
            at: self.at.parse().ok()?,
            kid: self.kid,
            public_key: URL_SAFE_NO_PAD.decode(self.public_key).ok()?,
            signature: URL_SAFE_NO_PAD.decode(self.signature).ok()?,
        })
    }
}

/// What the first line says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Begin {
    version: u32,
    tenant: String,
    /// The entry behind which it begins.
    after: i64,
    /// The hash of that.
    hash: String,
    /// Who vouches for that beginning, if it is the one of the chain and not the first.
    anchor: Option<ShownMark>,
}

const TYPES: [&str; 5] = ["audit", "key", "entry", "head", "end"];
const VERSION: u32 = 1;

fn line(kind: &str, it: &impl Serialize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a, T> {
        r#type: &'a str,
        #[serde(flatten)]
        it: &'a T,
    }
    let mut text = serde_json::to_vec(&Line { r#type: kind, it }).unwrap_or_default();
    text.push(b'\n');
    text
}

/// The first lines of a file that begins behind an entry.
pub(super) fn first_lines(
    tenant: &str,
    after: i64,
    hash: &[u8],
    anchor: Option<&Mark>,
    keys: &Keys,
) -> Vec<u8> {
    let (tenant, hash, anchor) = (tenant.to_owned(), hex(hash), anchor.map(ShownMark::from));
    let mut text = line("audit", &Begin { version: VERSION, tenant, after, hash, anchor });
    for (kid, key) in keys {
        let public_key = URL_SAFE_NO_PAD.encode(key);
        text.extend(line("key", &serde_json::json!({ "kid": kid, "public_key": public_key })));
    }
    text
}

/// The line of an entry. Written by hand, since its JSON must stay as it is, byte for byte.
pub(super) fn entry_line(entry: Entry) -> Vec<u8> {
    let shown = serde_json::to_string(&Shown::from(entry)).unwrap_or_default();
    let rest = shown.strip_prefix('{').unwrap_or_default();
    format!("{{\"type\":\"entry\",{rest}\n").into_bytes()
}

/// The line of a head.
pub(super) fn head_line(mark: &Mark) -> Vec<u8> {
    line("head", &ShownMark::from(mark))
}

/// The last line.
pub(super) fn last_line(last: i64) -> Vec<u8> {
    line("end", &serde_json::json!({ "last": last }))
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A line that is none of an export.
    #[error("line {0} is no line of an audit")]
    Line(u64),
    /// The first line is missing, or of a version that nobody knows here.
    #[error("the file does not begin as an audit does that this program can read")]
    Begin,
    /// The last line is missing.
    #[error("the file ends too early")]
    End,
    /// The chain is wrong.
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

/// Checks a file line by line.
#[derive(Debug, Default)]
pub struct Check {
    lines: u64,
    begin: Option<Begin>,
    keys: Keys,
    /// Whether only those keys are believed that were there from the beginning.
    given: bool,
    verifier: Option<Verifier>,
    end: Option<i64>,
}

impl Check {
    /// A check that believes these keys, and those of the file when there are none.
    pub fn new(keys: Keys) -> Self {
        Self { given: !keys.is_empty(), keys, ..Self::default() }
    }

    /// The keys of a JSON Web Key Set.
    pub fn keys_of(jwks: &str) -> Option<Keys> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Jwk>,
        }
        #[derive(Deserialize)]
        struct Jwk {
            kid: String,
            x: String,
        }
        let set: Set = serde_json::from_str(jwks).ok()?;
        let key = |it: Jwk| Some((it.kid, URL_SAFE_NO_PAD.decode(it.x).ok()?));
        set.keys.into_iter().map(key).collect()
    }

    /// The next line.
    ///
    /// # Errors
    /// When it is none, or something is wrong with the chain.
    pub fn line(&mut self, text: &str) -> Result<(), FileError> {
        #[derive(Deserialize)]
        struct Kind {
            r#type: String,
        }
        #[derive(Deserialize)]
        struct Key {
            kid: String,
            public_key: String,
        }
        #[derive(Deserialize)]
        struct End {
            last: i64,
        }
        self.lines += 1;
        let number = self.lines;
        let no_line = || FileError::Line(number);
        let kind: Kind = serde_json::from_str(text).map_err(|_| no_line())?;
        if self.end.is_some() {
            return Err(no_line());
        }
        let at = TYPES.iter().position(|it| *it == kind.r#type);
        match at {
            Some(0) if self.begin.is_none() => {
                let begin: Begin = serde_json::from_str(text).map_err(|_| FileError::Begin)?;
                if begin.version != VERSION {
                    return Err(FileError::Begin);
                }
                self.begin = Some(begin);
            }
            Some(1) if self.verifier.is_none() => {
                let key: Key = serde_json::from_str(text).map_err(|_| no_line())?;
                let public = URL_SAFE_NO_PAD.decode(key.public_key).map_err(|_| no_line())?;
                if !self.given {
                    self.keys.insert(key.kid, public);
                }
            }
            Some(2) => {
                let shown: Shown = serde_json::from_str(text).map_err(|_| no_line())?;
                let seq = shown.seq;
                let why = "the entry cannot be read";
                let entry = shown.entry().ok_or(Wrong { seq, why })?;
                self.verifier()?.entry(&entry)?;
            }
            Some(3) => {
                let mark: ShownMark = serde_json::from_str(text).map_err(|_| no_line())?;
                let mark = mark.mark().ok_or_else(no_line)?;
                self.verifier()?.head(&mark)?;
            }
            Some(4) => {
                let end: End = serde_json::from_str(text).map_err(|_| no_line())?;
                let last = self.verifier()?.last();
                if end.last != last {
                    let (seq, why) = (last + 1, "the entry is missing at the end");
                    return Err(Wrong { seq, why }.into());
                }
                self.end = Some(end.last);
            }
            _ => return Err(no_line()),
        }
        Ok(())
    }

    fn verifier(&mut self) -> Result<&mut Verifier, FileError> {
        if self.verifier.is_none() {
            let begin = self.begin.clone().ok_or(FileError::Begin)?;
            let Begin { tenant, after, hash, anchor, .. } = begin;
            let keys = self.keys.clone();
            let verifier = match anchor.map(ShownMark::mark) {
                Some(anchor) => {
                    Verifier::new(&tenant, keys, Some(&anchor.ok_or(FileError::Begin)?))?
                }
                None if after == 0 => Verifier::new(&tenant, keys, None)?,
                None => {
                    let hash = unhex(&hash).and_then(|it| it.try_into().ok());
                    Verifier::after(&tenant, keys, after, hash.ok_or(FileError::Begin)?)
                }
            };
            self.verifier = Some(verifier);
        }
        self.verifier.as_mut().ok_or(FileError::Begin)
    }

    /// There are no more lines.
    ///
    /// # Errors
    /// When some are missing, or something is wrong with the chain.
    pub fn finish(mut self) -> Result<Sound, FileError> {
        self.verifier()?;
        if self.end.is_none() {
            return Err(FileError::End);
        }
        let verifier = self.verifier.take().ok_or(FileError::Begin)?;
        Ok(verifier.finish()?)
    }
}
