//! What does the jobs of every service of a process: one [`dispatcher`] that claims, one [`pulse`] that
//! says that the process lives, one listener that hears of other processes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, MaybeDone};
use modelyard_kernel::{Background, Clock, Db, Policy, Result, Ulid, Work};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Reports;
use super::model::{Claimed, Hold, JobId, Lane};
use super::together::{Added, Completed, Together};
use super::{Jobs, claims, dispatcher, pulse, retention};

/// Which jobs a process does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// All.
    #[default]
    All,
    /// None: it only takes them in.
    None,
    /// Those of these queues.
    Queues(Vec<String>),
}

impl Workers {
    pub(super) fn take(&self, queue: &str) -> bool {
        match self {
            Workers::All => true,
            Workers::None => false,
            Workers::Queues(names) => names.iter().any(|it| it == queue),
        }
    }
}

/// What is changed of the [`Policy`] of a kind of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of the policy")]
pub struct PolicyChange {
    pub max_attempts: Option<u32>,
    pub backoff: Option<Duration>,
    pub attempt_timeout: Option<Duration>,
}

impl PolicyChange {
    fn apply(self, policy: Policy) -> Policy {
        let backoff = self.backoff.unwrap_or(policy.backoff);
        Policy {
            max_attempts: self.max_attempts.unwrap_or(policy.max_attempts),
            backoff,
            max_backoff: policy.max_backoff.max(backoff),
            attempt_timeout: self.attempt_timeout.or(policy.attempt_timeout),
            ..policy
        }
    }
}

/// How many jobs a process does at a time, how many may wait, and for how long they are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which it does.
    pub workers: Workers,
    /// Jobs of one service at a time.
    pub concurrency: usize,
    /// Jobs of all services at a time; 0 when only those of each are bounded.
    pub total: usize,
    /// Jobs of one queue of a service at a time, where fewer than `concurrency`.
    pub queues: BTreeMap<String, usize>,
    /// How often and how long jobs are tried, where otherwise than their kind says, by kind.
    pub policies: BTreeMap<String, PolicyChange>,
    /// Jobs of one queue of a service that may wait; more are refused with 429.
    pub max_pending: i64,
    /// Bytes that the inputs of those may have together.
    pub max_pending_bytes: i64,
    /// How long a stop waits for running jobs before it interrupts them.
    pub drain: Duration,
    /// How long records of jobs are kept after their end; zero means for ever.
    pub retention: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: Workers::All,
            concurrency: 1,
            total: 0,
            queues: BTreeMap::new(),
            policies: BTreeMap::new(),
            max_pending: 1000,
            max_pending_bytes: 1 << 30,
            drain: Duration::from_secs(10),
            retention: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

/// Does the jobs of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine(pub(super) Arc<Machine>);

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) background: Background,
    /// Who this process is, the same after a restart.
    pub(super) node: String,
    pub(super) options: Options,
    /// What each service does, by its id.
    pub(super) services: Mutex<HashMap<String, Arc<HashMap<&'static str, Work>>>>,
    /// Held from before jobs are claimed until they are in `running`: whoever takes one away then
    /// knows where to find it.
    pub(super) claiming: tokio::sync::Mutex<()>,
    pub(super) running: Mutex<HashMap<JobId, Running>>,
    /// Lanes in which jobs may be due.
    pub(super) hot: Mutex<HashSet<Lane>>,
    /// How long jobs of a lane took of late.
    pub(super) pace: Mutex<HashMap<Lane, Duration>>,
    /// Places for jobs: of each service, of the queues that have fewer, and of all.
    pub(super) places: Mutex<HashMap<PlaceKey, Arc<Semaphore>>>,
    pub(super) all_places: Arc<Semaphore>,
    pub(super) look: Notify,
    /// Whether jobs were added here of which the others have not heard.
    pub(super) untold: AtomicBool,
    /// Whether some of what is due is not for this process.
    pub(super) for_others: AtomicBool,
    /// Whether lanes may have jobs that nobody told of.
    pub(super) survey: AtomicBool,
    pub(super) pulse: Notify,
    /// Until when the others count on this process.
    pub(super) leased: Mutex<Option<Instant>>,
    pub(super) added: Arc<Together<Added>>,
    pub(super) completed: Arc<Together<Completed>>,
}

/// A service, and one of its queues where that has fewer places.
pub(super) type PlaceKey = (Arc<str>, Option<Arc<str>>);

/// A job that runs in this process.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) hold: Hold,
    pub(super) lane: Lane,
    pub(super) cancel: CancellationToken,
    pub(super) ended: watch::Receiver<bool>,
    pub(super) reports: Arc<Reports>,
}

/// The worker's end of a job that runs.
pub(super) struct Task {
    pub(super) lane: Lane,
    pub(super) work: Option<Work>,
    pub(super) job: Claimed,
    pub(super) cancel: CancellationToken,
    pub(super) ended: watch::Sender<bool>,
    /// Its place, once there is one.
    pub(super) place: Pin<Box<MaybeDone<BoxFuture<'static, Vec<OwnedSemaphorePermit>>>>>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Task").field(&self.job.id).finish()
    }
}

