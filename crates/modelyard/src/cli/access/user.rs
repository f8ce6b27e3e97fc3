//! `modelyard user`: makes users, looks at them, and lets them in or not.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use modelyard::access::Deployment;
use modelyard_access::password::Password;
use modelyard_access::user::http::FIELDS;
use modelyard_access::user::{NewUser, UserId};
use modelyard_kernel::list::ListQuery;
use modelyard_kernel::reply::Conditions;
use serde_json::json;

use super::admin::password;
use super::refusal::Refusal;
use super::{Done, Of, Outcome, Shown, bindings, find_user, moment, read, with};
use crate::cli::jobs::printable;

#[derive(Debug, Args)]
pub(in crate::cli) struct User {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a user, and print its id.
    Create(Create),
    /// Show the users.
    List {
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        of: Of,
    },
    /// Send an invitation to a user who has not come in yet; an earlier one is useless then.
    Invite(Named),
    /// Let a user in no more, and end its sessions.
    Disable(Named),
    /// Let a user in again, at once: also one who waits after wrong passwords.
    Enable(Named),
    /// Remove a user, with its sessions and roles.
    Delete(Named),
    /// Show where a user is logged in.
    Sessions {
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        named: Named,
    },
    /// End all sessions of a user.
    Logout(Named),
    /// Take the second factor of a user who has lost it.
    ResetFactor(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// Its e-mail address or its id.
    user: String,
    #[command(flatten)]
    of: Of,
}

#[derive(Debug, Args)]
struct Create {
    /// The address to log in with.
    #[arg(long)]
    email: String,
    /// What people call the user.
    #[arg(long)]
    name: String,
    /// A role that it has; may be given several times.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// The service in which it has these roles; everywhere unless given.
    #[arg(long, requires = "roles")]
    service: Option<String>,
    /// A file whose first line is the password; asked for unless given.
    #[arg(long, value_name = "FILE", conflicts_with = "invite")]
    password_file: Option<PathBuf>,
    /// Send an invitation by mail, so that the user chooses the password.
    #[arg(long)]
    invite: bool,
    /// Let it do nothing before it has set up a second factor.
    #[arg(long)]
    factor_required: bool,
    #[command(flatten)]
    of: Of,
}

impl User {
    pub(in crate::cli) async fn run(self) -> Done {
        match self.verb {
            Verb::Create(it) => it.run().await,
            Verb::List { shown, of } => of.with(async |it| list(it, shown).await).await,
            Verb::Invite(it) => it.invite().await,
            Verb::Disable(it) => {
                it.with(async |deployment, id| {
                    let user = deployment.access.users().disable(&deployment.caller(), id).await?;
                    eprintln!("{} is let in no more.", user.email);
                    Ok(())
                })
                .await
            }
            Verb::Enable(it) => {
                it.with(async |deployment, id| {
                    let user = deployment.access.users().enable(&deployment.caller(), id).await?;
                    eprintln!("{} is {}.", user.email, user.status.name());
                    Ok(())
                })
                .await
            }
            Verb::Delete(it) => {
                it.with(async |deployment, id| {
                    let (users, caller) = (deployment.access.users(), deployment.caller());
                    users.delete(&caller, id, &Conditions::default()).await?;
                    eprintln!("User {id} is gone.");
                    Ok(())
                })
                .await
            }
            Verb::Sessions { shown, named } => {
                named.with(async |deployment, id| sessions(deployment, id, shown).await).await
            }
            Verb::Logout(it) => {
                it.with(async |deployment, id| {
                    deployment.access.users().end_sessions(&deployment.caller(), id).await?;
                    eprintln!("User {id} is logged in nowhere.");
                    Ok(())
                })
                .await
            }
            Verb::ResetFactor(it) => {
                it.with(async |deployment, id| {
                    deployment.access.factors().reset(&deployment.caller(), id.0).await?;
                    eprintln!("User {id} logs in without a second factor.");
                    Ok(())
                })
                .await
            }
        }
    }
}

impl Named {
    async fn with(&self, work: impl AsyncFnOnce(&Deployment, UserId) -> Outcome<()>) -> Done {
        self.of
            .with(async |deployment| {
                work(deployment, find_user(deployment, &self.user).await?).await
            })
            .await
    }

    async fn invite(&self) -> Done {
        let settings = self.of.settings()?;
        if settings.mail.host.is_none() {
            return Err(Refusal::NoMail.into());
        }
        self.with(invite).await
    }
}

async fn invite(deployment: &Deployment, id: UserId) -> Outcome<()> {
    let until = deployment.access.links().invite(&deployment.caller(), id.0).await?;
    eprintln!("User {id} is invited until {}. The service sends the mail.", moment(Some(until)));
    Ok(())
}

impl Create {
    async fn run(self) -> Done {
        let Self { email, name, roles, service, password_file, invite: invited, .. } = &self;
        let settings = self.of.settings()?;
        if *invited && settings.mail.host.is_none() {
            return Err(Refusal::NoMail.into());
        }
        let body = json!({"email": email, "name": name, "factor_required": self.factor_required});
        // Whatever can be refused is, before a person is asked for a password.
        let new = read(&body, NewUser::read)?;
        let roles = bindings(roles, service.as_deref())?;
        let password: Option<Password> =
            if *invited { None } else { Some(password(password_file.as_deref())?) };
        with(&settings, async |deployment| {
            let (access, caller) = (&deployment.access, deployment.caller());
            // A user is made before it has roles: one that is not there must not leave it without any.
            for it in &roles {
                access.roles().get(&caller, &it.role).await?;
            }
            let user = access.users().create(&caller, NewUser { password, ..new }).await?;
            access.roles().replace_bindings(&caller, user.id.0, roles).await?;
            println!("{}", user.id);
            if *invited {
                return invite(deployment, user.id).await;
            }
            eprintln!("{} may log in.", user.email);
            Ok(())
        })
        .await
    }
}

async fn list(deployment: &Deployment, shown: Shown) -> Outcome<()> {
    let all = ListQuery::all(&FIELDS);
    let users = deployment.access.users().list(&deployment.caller(), &all).await?.into_items();
    shown.print(&users, || {
        println!("{:26}  {:8}  {:30}  NAME", "ID", "STATUS", "EMAIL");
        for it in &users {
            println!(
                "{:26}  {:8}  {:30}  {}",
                it.id.to_string(),
                it.status.name(),
                it.email.as_str(),
                printable(&it.name)
            );
        }
    })
}

async fn sessions(deployment: &Deployment, id: UserId, shown: Shown) -> Outcome<()> {
    let sessions = deployment.access.sessions().list_of(&deployment.caller(), id).await?;
    shown.print(&sessions, || {
        println!(
            "{:26}  {:6}  {:19}  {:19}  {:15}  BY",
            "ID", "KIND", "BEGAN", "LAST USED", "FROM"
        );
        for it in &sessions {
            println!(
                "{:26}  {:6}  {:19}  {:19}  {:15}  {}",
                it.id.to_string(),
                it.kind.name(),
                moment(Some(it.created_at)),
                moment(Some(it.last_seen_at)),
                printable(&it.address),
                printable(&it.user_agent)
            );
        }
    })
}
