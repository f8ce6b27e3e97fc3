//! `/api/v1/audit`. Takes requests apart, calls [`Audit`], puts answers together.

use std::collections::VecDeque;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use modelyard_kernel::form::Query;
use modelyard_kernel::list::{Direction, Field, FieldKind, Fields, ListQuery};
use modelyard_kernel::reply::{self, Conditions};
use modelyard_kernel::{Caller, Failure, Result, Scope, Time};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::export::{self, Shown};
use super::model::{self, HASH, NOTHING, hex};
use super::{Audit, PAGE, READ, store};

/// What lists of entries may be asked.
pub static FIELDS: Fields = Fields {
    table: "audit_entries",
    fields: &[
        Field::new("seq", FieldKind::Int),
        Field::new("at", FieldKind::Time),
        Field::new("service", FieldKind::Text),
        Field::new("actor", FieldKind::Text),
        Field::unsortable("address", FieldKind::Text),
        Field::unsortable("request", FieldKind::Text),
        Field::new("action", FieldKind::Text),
        Field::new("subject", FieldKind::Text),
        Field::new("outcome", FieldKind::OneOf(&["done", "denied"])),
    ],
    keys: &[
        "seq", "id", "at", "service", "actor", "address", "request", "action", "subject",
        "outcome", "before", "after", "hash",
    ],
    search: &["action", "subject"],
    default_sort: ("seq", Direction::Desc),
};

/// Entries of a page unless the request says how many.
const LIMIT: &str = "limit=100";

/// What came of looking at the whole chain.
#[derive(Debug, Serialize, ToSchema)]
pub struct Verification {
    /// Whether nothing was changed, removed or put in between.
    pub ok: bool,
    /// How many entries were looked at, when nothing is wrong.
    pub entries: Option<i64>,
    /// The last of them.
    pub last: Option<i64>,
    /// Its hash.
    pub hash: Option<String>,
    /// Until where a signature vouches for them.
    pub signed_to: Option<i64>,
    /// The first entry that is wrong.
    pub wrong_at: Option<i64>,
    /// What is wrong with it.
    #[schema(value_type = Option<String>)]
    pub why: Option<&'static str>,
}

impl From<Result<model::Sound, model::Wrong>> for Verification {
    fn from(it: Result<model::Sound, model::Wrong>) -> Self {
        let none = Self {
            ok: false,
            entries: None,
            last: None,
            hash: None,
            signed_to: None,
            wrong_at: None,
            why: None,
        };
        match it {
            Ok(sound) => Self {
                ok: true,
                entries: Some(sound.entries),
                last: Some(sound.last),
                hash: Some(hex(&sound.hash)),
                signed_to: Some(sound.signed_to),
                ..none
            },
            Err(wrong) => Self { wrong_at: Some(wrong.seq), why: Some(wrong.why), ..none },
        }
    }
}

pub(super) fn routes(audit: Audit) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_audit_entries))
        .routes(routes!(get_audit_entry))
        .routes(routes!(export_audit))
        .routes(routes!(verify_audit))
        .with_state(audit)
}

/// List entries of the audit
///
/// The newest first, a hundred at a time unless another number is asked for. Everything that was answered before
/// is in it.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit",
    responses((status = 200, body = Vec<Shown>)))]
async fn list_audit_entries(
    State(audit): State<Audit>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let query = ListQuery::read(Some(&paged(raw.as_deref())), &FIELDS, &[])?;
    let listed = audit.list(&caller, &query).await?.map(Shown::from);
    Ok(reply::json_bytes(&Conditions::of(&headers), listed.to_json(&query)?))
}

/// A query that asks for a page: the whole may be any size.
fn paged(raw: Option<&str>) -> String {
    let asked = Query::parse(raw);
    let has_page = ["page", "size", "limit", "cursor"].iter().any(|it| asked.get(it).is_some());
    match raw.filter(|it| !it.is_empty()) {
        Some(raw) if has_page => raw.to_owned(),
        Some(raw) => format!("{raw}&{LIMIT}"),
        None => LIMIT.to_owned(),
    }
}

/// Get an entry of the audit
#[utoipa::path(get, path = "/api/v1/audit/{seq}", tag = "audit",
    params(("seq" = i64, Path)), responses((status = 200, body = Shown)))]
async fn get_audit_entry(
    State(audit): State<Audit>,
    caller: Caller,
    Path(seq): Path<String>,
) -> Result<axum::Json<Shown>> {
    caller.permit_in_deployment(READ)?;
    // One form only, so that an entry has one address.
    let number = seq.parse().ok().filter(|it: &i64| it.to_string() == seq);
    let seq = number.ok_or_else(|| {
        Failure::bad_request("seq_invalid", "an entry of the audit has a whole number")
    })?;
    Ok(axum::Json(audit.get(&caller, seq).await?.into()))
}

