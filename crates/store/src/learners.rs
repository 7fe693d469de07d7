//! Learners, the wish for each and what is seen of each.

use carrel_core::class::ClassSpec;
use carrel_core::learner::{Desired, DesiredState, LearnerState, Status};
use carrel_core::{ClassName, Epoch, LearnerId, NanoUsd, RepositoryId, SnapshotId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Result;

/// An identity of a learner elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// The channel, as in `whatsapp`.
    pub channel: String,
    /// The identity there.
    pub external_id: String,
}

/// A learner to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLearner {
    /// Its id.
    pub id: LearnerId,
    /// Its class.
    pub class: ClassName,
    /// Who it is elsewhere; an alias belongs to one learner.
    pub aliases: Vec<Alias>,
}

/// What came of making a learner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It was made.
    New,
    /// It was there, the same.
    Same,
    /// It was there with another class or other aliases.
    Differs,
    /// An alias belongs to another learner.
    AliasTaken(Alias),
    /// An erased learner of this id is not gone yet.
    StillErasing,
}

/// A learner's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learner {
    /// Its id.
    pub id: LearnerId,
    /// Its class.
    pub class: ClassName,
    /// Who it is elsewhere.
    pub aliases: Vec<Alias>,
    /// When it was made.
    pub created_time: Timestamp,
    /// When a message of it was last accepted or a turn of it last ended.
    pub last_activity_time: Option<Timestamp>,
    /// The wish.
    pub desired: Desired,
    /// What is seen.
    pub status: Status,
    /// The newest epoch that has shown itself in the store; lower ones are refused.
    pub fence: Epoch,
    /// Its snapshot repository.
    pub repository: RepositoryId,
    /// The newest committed snapshot with its time.
    pub newest_snapshot: Option<(SnapshotId, Timestamp)>,
    /// What was charged since the day (UTC) of the `now` given to the read began.
    pub cost_today: NanoUsd,
}

/// How many learners of a class are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The class.
    pub class: ClassName,
    /// The state; `Busy` where a turn runs.
    pub state: LearnerState,
    /// How many.
    pub learners: u64,
}

/// Learners, the wish for each and what is seen of each.
#[async_trait::async_trait]
pub trait Learners: Send + Sync {
    /// Makes a learner; idempotent by id. A re-created one continues above the fence its erased namesake left.
    async fn create_learner(&self, new: &NewLearner, now: Timestamp) -> Result<Created>;

    /// One learner; `None` when there is none or it was erased.
    async fn learner(&self, id: &LearnerId, now: Timestamp) -> Result<Option<Learner>>;

    /// Whether there is such a learner that is not being erased; cheaper than its row.
    async fn is_open(&self, id: &LearnerId) -> Result<bool>;

    /// Learners by id after `after`, at most `limit`.
    async fn learners(
        &self,
        after: Option<&LearnerId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Learner>>;

    /// The learner that is this elsewhere.
    async fn learner_by_alias(&self, alias: &Alias) -> Result<Option<LearnerId>>;

    /// Changes class or aliases and gives a hint; what is `None` stays. `Same` when it is as wished now, `AliasTaken` or
    /// `StillErasing` when nothing changed; `None`: no such learner.
    async fn change_learner(
        &self,
        id: &LearnerId,
        class: Option<&ClassName>,
        aliases: Option<&[Alias]>,
    ) -> Result<Option<Created>>;

    /// Sets the operator's wish. `false`: no such learner, or it is being erased.
    async fn set_desired_state(&self, id: &LearnerId, state: DesiredState) -> Result<bool>;

    /// Wants a new incarnation after `epoch`: raises `wake_after_epoch` to it, never lowers it. `true` when it changed
    /// anything; a value already there is not written again, and a learner that is being erased is not woken.
    async fn wake_after(&self, id: &LearnerId, epoch: Epoch) -> Result<bool>;

    /// Writes what is seen, if the stored epoch and state are still `expected`: the fleet's compare-and-set.
    /// Appends the event `state_changed` when the state differs. `false`: someone else wrote, or no such learner.
    async fn put_status(
        &self,
        id: &LearnerId,
        expected: &Status,
        status: &Status,
        now: Timestamp,
    ) -> Result<bool>;

    /// Learners that are not plainly asleep (another state, a wake that is wanted, wished `Running`, or being
    /// deleted): what a fleet looks at after a start, without reading the sleeping ones. Their `cost_today` is not read (0).
    async fn stirring(&self) -> Result<Vec<Learner>>;

    /// How many learners there are, by class and state; reads a narrow entry of each.
    async fn census(&self) -> Result<Vec<Counted>>;

    /// First step of erasing: closes the learner (no message, no contact), raises its fence above every epoch given
    /// so far, fails its open turns, revokes its tokens, forgets what waits for delivery. Repeatable. `false`: no such learner.
    async fn close_learner(&self, id: &LearnerId, now: Timestamp) -> Result<bool>;

    /// Last step of erasing: all rows go, key included; what stays is a tombstone without personal data: id, fence,
    /// repository, time. Repeatable; a learner that is not closed is another one, made since, and stays.
    async fn erase_learner(&self, id: &LearnerId, now: Timestamp) -> Result<()>;

    /// Repositories of learners erased before `before` whose objects may be there again from an upload that was under
    /// way; `swept_repository` ends it.
    async fn erased_repositories(&self, before: Timestamp) -> Result<Vec<RepositoryId>>;

    /// The objects of an erased learner were removed for the last time.
    async fn swept_repository(&self, repository: RepositoryId) -> Result<()>;

    /// Writes a class document, by name. A hint is given for each of its learners that waits to be tried again (no pod, and a
    /// time for the next try): it may be why.
    async fn put_class(&self, name: &ClassName, spec: &ClassSpec) -> Result<()>;

    /// A class document.
    async fn class(&self, name: &ClassName) -> Result<Option<ClassSpec>>;

    /// All class documents, by name.
    async fn classes(&self) -> Result<Vec<(ClassName, ClassSpec)>>;
}
