//! A process that does jobs and answers nobody: beside processes that serve, over one PostgreSQL and
//! one store for content.

use modelyard_kernel::Clock;

use crate::app;
use crate::data_dir::DataDir;
use crate::process;
use crate::server::{Begun, ServeError, StopSignal, begin, check, share};
use crate::service::Service;
use crate::settings::Settings;

/// Does the jobs of services until the process is asked to stop. Which queues, the setting
/// `jobs.workers` says.
///
/// # Errors
/// When it cannot start; nothing is left running then.
pub async fn work(services: Vec<Service>, settings: Settings) -> Result<(), ServeError> {
    // Before anything is begun: until here a signal ends the process at once.
    let mut stop = StopSignal::listen()?;
    process::prepare(0);
    check(&services, &settings)?;
    let clock = Clock::system();
    let data_dir = DataDir::open(&settings.data.dir, &clock)?;
    let shared = share(&settings, &data_dir, clock).await?;
    let mut begun = Begun::new(&shared, &settings);
    let services: Result<Vec<_>, _> =
        services.into_iter().map(|it| app::assemble(it, &shared, None)).collect();
    let begins = async {
        let services = services?;
        let names: Vec<String> = services.iter().map(|it| it.id.clone()).collect();
        begin(services, &shared, &mut begun.models).await?;
        tracing::info!(services = names.join(", "), "does jobs");
        Ok(())
    };
    let ended = tokio::select! {
        begins = begins => Some(begins),
        () = stop.received() => None,
    };
    if let Some(Ok(())) = ended {
        stop.received().await;
        tracing::info!("stopping: what runs may finish");
    }
    begun.stop().await;
    ended.unwrap_or(Ok(()))
}
