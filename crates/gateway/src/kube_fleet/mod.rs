//! A fleet of pods on Kubernetes. A wish is a field of a `Learner` object, what is seen is its status; a controller that is another
//! process makes the pods. The objects are the list of learners, too: the mirror takes them over into the store.

mod cache;
mod calls;
mod classes;
mod documents;
mod mirror;
mod record;
#[cfg(test)]
mod script;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use carrel_core::class::ClassSpec;
use carrel_core::learner::Status;
use carrel_core::{ClassName, Epoch, LearnerId};
use carrel_crd::{Learner, names};
use carrel_protocol::fleet::{Error, Fleet, IsolationReport};
use carrel_store::SharedStore;
use carrel_telemetry::{ApiWrites, Readiness};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::rate::RateLimit;
use crate::sidecar::Sidecars;
use cache::Cache;
use calls::{away, refused, within};
use classes::Classes;
use record::Record;

/// That there is no object of a name is believed for so long: a burst of messages for it asks once.
const ABSENT_FOR: Duration = Duration::from_secs(1);
/// Whoever wakes a learner is alone with it for as long as this is used.
const WAKERS_KEPT_FOR: Duration = Duration::from_mins(1);
const WAKERS_KEPT: u64 = 10_000;
/// So many names in a minute that nobody has are asked for.
const STRANGERS_A_MINUTE: u32 = 120;

/// What it is made of.
pub struct KubeParts {
    /// For calls.
    pub client: Client,
    /// For watches alone: on a connection that is shared with calls their events come late.
    pub watching: Client,
    /// Where the objects are.
    pub namespace: String,
    /// What the objects are taken over into.
    pub store: SharedStore,
    /// How pods are called.
    pub sidecars: Sidecars,
    /// Counts what is written.
    pub writes: ApiWrites,
    /// Is told when there is no complete list yet.
    pub readiness: Readiness,
    /// Whether pods try what must be unreachable before they are ready.
    pub self_test: bool,
}

/// A fleet of pods on Kubernetes. Cheap to clone.
#[derive(Clone)]
pub struct KubeFleet(Arc<Shared>);

struct Shared {
    parts: KubeParts,
    learners: Api<Learner>,
    cache: Arc<Cache>,
    known_classes: Arc<Classes>,
    absent: moka::future::Cache<LearnerId, ()>,
    /// Whether those have an object who had no row.
    strangers: moka::future::Cache<LearnerId, bool>,
    looks: RateLimit<()>,
    wakers: moka::future::Cache<LearnerId, Arc<tokio::sync::Mutex<()>>>,
}

impl KubeFleet {
    /// Begins to watch and to take over; that ends with `cancel`, and the sidecars' tracker waits for it.
    pub fn start(parts: KubeParts, cancel: &CancellationToken) -> Self {
        let fleet = Self::new(parts);
        let Shared { parts, .. } = &*fleet.0;
        let (namespace, tracker) = (&parts.namespace, &parts.sidecars.tracker);
        tracker.spawn(watch::learners(
            Api::namespaced(parts.watching.clone(), namespace),
            Arc::clone(&fleet.0.cache),
            parts.readiness.clone(),
            cancel.clone(),
        ));
        tracker.spawn(watch::classes(
            Api::namespaced(parts.watching.clone(), namespace),
            Arc::clone(&fleet.0.known_classes),
            parts.readiness.clone(),
            cancel.clone(),
        ));
        tracker.spawn(mirror::run(fleet.clone(), cancel.clone()));
        fleet
    }

    fn new(parts: KubeParts) -> Self {
        Self(Arc::new(Shared {
            learners: Api::namespaced(parts.client.clone(), &parts.namespace),
            cache: Arc::default(),
            known_classes: Arc::default(),
            absent: moka::future::Cache::builder()
                .max_capacity(WAKERS_KEPT)
                .time_to_live(ABSENT_FOR)
                .build(),
            strangers: moka::future::Cache::builder()
                .max_capacity(WAKERS_KEPT)
                .time_to_live(ABSENT_FOR)
                .build(),
            looks: RateLimit::new(STRANGERS_A_MINUTE),
            wakers: moka::future::Cache::builder()
                .max_capacity(WAKERS_KEPT)
                .time_to_idle(WAKERS_KEPT_FOR)
                .build(),
            parts,
        }))
    }

    /// What is known of a learner. Nothing is answered before the first list is complete; whom the watch has not shown yet,
    /// the API server is asked for.
    async fn find(&self, learner: &LearnerId) -> Result<Record, Error> {
        let Shared { cache, absent, .. } = &*self.0;
        if !cache.is_complete() {
            return Err(not_listed("reading a learner's status"));
        }
        if let Some(record) = cache.get(learner) {
            return Ok(record);
        }
        let look = async { self.look(learner).await.map(drop) };
        let looked = absent.try_get_with(learner.clone(), look);
        looked.await.map_err(shared)?;
        let found = cache.get(learner);
        found.ok_or_else(|| Error::NoLearner(learner.clone()))
    }

    /// Asks the API server whether one that has no row has an object, and makes its row then. Whoever asks for names that nobody has
    /// is told nothing more of them for a while.
    async fn look_for_stranger(&self, learner: &LearnerId) -> Result<bool, Error> {
        let doing = "looking for a learner's object";
        let away = |source| Error::Unavailable { doing, source };
        let clock = &self.0.parts.sidecars.clock;
        let limited = self.0.looks.take(&(), clock.now());
        limited.map_err(|_| away("too many are asked for that nobody has made".into()))?;
        // Not as the watch shows it, which may be behind an erasure.
        if !self.look(learner).await? {
            return Ok(false);
        }
        self.0.looks.give_back(&());
        let is_left = mirror::make(self, learner).await;
        is_left
            .map(|is_left| !is_left)
            .map_err(|error| away(error.into()))
    }

