//! `modelyard secret`: the deployment's secret.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use modelyard::access::{Deployment, GivenUp};
use modelyard::data_dir::DataDir;
use modelyard::settings::Settings;
use modelyard::settings::flags::Overrides;
use modelyard_kernel::Clock;

use super::Done;

#[derive(Debug, Args)]
pub(super) struct Secret {
    #[command(subcommand)]
    verb: SecretVerb,
}

#[derive(Debug, Subcommand)]
enum SecretVerb {
    /// Give up what was sealed with a secret that is lost: everybody sets up a second factor again, and
    /// mails that wait are not sent. Stop all processes of the deployment first.
    Reset {
        /// The directory that is served; the current one unless given.
        dir: Option<PathBuf>,
        /// Do it; without, nothing is done.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        overrides: Overrides,
    },
}

impl Secret {
    pub(super) async fn run(self) -> Done {
        let SecretVerb::Reset { dir, yes, overrides } = self.verb;
        if !yes {
            return Err("every second factor and every mail that waits would be given up; say \
                        `--yes` when the secret is lost"
                .into());
        }
        let settings = Settings::load(&overrides.options(dir.as_deref()))?;
        // Whoever serves goes on with the secret that it has.
        let _held = DataDir::open(&settings.data.dir, &Clock::system())?;
        let deployment = Deployment::open_with_any_secret(&settings).await?;
        let reset = deployment.access.reset_secret().await;
        deployment.close().await;
        let GivenUp { signing_keys, factors } = reset?;
        println!("{factors} second factors and {signing_keys} signing keys are given up");
        Ok(())
    }
}
