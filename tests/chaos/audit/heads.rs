//! Snapshots: stock restic finds in each newest one what the agent counted, and a learner who sleeps and wakes counts on.

use std::process::Command;

use anyhow::{Context as _, ensure};
use carrel_testkit::s3::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::turns::committed;
use super::{Findings, Logs, Rule};
use crate::school::School;

pub(super) async fn judge(school: &School, logs: &Logs, findings: &mut Findings) {
    let each = logs
        .iter()
        .map(|(learner, log)| of_one(school, learner, Left::by(log)));
    for found in futures::future::join_all(each).await {
        findings.0.extend(found.0);
    }
}

async fn of_one(school: &School, learner: &str, left: Left) -> Findings {
    let mut findings = Findings::default();
    something(learner, &left, &mut findings);
    if left.count > 0 {
        same(learner, &left, found(school, learner).await, &mut findings);
    }
    let wakes = async {
        let api = school.client(1)?;
        api.sleep(learner).await?;
        api.reply(learner, "kept").await
    };
    goes_on(learner, &left, wakes.await, &mut findings);
    findings
}

/// What a learner's turns have left in its workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// How many turns committed.
    pub(super) count: u64,
    /// The sum of the bytes that the last one which kept any has kept.
    pub(super) kept: u64,
}

impl Left {
    /// By its log.
    pub(super) fn by(log: &[Value]) -> Self {
        let done = log.iter().filter(|event| event["type"] == "done");
        let replies = done.filter_map(|event| event["reply"]["text"].as_str());
        let mut sums = replies.filter_map(|reply| reply.split_once(" kept ")?.1.parse().ok());
        Self {
            count: committed(log),
            kept: sums.next_back().unwrap_or(0),
        }
    }
}

/// Equality of nothing shows nothing: each learner keeps something before anything else.
pub(super) fn something(learner: &str, left: &Left, findings: &mut Findings) {
    findings.demand(Rule::Head, left.kept > 0, || {
        format!("{learner} has kept nothing that could be compared")
    });
}

pub(super) fn same(
    learner: &str,
    left: &Left,
    found: anyhow::Result<Left>,
    findings: &mut Findings,
) {
    match found {
        Ok(found) => findings.demand(Rule::Head, found == *left, || {
            format!("stock restic finds {found:?} in {learner}'s newest snapshot, and its turns left {left:?}")
        }),
        Err(error) => findings.add(Rule::Head, format!("{learner}: {error:#}")),
    }
}

pub(super) fn goes_on(
    learner: &str,
    left: &Left,
    next: anyhow::Result<String>,
    findings: &mut Findings,
) {
    let expected = format!("{} kept {}", left.count + 1, left.kept);
    match next {
        Ok(next) => findings.demand(Rule::Head, next == expected, || {
            format!("{learner} woke and went on with '{next}' instead of '{expected}'")
        }),
        Err(error) => findings.add(Rule::Head, format!("{learner} sleeps and wakes: {error:#}")),
    }
}

/// What is in the learner's newest snapshot, as stock restic restores it.
async fn found(school: &School, learner: &str) -> anyhow::Result<Left> {
    let rows = school.rows(&format!(
        "SELECT head_snapshot FROM learner WHERE id = '{learner}'"
    ));
    let head = rows
        .first()
        .map(|row| row[0].as_str())
        .context("it has a head")?;
    let path = format!("learners/{learner}/restic");
    let access: Value = school
        .client(0)?
        .admin(Method::POST, &path, Some(json!({})))
        .await?;
    let text = |key: &str| access[key].as_str().unwrap_or_default();
    let options = access["options"].as_array().into_iter().flatten();
    let restored = TempDir::new()?;
    let mut restic = Command::new("restic");
    restic
        .args(
            options
                .filter_map(Value::as_str)
                .flat_map(|option| ["-o", option]),
        )
        .args(["--no-cache", "--no-lock", "restore", head, "--target"])
        .arg(restored.path())
        .env("RESTIC_REPOSITORY", text("repository"))
        .env("RESTIC_PASSWORD_FILE", text("password_file"))
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
    let output = tokio::task::spawn_blocking(move || restic.output()).await??;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "restic restore: {told}");
    let count = std::fs::read_to_string(restored.path().join("n"))?;
    let kept = std::fs::read(restored.path().join("kept")).unwrap_or_default();
    Ok(Left {
        count: count.trim().parse()?,
        kept: kept.iter().map(|byte| u64::from(*byte)).sum(),
    })
}
