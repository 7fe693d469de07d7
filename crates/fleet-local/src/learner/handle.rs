//! What others may see of a learner that is looked after, and do to it.

use std::sync::atomic::{AtomicBool, Ordering};

use carrel_core::learner::{Desired, Status};
use tokio::sync::{Notify, watch};

use carrel_wire::sidecar::Sidecar;

/// What others may see of a learner that is looked after, and do to it.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Something about it changed in the store: look again.
    pub(crate) nudge: Notify,
    /// The live cap wants its place.
    pub(crate) make_room: AtomicBool,
    /// An operator wants it asleep, once.
    pub(crate) sleep_now: AtomicBool,
    /// What was wanted of it when it was last looked at.
    pub(crate) desired: watch::Sender<Option<Desired>>,
    /// What is seen of it now.
    pub(crate) status: watch::Sender<Status>,
    /// Its sidecar while it lives.
    pub(crate) sidecar: watch::Sender<Option<Sidecar>>,
}

impl Handle {
    pub(crate) fn new() -> Self {
        Self {
            nudge: Notify::new(),
            make_room: AtomicBool::new(false),
            sleep_now: AtomicBool::new(false),
            desired: watch::Sender::new(None),
            status: watch::Sender::new(Status::default()),
            sidecar: watch::Sender::new(None),
        }
    }

    /// It is to sleep once its turn has ended.
    pub(crate) fn sleep_now(&self) {
        self.sleep_now.store(true, Ordering::Release);
        self.nudge.notify_one();
    }

    /// Its place is wanted.
    pub(crate) fn make_room(&self) {
        self.make_room.store(true, Ordering::Release);
        self.nudge.notify_one();
    }
}
