//! Events: what has happened, told in the transaction in which it happened, so that neither is ever without the
//! other. The audit takes them from here.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::db::{self, Conn, Dialect, query, scoped, storable};
use crate::{Clock, Scope, Time, Ulid, columns, failpoint};

/// The most that an event repeats of an entity, in bytes of JSON; of more it has the size and the hash.
pub const MOST: usize = 16 << 10;
/// The longest name of a subject, in bytes: what was refused may be any path.
const MOST_OF_A_NAME: usize = 512;

/// Parts of names of fields whose values nobody may read, whatever entity they are of.
const SECRETS: [&str; 8] = [
    "password",
    "secret",
    "token",
    "credential",
    "api_key",
    "apikey",
    "private_key",
    "authorization",
];

/// What stands for a secret.
const SECRET: &str = "[secret]";
/// What stands for something about a person.
const PERSONAL: &str = "[personal]";
/// The same, where it is another one than before.
const OTHER_PERSONAL: &str = "[personal, changed]";

/// What came of what somebody tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused, and nothing changed.
    Denied,
}

impl Outcome {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Denied => "denied",
        }
    }
}

/// Something that happened, or was tried.
#[derive(Clone, Debug)]
pub struct Event {
    id: Ulid,
    at: Time,
    action: Cow<'static, str>,
    subject: String,
    outcome: Outcome,
    before: Option<Json>,
    after: Option<Json>,
}

impl Event {
    /// `action` says of what kind the subject is and what was done to it, such as `config.updated`;
    /// `subject` is its id.
    pub fn new(
        clock: &Clock,
        action: impl Into<Cow<'static, str>>,
        subject: impl ToString,
    ) -> Self {
        Self {
            id: clock.ulid(),
            at: clock.now(),
            action: action.into(),
            subject: subject.to_string(),
            outcome: Outcome::Done,
            before: None,
            after: None,
        }
    }

    /// It was refused.
    #[must_use]
    pub fn denied(self) -> Self {
        Self { outcome: Outcome::Denied, ..self }
    }

    /// The subject as it was.
    #[must_use]
    pub fn before(self, entity: &impl Serialize) -> Self {
        Self { before: shown(entity), ..self }
    }

    /// The subject as it is now.
    #[must_use]
    pub fn after(self, entity: &impl Serialize) -> Self {
        Self { after: shown(entity), ..self }
    }

    /// Leaves out the values of fields that are about a person: an audit outlives their wish to be
    /// forgotten.
    #[must_use]
    pub fn personal(mut self, fields: &[&str]) -> Self {
        for name in fields {
            let before = self.before.as_mut().and_then(|it| it.get_mut(name));
            let after = self.after.as_mut().and_then(|it| it.get_mut(name));
            let changed = matches!((&before, &after), (Some(one), Some(other)) if one != other);
            if let Some(before) = before {
                *before = PERSONAL.into();
            }
            if let Some(after) = after {
                *after = if changed { OTHER_PERSONAL.into() } else { PERSONAL.into() };
            }
        }
        self
    }
}

/// An entity as an event repeats it.
fn shown(entity: &impl Serialize) -> Option<Json> {
    let mut json = serde_json::to_value(entity).ok()?;
    hide_secrets(&mut json);
    Some(json)
}

/// An entity as it is written: what is large by its size and hash.
fn written(json: Option<Json>) -> Option<String> {
    let text = json.filter(|it| !it.is_null())?.to_string();
    if text.len() <= MOST {
        return Some(text);
    }
    let hash: String =
        Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Some(json!({ "bytes": text.len(), "sha256": hash }).to_string())
}

fn hide_secrets(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            for (name, value) in fields {
                let name = name.to_ascii_lowercase();
                match SECRETS.iter().any(|it| name.contains(it)) && !value.is_null() {
                    true => *value = SECRET.into(),
                    false => hide_secrets(value),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(hide_secrets),
        _ => {}
    }
}

/// Tells an event, in the transaction of what it tells of. Does nothing where nobody keeps events, see
/// [`db::Options`].
///
/// # Errors
/// When the database refuses.
pub async fn emit(conn: &mut Conn, scope: &Scope, event: Event) -> db::Result<()> {
    if !conn.keeps_events() {
        return Ok(());
    }
    let row = Row::new(scope, event);
    failpoint::reach("event.telling");
    let told = scoped(
        scope,
        "INSERT INTO events (tenant_id, service_id, id, at, actor, address, request, action, subject,
             outcome, before, after)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(row.id)
    .bind(row.at)
    .bind(row.actor)
    .bind(row.address)
    .bind(row.request)
    .bind(row.action.into_owned())
    .bind(row.subject)
    .bind(row.outcome)
    .bind(row.before)
    .bind(row.after)
    .execute(conn)
    .await;
    failpoint::reach("event.told");
    told.map(drop)
}

/// Tells several events, each of what belongs to its scope, as [`emit`] does; on PostgreSQL by one statement.
///
/// # Errors
/// When the database refuses.
pub async fn emit_all(conn: &mut Conn, told: Vec<(Scope, Event)>) -> db::Result<()> {
    if !conn.keeps_events() || told.is_empty() {
        return Ok(());
    }
    if conn.dialect() == Dialect::Sqlite {
        for (scope, event) in told {
            emit(conn, &scope, event).await?;
        }
        return Ok(());
    }
    let rows: Vec<Row> = told.into_iter().map(|(scope, event)| Row::new(&scope, event)).collect();
    failpoint::reach("event.telling");
    let told = query(
        "INSERT INTO events (tenant_id, service_id, id, at, actor, address, request, action, subject,
             outcome, before, after)
         SELECT tenant_id, service_id, id, at, actor, address, request, action, subject, outcome, before,
             after
         FROM json_to_recordset($1::JSON) AS e(tenant_id TEXT, service_id TEXT, id TEXT,
             at TIMESTAMPTZ, actor TEXT, address TEXT, request TEXT, action TEXT, subject TEXT,
             outcome TEXT, before TEXT, after TEXT)",
    )
    .bind(db::Json(rows))
    .execute(conn)
    .await;
    failpoint::reach("event.told");
    told.map(drop)
}

