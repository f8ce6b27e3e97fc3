//! `modelyard settings`.

use clap::Args;
use modelyard::settings::Settings;

use super::{Done, Overrides};

#[derive(Debug, Args)]
pub(super) struct ShowSettings {
    #[command(flatten)]
    overrides: Overrides,
}

impl ShowSettings {
    pub(super) fn run(self) -> Done {
        let settings = Settings::load(&self.overrides.options())?;
        let effective = settings.effective();
        let width = effective.iter().map(|it| it.key.len()).max().unwrap_or(0);
        for setting in effective {
            println!("{:width$} = {}  # {}", setting.key, setting.value, setting.origin);
        }
        Ok(())
    }
}
