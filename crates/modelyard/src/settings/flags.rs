//! Settings that are given on a command line: that of `modelyard`, and that of every program with a
//! service of its own.

use std::path::{Path, PathBuf};

use clap::{Args, Command, FromArgMatches as _};

use super::Options;
use super::load::FILE;

/// Settings that commands share. Each is also a line of `modelyard.toml` and a variable of the
/// environment; what is given here wins.
#[derive(Clone, Debug, Default, Args)]
pub struct Overrides {
    /// The settings file; `modelyard.toml` in the current directory unless given.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Where the embedded database, content and workspaces are [default: .modelyard].
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// `postgres://user:password@host:port/name`, or `sqlite:PATH`; an embedded database in the
    /// data directory unless given.
    #[arg(long, value_name = "URL", global = true)]
    pub database: Option<String>,
}

impl Overrides {
    /// The same as options. `project` is the directory of a single project: the settings may stand
    /// in its own manifest.
    pub fn options(self, project: Option<&Path>) -> Options {
        let Self { config, data_dir, database } = self;
        let manifest = || project.map(|it| it.join(FILE)).filter(|it| it.is_file());
        Options { file: config.or_else(manifest), data_dir, database, ..Options::default() }
    }
}

/// Settings of whatever serves.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// Where to listen [default: 127.0.0.1].
    #[arg(long)]
    pub host: Option<String>,
    /// The port to listen on; 0 for any free one [default: 9090].
    #[arg(long)]
    pub port: Option<u16>,
    /// The orchestrator to register with, such as `http://chap:8000/v2/services/$register`.
    #[arg(long, value_name = "URL")]
    pub register: Option<String>,
    /// Do no jobs here: `modelyard worker` does them, over the same PostgreSQL.
    #[arg(long)]
    pub no_workers: bool,
    /// Those that other commands have as well.
    #[command(flatten)]
    pub overrides: Overrides,
}

impl Flags {
    /// The same as options.
    pub fn options(self, project: Option<&Path>) -> Options {
        let Self { host, port, register, no_workers, overrides } = self;
        let workers = no_workers.then(|| "none".to_owned());
        Options { host, port, register, workers, ..overrides.options(project) }
    }

    /// What this process was called with. Ends the process with help when it is asked for, and with
    /// a message when there is something else.
    pub(crate) fn of_this_process(about: String) -> Self {
        Self::from(about, std::env::args_os()).unwrap_or_else(|it| it.exit())
    }

    fn from(
        about: String,
        arguments: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Self, clap::Error> {
        // A program has the name that it was called by.
        let command = Self::augment_args(Command::new("service")).about(about);
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        let arguments = line.split(' ').map(Into::into);
        Flags::from("Dengue: a model".to_owned(), arguments).map(|it| it.options(None))
    }

    #[test]
    fn a_program_takes_what_serve_takes() {
        let line = "bin/rust-service --host 0.0.0.0 --port 18150 --data-dir /x --database sqlite:y \
                    --register http://chap/$register --config z.toml";
        let options = parse(line).unwrap();
        assert_eq!((options.host.as_deref(), options.port), (Some("0.0.0.0"), Some(18150)));
        assert_eq!(options.data_dir, Some("/x".into()));
        assert_eq!(options.database.as_deref(), Some("sqlite:y"));
        assert_eq!(options.register.as_deref(), Some("http://chap/$register"));
        assert_eq!(options.file, Some("z.toml".into()));
    }

    #[test]
    fn what_it_does_not_know_is_refused_and_help_says_what_it_knows() {
        for wrong in ["x --prot 1", "x serve", "x --port many"] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
        let help = parse("bin/rust-service --help").unwrap_err();
        assert_eq!(help.exit_code(), 0);
        let help = help.to_string();
        for said in ["Dengue: a model", "Usage: rust-service", "--port", "--data-dir"] {
            assert!(help.contains(said), "{help}");
        }
    }
}