/// An event as it is written.
#[derive(Serialize)]
struct Row {
    tenant_id: String,
    service_id: String,
    id: Ulid,
    at: Time,
    actor: String,
    address: Option<String>,
    request: Option<Ulid>,
    action: Cow<'static, str>,
    subject: String,
    outcome: &'static str,
    before: Option<String>,
    after: Option<String>,
}

impl Row {
    fn new(scope: &Scope, event: Event) -> Self {
        let Event { id, at, action, subject, outcome, before, after } = event;
        let actor = scope.actor();
        Self {
            tenant_id: scope.tenant().to_owned(),
            service_id: scope.service().to_owned(),
            id,
            at,
            actor: storable(short(&actor.subject)),
            address: actor.address.map(|it| it.to_string()),
            request: actor.request,
            action,
            subject: storable(short(&subject)),
            outcome: outcome.as_str(),
            before: written(before),
            after: written(after),
        }
    }
}

/// As much of a name as is kept.
fn short(name: &str) -> &str {
    let end = (0..=MOST_OF_A_NAME.min(name.len())).rev().find(|it| name.is_char_boundary(*it));
    &name[..end.unwrap_or(0)]
}

/// An event that was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its id.
    pub id: Ulid,
    /// The service whose rows it is about; `@` is the deployment.
    pub service_id: String,
    /// When.
    pub at: Time,
    /// Who.
    pub actor: String,
    /// From where.
    pub address: Option<String>,
    /// By which request.
    pub request: Option<Ulid>,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// What came of it.
    pub outcome: String,
    /// The subject before, as JSON.
    pub before: Option<String>,
    /// The subject after, as JSON.
    pub after: Option<String>,
}

columns!(Told: id, service_id, at, actor, address, request, action, subject, outcome, before, after);

/// The tenants of whom something was told.
///
/// # Errors
/// When the database refuses.
pub async fn tenants(conn: &mut Conn) -> db::Result<Vec<String>> {
    let found: Vec<(String,)> =
        query("SELECT DISTINCT tenant_id FROM events").fetch_all(conn).await?;
    Ok(found.into_iter().map(|it| it.0).collect())
}

/// Takes up to `most` of what was told of a tenant, the oldest first; for the audit, which keeps them by
/// the same transaction.
///
/// # Errors
/// When the database refuses.
pub async fn take(conn: &mut Conn, tenant: &str, most: i64) -> db::Result<Vec<Told>> {
    let mut taken: Vec<Told> = query(format!(
        "DELETE FROM events WHERE tenant_id = $1
             AND id IN (SELECT id FROM events WHERE tenant_id = $1 ORDER BY id LIMIT $2)
         RETURNING {}",
        Told::COLUMNS
    ))
    .bind(tenant)
    .bind(most)
    .fetch_all(conn)
    .await?;
    taken.sort_by_key(|it| it.id);
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_or_personal_is_not_repeated() {
        let clock = Clock::fixed(Time::from_micros(0));
        let old = json!({"email": "a@example.org", "name": "Ada", "status": "invited",
            "inner": [{"client_secret": {"a": 1}, "API_KEY": "k"}], "password": null});
        let mut new = old.clone();
        new["email"] = "b@example.org".into();
        let event = Event::new(&clock, "user.updated", "1");
        let event = event.before(&old).after(&new).personal(&["email", "name"]);
        let inner = json!([{"client_secret": SECRET, "API_KEY": SECRET}]);
        let shown = |email: &str| json!({"email": email, "name": PERSONAL, "status": "invited", "inner": inner, "password": null});
        assert_eq!(event.before, Some(shown(PERSONAL)));
        assert_eq!(event.after, Some(shown(OTHER_PERSONAL)));
    }

    #[test]
    fn what_is_large_is_told_by_its_size_and_hash() {
        let clock = Clock::fixed(Time::from_micros(0));
        let large = json!({"data": "x".repeat(MOST)});
        let event = Event::new(&clock, "config.created", "1").after(&large);
        let text = written(event.after).unwrap();
        let told: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(told["bytes"], large.to_string().len());
        assert_eq!(told["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(short(&"ä".repeat(MOST_OF_A_NAME)).len(), MOST_OF_A_NAME);
        assert_eq!(short("a"), "a");
    }
}
