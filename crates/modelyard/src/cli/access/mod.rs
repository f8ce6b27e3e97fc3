//! `modelyard admin`, `user`, `key` and `role`: who may come in, for whoever has the database.
//!
//! These commands call the handles that HTTP calls, and read what they are given by the same rules.

#![expect(
    clippy::future_not_send,
    reason = "a command is done by the thread that was asked for it"
)]

mod admin;
mod key;
mod refusal;
mod role;
mod user;

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use modelyard::access::Deployment;
use modelyard::settings::Settings;
use modelyard::settings::flags::Overrides;
use modelyard_access::role::{Binding, EVERYWHERE};
use modelyard_access::user::{Email, UserId, http::FIELDS};
use modelyard_kernel::form::{Node, Report};
use modelyard_kernel::list::ListQuery;
use modelyard_kernel::{Failure, Time, Ulid};
use serde::Serialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::Done;
use super::db::must_exist;
use refusal::Refusal;

pub(super) use admin::Admin;
pub(super) use key::Key;
pub(super) use role::Role;
pub(super) use user::User;

type Outcome<T> = Result<T, Refusal>;

/// Whose deployment.
#[derive(Debug, Args)]
struct Of {
    /// The directory that is served; the current one unless given.
    dir: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

impl Of {
    fn settings(&self) -> Result<Settings, Box<dyn Error>> {
        Ok(Settings::load(&self.overrides.clone().options(self.dir.as_deref()))?)
    }

    /// Opens a deployment that is there, does something with it, and closes it.
    async fn with(&self, work: impl AsyncFnOnce(&Deployment) -> Outcome<()>) -> Done {
        let settings = self.settings()?;
        must_exist(&settings, &settings.data.dir)?;
        with(&settings, work).await
    }
}

/// Opens a deployment, which may begin hereby, does something with it, and closes it.
async fn with(settings: &Settings, work: impl AsyncFnOnce(&Deployment) -> Outcome<()>) -> Done {
    let deployment = Deployment::open(settings).await?;
    let done = work(&deployment).await;
    deployment.close().await;
    Ok(done?)
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, Args)]
struct Shown {
    /// Print JSON, as the service answers it.
    #[arg(long)]
    json: bool,
}

impl Shown {
    fn print(self, it: &impl Serialize, text: impl FnOnce()) -> Outcome<()> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(it).map_err(Failure::internal)?);
        } else {
            text();
        }
        Ok(())
    }
}

/// Reads what a command was given as the service reads a request's body.
fn read<T>(body: &Value, read: impl FnOnce(Node<'_>) -> Option<T>) -> Outcome<T> {
    let report = Report::new();
    let read = read(Node::body(body, &report));
    report.finish().map_err(Failure::violations)?;
    Ok(read.ok_or_else(|| Failure::internal("arguments were refused without a violation"))?)
}

/// These roles, in one service or everywhere.
fn bindings(roles: &[String], service: Option<&str>) -> Outcome<Vec<Binding>> {
    let applies_to = service.unwrap_or(EVERYWHERE);
    let roles = roles.iter().map(|role| json!({"role": role, "applies_to": applies_to}));
    read(&roles.collect(), |node| Binding::read_all(&node))
}

/// The same of one.
fn binding(role: &str, service: Option<&str>) -> Outcome<Binding> {
    let only = bindings(&[role.to_owned()], service)?.pop();
    Ok(only.ok_or_else(|| Failure::internal("one role was read as none"))?)
}

/// The user that an address or an id names.
async fn find_user(deployment: &Deployment, text: &str) -> Outcome<UserId> {
    let (users, caller) = (deployment.access.users(), deployment.caller());
    if text.contains('@') {
        let email = Email::read(text).ok_or_else(|| Refusal::NoAddress(text.to_owned()))?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        let query = query.append_pair("email", email.as_str()).finish();
        let found = users.list(&caller, &ListQuery::read(Some(&query), &FIELDS, &[])?).await?;
        let user = found.into_items().into_iter().next();
        return user.map(|it| it.id).ok_or(Refusal::AddressMissing(email));
    }
    let id = Ulid::read(text).ok_or_else(|| Refusal::NeitherAddressNorId(text.to_owned()))?;
    Ok(users.get(&caller, UserId(id)).await?.id)
}

/// The user or the key that an address or an id names.
async fn find_subject(deployment: &Deployment, text: &str) -> Outcome<Ulid> {
    match find_user(deployment, text).await {
        Ok(user) => Ok(user.0),
        Err(Refusal::Failed(failure)) if failure.code() == "user_missing" => {
            let id = Ulid::read(text).ok_or_else(|| Failure::invalid_ulid(text))?;
            match deployment.access.keys().get(&deployment.caller(), id.into()).await {
                Ok(key) => Ok(key.id.0),
                Err(failure) if failure.code() == "key_missing" => Err(Refusal::SubjectMissing(id)),
                Err(failure) => Err(failure.into()),
            }
        }
        Err(refusal) => Err(refusal),
    }
}

/// A time to the second, or nothing.
fn moment(at: Option<Time>) -> String {
    at.map_or_else(|| "-".to_owned(), |it| it.to_string().chars().take(19).collect())
}