impl Engine {
    /// An engine that does nothing yet. `node` names this process, and stays the same when it is
    /// started again.
    pub fn new(
        db: Db,
        clock: Clock,
        background: Background,
        node: String,
        options: Options,
    ) -> Self {
        let places = if options.total > 0 { options.total } else { Semaphore::MAX_PERMITS };
        Self(Arc::new(Machine {
            db,
            clock,
            background,
            node,
            options,
            services: Mutex::default(),
            claiming: tokio::sync::Mutex::default(),
            running: Mutex::default(),
            hot: Mutex::default(),
            pace: Mutex::default(),
            places: Mutex::default(),
            all_places: Arc::new(Semaphore::new(places)),
            look: Notify::new(),
            untold: AtomicBool::new(false),
            for_others: AtomicBool::new(false),
            survey: AtomicBool::new(true),
            pulse: Notify::new(),
            leased: Mutex::default(),
            added: Arc::default(),
            completed: Arc::default(),
        }))
    }

    /// The jobs that it does.
    pub fn jobs(&self) -> Jobs {
        Jobs::new(self.clone())
    }

    /// Unfinished jobs that have done local steps on this node: what their work left on this machine is
    /// still of use.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn wanted_here(&self) -> Result<HashSet<Ulid>> {
        let mut conn = self.0.db.conn().await?;
        let found = claims::with_local_steps(&mut conn, &self.0.node).await?;
        Ok(found.into_iter().map(|it| it.0).collect())
    }

    /// Says what a service does; from then on its jobs are done, once the engine runs.
    pub fn serve(&self, service: &str, work: impl IntoIterator<Item = Work>) {
        let policies = &self.0.options.policies;
        let changed = |mut it: Work| {
            let change = policies.get(it.kind).copied().unwrap_or_default();
            it.policy = change.apply(it.policy);
            (it.kind, it)
        };
        let kinds: HashMap<_, _> = work.into_iter().map(changed).collect();
        for unknown in policies.keys().filter(|it| !kinds.contains_key(it.as_str())) {
            tracing::warn!(service, kind = unknown, "the settings speak of jobs that it has not");
        }
        self.0.services.lock().insert(service.to_owned(), Arc::new(kinds));
        self.0.look_at_all();
    }

    /// Begins to do jobs: first those that this process was doing when it was last stopped or
    /// killed.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn start(&self) -> Result<()> {
        let machine = &self.0;
        let mut conn = machine.db.conn().await?;
        let interrupted = claims::requeue_own(&mut conn, &machine.node).await?;
        drop(conn);
        if interrupted > 0 {
            tracing::info!(interrupted, "jobs are begun again");
        }
        let background = &machine.background;
        background.spawn(retention::expire(self.0.clone()));
        if machine.options.workers == Workers::None {
            background.spawn(pulse::announce(self.0.clone()));
        } else {
            background.spawn(pulse::listen(self.0.clone()));
            background.spawn(dispatcher::dispatch(self.clone()));
            background.spawn(pulse::pulse(self.0.clone()));
        }
        Ok(())
    }
}

impl Machine {
    pub(super) fn work(&self, service: &str, kind: &str) -> Option<Work> {
        self.services.lock().get(service).and_then(|it| it.get(kind)).cloned()
    }

    /// The queues that jobs of a service may wait in: those of its work, and those of the settings.
    pub(super) fn queues(&self, service: &str) -> BTreeSet<String> {
        let services = self.services.lock();
        let work = services.get(service).into_iter().flat_map(|it| it.values());
        let mut queues: BTreeSet<String> = work.map(|it| it.queue.to_owned()).collect();
        queues.extend(self.options.queues.keys().cloned());
        if let Workers::Queues(names) = &self.options.workers {
            queues.extend(names.iter().cloned());
        }
        queues
    }

    /// Has the dispatcher look at a lane in which jobs are due.
    pub(super) fn heat(&self, lane: Lane) {
        self.heat_here(lane);
        self.untold.store(true, Ordering::Release);
        self.look.notify_one();
    }

    /// Notes that jobs of a lane are due, which this process may do or others.
    pub(super) fn heat_here(&self, lane: Lane) {
        let is_ours = self.options.workers.take(&lane.queue)
            && self.services.lock().contains_key(&*lane.service);
        if is_ours {
            self.hot.lock().insert(lane);
        } else {
            self.for_others.store(true, Ordering::Release);
        }
    }

    /// Has the dispatcher look at all lanes, since jobs were added to some.
    pub(super) fn heat_some(&self) {
        self.untold.store(true, Ordering::Release);
        self.look_at_all();
    }

    /// Has the dispatcher look at all lanes, and at when they are due.
    pub(super) fn look_at_all(&self) {
        self.survey.store(true, Ordering::Release);
        self.look.notify_one();
    }

    pub(super) fn running(&self, id: JobId) -> Option<Running> {
        self.running.lock().get(&id).cloned()
    }

    /// What runs here of these, when nothing is being claimed.
    pub(super) async fn running_of(&self, ids: &[JobId]) -> Vec<Running> {
        let _none_between = self.claiming.lock().await;
        let running = self.running.lock();
        ids.iter().filter_map(|id| running.get(id).cloned()).collect()
    }

    pub(super) fn ended(&self, hold: Hold) {
        let mut running = self.running.lock();
        if running.get(&hold.job).is_some_and(|it| it.hold == hold)
            && let Some(it) = running.remove(&hold.job)
        {
            self.hot.lock().insert(it.lane);
        }
        drop(running);
        self.look.notify_one();
    }
}
