//! Whose turn it is, and how much of a lane this process can do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::engine::{Machine, PlaceKey};
use super::model::Lane;

/// Jobs that are claimed at once; more are claimed when some of them are done.
const CLAIMS: usize = 64;
/// Jobs that end as soon as this are claimed before there is a place for them, so that none waits for
/// the claim of the next.
const SHORT: Duration = Duration::from_millis(20);
/// What is noted of those that were not short after all; it takes some dozen short ones to forget it.
const LONG: Duration = Duration::from_secs(10);

impl Machine {
    /// Waits for a place to do a job of a lane in.
    pub(super) async fn place(self: Arc<Self>, lane: Lane) -> Vec<OwnedSemaphorePermit> {
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
    pub(super) fn next_lane(&self, served: &HashMap<Lane, u64>) -> Option<(Lane, usize)> {
        let hot: Vec<Lane> = self.hot.lock().iter().cloned().collect();
        let open = hot.into_iter().map(|lane| (lane.clone(), self.room(&lane)));
        let open: Vec<(Lane, usize)> = open.filter(|it| it.1 > 0).collect();
        let others = open.len() > 1;
        let running = self.running.lock();
        let busy = |lane: &Lane| running.values().filter(|it| it.lane.same_service(lane)).count();
        let turn = |lane: &Lane| served.get(lane).copied().unwrap_or(0);
        // A service has one turn, however many queues it has.
        let turn_of_service = |lane: &Lane| {
            let its = served.iter().filter(|(it, _)| it.same_service(lane));
            its.map(|(_, turn)| *turn).max().unwrap_or(0)
        };
        let next = open
            .into_iter()
            .min_by_key(|(lane, _)| (busy(lane), turn_of_service(lane), turn(lane), lane.clone()));
        // Where others wait too, they take turns.
        next.map(|(lane, room)| (lane, if others { 1 } else { room }))
    }
}

impl Lane {
    fn same_service(&self, other: &Lane) -> bool {
        self.tenant == other.tenant && self.service == other.service
    }

    fn same_queue(&self, other: &Lane) -> bool {
        self.service == other.service && self.queue == other.queue
    }
}
