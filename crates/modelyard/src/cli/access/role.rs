//! `modelyard role`: what roles there are, and who has them.

use clap::{Args, Subcommand};
use modelyard::access::Deployment;
use modelyard_access::role::{Binding, NewRole};
use modelyard_kernel::Ulid;
use modelyard_kernel::reply::Conditions;
use serde_json::json;

use super::refusal::{Refusal, place};
use super::{Done, Of, Outcome, Shown, binding, find_subject, read, with};
use crate::cli::jobs::printable;

#[derive(Debug, Args)]
pub(in crate::cli) struct Role {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a role.
    Create(Create),
    /// Show the roles, and what each may do.
    List {
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        of: Of,
    },
    /// Show one role.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        of: Of,
    },
    /// Remove a role that nobody has.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// Give a role to a user or a key.
    Bind(Bound),
    /// Take a role from a user or a key.
    Unbind(Bound),
    /// Show the roles that a user or a key has.
    Bindings {
        /// The e-mail address of a user, or the id of a user or a key.
        subject: String,
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// What it is called.
    name: String,
    /// A permission that it gives, such as `ml:predict` or `configs:*`; may be given several times.
    #[arg(long = "permission", value_name = "PERMISSION")]
    permissions: Vec<String>,
    /// A role that it has all permissions of; may be given several times.
    #[arg(long, value_name = "ROLE")]
    inherits: Vec<String>,
    /// What it is for.
    #[arg(long, default_value = "")]
    description: String,
    #[command(flatten)]
    of: Of,
}

#[derive(Debug, Args)]
struct Bound {
    /// The e-mail address of a user, or the id of a user or a key.
    subject: String,
    /// The role.
    role: String,
    /// The service in which it has the role; everywhere unless given.
    #[arg(long)]
    service: Option<String>,
    #[command(flatten)]
    of: Of,
}

impl Role {
    pub(in crate::cli) async fn run(self) -> Done {
        match self.verb {
            Verb::Create(it) => it.run().await,
            Verb::List { shown, of } => of.with(async |it| list(it, shown).await).await,
            Verb::Show { name, shown, of } => {
                of.with(async |it| show(it, &name, shown).await).await
            }
            Verb::Delete { name, of } => {
                of.with(async |deployment| {
                    let (roles, caller) = (deployment.access.roles(), deployment.caller());
                    roles.delete(&caller, &name, &Conditions::default()).await?;
                    eprintln!("The role `{name}` is gone.");
                    Ok(())
                })
                .await
            }
            Verb::Bind(it) => it.bind().await,
            Verb::Unbind(it) => it.unbind().await,
            Verb::Bindings { subject, shown, of } => {
                of.with(async |deployment| {
                    let subject = find_subject(deployment, &subject).await?;
                    let (roles, caller) = (deployment.access.roles(), deployment.caller());
                    print(&roles.bindings(&caller, subject).await?, shown)
                })
                .await
            }
        }
    }
}

impl Create {
    async fn run(self) -> Done {
        let Self { name, permissions, inherits, description, of } = self;
        let body = json!({
            "name": name,
            "permissions": permissions,
            "inherits": inherits,
            "description": description,
        });
        let new = read(&body, |node| NewRole::read(&node, None))?;
        with(&of.settings()?, async |deployment| {
            let role = deployment.access.roles().create(&deployment.caller(), new).await?;
            eprintln!("The role `{}` can be given to users and keys.", role.name);
            Ok(())
        })
        .await
    }
}

impl Bound {
    async fn bind(self) -> Done {
        self.change(async |deployment, subject, binding| {
            let (roles, caller) = (deployment.access.roles(), deployment.caller());
            roles.add_binding(&caller, subject, binding).await?;
            Ok("has")
        })
        .await
    }

    async fn unbind(self) -> Done {
        self.change(async |deployment, subject, binding| {
            let (roles, caller) = (deployment.access.roles(), deployment.caller());
            if !roles.bindings(&caller, subject).await?.contains(&binding) {
                return Err(Refusal::Unbound { binding, subject: self.subject.clone() });
            }
            roles.remove_binding(&caller, subject, binding).await?;
            Ok("no longer has")
        })
        .await
    }

    async fn change(
        &self,
        work: impl AsyncFnOnce(&Deployment, Ulid, Binding) -> Outcome<&'static str>,
    ) -> Done {
        let binding = binding(&self.role, self.service.as_deref())?;
        self.of
            .with(async |deployment| {
                let subject = find_subject(deployment, &self.subject).await?;
                let place = place(&binding);
                let has = work(deployment, subject, binding).await?;
                eprintln!("{} {has} the role `{}` {place}.", self.subject, self.role);
                Ok(())
            })
            .await
    }
}

async fn list(deployment: &Deployment, shown: Shown) -> Outcome<()> {
    let roles = deployment.access.roles().list(&deployment.caller()).await?;
    shown.print(&roles, || {
        println!("{:16}  {:24}  PERMISSIONS", "NAME", "INHERITS");
        for it in &roles {
            let (permissions, inherits) = (it.permissions.0.join(" "), it.inherits.0.join(" "));
            println!("{:16}  {inherits:24}  {permissions}", it.name);
        }
    })
}

async fn show(deployment: &Deployment, name: &str, shown: Shown) -> Outcome<()> {
    let role = deployment.access.roles().get(&deployment.caller(), name).await?;
    shown.print(&role, || {
        println!("{:12} {}", "name", role.name);
        println!("{:12} {}", "description", printable(&role.description));
        println!("{:12} {}", "permissions", role.permissions.0.join(" "));
        println!("{:12} {}", "inherits", role.inherits.0.join(" "));
        println!("{:12} {}", "built in", role.built_in);
    })
}

fn print(bindings: &[Binding], shown: Shown) -> Outcome<()> {
    shown.print(&bindings, || {
        println!("{:16}  IN", "ROLE");
        for it in bindings {
            println!("{:16}  {}", it.role, it.applies_to);
        }
    })
}
