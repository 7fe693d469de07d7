//! What the parts of a controller share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carrel_core::learner::LearnerState;
use carrel_core::lifecycle::Plan;
use carrel_core::{LearnerId, PodUid};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Writer};
use crate::events::Events;
use crate::gate::{Gate, Progress};
use crate::lease::Term;
use crate::metrics::Metrics;
use crate::names;
use crate::options::Options;
use crate::queue::Queue;
use crate::template::Template;
use crate::world::pod::{Life, SeenPod};
use crate::world::{Class, World};

/// First visits at once: whoever rests waits for those who wake.
const FIRST_VISITS: usize = 4;
/// Older states that vaults are asked for at once: each is read whole there.
const RESTORES: usize = 8;

/// What the parts of a controller share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) writer: Writer,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) template: Template,
    pub(crate) queue: Queue,
    /// A pool may want pods, or have too many.
    pub(crate) pool: Notify,
    pub(crate) first_visits: Semaphore,
    pub(crate) restores: Semaphore,
    pub(crate) cancel: CancellationToken,
    pub(crate) tracker: TaskTracker,
    pub(crate) term: Arc<Term>,
    world: Mutex<World>,
}

/// A controller's parts, as each of them holds them.
pub(crate) type Handle = Arc<Shared>;

impl Shared {
    pub(crate) fn new(
        options: Options,
        writer: Writer,
        events: Events,
        metrics: Metrics,
        cancel: CancellationToken,
        tracker: TaskTracker,
        term: Arc<Term>,
    ) -> Handle {
        let world = World::new(Gate::new(options.budget));
        let keys = serde_json::json!([options.signer.public_key()]).to_string();
        Arc::new(Self {
            template: Template::new(&options.pods, keys),
            writer,
            events,
            metrics,
            queue: Queue::default(),
            pool: Notify::new(),
            first_visits: Semaphore::new(FIRST_VISITS),
            restores: Semaphore::new(RESTORES),
            cancel,
            tracker,
            term,
            world: Mutex::new(world),
            options,
        })
    }

