//! What must hold when everything has come to rest, whatever went wrong before. Each rule that is broken is named.

mod heads;
mod money;
mod streams;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::clients::Talk;
use crate::faults::LateCommit;
use crate::school::School;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Outcome,
    Order,
    Counting,
    Ledger,
    Budget,
    Head,
    Fold,
    AddsUp,
    Fence,
    Stream,
    Contract,
    Running,
}

impl Rule {
    const fn says(self) -> &'static str {
        match self {
            Self::Outcome => "each accepted message has one outcome, and the right one",
            Self::Order => "a learner's messages are run in the order of their acceptance",
            Self::Counting => {
                "counting is unbroken: what committed is there, once, and nothing else is"
            }
            Self::Ledger => "the ledger is the provider's bill and the orphans that it lists",
            Self::Budget => "nobody is over budget",
            Self::Head => "the newest head restores equal",
            Self::Fold => "read models are folds of the events",
            Self::AddsUp => "what is stored adds up",
            Self::Fence => "stale epochs are refused, and are seen to be",
            Self::Stream => "a stream tells every turn whole and once, wherever it is resumed",
            Self::Contract => "clients are answered as the contract says",
            Self::Running => "no process panics or ends by itself",
        }
    }
}

/// A rule that does not hold, and what shows it.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BROKEN: {}: {}", self.rule.says(), self.what)
    }
}

/// Collects what is broken.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Broken>);

impl Findings {
    pub(crate) fn add(&mut self, rule: Rule, what: impl Into<String>) {
        let what = what.into();
        self.0.push(Broken { rule, what });
    }

    /// Says it unless it holds.
    pub(crate) fn demand(&mut self, rule: Rule, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.add(rule, what());
        }
    }
}

/// What the auditor judges by besides what is stored.
pub(crate) struct Evidence<'a> {
    pub(crate) talks: &'a [Talk],
    pub(crate) late: &'a [LateCommit],
}

/// A learner's events, from the operator's log.
type Logs = BTreeMap<&'static str, Vec<Value>>;

/// Judges a school at rest. It is woken and asked, so the books are closed first.
pub(crate) async fn audit(school: &School, evidence: &Evidence<'_>) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let api = school.client(0)?;
    let mut logs = Logs::new();
    for talk in evidence.talks {
        logs.insert(talk.learner, api.log(talk.learner).await?);
    }
    turns::judge(&logs, evidence, &mut findings);
    streams::judge(&logs, evidence, &mut findings);
    fence(school, evidence.late, &mut findings);
    money::judge(school, evidence, &mut findings).await?;
    folds(school, &mut findings)?;
    heads::judge(school, &logs, &mut findings).await;
    running(school, &mut findings)?;
    Ok(findings)
}

fn fence(school: &School, late: &[LateCommit], findings: &mut Findings) {
    refused(late, findings);
    let above = "SELECT l.id FROM learner l WHERE l.fence > l.status_epoch";
    for row in school.rows(above) {
        let what = format!("{}'s fence is above every epoch that was given", row[0]);
        findings.add(Rule::Fence, what);
    }
}

fn refused(late: &[LateCommit], findings: &mut Findings) {
    findings.demand(Rule::Fence, !late.is_empty(), || {
        "no stale epoch was seen".to_owned()
    });
    for late in late {
        let head = late.answer.lines().next().unwrap_or_default();
        let is_refused = head.contains(" 409 ") && late.answer.contains("stale_epoch");
        findings.demand(Rule::Fence, is_refused, || {
            format!(
                "a commit of {} in epoch {} that arrived when the fence was at {} was answered: {}",
                late.learner, late.epoch, late.fence, late.answer
            )
        });
    }
}

/// `carrel store check`, and `carrel store rebuild usage` changes nothing.
fn folds(school: &School, findings: &mut Findings) -> anyhow::Result<()> {
    let check = school.store(&["check"])?;
    findings.demand(Rule::AddsUp, check.status.success(), || {
        let said = [check.stdout.as_slice(), check.stderr.as_slice()].concat();
        String::from_utf8_lossy(&said).into_owned()
    });
    let usage = || school.rows("SELECT * FROM usage ORDER BY hour, learner, class, model");
    let before = usage();
    let rebuilt = school.store(&["rebuild", "usage"])?;
    let after = usage();
    findings.demand(Rule::Fold, rebuilt.status.success(), || {
        String::from_utf8_lossy(&rebuilt.stderr).into_owned()
    });
    findings.demand(Rule::Fold, before == after, || {
        format!("usage was {before:?} and is {after:?} when it is folded anew")
    });
    Ok(())
}

fn running(school: &School, findings: &mut Findings) -> anyhow::Result<()> {
    let notes = school.notes.lock().map(|notes| notes.clone());
    for note in notes.unwrap_or_default() {
        findings.add(Rule::Running, note);
    }
    for (process, log) in school.logs()? {
        for line in log.lines().filter(|line| line.contains("panicked")) {
            findings.add(Rule::Running, format!("{process}: {line}"));
        }
    }
    Ok(())
}
