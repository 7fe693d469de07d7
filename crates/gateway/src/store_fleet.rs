//! A fleet that is another process, asked through the store that both share: a wish is a row, what is seen is a row.

use std::time::Duration;

use carrel_core::learner::Status;
use carrel_core::lifecycle;
use carrel_core::{Epoch, LearnerId};
use carrel_protocol::fleet::{Error, Fleet, IsolationReport};
use carrel_protocol::token::Signer;
use carrel_store::SharedStore;
use carrel_store::learners::Learner;
use carrel_store::processes::Role;
use carrel_wire::Trust;
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

use crate::dispatch::changed;
use crate::options::Clock;
use crate::sidecar::Sidecar;

/// Looks again without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A fleet that is another process.
#[derive(Clone)]
pub struct StoreFleet {
    /// What both share.
    pub store: SharedStore,
    /// The key by which sidecars know this gateway.
    pub signer: Signer,
    /// Whose word is taken for who a sidecar is.
    pub trust: Trust,
    /// The time.
    pub clock: Clock,
    /// Waits for connections to sidecars.
    pub tracker: TaskTracker,
}

impl StoreFleet {
    async fn row(&self, learner: &LearnerId) -> Result<Option<Learner>, Error> {
        let row = self.store.learner(learner, self.clock.now()).await;
        row.map_err(|error| away("reading a learner's status", error))
    }
}

#[async_trait::async_trait]
impl Fleet for StoreFleet {
    async fn wake(&self, learner: &LearnerId, after: Epoch) -> Result<(), Error> {
        let asked = self.store.wake_after(learner, after).await;
        asked.map_err(|error| away("asking for an incarnation", error))?;
        Ok(())
    }

    async fn sleep(&self, learner: &LearnerId) -> Result<(), Error> {
        let Some(row) = self.row(learner).await? else {
            return Err(Error::NoLearner(learner.clone()));
        };
        let endpoint = row.status.pod.and_then(|pod| pod.address.parse().ok());
        let Some(endpoint) = endpoint else {
            return Ok(());
        };
        let sidecar = Sidecar {
            learner: learner.clone(),
            epoch: row.status.epoch,
            endpoint,
            trust: self.trust.clone(),
            signer: self.signer.clone(),
            clock: self.clock.clone(),
            tracker: self.tracker.clone(),
        };
        sidecar.sleep().await.map_err(|error| Error::Unavailable {
            doing: "asking a learner to sleep",
            source: Box::new(error),
        })
    }

    async fn status(&self, learner: &LearnerId) -> Result<Status, Error> {
        match self.row(learner).await? {
            Some(row) => Ok(lifecycle::shown(&row.desired, row.status)),
            None => Err(Error::NoLearner(learner.clone())),
        }
    }

    fn changes(&self) -> broadcast::Receiver<LearnerId> {
        self.store.changes()
    }

    async fn discard(&self, learner: &LearnerId) -> Result<(), Error> {
        let mut changes = self.store.changes();
        // The learner is closed: that is what the fleet reads. Its pod leaves the row when nothing of it is left.
        while self
            .row(learner)
            .await?
            .is_some_and(|row| row.status.pod.is_some())
        {
            tokio::select! {
                () = changed(&mut changes, learner) => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        Ok(())
    }

    async fn isolation(&self) -> Result<IsolationReport, Error> {
        let doing = "asking how learners are kept apart";
        let fleets = self.store.processes(Role::Fleet, self.clock.now()).await;
        let fleets = fleets.map_err(|error| away(doing, error))?;
        let report = fleets
            .first()
            .map(|fleet| serde_json::from_str(&fleet.report));
        match report {
            Some(Ok(report)) => Ok(report),
            Some(Err(error)) => Err(away(doing, error)),
            None => Err(away(doing, "no fleet runs")),
        }
    }
}

fn away(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Unavailable {
        doing,
        source: source.into(),
    }
}
