//! `modelyard audit`: what is written down of who did what, for whoever has the database or a file of it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use modelyard::access::Deployment;
use modelyard::settings::Settings;
use modelyard::settings::flags::Overrides;
use modelyard_kernel::Time;
use modelyard_ops::audit::Sound;
use modelyard_ops::audit::export::Check;

use super::Done;

#[derive(Debug, Args)]
pub(super) struct AuditCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Look whether nothing was changed, removed or put in between.
    Verify {
        /// The directory that is served; the current one unless given.
        dir: Option<PathBuf>,
        /// A file that `export` has written, instead of a database.
        #[arg(long, conflicts_with = "dir")]
        file: Option<PathBuf>,
        /// The public keys to believe (the answer of `/.well-known/jwks.json`); those in the file unless
        /// given.
        #[arg(long, requires = "file")]
        keys: Option<PathBuf>,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Write the entries down as lines of JSON.
    Export {
        /// The directory that is served; the current one unless given.
        dir: Option<PathBuf>,
        /// Only entries that are not older, such as `2026-11-01`.
        #[arg(long)]
        from: Option<Time>,
        /// Only entries that are older.
        #[arg(long)]
        to: Option<Time>,
        /// The file to write; standard output unless given.
        #[arg(long, short)]
        output: Option<PathBuf>,
        #[command(flatten)]
        overrides: Overrides,
    },
}

impl AuditCommand {
    pub(super) async fn run(self) -> Done {
        match self.verb {
            Verb::Verify { file: Some(file), keys, .. } => {
                say(&check(&file, keys.as_deref())?);
                Ok(())
            }
            Verb::Verify { dir, overrides, .. } => {
                let deployment = open(dir.as_deref(), &overrides).await?;
                let found = deployment.audit.verify(&deployment.caller()).await;
                deployment.close().await;
                say(&found??);
                Ok(())
            }
            Verb::Export { dir, from, to, output, overrides } => {
                let deployment = open(dir.as_deref(), &overrides).await?;
                let written = export(&deployment, from, to, output.as_deref()).await;
                deployment.close().await;
                written.map_err(|it| -> Box<dyn std::error::Error> { it })
            }
        }
    }
}

async fn open(
    dir: Option<&Path>,
    overrides: &Overrides,
) -> Result<Deployment, Box<dyn std::error::Error>> {
    let settings = Settings::load(&overrides.clone().options(dir))?;
    Deployment::open(&settings).await
}

fn say(sound: &Sound) {
    let Sound { entries, last, signed_to, .. } = sound;
    println!("{entries} entries until {last} are as they were written; signed until {signed_to}");
}

fn check(file: &Path, keys: Option<&Path>) -> Result<Sound, Box<dyn std::error::Error>> {
    let keys = match keys {
        Some(keys) => {
            let text = fs_err::read_to_string(keys)?;
            Check::keys_of(&text).ok_or_else(|| format!("{} has no keys", keys.display()))?
        }
        None => modelyard_ops::audit::model::Keys::new(),
    };
    let mut check = Check::new(keys);
    for line in BufReader::new(fs_err::File::open(file)?).lines() {
        check.line(&line?)?;
    }
    Ok(check.finish()?)
}

async fn export(
    deployment: &Deployment,
    from: Option<Time>,
    to: Option<Time>,
    output: Option<&Path>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut lines = deployment.audit.export(&deployment.caller(), from, to).await?;
    let mut output: Box<dyn Write + Send> = match output {
        Some(file) => Box::new(fs_err::File::create_new(file)?),
        None => Box::new(std::io::stdout()),
    };
    while let Some(some) = lines.next().await? {
        output.write_all(&some)?;
    }
    Ok(output.flush()?)
}
