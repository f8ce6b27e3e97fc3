//! `modelyard key`: makes keys, looks at them, and ends them.

use std::time::Duration;

use clap::{Args, Subcommand};
use modelyard::access::Deployment;
use modelyard_access::key::http::FIELDS;
use modelyard_access::key::{KeyId, KeyText, NewKey};
use modelyard_access::role::{Binding, EVERYWHERE};
use modelyard_kernel::Failure;
use modelyard_kernel::list::ListQuery;
use modelyard_kernel::reply::Conditions;
use modelyard_ml::project::units;
use serde_json::{Value, json};

use super::{Done, Of, Outcome, Shown, bindings, moment, read, with};
use crate::cli::jobs::printable;

/// How long an old key goes on at most.
const LONGEST_OVERLAP: Duration = Duration::from_secs(31 * 24 * 3600);
/// How long a key lasts at most; one without an end lasts longer.
const LONGEST_LIFE: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

#[derive(Debug, Args)]
pub(in crate::cli) struct Key {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key, and print it this once.
    Create(Create),
    /// Show the keys, without what makes them keys.
    List {
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        of: Of,
    },
    /// Make a new key with the settings and roles of an old one, and print it this once.
    Rotate {
        /// The id of the old one.
        id: String,
        /// How long the old one goes on, such as `1h`; `0` for not at all.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = overlap)]
        overlap: Duration,
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        of: Of,
    },
    /// Let a key in no more.
    Revoke {
        /// Its id.
        id: String,
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// What it is for.
    #[arg(long)]
    name: String,
    /// A role that it has; may be given several times.
    #[arg(long = "role", value_name = "ROLE", required = true)]
    roles: Vec<String>,
    /// The service in which it has these roles; everywhere unless given.
    #[arg(long)]
    service: Option<String>,
    /// A permission to which it is limited, such as `ml:predict`; may be given several times.
    #[arg(long = "scope", value_name = "PERMISSION")]
    scopes: Vec<String>,
    /// An address or a network from which it may be used; may be given several times.
    #[arg(long = "address", value_name = "NETWORK")]
    addresses: Vec<String>,
    /// How often it may be used in a minute.
    #[arg(long, value_name = "REQUESTS", allow_negative_numbers = true)]
    per_minute: Option<i64>,
    /// How long it lasts, such as `90d`; for ever unless given.
    #[arg(long, value_name = "DURATION", value_parser = life)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    of: Of,
}

impl Key {
    pub(in crate::cli) async fn run(self) -> Done {
        match self.verb {
            Verb::Create(it) => it.run().await,
            Verb::List { shown, of } => of.with(async |it| list(it, shown).await).await,
            Verb::Rotate { id, overlap, shown, of } => {
                of.with(async |deployment| rotate(deployment, &id, overlap, shown).await).await
            }
            Verb::Revoke { id, of } => {
                of.with(async |deployment| {
                    let (keys, id) = (deployment.access.keys(), KeyId::read(&id)?);
                    keys.revoke(&deployment.caller(), id, &Conditions::default()).await?;
                    eprintln!("Key {id} is refused from now on.");
                    Ok(())
                })
                .await
            }
        }
    }
}

impl Create {
    async fn run(self) -> Done {
        let Self { name, roles, service, scopes, addresses, per_minute, expires_in, shown, of } =
            self;
        let roles = bindings(&roles, service.as_deref())?;
        with(&of.settings()?, async |deployment| {
            let now = deployment.now();
            let body = json!({
                "name": name,
                "scopes": scopes,
                "addresses": addresses,
                "per_minute": per_minute,
                "expires_at": expires_in.map(|it| now.after(it)),
            });
            let new = NewKey { roles, ..read(&body, |node| NewKey::read(&node, now))? };
            let (key, text) = deployment.access.keys().create(&deployment.caller(), new).await?;
            print(shown, &key, &text)
        })
        .await
    }
}

async fn rotate(deployment: &Deployment, id: &str, overlap: Duration, shown: Shown) -> Outcome<()> {
    let (keys, caller, id) = (deployment.access.keys(), deployment.caller(), KeyId::read(id)?);
    let (key, text) = keys.rotate(&caller, id, overlap, &Conditions::default()).await?;
    let old = keys.get(&caller, id).await?;
    print(shown, &key, &text)?;
    eprintln!("The old one, {id}, ends at {}.", moment(old.expires_at));
    Ok(())
}

/// Shows a key this once: alone on standard output, for whoever keeps it.
fn print(shown: Shown, key: &modelyard_access::key::Key, text: &KeyText) -> Outcome<()> {
    let mut whole = json!({"key": text.text()});
    if let (Some(whole), Value::Object(key)) =
        (whole.as_object_mut(), serde_json::to_value(key).map_err(Failure::internal)?)
    {
        whole.extend(key);
    }
    shown.print(&whole, || println!("{}", text.text()))?;
    eprintln!("This is key {}. It is shown this once.", key.id);
    Ok(())
}

async fn list(deployment: &Deployment, shown: Shown) -> Outcome<()> {
    let all = ListQuery::all(&FIELDS);
    let keys = deployment.access.keys().list(&deployment.caller(), &all).await?.into_items();
    shown.print(&keys, || {
        println!(
            "{:26}  {:11}  {:19}  {:19}  {:20}  NAME",
            "ID", "BEGINS WITH", "LAST USED", "ENDS", "ROLES"
        );
        for it in &keys {
            let roles: Vec<String> = it.roles.iter().map(role).collect();
            let ends =
                if it.revoked_at.is_some() { "revoked".to_owned() } else { moment(it.expires_at) };
            println!(
                "{:26}  {:11}  {:19}  {ends:19}  {:20}  {}",
                it.id.to_string(),
                it.prefix,
                moment(it.last_used_at),
                roles.join(", "),
                printable(&it.name)
            );
        }
    })
}

fn role(binding: &Binding) -> String {
    match binding.applies_to.as_str() {
        EVERYWHERE => binding.role.clone(),
        service => format!("{} in {service}", binding.role),
    }
}

fn overlap(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text, LONGEST_OVERLAP, "31d") }
}

fn life(text: &str) -> Result<Duration, String> {
    duration(text, LONGEST_LIFE, "36600d")
}

fn duration(text: &str, most: Duration, shown: &str) -> Result<Duration, String> {
    let read = units::duration(text).ok_or("it is a duration such as `30m`, `12h` or `90d`")?;
    if read <= most { Ok(read) } else { Err(format!("it is at most `{shown}`")) }
}
