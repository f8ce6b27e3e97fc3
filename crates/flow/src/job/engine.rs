//! What does the jobs of every service of a process: one dispatcher that claims, one pulse that says
//! that the process lives, one listener that hears of other processes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use modelyard_kernel::db::notify;
use modelyard_kernel::{Background, Clock, Db, Result, Time, Ulid, Work, failpoint};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claims::{self, Beat};
use super::context::Reports;
use super::model::{Claimed, Hold, JobId, Lane};
use super::together::{Added, Completed, Together};
use super::{Jobs, worker};

/// How often a process says that it lives: with [`LEASE`], a job of one that died is begun again
/// elsewhere in less than five seconds, and an idle process asks less than once a second.
const BEAT: Duration = Duration::from_millis(1200);
/// How long the others count on a process that says nothing.
const LEASE: Duration = Duration::from_millis(3400);
/// A lease that ends sooner is renewed before a job is claimed under it.
const LEASE_LEFT: Duration = Duration::from_millis(1500);
/// Whoever submits wakes the dispatcher; this is for what nobody heard of.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long the dispatcher waits when the database refuses.
const REFUSED: Duration = Duration::from_millis(500);
/// Jobs that are claimed at once; more are claimed when some of them are done.
const CLAIMS: usize = 64;
/// Jobs that end as soon as this are claimed before there is a place for them, so that none waits for
/// the claim of the next.
const SHORT: Duration = Duration::from_millis(20);
/// What is noted of those that were not short after all; it takes some dozen short ones to forget it.
const LONG: Duration = Duration::from_secs(10);
/// What processes say to each other: there is something to do, or to stop doing.
const CHANNEL: &str = "modelyard_jobs";
/// How often others are told at most.
const TELL: Duration = Duration::from_millis(100);
/// How often what has expired is removed.
const EXPIRE: Duration = Duration::from_secs(300);
/// How long names of requests are remembered.
const KEYS: Duration = Duration::from_secs(24 * 60 * 60);

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
    fn take(&self, queue: &str) -> bool {
        match self {
            Workers::All => true,
            Workers::None => false,
            Workers::Queues(names) => names.iter().any(|it| it == queue),
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
    /// Jobs of one service that may wait; more are refused with 429.
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
    services: Mutex<HashMap<String, Arc<HashMap<&'static str, Work>>>>,
    /// Held from before jobs are claimed until they are in `running`: whoever takes one away then
    /// knows where to find it.
    claiming: tokio::sync::Mutex<()>,
    running: Mutex<HashMap<JobId, Running>>,
    /// Lanes in which jobs may be due.
    hot: Mutex<HashSet<Lane>>,
    /// How long jobs of a lane took of late.
    pace: Mutex<HashMap<Lane, Duration>>,
    /// Places for jobs: of each service, of the queues that have fewer, and of all.
    places: Mutex<HashMap<PlaceKey, Arc<Semaphore>>>,
    all_places: Arc<Semaphore>,
    look: Notify,
    /// Whether jobs were added here of which the others have not heard.
    untold: AtomicBool,
    /// Whether lanes may have jobs that nobody told of.
    survey: AtomicBool,
    pulse: Notify,
    /// Until when the others count on this process.
    leased: Mutex<Option<Instant>>,
    pub(super) added: Arc<Together<Added>>,
    pub(super) completed: Arc<Together<Completed>>,
}

/// A service, and one of its queues where that has fewer places.
type PlaceKey = (Arc<str>, Option<Arc<str>>);

/// A job that runs in this process.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) hold: Hold,
    lane: Lane,
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
        let kinds = work.into_iter().map(|it| (it.kind, it)).collect();
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
        background.spawn(expire(self.0.clone()));
        if machine.options.workers == Workers::None {
            background.spawn(announce(self.0.clone()));
        } else {
            background.spawn(listen(self.0.clone()));
            background.spawn(dispatch(self.clone()));
            background.spawn(pulse(self.0.clone()));
        }
        Ok(())
    }
}

impl Machine {
    pub(super) fn work(&self, service: &str, kind: &str) -> Option<Work> {
        self.services.lock().get(service).and_then(|it| it.get(kind)).cloned()
    }

