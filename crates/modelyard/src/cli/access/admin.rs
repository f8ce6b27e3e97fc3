//! `modelyard admin`: the first of all users.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use modelyard_access::password::Password;

use super::refusal::Refusal;
use super::{Done, Of, Outcome, with};

#[derive(Debug, Args)]
pub(in crate::cli) struct Admin {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the first administrator, while there is no user yet.
    Create {
        /// The address to log in with.
        #[arg(long)]
        email: String,
        /// What people call the administrator.
        #[arg(long, default_value = "Administrator")]
        name: String,
        /// A file whose first line is the password; asked for unless given.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        of: Of,
    },
}

impl Admin {
    pub(in crate::cli) async fn run(self) -> Done {
        let Verb::Create { email, name, password_file, of } = self.verb;
        let password = password(password_file.as_deref())?;
        with(&of.settings()?, async |deployment| {
            let users = deployment.access.users();
            let user = users.create_first_admin(&email, &name, password).await?;
            println!("{} may log in as system-admin", user.email);
            Ok(())
        })
        .await
    }
}

/// The password: of a file, of a person, or of another program.
pub(super) fn password(file: Option<&Path>) -> Outcome<Password> {
    let text = match file {
        Some(file) => fs_err::read_to_string(file)?,
        None if std::io::stdin().is_terminal() => {
            let first = rpassword::prompt_password("Password: ")?;
            if rpassword::prompt_password("Once more: ")? != first {
                return Err(Refusal::TwoPasswords);
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
