//! A fleet that is another process, asked through the store that both share: a wish is a row, what is seen is a row.

use std::time::Duration;

use carrel_core::learner::Status;
use carrel_core::lifecycle;
use carrel_core::{Epoch, LearnerId};
use carrel_protocol::fleet::{Error, Fleet, IsolationReport};
use carrel_store::SharedStore;
use carrel_store::learners::Learner;
use carrel_store::processes::Role;
use tokio::sync::broadcast;

use crate::dispatch::changed;
use crate::sidecar::Sidecars;

/// Looks again without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A fleet that is another process.
#[derive(Clone)]
pub struct StoreFleet {
    /// What both share.
    pub store: SharedStore,
    /// How its pods are called.
    pub sidecars: Sidecars,
}

impl StoreFleet {
    async fn row(&self, learner: &LearnerId) -> Result<Option<Learner>, Error> {
        let row = self.store.learner(learner, self.sidecars.clock.now()).await;
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
        match self.row(learner).await? {
            Some(row) => self.sidecars.sleep(learner, row.status).await,
            None => Err(Error::NoLearner(learner.clone())),
        }
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
        let fleets = self
            .store
            .processes(Role::Fleet, self.sidecars.clock.now())
            .await;
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
