//! What a fleet whose pods others make asks of sidecars itself.

use carrel_core::LearnerId;
use carrel_core::learner::Status;
use carrel_protocol::Code;
use carrel_protocol::fleet;
use carrel_protocol::token::Signer;
use carrel_wire::Trust;
use tokio_util::task::TaskTracker;

use super::{Error, Sidecar};
use crate::options::Clock;

/// What a call to any sidecar needs. Cheap to clone.
#[derive(Clone)]
pub struct Sidecars {
    /// The key by which sidecars know this gateway.
    pub signer: Signer,
    /// Whose word is taken for who a sidecar is.
    pub trust: Trust,
    /// The time.
    pub clock: Clock,
    /// Waits for connections to sidecars.
    pub tracker: TaskTracker,
}

impl Sidecars {
    /// Asks the incarnation that a status names to sleep. One that names none has nothing to ask; neither has one whose pod is
    /// gone, so that another learner's answers at its address.
    pub(crate) async fn sleep(
        &self,
        learner: &LearnerId,
        status: Status,
    ) -> Result<(), fleet::Error> {
        let endpoint = status.pod.and_then(|pod| pod.address.parse().ok());
        let Some(endpoint) = endpoint else {
            return Ok(());
        };
        let sidecar = Sidecar {
            learner: learner.clone(),
            epoch: status.epoch,
            endpoint,
            trust: self.trust.clone(),
            signer: self.signer.clone(),
            clock: self.clock.clone(),
            tracker: self.tracker.clone(),
        };
        match sidecar.sleep().await {
            Ok(()) => Ok(()),
            Err(Error::Refused(problem)) if problem.code == Code::Misdirected => {
                tracing::info!(learner.id = %learner, "another learner's pod is where its was");
                Ok(())
            }
            Err(error) => Err(fleet::Error::Unavailable {
                doing: "asking a learner to sleep",
                source: Box::new(error),
            }),
        }
    }
}
