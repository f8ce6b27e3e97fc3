//! `modelyard admin`, `user`, `key` and `role`: who may come in, for whoever has the database.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use modelyard::access::Deployment;
use modelyard::settings::Settings;
use modelyard::settings::flags::Overrides;
use modelyard_access::key::{KeyId, NewKey};
use modelyard_access::password::Password;
use modelyard_access::role::Binding;
use modelyard_access::user::UserId;
use modelyard_kernel::Failure;
use modelyard_kernel::list::ListQuery;
use modelyard_kernel::reply::Conditions;

use super::Done;

/// Whose deployment.
#[derive(Debug, Args)]
struct Of {
    /// The directory that is served; the current one unless given.
    dir: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

impl Of {
    async fn open(&self) -> Result<Deployment, Box<dyn std::error::Error>> {
        let settings = Settings::load(&self.overrides.clone().options(self.dir.as_deref()))?;
        Deployment::open(&settings).await
    }
}

#[derive(Debug, Args)]
pub(super) struct Admin {
    #[command(subcommand)]
    verb: AdminVerb,
}

#[derive(Debug, Subcommand)]
enum AdminVerb {
    /// Make the first administrator, while there is no user yet.
    Create {
        /// The address to log in with.
        #[arg(long)]
        email: String,
        /// What people call the administrator.
        #[arg(long, default_value = "Administrator")]
        name: String,
        /// A file whose first line is the password; asked for unless given.
        #[arg(long)]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        of: Of,
    },
}

impl Admin {
    pub(super) async fn run(self) -> Done {
        let AdminVerb::Create { email, name, password_file, of } = self.verb;
        let password = password(password_file.as_deref())?;
        let deployment = of.open().await?;
        let made = deployment.access.users().create_first_admin(&email, &name, password).await;
        deployment.close().await;
        let user = made?;
        println!("{} may log in as system-admin", user.email.as_str());
        Ok(())
    }
}

/// The password: of a file, of a person, or of another program.
fn password(file: Option<&Path>) -> Result<Password, Box<dyn std::error::Error>> {
    let text = match file {
        Some(file) => fs_err::read_to_string(file)?,
        None if std::io::stdin().is_terminal() => {
            let first = rpassword::prompt_password("Password: ")?;
            if rpassword::prompt_password("Once more: ")? != first {
                return Err("these are two passwords".into());
            }
            first
        }
        None => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            line
        }
    };
    Ok(Password::new(text.lines().next().unwrap_or_default()))
}

#[derive(Debug, Args)]
pub(super) struct User {
    #[command(subcommand)]
    verb: UserVerb,
}

#[derive(Debug, Subcommand)]
enum UserVerb {
    /// Show the users.
    List(Of),
    /// Let a user in no more, and end its sessions.
    Disable {
        /// Its id.
        id: String,
        #[command(flatten)]
        of: Of,
    },
    /// Let a user in again.
    Enable {
        /// Its id.
        id: String,
        #[command(flatten)]
        of: Of,
    },
}

impl User {
    pub(super) async fn run(self) -> Done {
        let (UserVerb::List(of) | UserVerb::Disable { of, .. } | UserVerb::Enable { of, .. }) =
            &self.verb;
        let deployment = of.open().await?;
        let (users, caller) = (deployment.access.users(), deployment.caller());
        let done = async {
            match &self.verb {
                UserVerb::List(_) => {
                    let all = ListQuery::all(&modelyard_access::user::http::FIELDS);
                    println!("{:26}  {:8}  {:30}  NAME", "ID", "STATUS", "EMAIL");
                    for it in users.list(&caller, &all).await?.into_items() {
                        let status = serde_json::to_value(it.status)?;
                        let status = status.as_str().unwrap_or_default();
                        println!("{:26}  {status:8}  {:30}  {}", it.id, it.email.as_str(), it.name);
                    }
                }
                UserVerb::Disable { id, .. } => {
                    users.disable(&caller, UserId::read(id)?).await?;
                }
                UserVerb::Enable { id, .. } => {
                    users.enable(&caller, UserId::read(id)?).await?;
                }
            }
            Ok::<(), Failure>(())
        };
        let done = done.await;
        deployment.close().await;
        Ok(done?)
    }
}

#[derive(Debug, Args)]
pub(super) struct Key {
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    /// Make a key, and show it once.
    Create {
        /// What it is for.
        #[arg(long)]
        name: String,
        /// A role that it has; may be given several times.
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
        #[command(flatten)]
        of: Of,
    },
    /// Show the keys, without what makes them keys.
    List(Of),
    /// Let a key in no more.
    Revoke {
        /// Its id.
        id: String,
        #[command(flatten)]
        of: Of,
    },
}

impl Key {
    pub(super) async fn run(self) -> Done {
        let (KeyVerb::Create { of, .. } | KeyVerb::List(of) | KeyVerb::Revoke { of, .. }) =
            &self.verb;
        let deployment = of.open().await?;
        let (keys, caller) = (deployment.access.keys(), deployment.caller());
        let done = async {
            match &self.verb {
                KeyVerb::Create { name, roles, .. } => {
                    let roles = roles.iter().map(|it| Binding::everywhere(it)).collect();
                    let new = NewKey {
                        name: name.clone(),
                        roles,
                        scopes: Vec::new(),
                        addresses: Vec::new(),
                        per_minute: None,
                        expires_at: None,
                    };
                    let (key, text) = keys.create(&caller, new).await?;
                    println!("{}", text.text());
                    eprintln!("This is key {}. It is shown this once.", key.id);
                }
                KeyVerb::List(_) => {
                    let all = ListQuery::all(&modelyard_access::key::http::FIELDS);
                    println!("{:26}  {:12}  NAME", "ID", "BEGINS WITH");
                    for it in keys.list(&caller, &all).await?.into_items() {
                        println!("{:26}  {:12}  {}", it.id, it.prefix, it.name);
                    }
                }
                KeyVerb::Revoke { id, .. } => {
                    keys.revoke(&caller, KeyId::read(id)?, &Conditions::default()).await?;
                }
            }
            Ok::<(), Failure>(())
        };
        let done = done.await;
        deployment.close().await;
        Ok(done?)
    }
}

#[derive(Debug, Args)]
pub(super) struct Role {
    #[command(subcommand)]
    verb: RoleVerb,
}

#[derive(Debug, Subcommand)]
enum RoleVerb {
    /// Show the roles, and what each may do.
    List(Of),
}

impl Role {
    pub(super) async fn run(self) -> Done {
        let RoleVerb::List(of) = &self.verb;
        let deployment = of.open().await?;
        let listed = deployment.access.roles().list(&deployment.caller()).await;
        deployment.close().await;
        for role in listed? {
            let (permissions, inherits) = (role.permissions.0.join(" "), role.inherits.0.join(" "));
            println!("{:16}  {permissions}  + {inherits}", role.name);
        }
        Ok(())
    }
}
