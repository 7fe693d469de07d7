//! What a keeper waits for between two looks: everything at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use carrel_core::learner::LearnerState;
use jiff::Timestamp;

use super::Keeper;
use super::making::Making;
use crate::admission::Place;
use crate::pod::Pod;

/// Standing in line for a place: who looks at something else meanwhile does not go to its end.
pub(super) type Asking = Pin<Box<dyn Future<Output = Option<Place>> + Send + Sync>>;

impl Keeper {
    /// Waits until something may have changed.
    pub(super) async fn wait(&mut self, requeue_at: Option<Timestamp>, now: Timestamp) {
        let delay =
            requeue_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        if !self.wants_place(now) {
            self.asking = None;
        } else if self.asking.is_none() {
            let (shared, id) = (Arc::clone(&self.shared), self.id.clone());
            let asking = async move { shared.admission.place(|| shared.make_room(&id)).await };
            self.asking = Some(Box::pin(asking));
        }
        let handle = Arc::clone(&self.handle);
        tokio::select! {
            () = handle.nudge.notified() => {}
            () = seen_change(self.pod.as_mut()) => {}
            made = made(self.making.as_mut()) => self.made(made),
            place = given(self.asking.as_mut()) => {
                self.asking = None;
                self.place = place;
            }
            () = sleep_for(delay) => {}
        }
    }

    /// Whether it stands in line for a place; one that waits to be tried again holds up nobody.
    fn wants_place(&self, now: Timestamp) -> bool {
        let status = self.handle.status.borrow();
        self.place.is_none()
            && self.pod.is_none()
            && self.making.is_none()
            && matches!(status.state, LearnerState::Waking | LearnerState::Failed)
            && status.retry_time.is_none_or(|retry| retry <= now)
    }
}

async fn given(asking: Option<&mut Asking>) -> Option<Place> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

async fn made(making: Option<&mut Making>) -> Result<Option<Pod>, String> {
    match making {
        Some(making) => making.made().await,
        None => std::future::pending().await,
    }
}

async fn seen_change(pod: Option<&mut Pod>) {
    match pod {
        Some(pod) => pod.changed().await,
        None => std::future::pending().await,
    }
}

async fn sleep_for(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}
