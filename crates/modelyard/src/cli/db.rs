//! `modelyard db`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use modelyard::backup::Restoring;
use modelyard::data_dir::DataDir;
use modelyard::settings::Settings;
use modelyard::settings::flags::Overrides;
use modelyard::{backup, server};
use modelyard_kernel::{Clock, Db};

use super::Done;

#[derive(Debug, Args)]
pub(super) struct Database {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show which migrations are applied.
    Status(Of),
    /// Bring the database up to date; `serve` does it by itself.
    Migrate(Of),
    /// Write everything into one file: the database and the content. The service may be running.
    Backup {
        /// The file to write; it must not exist yet.
        file: PathBuf,
        #[command(flatten)]
        of: Of,
    },
    /// Read a backup into an empty database, of either kind.
    Restore {
        /// The file to read.
        file: PathBuf,
        #[command(flatten)]
        of: Of,
        /// Remove what is in the database first.
        #[arg(long)]
        replace: bool,
        /// Leave whoever was logged in when the backup was made logged in, and mailed links good.
        #[arg(long)]
        keep_sessions: bool,
    },
}

/// Whose database.
#[derive(Debug, Args)]
struct Of {
    /// The directory that is served, whose `modelyard.toml` may have settings; the current one unless
    /// given. As with `serve`, other paths are relative to the current directory.
    dir: Option<PathBuf>,
}

impl Database {
    pub(super) async fn run(self) -> Done {
        let (Verb::Status(of)
        | Verb::Migrate(of)
        | Verb::Backup { of, .. }
        | Verb::Restore { of, .. }) = &self.verb;
        let settings = Settings::load(&self.overrides.options(of.dir.as_deref()))?;
        let clock = Clock::system();
        let data_dir = settings.data.dir.clone();
        if matches!(self.verb, Verb::Status(_) | Verb::Backup { .. }) {
            must_exist(&settings, &data_dir)?;
        }
        let db = Db::connect(&settings.database_options(&data_dir)).await?;
        let mut lacks = 0;
        match self.verb {
            Verb::Status(_) => {
                for migration in modelyard_schema::status(&db).await? {
                    let at = migration.applied_at.map_or("pending".to_owned(), |it| it.to_string());
                    println!("{:4}  {:12}  {at}", migration.version, migration.name);
                }
            }
            Verb::Migrate(_) => {
                let applied = modelyard_schema::migrate(&db, &clock).await?;
                println!("{} applied", applied.len());
            }
            Verb::Backup { file, .. } => {
                let blobs = server::open_blobs(&settings, &data_dir, clock.clone())?;
                let summary = backup::backup(&db, &blobs, &clock, &file).await?;
                report(&summary);
                lacks = summary.damaged.len();
            }
            Verb::Restore { file, replace, keep_sessions, .. } => {
                // Nobody may serve what is being replaced.
                let _held = DataDir::open(&data_dir, &clock)?;
                modelyard_schema::migrate(&db, &clock).await?;
                let blobs = server::open_blobs(&settings, &data_dir, clock.clone())?;
                let how = Restoring { replace, keep_sessions };
                report(&backup::restore(&db, &blobs, &file, how).await?);
                if !keep_sessions {
                    println!("all sessions and mailed links have ended");
                }
                let keys = backup::valid_keys(&db, clock.now()).await?;
                println!(
                    "{keys} keys are valid; compare keys, users and roles with what was since"
                );
            }
        }
        db.close().await;
        if lacks > 0 {
            // Whoever makes backups by a script must hear of it.
            return Err(format!("the backup is written, but lacks {lacks} objects").into());
        }
        Ok(())
    }
}

/// Whoever looks at a database that is not there looks at the wrong place: opening would make an empty
/// one, and a directory for content.
pub(super) fn must_exist(settings: &Settings, data_dir: &Path) -> Done {
    let url = settings.database_options(data_dir).url;
    let hint = "give the directory that is served, `--data-dir` or `--database`";
    // What is there and cannot be read is told when it is opened.
    let is_missing =
        |it: &Path| fs_err::metadata(it).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if let Some(file) = url.strip_prefix("sqlite:").map(Path::new).filter(|it| is_missing(it)) {
        return Err(format!("there is no database at {}; {hint}", file.display()).into());
    }
    if settings.blobs.url.is_empty() && is_missing(data_dir) {
        return Err(format!("there is no data directory at {}; {hint}", data_dir.display()).into());
    }
    Ok(())
}

fn report(summary: &backup::Summary) {
    println!("{summary}");
    for key in &summary.damaged {
        eprintln!("damaged or gone: {key}");
    }
}
