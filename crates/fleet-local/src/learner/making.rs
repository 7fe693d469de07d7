//! A pod on its way. Its keeper waits for it beside everything else, because a first pull of an image may take minutes.

use std::sync::Arc;

use carrel_core::PodUid;
use carrel_core::class::ClassSpec;
use carrel_telemetry::chain;
use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::fleet::Shared;
use crate::pod::{Pod, PodError};

/// A pod on its way. Dropping it ends the making, and the pod if it was made meanwhile.
#[derive(Debug)]
pub(super) struct Making {
    pub(super) pod: PodUid,
    pub(super) since: Timestamp,
    task: AbortOnDropHandle<Result<Option<Pod>, PodError>>,
}

impl Making {
    /// Begins with the pull of its image: no pod comes of that alone.
    pub(super) fn pull(shared: &Arc<Shared>, class: ClassSpec) -> Self {
        let fleet = Arc::clone(shared);
        let pulled = async move { fleet.maker.pull(&class).await.map(|()| None) };
        Self::doing(shared, PodUid(Uuid::now_v7()), pulled)
    }

    pub(super) fn begin(shared: &Arc<Shared>, class: ClassSpec) -> Self {
        let pod = PodUid(Uuid::now_v7());
        let fleet = Arc::clone(shared);
        let made = async move { fleet.maker.make(pod, &class).await.map(Some) };
        Self::doing(shared, pod, made)
    }

    fn doing(
        shared: &Arc<Shared>,
        pod: PodUid,
        work: impl Future<Output = Result<Option<Pod>, PodError>> + Send + 'static,
    ) -> Self {
        Self {
            pod,
            since: shared.ground.now(),
            task: AbortOnDropHandle::new(shared.ground.tracker.spawn(work)),
        }
    }

    /// The pod, if it was not only pulled for, or why there is none.
    pub(super) async fn made(&mut self) -> Result<Option<Pod>, String> {
        match (&mut self.task).await {
            Ok(made) => made.map_err(|error| chain(&error)),
            Err(error) => Err(format!("its making ended: {error}")),
        }
    }
}
