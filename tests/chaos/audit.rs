//! What must hold when everything has come to rest, whatever went wrong before. Each rule that is broken is named.

mod contract;
mod fence;
mod heads;
mod money;
mod streams;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::BTreeMap;
use std::fmt;
use std::process::Output;
use std::time::Instant;

use serde_json::Value;

use crate::clients::Talk;
use crate::faults::Excused;
use crate::school::School;
use crate::stale::Stale;

pub(crate) use fence::{Refused, refused};

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
    #[cfg(test)]
    const ALL: [Self; 12] = [
        Self::Outcome,
        Self::Order,
        Self::Counting,
        Self::Ledger,
        Self::Budget,
        Self::Head,
        Self::Fold,
        Self::AddsUp,
        Self::Fence,
        Self::Stream,
        Self::Contract,
        Self::Running,
    ];

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
    pub(crate) stale: &'a Stale,
    /// When turns could not but fail.
    pub(crate) excused: &'a [Excused],
    /// When all faults were over.
    pub(crate) healed: Instant,
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
    contract::judge(evidence, &mut findings);
    fence::judge(school, evidence.stale, &mut findings);
    money::judge(school, evidence, &mut findings).await?;
    folds(school, &mut findings)?;
    heads::judge(school, &logs, &mut findings).await;
    let notes = school.notes.lock().map(|notes| notes.clone());
    running(&notes.unwrap_or_default(), &school.logs()?, &mut findings);
    Ok(findings)
}

/// `carrel store check`, and `carrel store rebuild usage` changes nothing.
fn folds(school: &School, findings: &mut Findings) -> anyhow::Result<()> {
    succeeds(Rule::AddsUp, &school.store(&["check"])?, findings);
    let usage = || school.rows("SELECT * FROM usage ORDER BY hour, learner, class, model");
    let before = usage();
    succeeds(Rule::Fold, &school.store(&["rebuild", "usage"])?, findings);
    same_fold(&before, &usage(), findings);
    Ok(())
}

fn succeeds(rule: Rule, output: &Output, findings: &mut Findings) {
    findings.demand(rule, output.status.success(), || {
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        String::from_utf8_lossy(&said).into_owned()
    });
}

fn same_fold(before: &[Vec<String>], after: &[Vec<String>], findings: &mut Findings) {
    findings.demand(Rule::Fold, before == after, || {
        format!("usage was {before:?} and is {after:?} when it is folded anew")
    });
}

fn running(notes: &[String], logs: &[(&str, String)], findings: &mut Findings) {
    for note in notes {
        findings.add(Rule::Running, note.as_str());
    }
    for (process, log) in logs {
        for line in log.lines().filter(|line| line.contains("panicked")) {
            findings.add(Rule::Running, format!("{process}: {line}"));
        }
    }
}
