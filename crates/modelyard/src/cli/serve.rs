//! `modelyard serve`.

use std::path::PathBuf;

use clap::Args;
use modelyard::settings::{Options, Settings};
use modelyard::{Service, logging, server};
use modelyard_ml::project::{LoadOptions, Param, Project};

use super::{Done, Overrides};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Directories with a `modelyard.toml` or an `MLproject`; the current one unless given. Each is
    /// served below `/services/ID`, and a single one also at `/`.
    dirs: Vec<PathBuf>,
    /// Where to listen [default: 127.0.0.1].
    #[arg(long)]
    host: Option<String>,
    /// The port to listen on; 0 for any free one [default: 9090].
    #[arg(long)]
    port: Option<u16>,
    /// The orchestrator to register with, such as `http://chap:8000/v2/services/$register`.
    #[arg(long, value_name = "URL")]
    register: Option<String>,
    /// A further placeholder of an `MLproject`'s commands.
    #[arg(long = "param", value_name = "NAME=FILE")]
    params: Vec<Param>,
    #[command(flatten)]
    overrides: Overrides,
}

impl Serve {
    pub(super) async fn run(self) -> Done {
        let Self { mut dirs, host, port, register, params, overrides } = self;
        if dirs.is_empty() {
            dirs.push(PathBuf::from("."));
        }
        let mut options = Options { host, port, register, ..overrides.options() };
        if let ([only], None) = (dirs.as_slice(), &options.file) {
            // The settings of a single project may stand in its own manifest.
            let manifest = only.join("modelyard.toml");
            options.file = manifest.is_file().then_some(manifest);
        }
        let settings = Settings::load(&options)?;
        let _log = logging::start(&settings);

        let params = params.into_iter().map(|it| (it.name, it.file)).collect();
        let load = LoadOptions { params, ..LoadOptions::from_environment() };
        let mut services = Vec::with_capacity(dirs.len());
        // What no script needs and no artifact may hold, wherever in a project it is.
        let own =
            [options.file, settings.auth.api_key_file.clone(), Some(settings.data.dir.clone())];
        for dir in &dirs {
            let mut project = Project::load_with(dir, &load)?;
            project.shell.skip.extend(own.iter().flatten().cloned());
            services.push(Service::from_project(project)?);
        }
        Ok(server::serve(services, settings).await?)
    }
}
