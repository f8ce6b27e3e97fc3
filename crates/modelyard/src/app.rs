//! Where slices meet: one service, its handles built in the order in which they need each other.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use modelyard_flow::job::{Engine, Jobs};
use modelyard_flow::schedule::Schedules;
use modelyard_kernel::part::Counter;
use modelyard_kernel::{Background, Blobs, Caller, Clock, Db, HealthCheck, Part, Result, Work};
use modelyard_ml::info::http::Info;
use modelyard_ml::ml::{Ml, Model};
use modelyard_run::artifact::Artifacts;
use modelyard_run::config::Configs;
use modelyard_run::publish::Publisher;
use modelyard_run::task::{Options as TaskOptions, ShellTasks, Tasks};
use serde_json::Value;
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;

use crate::access::Access;
use crate::audit::Auditing;
use crate::health::{Checks, database_check};
use crate::metrics::Metrics;
use crate::service::Service;
use crate::system::System;

/// The tenant that everything belongs to until there are others.
pub const TENANT: &str = "default";

/// What a service says of itself that is no model.
const GENERAL: [&str; 4] = ["id", "display_name", "version", "description"];

/// What the services of a process share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The database.
    pub db: Db,
    /// Where content is kept.
    pub blobs: Blobs,
    /// Time and ids.
    pub clock: Clock,
    /// The owner of tasks.
    pub background: Background,
    /// What the operator counts.
    pub metrics: Metrics,
    /// What does the jobs of all of them.
    pub engine: Engine,
    /// Who may come in.
    pub access: Access,
    /// What is written down of what they do.
    pub auditing: Auditing,
    /// Where runs have their workspaces.
    pub work_root: Arc<Path>,
    /// Whether clients of every service may store and run shell commands.
    pub shell_tasks: bool,
    /// Whether `/api/v1/info` has the keys that older clients refuse.
    pub provenance: bool,
    /// The revision of the model's source, for those keys.
    pub git_revision: Option<Arc<str>>,
}

/// A service whose slices are built.
pub struct Assembled {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Its configs.
    pub configs: Configs,
    /// Its jobs, when it does any.
    pub jobs: Option<Jobs>,
    /// What begins jobs of its by the clock.
    pub schedules: Option<Schedules>,
    /// Its model, when it has one.
    pub ml: Option<Ml>,
    /// How it does.
    pub health: Checks,
    /// `/api/v1/info`.
    pub info: Value,
    /// Its routes.
    pub routes: Router,
    /// Its routes, documented.
    pub openapi: OpenApi,
    /// The work that its jobs do.
    pub work: Vec<Work>,
    /// What it counts.
    pub counters: Vec<Counter>,
}

impl std::fmt::Debug for Assembled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Assembled").field(&self.id).finish()
    }
}

/// Builds every slice of a service, and folds what each contributes. `registration` is a check that
/// the server adds.
///
/// # Errors
/// When its description cannot be written as JSON: a defect of ours.
pub fn assemble(
    service: Service,
    shared: &Shared,
    registration: Option<HealthCheck>,
) -> Result<Assembled> {
    let Shared { db, blobs, clock, background, metrics, engine, .. } = shared;
    let id = service.info.id.as_str().to_owned();
    let info = describe(&service, shared)?;
    let shell = if shared.shell_tasks { ShellTasks::Allowed } else { service.shell_tasks };
    let has_jobs = service.does_jobs();

    let artifacts =
        Artifacts::new(db.clone(), clock.clone(), blobs.clone(), service.hierarchy.clone());
    let configs =
        Configs::new(db.clone(), clock.clone(), artifacts.clone(), service.config.clone());
    let jobs = has_jobs.then(|| engine.jobs());
    let publisher = jobs.clone().map(|jobs| {
        let publisher =
            Publisher::new(db.clone(), jobs.clone(), artifacts.clone(), configs.clone());
        (jobs, publisher)
    });
    let ml = service.runner.clone().zip(publisher.clone()).map(|(runner, (jobs, publisher))| {
        let model = Model {
            info: service.info.clone(),
            runner,
            adapters: service.adapters.clone(),
            work_root: shared.work_root.to_path_buf(),
            archive_limits: service.limits.archive,
        };
        let (db, clock) = (db.clone(), clock.clone());
        Ml::new(db, clock, jobs, configs.clone(), artifacts.clone(), publisher, model)
    });
    let tasks = publisher.map(|(jobs, publisher)| {
        let options = TaskOptions {
            functions: service.functions.clone(),
            shell,
            directory: service.directory.clone(),
            environment: service.environment.clone(),
            limits: service.limits.clone(),
            work_root: shared.work_root.to_path_buf(),
        };
        Tasks::new(db.clone(), clock.clone(), jobs, artifacts.clone(), publisher, options)
    });

    let mut questions = service.checks.clone();
    questions.push(database_check(db.clone()));
    questions.extend(registration);
    let health = Checks::new(questions, background.clone());

    let mut parts = vec![
        health.part(),
        Info::new(&info)?.part(),
        System::new(clock.clone()).part(),
        configs.part(service.configs),
        artifacts.part(service.artifacts),
    ];
    parts.extend(service.metrics.then(|| metrics.part()));
    parts.extend(jobs.iter().map(Jobs::part));
    parts.extend(ml.iter().map(Ml::part));
    parts.extend(tasks.iter().map(|it| it.part(service.tasks)));
    parts.extend(shared.access.parts());
    parts.push(shared.auditing.part());
    let launchers = parts.iter().flat_map(|it| it.launchers.iter().cloned()).collect();
    let schedules = jobs.as_ref().map(|jobs| {
        let (db, clock, background) = (db.clone(), clock.clone(), background.clone());
        let system = Caller::system("schedules", TENANT, &id);
        Schedules::new(db, clock, background, system, launchers, jobs.clone())
    });
    parts.extend(schedules.iter().map(Schedules::part));

    let (work, counters) = parts.iter_mut().fold((Vec::new(), Vec::new()), |mut all, part| {
        all.0.append(&mut part.work);
        all.1.append(&mut part.counters);
        all
    });
    let (routes, openapi) = fold(parts, &service);
    let name = service.info.display_name;
    Ok(Assembled {
        id,
        name,
        configs,
        jobs,
        schedules,
        ml,
        health,
        info,
        routes,
        openapi,
        work,
        counters,
    })
}

fn fold(parts: Vec<Part>, service: &Service) -> (Router, OpenApi) {
    let info = InfoBuilder::new()
        .title(service.info.display_name.clone())
        .description(service.info.description.clone())
        .version(service.info.version.clone())
        .build();
    let api = OpenApiRouter::with_openapi(OpenApiBuilder::new().info(info).build());
    let all = parts.into_iter().fold(api, |api, part| api.merge(part.routes));
    all.split_for_parts()
}

/// The body of `/api/v1/info`.
fn describe(service: &Service, shared: &Shared) -> Result<Value> {
    let mut info = if shared.provenance {
        serde_json::to_value(service.info.with_provenance(shared.git_revision.as_deref()))?
    } else {
        serde_json::to_value(&service.info)?
    };
    if let Some(fields) = info.as_object_mut() {
        if service.runner.is_none() {
            // By the other keys, clients know a model.
            fields.retain(|key, _| GENERAL.contains(&key.as_str()));
        }
        fields.extend(service.info_fields.clone());
    }
    Ok(info)
}