    /// What is seen of the cluster; held for a moment, never over an `await`.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.options.now)()
    }

    /// Whether this process may write.
    pub(crate) fn is_leader(&self) -> bool {
        self.term.runs()
    }

    /// A time on the clock by which one waits; now for one that has passed.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        let wait = at.duration_since(self.now());
        Instant::now() + Duration::try_from(wait).unwrap_or_default()
    }

    /// Runs a task that never returns, until the controller ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.cancel.clone();
        self.tracker
            .spawn(async move { stop.run_until_cancelled(task).await });
    }

    /// Lets in whoever may start now.
    pub(crate) fn admit(&self, world: &mut World, now: Timestamp) {
        let (admitted, next) = world.gate.admit(now);
        for id in &admitted {
            self.queue.now(id);
        }
        if let (Some(at), Some(id)) = (next, world.gate.first_waiting()) {
            self.queue.add(id, self.instant(at));
        }
    }

    /// Keeps the learner's place among the living as a plan says that they are.
    pub(crate) fn keep_place(&self, id: &LearnerId, plan: &Plan) {
        let (mut world, now) = (self.world(), self.now());
        match plan.status.state {
            LearnerState::Ready | LearnerState::Busy => {
                world.gate.goes_on(id, Progress::Lives, now);
            }
            LearnerState::Asleep if plan.status.pod.is_none() && plan.requeue_at.is_none() => {
                world.gate.gone(id);
            }
            LearnerState::Asleep
            | LearnerState::Waking
            | LearnerState::Restoring
            | LearnerState::Draining
            | LearnerState::Snapshotting
            | LearnerState::Failed
            | LearnerState::Deleting => {}
        }
        self.admit(&mut world, now);
    }

    /// Nothing is on its way for a learner any more.
    pub(crate) fn forget(&self, id: &LearnerId) {
        let mut world = self.world();
        world.stirs.remove(id);
        world.gate.gone(id);
        let now = self.now();
        self.admit(&mut world, now);
    }

    /// A place for one pod in the learner namespace with the fewest; or until when none takes one, and why.
    pub(crate) fn roomiest(&self) -> Result<Place<'_>, (Timestamp, String)> {
        let (mut world, now, pods) = (self.world(), self.now(), &self.options.pods);
        world.full.retain(|_, (until, _)| now < *until);
        let counted = pods
            .namespaces
            .iter()
            .filter(|name| !world.full.contains_key(*name))
            .map(|name| (world.pods.count(name), name));
        match counted.min() {
            Some((count, name)) if count < pods.most_in_namespace => {
                world.pods.expect(name);
                return Ok(Place {
                    shared: self,
                    namespace: name.clone(),
                });
            }
            Some(_) | None => {}
        }
        let refused = world.full.values().min().cloned();
        Err(refused.unwrap_or_else(|| {
            let why = format!("each has {} pods", pods.most_in_namespace);
            (now + names::FULL_FOR, why)
        }))
    }

    /// Makes a blank pod of a class and takes it in: nobody's, for whoever comes first.
    pub(crate) async fn make_pod(&self, class: &Class, at: Place<'_>) -> Result<(), api::Error> {
        let namespace = at.namespace.as_str();
        let impossible = || api::Error::Refused("its template makes no pod".to_owned());
        let pod = self
            .template
            .pod(class, namespace)
            .map_err(|_| impossible())?;
        let made = self.writer.create_pod(namespace, &pod).await;
        if let Err(api::Error::Full(why)) = &made {
            let until = self.now() + names::FULL_FOR;
            let full = (until, why.clone());
            self.world().full.insert(namespace.to_owned(), full);
        }
        let made = made?;
        let seen = SeenPod::read(&made).ok_or_else(impossible)?;
        self.world().pods.put(seen);
        Ok(())
    }

    /// Ends a pod that is nobody's or this learner's, within its grace period or within so many seconds. From now on it is nobody's
    /// to choose; one that had ended is forgotten.
    pub(crate) async fn end_pod(
        &self,
        uid: PodUid,
        of: Option<&LearnerId>,
        grace: Option<u32>,
    ) -> Result<(), api::Error> {
        let (place, before) = {
            let mut world = self.world();
            let claimant = world.pods.claimant(uid);
            if claimant.is_some() && claimant != of {
                return Ok(());
            }
            let Some(pod) = world.pods.get(uid) else {
                return Ok(());
            };
            let (mut place, has_ended) = (pod.place(), pod.has_ended());
            // One that is nobody's here may have become somebody's by another's hand.
            place.version = Some(pod.version).filter(|_| of.is_none());
            if pod.gone {
                world.pods.forget(uid);
                return Ok(());
            }
            let seconds = grace.unwrap_or(self.options.pods.grace_seconds);
            let until = self.now() + SignedDuration::from_secs(i64::from(seconds));
            let before = if has_ended {
                None
            } else {
                world.pods.set_life(uid, Life::Leaving { until })
            };
            (place, before)
        };
        let is_over = before.is_none();
        // The kubelet of a silent node never says that it is gone.
        let deleted = self
            .writer
            .delete_pod(&place, if is_over { Some(0) } else { grace })
            .await;
        let mut world = self.world();
        match (&deleted, before) {
            (Ok(()), None) => world.pods.forget(uid),
            (Err(_), Some(life)) => {
                world.pods.set_life(uid, life);
            }
            (Ok(()), Some(_)) | (Err(_), None) => {}
        }
        deleted
    }
}

/// A place for a pod in a namespace, which nobody else counts as free while it is kept: until the pod is there, or will not be.
pub(crate) struct Place<'a> {
    shared: &'a Shared,
    namespace: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.world().pods.expect_no_more(&self.namespace);
    }
}

#[cfg(test)]
pub(crate) mod tests;
