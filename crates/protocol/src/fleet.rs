//! The port through which gateway and admin API ask a fleet for incarnations. The local fleet and Kubernetes implement it.

use carrel_core::class::ClassSpec;
use carrel_core::learner::Status;
use carrel_core::{ClassName, Epoch, LearnerId};
use serde::{Deserialize, Serialize};

/// Why a fleet could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such learner.
    #[error("there is no learner '{0}'")]
    NoLearner(LearnerId),
    /// The fleet or what stands behind it is away.
    #[error("the fleet cannot be reached while {doing}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The document belongs to somebody else, or is refused; in a sentence for people.
    #[error("{0}")]
    Conflict(String),
}

/// What a gateway asks to upgrade to where a fleet lets it through to a pod (`GET …/pods/POD`); after the 101 it speaks
/// HTTP/1.1 with that pod's sidecar.
pub const POD_PROTOCOL: &str = "carrel-pod";

/// How learners are kept apart here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationReport {
    /// `oci`, `process` or `kubernetes`.
    pub isolation: String,
    /// Limits that cannot be set here, as in `memory`.
    pub limits_missing: Vec<String>,
    /// A warning for people when nothing isolates; empty otherwise.
    pub warning: String,
}

/// Asks a fleet for incarnations.
#[async_trait::async_trait]
pub trait Fleet: Send + Sync + 'static {
    /// Wants an incarnation newer than `after`; the same wish again costs nothing.
    async fn wake(&self, learner: &LearnerId, after: Epoch) -> Result<(), Error>;

    /// The sidecar of an incarnation that is believed to live does not answer: its node may be dead. The same doubt again costs
    /// nothing. A fleet that sees by itself whether a pod lives has no use for it.
    async fn doubt(&self, _learner: &LearnerId, _epoch: Epoch) -> Result<(), Error> {
        Ok(())
    }

    /// Asks the present incarnation to sleep now, after its running turn. Returns when it is asked.
    async fn sleep(&self, learner: &LearnerId) -> Result<(), Error>;

    /// What is seen of a learner.
    async fn status(&self, learner: &LearnerId) -> Result<Status, Error>;

    /// Learners whose status changed. A hint: may be late or merged; who waits on it also reads.
    fn changes(&self) -> tokio::sync::broadcast::Receiver<LearnerId>;

    /// Ends a learner's pod without a snapshot and forgets what the fleet kept of it, for erasing. Repeatable.
    async fn discard(&self, learner: &LearnerId) -> Result<(), Error>;

    /// How learners are kept apart here.
    async fn isolation(&self) -> Result<IsolationReport, Error>;

    /// Whether messages may be taken for a learner that has a row: `NoLearner` where it has no document besides. The row is the
    /// document unless a fleet says otherwise; so it is for what follows.
    async fn admits(&self, _learner: &LearnerId) -> Result<(), Error> {
        Ok(())
    }

    /// Whether there is a learner that has no row yet: then it has one now.
    async fn enrol(&self, _learner: &LearnerId) -> Result<bool, Error> {
        Ok(false)
    }

    /// Whether a learner that has a row is listed. Nobody is asked for it: it may be late.
    fn lists(&self, _learner: &LearnerId) -> bool {
        true
    }

    /// Makes a learner's document, or changes its class. Repeatable.
    async fn declare(&self, _learner: &LearnerId, _class: &ClassName) -> Result<(), Error> {
        Ok(())
    }

    /// Writes a class's document whole, where gateways may. Repeatable.
    async fn declare_class(&self, _name: &ClassName, _spec: &ClassSpec) -> Result<(), Error> {
        Ok(())
    }
}
