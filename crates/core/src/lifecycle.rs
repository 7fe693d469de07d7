//! What to do with a learner's pod: a pure, total function of the wish, of what is seen, and of the time.
//!
//! Both fleets call [`plan`] whenever something they see changes, or at [`Plan::requeue_at`], and execute it in this order:
//! write [`Plan::status`] by compare-and-set as [`Plan::write`] says, and give up the plan if that is lost; then perform
//! the effects, each of which may be repeated; then look again. This module decides and never acts.

pub mod deadlines;
mod ended;
mod incarnation;
pub mod names;
mod observed;
mod outcome;
mod rest;
mod wish;

use jiff::Timestamp;

pub use deadlines::Policy;
pub use observed::{Ending, Observed, Phase, PodSeen};
pub use outcome::{Effect, KillReason, News, Plan, SleepReason, Write};
pub use rest::{gave_up, is_last_try, kept, next_epoch, shown};
pub use wish::{MOST_UNASKED, Wish, wish};

use crate::invariants::plan::PlanRule;
use crate::learner::Desired;

/// What follows for one learner from the wish for it, what is seen of it, its class's policy and the time.
pub fn plan(desired: &Desired, observed: &Observed, policy: &Policy, now: Timestamp) -> Plan {
    let plan = match &observed.status.pod {
        Some(pod) => incarnation::plan(desired, observed, pod, policy, now),
        None => rest::plan(desired, observed, policy, now),
    };
    let plan = plan.with_news_in_status(now);
    debug_assert_eq!(PlanRule::broken(desired, observed, &plan), None);
    plan
}
