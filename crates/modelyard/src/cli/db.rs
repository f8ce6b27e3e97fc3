//! `modelyard db`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use modelyard::data_dir::DataDir;
use modelyard::settings::Settings;
use modelyard::{backup, server};
use modelyard_kernel::{Clock, Db};

use super::{Done, Overrides};

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
    Status,
    /// Bring the database up to date; `serve` does it by itself.
    Migrate,
    /// Write everything into one file: the database and the content. The service may be running.
    Backup {
        /// The file to write; it must not exist yet.
        file: PathBuf,
    },
    /// Read a backup into an empty database, of either kind.
    Restore {
        /// The file to read.
        file: PathBuf,
        /// Remove what is in the database first.
        #[arg(long)]
        replace: bool,
    },
}

impl Database {
    pub(super) async fn run(self) -> Done {
        let settings = Settings::load(&self.overrides.options())?;
        let clock = Clock::system();
        let data_dir = settings.data.dir.clone();
        let db = Db::connect(&settings.database_options(&data_dir)).await?;
        let mut lacks = 0;
        match self.verb {
            Verb::Status => {
                for migration in modelyard_schema::status(&db).await? {
                    let at = migration.applied_at.map_or("pending".to_owned(), |it| it.to_string());
                    println!("{:4}  {:12}  {at}", migration.version, migration.name);
                }
            }
            Verb::Migrate => {
                let applied = modelyard_schema::migrate(&db, &clock).await?;
                println!("{} applied", applied.len());
            }
            Verb::Backup { file } => {
                let blobs = server::open_blobs(&settings, &data_dir, clock.clone())?;
                let summary = backup::backup(&db, &blobs, &clock, &file).await?;
                report(&summary);
                lacks = summary.damaged.len();
            }
            Verb::Restore { file, replace } => {
                // Nobody may serve what is being replaced.
                let _held = DataDir::open(&data_dir, &clock)?;
                modelyard_schema::migrate(&db, &clock).await?;
                let blobs = server::open_blobs(&settings, &data_dir, clock.clone())?;
                report(&backup::restore(&db, &blobs, &file, replace).await?);
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

fn report(summary: &backup::Summary) {
    println!("{summary}");
    for key in &summary.damaged {
        eprintln!("damaged or gone: {key}");
    }
}
