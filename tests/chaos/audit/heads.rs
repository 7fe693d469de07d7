//! Snapshots: stock restic finds in each newest one what the agent counted, and a learner who sleeps and wakes counts on.

use std::process::Command;

use anyhow::{Context as _, ensure};
use carrel_testkit::s3::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use reqwest::Method;
use serde_json::{Value, json};

use super::turns::committed;
use super::{Findings, Logs, Rule};
use crate::school::School;

pub(super) async fn judge(school: &School, logs: &Logs, findings: &mut Findings) {
    let each = logs
        .iter()
        .map(|(learner, log)| of_one(school, learner, committed(log)));
    for found in futures::future::join_all(each).await {
        findings.0.extend(found.0);
    }
}

async fn of_one(school: &School, learner: &str, count: u64) -> Findings {
    let mut findings = Findings::default();
    if count > 0 {
        match counted(school, learner).await {
            Ok(found) => findings.demand(Rule::Head, found == count.to_string(), || {
                format!("stock restic finds {found} in {learner}'s newest snapshot, and {count} turns committed")
            }),
            Err(error) => findings.add(Rule::Head, format!("{learner}: {error:#}")),
        }
    }
    let wakes = async {
        let api = school.client(1)?;
        api.sleep(learner).await?;
        api.reply(learner, "count").await
    };
    match wakes.await {
        Ok(next) => findings.demand(Rule::Head, next == (count + 1).to_string(), || {
            format!("{learner} woke and went on with {next} after {count} turns")
        }),
        Err(error) => findings.add(Rule::Head, format!("{learner} sleeps and wakes: {error:#}")),
    }
    findings
}

/// The number in the learner's newest snapshot, as stock restic restores it.
async fn counted(school: &School, learner: &str) -> anyhow::Result<String> {
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
    let mut restic = Command::new("restic");
    restic
        .args(
            options
                .filter_map(Value::as_str)
                .flat_map(|option| ["-o", option]),
        )
        .args(["--no-cache", "--no-lock", "dump", head, "/n"])
        .env("RESTIC_REPOSITORY", text("repository"))
        .env("RESTIC_PASSWORD_FILE", text("password_file"))
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
    let output = tokio::task::spawn_blocking(move || restic.output()).await??;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "restic dump: {told}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
