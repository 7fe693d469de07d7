//! The books: what was charged against what the provider bills, call by call.

use std::time::Duration;

use carrel_tests::eventually;

use super::{Evidence, Findings, Rule};
use crate::school::{BUDGET, LEARNERS, School, is_tight};

/// Routers look for orphans once a minute, and at their start.
const SWEPT_WITHIN: Duration = Duration::from_secs(90);

/// What was charged at once, in nano-USD.
pub(super) struct Charge {
    pub(super) cost: u64,
    /// Whether the provider said what was used.
    pub(super) is_reported: bool,
}

fn charges(school: &School, learner: &str) -> Vec<Charge> {
    let rows = school.rows(&format!(
        "SELECT body->>'cost', body->>'input_tokens' FROM event WHERE learner = '{learner}' AND type = 'charged' \
         ORDER BY version"
    ));
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    rows.iter()
        .map(|row| Charge {
            cost: number(&row[0]),
            is_reported: number(&row[1]) > 0,
        })
        .collect()
}

pub(super) async fn judge(
    school: &School,
    evidence: &Evidence<'_>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    // What is still held at rest belongs to calls whose router died: an hour later they are orphans.
    let held = school.rows("SELECT learner, amount FROM reservation ORDER BY learner, amount");
    school.rows("UPDATE reservation SET time = time - 3600000000000");
    if !held.is_empty() {
        for router in ["router-1", "router-2"] {
            school.kill(router, Duration::ZERO)?;
        }
    }
    eventually("orphans are settled", SWEPT_WITHIN, || async {
        Ok(school
            .rows("SELECT 1 FROM reservation")
            .is_empty()
            .then_some(()))
    })
    .await?;
    for talk in evidence.talks {
        let learner = talk.learner;
        let orphans = held.iter().filter(|row| row[0] == learner);
        let books = Books {
            bill: school.bill.of(learner),
            orphans: orphans.filter_map(|row| row[1].parse().ok()).collect(),
            charges: charges(school, learner),
        };
        compare(learner, books, findings);
    }
    budgets(school, findings);
    Ok(())
}

/// One learner's books.
pub(super) struct Books {
    /// What the provider asks for each call.
    pub(super) bill: Vec<u64>,
    /// What was held by nobody that lived.
    pub(super) orphans: Vec<u64>,
    pub(super) charges: Vec<Charge>,
}

/// Each charge is a call's or an orphan's, each orphan was charged, and each call was charged or held.
pub(super) fn compare(learner: &str, books: Books, findings: &mut Findings) {
    let Books {
        mut bill,
        orphans,
        charges,
    } = books;
    let (mut uncharged, mut unexplained) = (orphans.clone(), Vec::new());
    for charge in charges.iter().filter(|charge| charge.cost > 0) {
        let of = |list: &[u64]| list.iter().position(|cost| *cost == charge.cost);
        if let Some(place) = of(&bill).filter(|_| charge.is_reported) {
            bill.swap_remove(place);
        } else if let Some(place) = of(&uncharged) {
            uncharged.swap_remove(place);
        } else {
            unexplained.push(charge.cost);
        }
    }
    findings.demand(Rule::Ledger, unexplained.is_empty(), || {
        format!("{learner} was charged {unexplained:?}, which no call cost and no orphan held")
    });
    findings.demand(Rule::Ledger, uncharged.is_empty(), || {
        format!("{learner}: orphans of {uncharged:?} were held and never charged")
    });
    // What is left of the bill was held by an orphan each, of as much at least.
    let mut held = orphans;
    held.sort_unstable_by(|a, b| b.cmp(a));
    bill.sort_unstable_by(|a, b| b.cmp(a));
    let is_held =
        bill.len() <= held.len() && bill.iter().zip(&held).all(|(call, held)| call <= held);
    findings.demand(Rule::Ledger, is_held, || {
        format!(
            "{learner}: calls of {bill:?} are billed and were not charged; orphans held {held:?}"
        )
    });
}

fn budgets(school: &School, findings: &mut Findings) {
    for (learner, _) in LEARNERS.iter().filter(|(learner, _)| is_tight(learner)) {
        let spent = "SELECT day, held + settled FROM account WHERE learner = ";
        let spent = school.rows(&format!("{spent} '{learner}'"));
        within(
            learner,
            &spent,
            school.bill.of(learner).iter().sum(),
            findings,
        );
    }
}

/// What is spent on each day, and what the provider bills.
pub(super) fn within(learner: &str, days: &[Vec<String>], billed: u64, findings: &mut Findings) {
    for day in days {
        let spent = day[1].parse().unwrap_or(u64::MAX);
        findings.demand(Rule::Budget, spent <= BUDGET, || {
            format!("{learner} spent {spent} of {BUDGET} on day {}", day[0])
        });
    }
    findings.demand(Rule::Budget, billed <= BUDGET, || {
        format!("the provider bills {billed} for {learner}, who may spend {BUDGET}")
    });
}