    /// Asks the API server, and takes what it answers into the cache; whether there is an object that stays.
    async fn look(&self, learner: &LearnerId) -> Result<bool, Error> {
        let doing = "looking for a learner's object";
        let asked = within(self.0.learners.get_opt(learner.as_str())).await;
        let Some(object) = asked.map_err(|error| away(doing, error))? else {
            return Ok(false);
        };
        let stays = object.metadata.deletion_timestamp.is_none();
        self.take(object);
        Ok(stays)
    }

    fn take(&self, object: Learner) {
        if let Some((learner, record)) = Record::of(object) {
            self.0.cache.answered(learner, record);
        }
    }

    /// Wakes a learner that nobody else here is waking.
    async fn wake_alone(&self, learner: &LearnerId, after: Epoch) -> Result<(), Error> {
        let doing = "asking for an incarnation";
        let record = self.find(learner).await?;
        if record.is_going {
            return Err(Error::NoLearner(learner.clone()));
        }
        if record.desired.wake_after_epoch >= Some(after) {
            return Ok(());
        }
        let params = PatchParams {
            field_manager: Some(names::GATEWAY.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"spec": {"wakeAfterEpoch": after}}));
        self.0.parts.writes.count("learners", "patch");
        let written = self.0.learners.patch(learner.as_str(), &params, &patch);
        match within(written).await {
            Ok(object) => {
                self.take(object);
                Ok(())
            }
            Err(error) if refused(&error).is_some_and(kube::core::Status::is_not_found) => {
                Err(Error::NoLearner(learner.clone()))
            }
            // It must not be lowered: somebody may have asked for more meanwhile.
            Err(error) if refused(&error).is_some_and(kube::core::Status::is_invalid) => {
                self.look(learner).await?;
                let asked = self.find(learner).await?.desired.wake_after_epoch;
                if asked >= Some(after) {
                    return Ok(());
                }
                Err(away(doing, error))
            }
            Err(error) => Err(away(doing, error)),
        }
    }
}

fn not_listed(doing: &'static str) -> Error {
    let source = "the list of learners is not complete yet".into();
    Error::Unavailable { doing, source }
}

/// Of a look that several waited for.
#[expect(clippy::needless_pass_by_value, reason = "it is handed over so")]
fn shared(error: Arc<Error>) -> Error {
    Error::Unavailable {
        doing: "looking for a learner's object",
        source: error.to_string().into(),
    }
}

#[async_trait::async_trait]
impl Fleet for KubeFleet {
    async fn wake(&self, learner: &LearnerId, after: Epoch) -> Result<(), Error> {
        let waker = self
            .0
            .wakers
            .get_with(learner.clone(), async { Arc::default() });
        let waker = waker.await;
        // What one has written the next sees, though the watch has not shown it yet.
        let _alone = waker.lock().await;
        self.wake_alone(learner, after).await
    }

    /// Whoever is asked for once more is looked at: the controller asks the sidecar itself.
    async fn doubt(&self, learner: &LearnerId, epoch: Epoch) -> Result<(), Error> {
        self.wake(learner, epoch).await
    }

    async fn sleep(&self, learner: &LearnerId) -> Result<(), Error> {
        let seen = self.find(learner).await?.seen;
        self.0.parts.sidecars.sleep(learner, seen).await
    }

    async fn status(&self, learner: &LearnerId) -> Result<Status, Error> {
        Ok(self.find(learner).await?.shown())
    }

    fn changes(&self) -> broadcast::Receiver<LearnerId> {
        self.0.cache.changes()
    }

    async fn discard(&self, learner: &LearnerId) -> Result<(), Error> {
        self.delete(learner).await
    }

    async fn isolation(&self) -> Result<IsolationReport, Error> {
        let mut missing = Vec::new();
        for (class, spec) in self.0.known_classes.usable() {
            if !spec.isolation.user_namespace {
                missing.push(format!("user namespaces (class {class})"));
            }
        }
        // A node's kubelet bounds the processes of each pod, by a number of its own.
        missing.push("pids".to_owned());
        if !self.0.parts.self_test {
            missing.push("self-test".to_owned());
        }
        Ok(IsolationReport {
            isolation: "kubernetes".to_owned(),
            limits_missing: missing,
            warning: String::new(),
        })
    }

    async fn admits(&self, learner: &LearnerId) -> Result<(), Error> {
        if self.find(learner).await?.is_going {
            return Err(Error::NoLearner(learner.clone()));
        }
        Ok(())
    }

    async fn enrol(&self, learner: &LearnerId) -> Result<bool, Error> {
        if !self.0.cache.is_complete() {
            return Err(not_listed("looking for a learner's object"));
        }
        let looked = self
            .0
            .strangers
            .try_get_with(learner.clone(), self.look_for_stranger(learner));
        looked.await.map_err(shared)
    }

    fn lists(&self, learner: &LearnerId) -> bool {
        !self.0.cache.is_complete() || self.0.cache.has(learner)
    }

    async fn declare(&self, learner: &LearnerId, class: &ClassName) -> Result<(), Error> {
        self.apply(learner, class).await
    }

    /// Whoever may write classes decides what runs, and what it may spend and reach: a gateway may not.
    async fn declare_class(&self, name: &ClassName, _spec: &ClassSpec) -> Result<(), Error> {
        let why = format!(
            "on Kubernetes a class is an object, and the gateway may not write it: 'kubectl apply' the LearnerClass '{name}'"
        );
        Err(Error::Conflict(why))
    }
}
