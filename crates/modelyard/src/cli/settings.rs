//! `modelyard settings`.

use std::path::PathBuf;

use clap::Args;
use modelyard::settings::Settings;
use modelyard::settings::flags::Overrides;

use super::Done;

#[derive(Debug, Args)]
pub(super) struct ShowSettings {
    /// The directory of a project whose manifest may have settings; the current one unless given.
    dir: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

impl ShowSettings {
    pub(super) fn run(self) -> Done {
        let settings = Settings::load(&self.overrides.options(self.dir.as_deref()))?;
        let effective = settings.effective();
        let width = effective.iter().map(|it| it.key.len()).max().unwrap_or(0);
        for setting in effective {
            println!("{:width$} = {}  # {}", setting.key, setting.value, setting.origin);
        }
        Ok(())
    }
}
