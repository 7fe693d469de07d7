//! Money: reserve the worst case before a call, settle after it. Integer nano-USD throughout.

use carrel_core::{ClassName, Epoch, LearnerId, NanoUsd, ReservationId, TurnId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Result;

/// A reservation to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReservation {
    /// Its id.
    pub id: ReservationId,
    /// Whose money.
    pub learner: LearnerId,
    /// The incarnation that asks; `None` for a caller without one.
    pub epoch: Option<Epoch>,
    /// `provider/model`.
    pub model: String,
    /// The worst case.
    pub amount: NanoUsd,
    /// The most in one day (UTC).
    pub per_day: Option<NanoUsd>,
    /// The most in one month (UTC).
    pub per_month: Option<NanoUsd>,
}

/// What came of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// It fits and is held. The turn that was running then (in that epoch, if there is one), to which its
    /// cost is counted.
    Held {
        /// The turn.
        turn: Option<TurnId>,
        /// What the tightest budget leaves after it; `None` without a budget.
        left: Option<Left>,
    },
    /// It does not fit.
    Exhausted {
        /// Which bound.
        period: Period,
        /// When that bound begins anew.
        resets_time: Timestamp,
        /// What would still fit.
        remaining: NanoUsd,
        /// The bound.
        limit: NanoUsd,
    },
    /// The epoch is below the fence.
    StaleEpoch {
        /// The fence.
        fence: Epoch,
    },
    /// No such learner, or it is being erased.
    NoLearner,
}

/// What one budget leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// What still fits.
    pub remaining: NanoUsd,
    /// The whole budget.
    pub limit: NanoUsd,
}

/// A budget's span.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Period {
    /// A day (UTC).
    Daily,
    /// A calendar month (UTC).
    Monthly,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settlement {
    /// The cost; charged in full even above the reservation.
    pub cost: NanoUsd,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
}

/// By what usage is summed.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum UsageBy {
    /// A row a learner.
    Learner,
    /// A row a class.
    Class,
    /// A row a model.
    Model,
    /// A row a day (UTC).
    Day,
}

/// A row of usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// The learner, class, model or day (`YYYY-MM-DD`).
    pub key: String,
    /// Calls that used something: one that was refused or reached nobody is settled at nothing and is none.
    pub calls: u64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Cost.
    pub cost_nano_usd: NanoUsd,
}

/// Money.
#[async_trait::async_trait]
pub trait Ledger: Send + Sync {
    /// Holds the worst case if settled cost and held reservations of the day and the month leave room for it; the
    /// epoch raises the fence or is refused in the same transaction. A call counts on the day of its reservation.
    /// The same id again, while it is held, is the same reservation and gets the answer that it fits.
    async fn reserve(&self, new: &NewReservation, now: Timestamp) -> Result<Reserved>;

    /// Settles a reservation, once; appends the event `charged`. `false`: it was settled before, or there is none.
    async fn settle(
        &self,
        id: ReservationId,
        settlement: &Settlement,
        now: Timestamp,
    ) -> Result<bool>;

    /// Settles reservations made before `before`, whose router died, at what was reserved; how many.
    async fn sweep_reservations(&self, before: Timestamp, now: Timestamp) -> Result<u64>;

    /// Usage in the whole hours (UTC) that `since` until `until` touches, by key, sorted by it; `learner` narrows it to one.
    /// A read model: a fold of `charged`; an erased learner's usage goes with its events.
    async fn usage(
        &self,
        by: UsageBy,
        learner: Option<&LearnerId>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<UsageRow>>;

    /// Drops the read model of usage and folds it anew from the events.
    async fn rebuild_usage(&self) -> Result<()>;

    /// An incarnation asks for what costs nothing: a higher epoch raises the fence; a lower one is refused by the fence that
    /// is returned.
    async fn pass_fence(&self, learner: &LearnerId, epoch: Epoch) -> Result<Option<Epoch>>;

    /// The class of a learner, for its policy. `None`: no such learner.
    async fn class_of(&self, learner: &LearnerId) -> Result<Option<ClassName>>;
}
