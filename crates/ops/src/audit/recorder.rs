//! Tells what is no change: what was refused, and what administrators look at. One task writes it, several
//! at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use modelyard_kernel::part::Counter;
use modelyard_kernel::{
    Actor, Background, Caller, Clock, DEPLOYMENT, Db, Event, Failure, Kind, Result, Scope, event,
};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::READ;

/// What waits to be written; of more it is only counted that it was.
const WAITING: usize = 4096;
/// What is written at once.
const MOST: usize = 128;
/// Addresses whose refusals are counted at a time; those of more are counted as of one.
const ADDRESSES: usize = 1024;
/// How long refusals of an address are counted before that is written.
const COUNTED: Duration = Duration::from_secs(60);
/// How long somebody waits for it to be written that he looks.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells what is no change. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    reads: bool,
    anonymous: Scope,
    notes: mpsc::Sender<Note>,
    lost: Counter,
    /// Lost since that was last a line in the log.
    untold: AtomicU64,
}

#[derive(Debug)]
enum Note {
    /// Something that somebody waits for, or not.
    One(Box<(Scope, Event)>, Option<oneshot::Sender<bool>>),
    /// Somebody who was nobody was turned away.
    Anonymous(Option<IpAddr>, String),
}

/// What was refused.
#[derive(Debug, Serialize)]
pub struct Refusal<'a> {
    /// Why: the code of the problem.
    pub code: &'a str,
    /// The status of the answer.
    pub status: u16,
}

/// How often somebody who was nobody was turned away.
#[derive(Debug, Serialize)]
struct Turned {
    code: String,
    times: u64,
}

impl Recorder {
    /// One that writes to a database. `reads`: whether it is told what administrators look at.
    ///
    /// # Errors
    /// Never, but for a defect: the service itself may do everything.
    pub fn new(
        db: Db,
        clock: Clock,
        background: &Background,
        tenant: &str,
        reads: bool,
    ) -> Result<Self> {
        let (notes, waiting) = mpsc::channel(WAITING);
        let anonymous = Caller::new("anonymous", tenant, DEPLOYMENT, modelyard_kernel::Grants::All);
        let anonymous = anonymous.permit_in_deployment(READ)?.clone();
        let lost = Counter::new(
            "audit_refusals_lost_total",
            "Refusals that are not in the audit, since too many were to be written",
        );
        let untold = AtomicU64::new(0);
        let it =
            Self(Arc::new(Inner { clock: clock.clone(), reads, anonymous, notes, lost, untold }));
        let scope = it.0.anonymous.clone();
        let writer = Writer { db, clock, scope, counted: HashMap::new() };
        background.spawn(writer.run(waiting, background.stopping().clone()));
        Ok(it)
    }

    /// Counts what could not be told.
    pub fn counter(&self) -> Counter {
        self.0.lost.clone()
    }

    /// Whether it is told what administrators look at.
    pub fn tells_reads(&self) -> bool {
        self.0.reads
    }

    /// Tells that somebody was refused something, of a service or of the deployment. Waits for nothing.
    pub fn refused(&self, caller: &Caller, deployment: bool, what: String, refusal: &Refusal<'_>) {
        let service = if deployment { DEPLOYMENT } else { caller.service() };
        let system = Caller::system("audit", caller.tenant(), service);
        let Ok(scope) = system.permit(READ) else { return };
        let scope = scope.with_actor(caller.actor().clone());
        let event = Event::new(&self.0.clock, "request.denied", what).denied().after(refusal);
        self.send(Note::One(Box::new((scope, event)), None));
    }

    /// Tells that somebody was turned away of whom nothing is known. Those of one address and minute become
    /// one entry, so that nobody fills the disk with them.
    pub fn turned_away(&self, address: Option<IpAddr>, code: &str) {
        self.send(Note::Anonymous(address, code.to_owned()));
    }

    fn send(&self, note: Note) {
        let it = &*self.0;
        if it.notes.try_send(note).is_ok() {
            return;
        }
        it.lost.increment();
        if it.untold.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::error!(
                lost = it.lost.get(),
                "refusals are not in the audit: there are too many"
            );
        }
    }

    /// Tells that somebody looks at something, and waits until that is written.
    ///
    /// # Errors
    /// `audit_unavailable`: whoever looks unseen does not look at all.
    pub async fn looks(&self, scope: &Scope, what: String) -> Result<()> {
        let unavailable = || {
            let detail = "it cannot be written down that you look at this; try again in a moment";
            Failure::new(Kind::Unavailable, "audit_unavailable", detail)
        };
        let event = Event::new(&self.0.clock, "request.read", what);
        let (done, written) = oneshot::channel();
        let note = Note::One(Box::new((scope.clone(), event)), Some(done));
        let tell = async {
            self.0.notes.send(note).await.map_err(|_| unavailable())?;
            match written.await {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(unavailable()),
            }
        };
        tokio::time::timeout(PATIENCE, tell).await.unwrap_or_else(|_| Err(unavailable()))
    }
}

/// Writes what is told.
struct Writer {
    db: Db,
    clock: Clock,
    scope: Scope,
    /// Who was turned away since it was last written.
    counted: HashMap<(Option<IpAddr>, String), u64>,
}

impl Writer {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>, stopping: CancellationToken) {
        let mut minute = tokio::time::interval(COUNTED);
        loop {
            let mut some = Vec::with_capacity(MOST);
            tokio::select! {
                biased;
                count = notes.recv_many(&mut some, MOST) => {
                    if count == 0 {
                        return self.write_counted().await;
                    }
                    self.write(some).await;
                }
                _ = minute.tick() => self.write_counted().await,
                () = stopping.cancelled() => {
                    // Requests that are under way may still be waiting.
                    notes.close();
                }
            }
        }
    }

    async fn write(&mut self, notes: Vec<Note>) {
        let (mut told, mut waiting) = (Vec::new(), Vec::new());
        for note in notes {
            match note {
                Note::One(it, done) => {
                    told.push(*it);
                    waiting.extend(done);
                }
                Note::Anonymous(address, code) => self.count(address, code),
            }
        }
        let written = self.write_all(told).await;
        for done in waiting {
            let _gone_away = done.send(written);
        }
    }

    fn count(&mut self, address: Option<IpAddr>, code: String) {
        let mut of = (address, code);
        if self.counted.len() >= ADDRESSES && !self.counted.contains_key(&of) {
            of.0 = None;
        }
        *self.counted.entry(of).or_default() += 1;
    }

    async fn write_counted(&mut self) {
        let counted = std::mem::take(&mut self.counted);
        let told = counted.into_iter().map(|((address, code), times)| {
            let event = Event::new(&self.clock, "request.denied", "").denied();
            let event = event.after(&Turned { code, times });
            (self.scope.with_actor(Actor { address, ..self.scope.actor().clone() }), event)
        });
        self.write_all(told.collect()).await;
    }

    /// False when it could not be written.
    async fn write_all(&self, told: Vec<(Scope, Event)>) -> bool {
        if told.is_empty() {
            return true;
        }
        let write = self
            .db
            .transaction(move |conn| async move { Ok(event::emit_all(conn, told).await?) }.boxed());
        match write.await {
            Ok(()) => true,
            Err(failure) => {
                tracing::error!(%failure, "what was refused or looked at is not in the audit");
                false
            }
        }
    }
}
