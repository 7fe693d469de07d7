//! The component: its parts, its start and its end.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carrel_core::learner::LearnerState;
use carrel_core::{ClassName, Epoch, LearnerId, MessageId, OwnerId};
use carrel_protocol::Problem;
use carrel_protocol::gateway::Link;
use moka::future::Cache;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::admin::{erase, tokens};
use crate::dispatch::{self, Roster};
use crate::grant::Swept;
use crate::options::Options;
use crate::rate::RateLimit;
use crate::sidecar::Sidecar;
use crate::stream::Hubs;

/// Repeats of a message within this time get the same answer to the letter.
const ANSWERED_FOR: Duration = Duration::from_mins(10);
const ANSWERS_KEPT: u64 = 10_000;

/// What a class says holds for messages within this time.
const CLASS_KEPT_FOR: Duration = Duration::from_secs(1);

/// What all requests and turns share.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) options: Options,
    pub(crate) hubs: Arc<Hubs>,
    pub(crate) roster: Roster,
    pub(crate) rate: RateLimit<LearnerId>,
    /// Where learners were when their messages were first answered.
    pub(crate) answered: Cache<MessageId, LearnerState>,
    /// How many messages of a learner of a class may wait.
    pub(crate) queued: Cache<ClassName, u32>,
    pub(crate) swept: Swept,
    pub(crate) owner: OwnerId,
    erasing: Mutex<HashSet<LearnerId>>,
    pub(crate) tracker: TaskTracker,
    /// Ends everything.
    pub(crate) cancel: CancellationToken,
    /// Who probes hears that it goes; nothing else changes yet.
    pub(crate) leaving: CancellationToken,
    /// Closes the intake; running turns finish.
    pub(crate) draining: CancellationToken,
}

/// The part of the gateway that requests and turns hold.
pub(crate) type Shared = Arc<Gateway>;

impl Gateway {
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.options.clock.now()
    }

    /// Whom this process is erasing.
    pub(crate) fn erasing(&self) -> MutexGuard<'_, HashSet<LearnerId>> {
        self.erasing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the fleet that an incarnation's sidecar does not answer.
    pub(crate) async fn doubt(&self, learner: &LearnerId, epoch: Epoch) {
        if let Err(error) = self.options.fleet.doubt(learner, epoch).await {
            tracing::warn!(learner.id = %learner, %error, "the fleet cannot be told that a sidecar is silent");
        }
    }

    pub(crate) fn sidecar(
        &self,
        learner: &LearnerId,
        epoch: Epoch,
        endpoint: carrel_protocol::Endpoint,
    ) -> Sidecar {
        Sidecar {
            learner: learner.clone(),
            epoch,
            endpoint,
            trust: self.options.trust.clone(),
            signer: self.options.signer.clone(),
            clock: self.options.clock.clone(),
            tracker: self.tracker.clone(),
        }
    }
}

/// A running gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(Shared);

/// Starts the dispatcher and what keeps streams up to date; they end with `cancel`, and `tracker` waits for them.
pub fn start(options: Options, tracker: TaskTracker, cancel: CancellationToken) -> Handle {
    let shared = Arc::new(Gateway {
        hubs: Arc::new(Hubs::default()),
        roster: Roster::default(),
        rate: RateLimit::new(options.limits.messages_per_minute),
        answered: Cache::builder()
            .max_capacity(ANSWERS_KEPT)
            .time_to_live(ANSWERED_FOR)
            .build(),
        queued: Cache::builder().time_to_live(CLASS_KEPT_FOR).build(),
        swept: Swept::default(),
        owner: OwnerId(Uuid::now_v7()),
        erasing: Mutex::default(),
        leaving: cancel.child_token(),
        draining: cancel.child_token(),
        options,
        tracker,
        cancel,
    });
    let tracker = &shared.tracker;
    tracker.spawn(Arc::clone(&shared.hubs).follow(
        Arc::clone(&shared.options.store),
        tracker.clone(),
        shared.cancel.clone(),
    ));
    tracker.spawn(
        Arc::clone(&shared.hubs)
            .follow_fleet(shared.options.fleet.changes(), shared.cancel.clone()),
    );
    tracker.spawn(dispatch::run(Arc::clone(&shared)));
    tracker.spawn(dispatch::catch_up(Arc::clone(&shared)));
    tracker.spawn(dispatch::renew(Arc::clone(&shared)));
    tracker.spawn(dispatch::announce(Arc::clone(&shared)));
    tracker.spawn(erase::resume(Arc::clone(&shared)));
    Handle(shared)
}

impl Handle {
    /// All paths: API, admin API, pages, health.
    pub fn router(&self) -> axum::Router {
        crate::api::router(&self.0)
    }

    /// The health paths alone, for a port of their own.
    pub fn health(&self) -> axum::Router {
        crate::admin::health::router(&self.0)
    }

    /// A link that signs a browser in as a learner, once.
    ///
    /// # Errors
    /// When the store is away, or there is no such learner.
    pub async fn chat_link(&self, learner: LearnerId) -> Result<Link, Problem> {
        tokens::chat_link(&self.0, learner)
            .await
            .map_err(Into::into)
    }

    /// A link that signs a browser in as the operator, once.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn console_link(&self) -> Result<Link, Problem> {
        tokens::console_link(&self.0).await.map_err(Into::into)
    }

    /// Says to whoever probes that it goes: not ready. It works on as before until [`Self::drain`].
    pub fn leave(&self) {
        self.0.leaving.cancel();
    }

    /// Closes the intake: new messages get 503, turns that wait are left to the next process, running ones finish.
    /// Returns when none runs here.
    ///
    /// # Cancel safety
    /// The intake stays closed when the caller stops waiting.
    pub async fn drain(&self) {
        self.0.leaving.cancel();
        self.0.draining.cancel();
        self.0.roster.emptied().await;
    }
}
