//! `modelyard serve`.

use std::path::PathBuf;

use clap::Args;
use modelyard::settings::Settings;
use modelyard::settings::flags::Flags;
use modelyard::{Service, logging, server};
use modelyard_ml::project::{LoadOptions, Param, Project};

use super::Done;

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Directories with a `modelyard.toml` or an `MLproject`; the current one unless given. Each is
    /// served below `/services/ID`, and a single one also at `/`.
    dirs: Vec<PathBuf>,
    /// A further placeholder of an `MLproject`'s commands.
    #[arg(long = "param", value_name = "NAME=FILE")]
    params: Vec<Param>,
    #[command(flatten)]
    flags: Flags,
}

impl Serve {
    pub(super) async fn run(self) -> Done {
        let Self { mut dirs, params, flags } = self;
        if dirs.is_empty() {
            dirs.push(PathBuf::from("."));
        }
        let only = if let [only] = dirs.as_slice() { Some(only.as_path()) } else { None };
        let options = flags.options(only);
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
