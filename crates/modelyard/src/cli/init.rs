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
    /// A checkout of Modelyard that a `rust-fn` project is built with; the published repository unless
    /// given.
    #[arg(long, value_name = "DIR")]
    modelyard: Option<PathBuf>,
}

impl Init {
    pub(super) fn run(self) -> Done {
        let Self { name, template, path, modelyard } = self;
        let directory = path.join(&name);
        let made = create(&InitOptions { name, template, path, modelyard })?;
        for file in &made {
            println!("{}", file.display());
        }
        println!("\nNext: {}", template.command(&directory));
        Ok(())
    }
}
