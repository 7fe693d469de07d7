//! Who was replaced is refused, at every process that it asks, and is seen to be.

#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::ops::AddAssign;

use super::{Findings, Rule};
use crate::school::School;
use crate::stale::{Lease, Stale, What};

/// How often somebody was refused because another had come, by what it wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Commits that arrived late at a vault.
    pub(crate) commits: usize,
    /// Model calls that arrived late at a router.
    pub(crate) calls: usize,
    /// Questions with an old token, at vaults and routers.
    pub(crate) questions: usize,
    /// Gateways that woke up to a turn which another had taken.
    pub(crate) leases: usize,
}

impl Refused {
    pub(crate) fn each_at_least(self, least: usize) -> bool {
        let Self {
            commits,
            calls,
            questions,
            leases,
        } = self;
        [commits, calls, questions, leases]
            .iter()
            .all(|count| *count >= least)
    }
}

impl AddAssign for Refused {
    fn add_assign(&mut self, other: Self) {
        self.commits += other.commits;
        self.calls += other.calls;
        self.questions += other.questions;
        self.leases += other.leases;
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} commits, {} model calls, {} questions with an old token and {} leases were refused",
            self.commits, self.calls, self.questions, self.leases
        )
    }
}

fn is_refusal(answer: &str) -> bool {
    let head = answer.lines().next().unwrap_or_default();
    head.split(' ').any(|word| word == "409") && answer.contains("stale_epoch")
}

/// What was refused.
pub(crate) fn refused(stale: &Stale) -> Refused {
    let late = |what: What| {
        let late = stale.late.iter().filter(|late| late.what == what);
        late.filter(|late| is_refusal(&late.answer)).count()
    };
    Refused {
        commits: late(What::Commit),
        calls: late(What::Call),
        questions: stale
            .asked
            .iter()
            .filter(|asked| is_refusal(&asked.answer))
            .count(),
        leases: stale.lease.iter().filter(|lease| lease.is_let_go).count(),
    }
}

pub(super) fn judge(school: &School, stale: &Stale, findings: &mut Findings) {
    seen(stale, findings);
    above(
        &school.rows("SELECT l.id FROM learner l WHERE l.fence > l.status_epoch"),
        findings,
    );
}

/// Each was brought about, and refused.
pub(super) fn seen(stale: &Stale, findings: &mut Findings) {
    for missing in &stale.missing {
        findings.add(Rule::Fence, missing.as_str());
    }
    for what in What::ALL {
        let is_seen = stale.late.iter().any(|late| late.what == what);
        findings.demand(Rule::Fence, is_seen, || {
            format!("no late {what:?} was seen")
        });
    }
    for late in &stale.late {
        findings.demand(Rule::Fence, is_refusal(&late.answer), || {
            format!(
                "a {:?} of {} in epoch {} that arrived when the fence was at {} was answered: {}",
                late.what, late.turn.learner, late.epoch, late.fence, late.answer
            )
        });
    }
    findings.demand(Rule::Fence, !stale.asked.is_empty(), || {
        "nobody was asked with an old token".to_owned()
    });
    for asked in &stale.asked {
        findings.demand(Rule::Fence, is_refusal(&asked.answer), || {
            format!(
                "an old token at {} was answered: {}",
                asked.what, asked.answer
            )
        });
    }
    match &stale.lease {
        None => findings.add(Rule::Fence, "no gateway slept past its lease"),
        Some(lease) => findings.demand(Rule::Fence, lease.is_let_go, || {
            let Lease { gateway, turn, .. } = lease;
            format!(
                "{gateway} woke up and ran turn {} to its end, which another had taken",
                turn.id
            )
        }),
    }
}

pub(super) fn above(learners: &[Vec<String>], findings: &mut Findings) {
    for row in learners {
        let what = format!("{}'s fence is above every epoch that was given", row[0]);
        findings.add(Rule::Fence, what);
    }
}
