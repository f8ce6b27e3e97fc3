//! The commands of `modelyard`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to a terminal")]

mod access;
mod audit;
mod db;
mod init;
mod jobs;
mod secret;
mod serve;
mod settings;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use modelyard::server::explain;

/// Turns a model into a governed production service.
#[derive(Debug, Parser)]
#[command(name = "modelyard", version, propagate_version = true)]
pub struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the models of one or more directories.
    Serve(serve::Serve),
    /// Do the jobs of one or more directories, beside processes that serve them.
    Worker(serve::Worker),
    /// Look at jobs of a running service, cancel them and try them again.
    Jobs(jobs::JobsCommand),
    /// Make a new project.
    Init(init::Init),
    /// Make the first administrator.
    Admin(access::Admin),
    /// Make users, look at them, and let them in or not.
    User(access::User),
    /// Make keys, look at them, rotate and revoke them.
    Key(access::Key),
    /// Make roles, look at them, and give them.
    Role(access::Role),
    /// Replace the deployment's secret when it is lost.
    Secret(secret::Secret),
    /// See who did what, and whether that is as it was written.
    Audit(audit::AuditCommand),
    /// Look after the database.
    Db(db::Database),
    /// Show every setting with where it comes from.
    Settings(settings::ShowSettings),
}

/// Runs a command.
pub fn run(command: Command) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(it) => it,
        Err(error) => {
            eprintln!("modelyard: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match command.verb {
            Verb::Serve(it) => it.run().await,
            Verb::Worker(it) => it.run().await,
            Verb::Jobs(it) => it.run().await,
            Verb::Init(it) => it.run(),
            Verb::Admin(it) => it.run().await,
            Verb::User(it) => it.run().await,
            Verb::Key(it) => it.run().await,
            Verb::Role(it) => it.run().await,
            Verb::Secret(it) => it.run().await,
            Verb::Audit(it) => it.run().await,
            Verb::Db(it) => it.run().await,
            Verb::Settings(it) => it.run(),
        }
    });
    // A model's function that does not look at its token must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("modelyard: {}", explain(&*error));
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn Error>>;
