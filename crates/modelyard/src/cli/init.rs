//! `modelyard init`.

use std::path::PathBuf;

use clap::Args;
use modelyard::init::{InitOptions, Template, create};

use super::Done;

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The project's name, and its directory's.
    name: String,
    /// What to begin with.
    #[arg(long, value_enum, default_value = "shell-py")]
    template: Template,
    /// Where to make the directory.
    #[arg(long, default_value = ".")]
    path: PathBuf,
}

impl Init {
    pub(super) fn run(self) -> Done {
        let Self { name, template, path } = self;
        let made = create(&InitOptions { name: name.clone(), template, path: path.clone() })?;
        for file in &made {
            println!("{}", file.display());
        }
        println!("\nNext: modelyard serve {}", path.join(name).display());
        Ok(())
    }
}
