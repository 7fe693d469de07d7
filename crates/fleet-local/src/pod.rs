//! One pod of this machine: a sidecar process and an agent in its container, made for one learner and never used again.

mod make;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use carrel_core::Epoch;
use carrel_core::LearnerId;
use carrel_core::learner::PodRef;
use carrel_core::lifecycle::PodSeen;
use jiff::Timestamp;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

use carrel_wire::sidecar::{self, Sidecar};
pub(crate) use make::{Maker, PodError};

/// A pod as its learner's reconciler holds it. Dropping it ends the pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) reference: PodRef,
    sidecar: Sidecar,
    seen: Receiver<PodSeen>,
    assigned: tokio::sync::watch::Sender<Option<Assigned>>,
    kill: CancellationToken,
    cleared: CancellationToken,
}

/// Whose the pod is, as far as watching it needs.
#[derive(Debug, Clone)]
struct Assigned {
    learner: LearnerId,
    epoch: Epoch,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

impl Pod {
    /// What is seen of it now; marks it as seen.
    pub(crate) fn seen(&mut self) -> PodSeen {
        self.seen.borrow_and_update().clone()
    }

    /// Waits until something else is seen than at the last [`Pod::seen`].
    pub(crate) async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            // Whoever watched it is gone; nothing new will be seen.
            std::future::pending::<()>().await;
        }
    }

    /// Hands over the assignment; from then on its phases are heard.
    pub(crate) async fn assign(
        &self,
        learner: &LearnerId,
        epoch: Epoch,
        assignment: String,
    ) -> Result<(), sidecar::Error> {
        self.sidecar.assign(assignment).await?;
        self.assigned.send_replace(Some(Assigned {
            learner: learner.clone(),
            epoch,
        }));
        Ok(())
    }

    /// Waits until an assigned pod has said what it is doing, or has ended.
    pub(crate) async fn wait_for_phase(&mut self) {
        let blank = |seen: &PodSeen| matches!(seen, PodSeen::Blank { .. });
        // An error means that nobody watches it any more; what is seen then stays.
        let _ = self.seen.wait_for(|seen| !blank(seen)).await;
    }

    /// Asks its sidecar to sleep.
    pub(crate) async fn sleep(&self, token: &str) -> Result<(), sidecar::Error> {
        self.sidecar.sleep(token).await
    }

    /// The sidecar, for questions.
    pub(crate) fn sidecar(&self) -> Sidecar {
        self.sidecar.clone()
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }

    /// Waits until nothing of it is left: no process, no control group, no folder.
    pub(crate) async fn cleared(&self) {
        self.cleared.cancelled().await;
    }
}

/// What every pod of this machine shares.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The executable, at a path that every pod's user may run.
    pub(crate) executable: PathBuf,
    /// The public keys of those who may assign, as sidecars read them.
    pub(crate) keys_file: PathBuf,
    /// The folder of all pods.
    pub(crate) pods_dir: PathBuf,
    /// The base URL at which gateways elsewhere come in; absent: they are on this machine.
    pub(crate) door: Option<String>,
    /// Signs the calls to sidecars and the assignments.
    pub(crate) signer: carrel_protocol::token::Signer,
    /// Reads the time.
    pub(crate) clock: crate::Clock,
    /// Every task of the fleet.
    pub(crate) tracker: tokio_util::task::TaskTracker,
}

impl Ground {
    /// Where a pod's sidecar listens.
    pub(crate) fn socket_of(&self, pod: &str) -> PathBuf {
        self.pods_dir.join(pod).join("sidecar.sock")
    }

    /// Where gateways reach a pod.
    fn address_of(&self, pod: &str) -> String {
        match &self.door {
            Some(url) => format!("{url}/pods/{pod}"),
            None => format!("unix:{}", self.socket_of(pod).display()),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

pub(crate) type SharedGround = Arc<Ground>;
