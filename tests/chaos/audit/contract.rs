//! What clients are answered once all is healed: each is accepted, and soon nobody is told that something is away. The
//! gateway that is paused afterwards, so that it loses a turn's lease, has the time to come back, too.

use std::time::Duration;

use super::{Evidence, Findings, Rule};
use crate::school::LEARNERS;

/// What was killed last is back by then, and whoever lost a connection has another.
const BACK_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn judge(evidence: &Evidence<'_>, findings: &mut Findings) {
    let healed = evidence.healed;
    let paused = evidence.stale.lease.as_ref().map(|lease| &lease.paused);
    let speaks = |learner| LEARNERS.iter().any(|(name, _)| *name == learner);
    for talk in evidence.talks.iter().filter(|talk| speaks(talk.learner)) {
        let is_accepted = talk.sent.iter().any(|sent| sent.at > healed);
        findings.demand(Rule::Contract, is_accepted, || {
            format!("{} was not accepted after all was healed", talk.learner)
        });
        for (at, told) in &talk.turned_away {
            let after = at.saturating_duration_since(healed);
            let is_of_pause =
                paused.is_some_and(|paused| paused.start <= *at && *at < paused.end + BACK_WITHIN);
            findings.demand(Rule::Contract, after < BACK_WITHIN || is_of_pause, || {
                format!("{}: {after:?} after all was healed {told}", talk.learner)
            });
        }
    }
}