    /// The kinds of work that a service does.
    pub(super) fn kinds(&self, service: &str) -> Vec<&'static str> {
        let services = self.services.lock();
        services.get(service).map(|it| it.keys().copied().collect()).unwrap_or_default()
    }

    /// The queues that the work of a service waits in.
    pub(super) fn queues(&self, service: &str) -> BTreeSet<&'static str> {
        let services = self.services.lock();
        let work = services.get(service).map(|it| it.values().map(|it| it.queue).collect());
        work.unwrap_or_default()
    }

    /// Has the dispatcher look at a lane in which jobs are due.
    pub(super) fn heat(&self, lane: Lane) {
        if self.options.workers != Workers::None {
            self.hot.lock().insert(lane);
        }
        self.untold.store(true, Ordering::Release);
        self.look.notify_one();
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

    /// Tells other processes to look, for what this one cannot do itself.
    pub(super) async fn tell_others(&self) -> Result<()> {
        Ok(notify(&mut self.db.conn().await?, CHANNEL).await?)
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

    /// Waits for a place to do a job of a lane in.
    async fn place(self: Arc<Self>, lane: Lane) -> Vec<OwnedSemaphorePermit> {
        let (service, queue) = (lane.service.clone(), lane.queue.clone());
        let mut wanted = vec![self.places_of((service.clone(), None), self.options.concurrency)];
        if let Some(most) = self.options.queues.get(&*queue) {
            wanted.push(self.places_of((service, Some(queue)), *most));
        }
        // Last, since it is what others wait for.
        wanted.push(Arc::clone(&self.all_places));
        let mut held = Vec::with_capacity(wanted.len());
        for places in wanted {
            // They are never closed.
            held.extend(places.acquire_owned().await.ok());
        }
        held
    }

    fn places_of(&self, key: PlaceKey, most: usize) -> Arc<Semaphore> {
        let mut places = self.places.lock();
        Arc::clone(places.entry(key).or_insert_with(|| Arc::new(Semaphore::new(most.max(1)))))
    }

    /// Notes how long a job took; one that found no place in time says that they are not short.
    pub(super) fn note_pace(&self, lane: &Lane, took: Option<Duration>) {
        let mut pace = self.pace.lock();
        if pace.len() > 1000 {
            pace.clear();
        }
        let before = pace.get(lane).copied();
        let now = match (took, before) {
            (None, _) => LONG,
            (Some(took), None) => took,
            (Some(took), Some(before)) => took.max(before.saturating_mul(7) / 8),
        };
        pace.insert(lane.clone(), now);
    }

    /// How many more jobs of a lane this process could do.
    fn room(&self, lane: &Lane) -> usize {
        let options = &self.options;
        let is_short = self.pace.lock().get(lane).is_some_and(|it| *it <= SHORT);
        let ahead = |places: usize| if is_short { 2 * places } else { places };
        let running = self.running.lock();
        let of_service = running.values().filter(|it| it.lane.service == lane.service);
        let of_queue = running.values().filter(|it| it.lane.same_queue(lane));
        let mut room = ahead(options.concurrency.max(1)).saturating_sub(of_service.count());
        if options.total > 0 {
            room = room.min(ahead(options.total).saturating_sub(running.len()));
        }
        if let Some(most) = options.queues.get(&*lane.queue) {
            room = room.min(ahead(*most).saturating_sub(of_queue.count()));
        }
        room.min(CLAIMS)
    }

    /// The lane whose turn it is: whose tenant and service have the least going on, and of these the
    /// one that was served longest ago.
    fn next_lane(&self, served: &HashMap<Lane, u64>) -> Option<(Lane, usize)> {
        let hot: Vec<Lane> = self.hot.lock().iter().cloned().collect();
        let services = self.services.lock();
        let open = hot.into_iter().filter(|lane| {
            services.contains_key(&*lane.service) && self.options.workers.take(&lane.queue)
        });
        let open: Vec<(Lane, usize)> =
            open.map(|lane| (lane.clone(), self.room(&lane))).filter(|it| it.1 > 0).collect();
        drop(services);
        let others = open.len() > 1;
        let running = self.running.lock();
        let busy = |lane: &Lane| {
            running
                .values()
                .filter(|it| it.lane.tenant == lane.tenant && it.lane.service == lane.service)
                .count()
        };
        let next = open.into_iter().min_by_key(|(lane, _)| {
            (busy(lane), served.get(lane).copied().unwrap_or(0), lane.clone())
        });
        // Where others wait too, they take turns.
        next.map(|(lane, room)| (lane, if others { 1 } else { room }))
    }
}

impl Lane {
    fn same_queue(&self, other: &Lane) -> bool {
        self.service == other.service && self.queue == other.queue
    }
}

/// Claims what is due and hands it to workers, until the process stops.
async fn dispatch(engine: Engine) {
    let machine = &*engine.0;
    let stopping = machine.background.stopping().clone();
    let mut dispatcher = Dispatcher::default();
    while !stopping.is_cancelled() {
        // Waiting before it looks, so that nothing is missed.
        let mut look = pin!(machine.look.notified());
        look.as_mut().enable();
        let pause = match dispatcher.round(&engine).await {
            Ok(until) => {
                let until = dispatcher.tell(machine).await.map_or(until, |it| it.min(until));
                until.saturating_duration_since(Instant::now())
            }
            Err(failure) => {
                tracing::error!(%failure, "jobs cannot be claimed, trying again");
                machine.survey.store(true, Ordering::Release);
                REFUSED
            }
        };
        tokio::select! {
            () = look => {}
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => {}
        }
    }
}

#[derive(Debug, Default)]
struct Dispatcher {
    /// When to look at all lanes again.
    survey_at: Option<Instant>,
    served: HashMap<Lane, u64>,
    turns: u64,
    told_at: Option<Instant>,
}

impl Dispatcher {
    /// Claims all that there is room for. Gives when to look again at the latest.
    async fn round(&mut self, engine: &Engine) -> Result<Instant> {
        let machine = &*engine.0;
        let told = machine.survey.swap(false, Ordering::AcqRel);
        if told || self.survey_at.is_none_or(|it| it <= Instant::now()) {
            self.survey_at = Some(survey(machine).await?);
        }
        while let Some((lane, most)) = machine.next_lane(&self.served) {
            if machine.background.stopping().is_cancelled() {
                break;
            }
            let claimed = claim(engine, &lane, most).await?;
            self.turns += 1;
            self.served.insert(lane, self.turns);
            for mut task in claimed {
                // Places are given in the order in which they were first asked for.
                poll_fn(|cx| {
                    let _not_yet = task.place.as_mut().poll(cx);
                    Poll::Ready(())
                })
                .await;
                machine.background.spawn(worker::work(engine.clone(), task));
            }
        }
        if self.served.len() > 1000 {
            self.served.clear();
        }
        Ok(self.survey_at.unwrap_or_else(Instant::now))
    }
}

impl Dispatcher {
    /// Tells the others of jobs that were added here and for which there is no place here. Gives when
    /// to do so when it is too soon.
    async fn tell(&mut self, machine: &Machine) -> Option<Instant> {
        let has_rest = !machine.hot.lock().is_empty();
        if !has_rest || !machine.untold.load(Ordering::Acquire) {
            return None;
        }
        let next = self.told_at.map(|it| it + TELL).filter(|it| *it > Instant::now());
        if next.is_some() {
            return next;
        }
        machine.untold.store(false, Ordering::Release);
        self.told_at = Some(Instant::now());
        if let Err(failure) = machine.tell_others().await {
            tracing::debug!(%failure, "other processes do not hear of a job at once");
        }
        None
    }
}

/// Finds the lanes in which jobs are due. Gives when to look again.
async fn survey(machine: &Machine) -> Result<Instant> {
    let now = machine.clock.now();
    let waiting = claims::survey(&mut machine.db.conn().await?, now).await?;
    let mut pause = LOOK_AGAIN;
    let mut hot = machine.hot.lock();
    for it in waiting {
        if let Some(next) = it.next_at {
            pause = pause.min(next.since(now) + Duration::from_millis(1));
        }
        if it.due > 0 {
            hot.insert(Lane {
                tenant: it.tenant_id.into(),
                service: it.service_id.into(),
                queue: it.queue.into(),
            });
        }
    }
    Ok(Instant::now() + pause)
}

async fn claim(engine: &Engine, lane: &Lane, most: usize) -> Result<Vec<Task>> {
    let machine = &*engine.0;
    lease(machine).await?;
    let _claiming = machine.claiming.lock().await;
    let mut conn = machine.db.conn().await?;
    // Before the claim, so that what is added meanwhile makes the lane hot again.
    machine.hot.lock().remove(lane);
    let now = machine.clock.now();
    let claimed = claims::claim(&mut conn, lane, &machine.node, most, now).await;
    let claimed = match claimed {
        Ok(claimed) => claimed,
        Err(error) => {
            machine.hot.lock().insert(lane.clone());
            return Err(error.into());
        }
    };
    drop(conn);
    failpoint::reach("job.claimed");
    if claimed.len() == most {
        machine.hot.lock().insert(lane.clone());
    }
    let mut running = machine.running.lock();
    let tasks = claimed.into_iter().map(|job| {
        let cancel = CancellationToken::new();
        let (ended, watch) = watch::channel(false);
        let hold = Hold { job: job.id, token: job.token };
        let reports = Arc::new(Reports::new(job.is_fresh()));
        let it =
            Running { hold, lane: lane.clone(), cancel: cancel.clone(), ended: watch, reports };
        if let Some(stale) = running.insert(job.id, it) {
            // Its claim was undone, and what it does counts no more.
            stale.cancel.cancel();
        }
        let work = machine.work(&lane.service, &job.kind);
        let place = Box::pin(maybe_done(Arc::clone(&engine.0).place(lane.clone()).boxed()));
        Task { lane: lane.clone(), work, job, cancel, ended, place }
    });
    Ok(tasks.collect())
}

/// Sees to it that the others count on this process for a while.
async fn lease(machine: &Machine) -> Result<()> {
    let enough = Instant::now() + LEASE_LEFT;
    if machine.leased.lock().is_none_or(|it| it < enough) {
        beat(machine, true, false).await?;
    }
    Ok(())
}

async fn beat(machine: &Machine, works: bool, takes_over: bool) -> Result<()> {
    let at = Instant::now();
    let known: Vec<Running> = machine.running.lock().values().cloned().collect();
    let beaten = claims::beat(
        &machine.db,
        Beat {
            node: machine.node.clone(),
            lease: works.then_some(LEASE),
            takes_over,
            now: machine.clock.now(),
        },
    )
    .await?;
    if works {
        *machine.leased.lock() = Some(at + LEASE);
        let own: HashSet<Hold> = beaten.own.into_iter().collect();
        for it in known.iter().filter(|it| !own.contains(&it.hold)) {
            // It has ended, or somebody took it away; then nobody wants what it does.
            it.cancel.cancel();
        }
    }
    if beaten.taken_over > 0 {
        let jobs = beaten.taken_over;
        tracing::warn!(jobs, "jobs of a process that is gone are begun again");
        machine.look_at_all();
    }
    Ok(())
}

/// Says that this process lives, and looks after the jobs of those that do not.
async fn pulse(machine: Arc<Machine>) {
    let stopping = machine.background.stopping().clone();
    // After an outage everybody's lease has ended, and whoever comes back first must not take the
    // jobs of those that come back a moment later.
    let mut steady_since = Instant::now();
    // Until the last worker is done, a stop included.
    loop {
        let works = !machine.running.lock().is_empty();
        if stopping.is_cancelled() && !works {
            return;
        }
        let steady = steady_since.elapsed() > LEASE;
        if let Err(failure) = beat(&machine, works, steady).await {
            tracing::warn!(%failure, "the database does not hear that this process lives");
            steady_since = Instant::now();
        }
        tokio::select! {
            () = tokio::time::sleep(BEAT) => {}
            () = machine.pulse.notified() => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Hears what other processes say.
async fn listen(machine: Arc<Machine>) {
    let stopping = machine.background.stopping().clone();
    let heard = || {
        machine.look_at_all();
        machine.pulse.notify_one();
    };
    while !stopping.is_cancelled() {
        let ended = tokio::select! {
            ended = machine.db.listen(CHANNEL, heard) => ended,
            () = stopping.cancelled() => return,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "other processes cannot be heard, trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Tells the others of jobs that a process without workers took in.
async fn announce(machine: Arc<Machine>) {
    let stopping = machine.background.stopping().clone();
    loop {
        tokio::select! {
            () = machine.look.notified() => {}
            () = stopping.cancelled() => return,
        }
        if let Err(failure) = machine.tell_others().await {
            tracing::warn!(%failure, "other processes do not hear of a job at once");
        }
        // Many jobs at once are one message.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Removes what has expired, now and then.
async fn expire(machine: Arc<Machine>) {
    let stopping = machine.background.stopping().clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(EXPIRE) => {}
            () = stopping.cancelled() => return,
        }
        match expire_now(&machine).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "records of jobs have expired"),
            Err(failure) => tracing::error!(%failure, "what has expired is not removed"),
        }
    }
}

pub(super) async fn expire_now(machine: &Machine) -> Result<u64> {
    let now = machine.clock.now();
    let retention = machine.options.retention;
    let ended = if retention.is_zero() { Time::from_micros(0) } else { now.before(retention) };
    let mut conn = machine.db.conn().await?;
    Ok(claims::expire(&mut conn, ended, now.before(KEYS), now).await?)
}
