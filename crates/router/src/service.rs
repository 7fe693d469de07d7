//! The component: what every call shares, and its running as a service of its own.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use carrel_protocol::token::Verifier;
use carrel_store::Ledger;
use carrel_wire::Incoming;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::door::{Door, Peer};
use crate::http::router;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::policy::LearnerPolicy;

/// How often orphaned reservations are looked for.
const SWEEP: Duration = Duration::from_mins(5);
/// How long running calls may take after the intake has closed.
pub(crate) const LAST_CALLS: Duration = Duration::from_secs(15);
/// How long the calls of clients that were cut off then may take to settle.
const LAST_SETTLEMENTS: Duration = Duration::from_secs(5);

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the router needs from others.
#[derive(Clone)]
pub struct Ports {
    /// Where money is kept; its fence decides about epochs.
    pub ledger: Arc<dyn Ledger>,
    /// What a learner may use and spend.
    pub policy: Arc<dyn LearnerPolicy>,
    /// Knows the keys by which learners' tokens are signed.
    pub verifier: Verifier,
    /// The time.
    pub clock: Clock,
    /// Counters, registered by whoever made them.
    pub metrics: Metrics,
}

/// Why the router cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client for providers cannot be made.
    #[error("preparing the client for model providers")]
    Client(#[source] reqwest::Error),
    /// The listener failed.
    #[error("serving the model API")]
    Serve(#[source] std::io::Error),
}

/// The router; a cheap handle.
#[derive(Clone)]
pub struct Service {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    options: RwLock<Arc<Options>>,
    pub(crate) ports: Ports,
    pub(crate) client: reqwest::Client,
    pub(crate) tracker: TaskTracker,
}

impl Service {
    /// A router that is ready to be served by [`router`] or [`Self::run`].
    ///
    /// # Errors
    /// When the client for providers cannot be made.
    pub fn new(options: Options, ports: Ports) -> Result<Self, Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(options.timeouts.connect)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .build()
            .map_err(Error::Client)?;
        let shared = Shared {
            options: RwLock::new(Arc::new(options)),
            ports,
            client,
            tracker: TaskTracker::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Takes other options for the calls that come now; running ones keep theirs.
    pub fn replace(&self, options: Options) {
        let mut held = self
            .shared
            .options
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(options);
    }

    /// Serves until cancelled, then lets running calls end for a bounded time.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self, incoming: Incoming, cancel: CancellationToken) -> Result<(), Error> {
        let app = router(&self).into_make_service_with_connect_info::<Peer>();
        let closing = cancel.clone().cancelled_owned();
        let served = axum::serve(Door(incoming), app).with_graceful_shutdown(closing);
        let overdue = async {
            cancel.cancelled().await;
            tokio::time::sleep(LAST_CALLS).await;
        };
        let served = tokio::select! {
            served = async { served.await } => served.map_err(Error::Serve),
            () = overdue => Ok(()),
            () = self.sweep_forever() => Ok(()),
        };
        self.drain(LAST_SETTLEMENTS).await;
        served
    }

    /// Settles orphans now and then; for a router that is served in-process, beside it. Does not end.
    pub async fn sweep_forever(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            self.sweep().await;
        }
    }

    /// Waits for running calls, for a bounded time; what is not settled then is an orphan and charged as reserved.
    pub async fn drain(&self, within: Duration) {
        self.shared.tracker.close();
        let ended = tokio::time::timeout(within, self.shared.tracker.wait()).await;
        if ended.is_err() {
            let calls = self.shared.tracker.len();
            tracing::warn!(calls, "model calls were still running at the end");
        }
    }

    /// Settles what routers that died have left behind, at what was reserved.
    pub async fn sweep(&self) {
        let now = self.shared.now();
        let age = self.shared.options().timeouts.call * 2;
        let Ok(before) = now.checked_sub(age) else {
            return;
        };
        match self
            .shared
            .ports
            .ledger
            .sweep_reservations(before, now)
            .await
        {
            Ok(0) => {}
            Ok(orphans) => {
                tracing::warn!(orphans, "reservations without a call were charged in full");
            }
            Err(error) => tracing::warn!(%error, "looking for orphaned reservations failed"),
        }
    }
}

impl Shared {
    pub(crate) fn options(&self) -> Arc<Options> {
        self.options
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.ports.clock)()
    }
}