/// Look whether the audit is whole
///
/// Reads all of it: every hash and every signature. What is wrong is the first entry that was changed, removed or put
/// in between.
#[utoipa::path(get, path = "/api/v1/audit/$verify", tag = "audit",
    responses((status = 200, body = Verification)))]
async fn verify_audit(
    State(audit): State<Audit>,
    caller: Caller,
) -> Result<axum::Json<Verification>> {
    Ok(axum::Json(audit.verify(&caller).await?.into()))
}

/// Export the audit
///
/// Lines of JSON (NDJSON), which `modelyard audit verify --file` checks without a server.
#[utoipa::path(get, path = "/api/v1/audit/$export", tag = "audit",
    params(
        ("from" = inline(Option<String>), Query, description = "Entries that are not older than this time"),
        ("to" = inline(Option<String>), Query, description = "Entries that are older than this time")),
    responses((status = 200, body = String, content_type = "application/x-ndjson")))]
async fn export_audit(
    State(audit): State<Audit>,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Result<Response> {
    caller.permit_in_deployment(READ)?;
    let query = Query::parse(raw.as_deref());
    let time = |key: &str| match query.get(key) {
        Some(text) => text
            .parse::<Time>()
            .map(Some)
            .map_err(|it| Failure::bad_request("time_invalid", format!("`{key}`: {it}"))),
        None => Ok(None),
    };
    let (from, to) = (time("from")?, time("to")?);
    let lines = audit.export(&caller, from, to).await?;
    let lines = stream::try_unfold(lines, |mut lines| async move {
        Ok::<_, Failure>(lines.next().await?.map(|text| (text, lines)))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// The lines of an export, some at a time.
#[derive(Debug)]
pub struct Lines {
    audit: Audit,
    scope: Scope,
    ready: VecDeque<Bytes>,
    after: i64,
    /// The last entry that is wanted.
    until: i64,
    ended: bool,
}

impl Audit {
    /// The lines of an export, of entries between two times.
    ///
    /// # Errors
    /// `permission_denied`; when the database refuses.
    pub async fn export(
        &self,
        caller: &Caller,
        from: Option<Time>,
        to: Option<Time>,
    ) -> Result<Lines> {
        let scope = caller.permit_in_deployment(READ)?.clone();
        self.seal(&scope).await?;
        self.sign(&scope).await?;
        let keys = self.0.signer.keys().await?;
        let mut conn = self.0.db.conn().await?;
        let (last, _) = store::tail(&mut conn, &scope).await?;
        let anchor = store::anchor(&mut conn, &scope).await?;
        drop(conn);
        let begins = anchor.as_ref().map_or(0, |it| it.seq);
        let seq = |first: Option<i64>| first.map_or(last, |it| it - 1);
        let after = match from {
            Some(from) => seq(self.since(&scope, from).await?).max(begins),
            None => begins,
        };
        let until = match to {
            Some(to) => seq(self.since(&scope, to).await?),
            None => last,
        };
        let anchor = anchor.filter(|_| after == begins);
        let hash: [u8; HASH] = match &anchor {
            _ if after == 0 => NOTHING,
            Some(anchor) => anchor.hash.clone().try_into().unwrap_or(NOTHING),
            None => {
                let before = store::find(&mut self.0.db.conn().await?, &scope, after).await?;
                before.and_then(|it| it.hash.try_into().ok()).unwrap_or(NOTHING)
            }
        };
        let first = export::first_lines(scope.tenant(), after, &hash, anchor.as_ref(), &keys);
        let ready = VecDeque::from([Bytes::from(first)]);
        Ok(Lines { audit: self.clone(), scope, ready, after, until, ended: false })
    }
}

impl Lines {
    /// The next of them, if there are any.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.ready.is_empty() && !self.ended {
            self.read().await?;
        }
        Ok(self.ready.pop_front())
    }

    async fn read(&mut self) -> Result<()> {
        let mut conn = self.audit.0.db.conn().await?;
        let mut entries = store::page(&mut conn, &self.scope, self.after, PAGE).await?;
        entries.retain(|it| it.seq <= self.until);
        let Some(last) = entries.last().map(|it| it.seq) else {
            self.ended = true;
            self.ready.push_back(export::last_line(self.after).into());
            return Ok(());
        };
        let heads = store::heads(&mut conn, &self.scope, self.after, last).await?;
        drop(conn);
        let mut heads = heads.iter().peekable();
        let mut text = Vec::new();
        for entry in entries {
            let seq = entry.seq;
            text.extend(export::entry_line(entry));
            while let Some(head) = heads.next_if(|it| it.seq <= seq) {
                text.extend(export::head_line(head));
            }
        }
        self.after = last;
        self.ready.push_back(text.into());
        Ok(())
    }
}
