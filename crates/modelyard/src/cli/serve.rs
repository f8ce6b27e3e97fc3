//! `modelyard serve` and `modelyard worker`.

use std::path::PathBuf;

use clap::Args;
use modelyard::settings::flags::{Flags, Overrides};
use modelyard::settings::{Options, Settings};
use modelyard::{Service, logging, server, worker};
use modelyard_ml::project::{LoadOptions, Param, Project};

use super::Done;

/// What is served.
#[derive(Debug, Args)]
struct Projects {
    /// Directories with a `modelyard.toml` or an `MLproject`; the current one unless given. Each is
    /// served below `/services/ID`, and a single one also at `/`.
    dirs: Vec<PathBuf>,
    /// A further placeholder of an `MLproject`'s commands.
    #[arg(long = "param", value_name = "NAME=FILE")]
    params: Vec<Param>,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    projects: Projects,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Args)]
pub(super) struct Worker {
    #[command(flatten)]
    projects: Projects,
    /// The queues whose jobs it does, such as `train,batch`; all unless given.
    #[arg(long, value_name = "QUEUES")]
    queues: Option<String>,
    /// Jobs of each service at a time.
    #[arg(long)]
    concurrency: Option<usize>,
    #[command(flatten)]
    overrides: Overrides,
}

impl Serve {
    pub(super) async fn run(self) -> Done {
        let Self { projects, flags } = self;
        let options = flags.options(projects.only());
        let settings = Settings::load(&options)?;
        let _log = logging::start(&settings);
        let services = projects.load(&options, &settings)?;
        Ok(server::serve(services, settings).await?)
    }
}

impl Worker {
    pub(super) async fn run(self) -> Done {
        let Self { projects, queues, concurrency, overrides } = self;
        let options =
            Options { workers: queues, concurrency, ..overrides.options(projects.only()) };
        let settings = Settings::load(&options)?;
        let _log = logging::start(&settings);
        let services = projects.load(&options, &settings)?;
        Ok(worker::work(services, settings).await?)
    }
}

impl Projects {
    /// The directory, when there is but one.
    fn only(&self) -> Option<&std::path::Path> {
        match self.dirs.as_slice() {
            [] => Some(".".as_ref()),
            [only] => Some(only),
            _ => None,
        }
    }

    fn load(
        self,
        options: &Options,
        settings: &Settings,
    ) -> Result<Vec<Service>, Box<dyn std::error::Error>> {
        let Self { mut dirs, params } = self;
        if dirs.is_empty() {
            dirs.push(PathBuf::from("."));
        }
        let params = params.into_iter().map(|it| (it.name, it.file)).collect();
        let load = LoadOptions { params, ..LoadOptions::from_environment() };
        let mut services = Vec::with_capacity(dirs.len());
        // What no script needs and no artifact may hold, wherever in a project it is.
        let own = [
            options.file.clone(),
            settings.auth.api_key_file.clone(),
            settings.server.tls.as_ref().map(|it| it.key.clone()),
            Some(settings.data.dir.clone()),
        ];
        for dir in &dirs {
            let mut project = Project::load_with(dir, &load)?;
            project.shell.skip.extend(own.iter().flatten().cloned());
            services.push(Service::from_project(project)?);
        }
        Ok(services)
    }
}
