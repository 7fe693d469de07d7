//! What is kept of a learner's object: enough to show it, to wake it, and to see whether it is still the same.

use carrel_core::learner::{Desired, Status};
use carrel_core::lifecycle;
use carrel_core::{ClassName, LearnerId};
use carrel_crd::Learner;

/// What is kept of a learner's object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    /// A name is used again, this never.
    pub(super) uid: String,
    /// The object's version: versions of one kind of object only rise. 0: not a number, which says nothing.
    pub(super) version: u64,
    /// It is being deleted, and something waits before it goes.
    pub(super) is_going: bool,
    pub(super) class: ClassName,
    pub(super) desired: Desired,
    pub(super) seen: Status,
}

impl Record {
    /// The learner that an object is about. `None`: its names are none that Carrel has, which the schema rules out.
    pub(super) fn of(object: Learner) -> Option<(LearnerId, Self)> {
        let seen = object.status.as_ref().map(carrel_crd::from_status);
        let record = Self {
            version: version(object.metadata.resource_version.as_deref()),
            is_going: object.metadata.deletion_timestamp.is_some(),
            class: object.spec.class_name.parse().ok()?,
            desired: object.desired(),
            seen: seen.unwrap_or_default(),
            uid: object.metadata.uid.unwrap_or_default(),
        };
        Some((object.metadata.name?.parse().ok()?, record))
    }

    /// What people are shown.
    pub(super) fn shown(&self) -> Status {
        lifecycle::shown(&self.desired, self.seen.clone())
    }

    /// Whether an older record says the same of the learner, whatever else of the object has changed.
    pub(super) fn says_what(&self, older: &Self) -> bool {
        let Self {
            uid,
            version: _,
            is_going,
            class,
            desired,
            seen,
        } = self;
        (uid, is_going, class, desired, seen)
            == (
                &older.uid,
                &older.is_going,
                &older.class,
                &older.desired,
                &older.seen,
            )
    }
}

pub(super) fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
