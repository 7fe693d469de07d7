//! A process of the agent that the kernel kills for want of memory: the agent's own end decides, and the operator is told.

use anyhow::{Context as _, ensure};
use carrel_tests::skip;
use serde_json::Value;

use crate::shell;

/// A child that takes more than there is.
const EAT: &str = "perl -e 'push @kept, q(a) x (1 << 20) . $_ for 1 .. 4096'";
/// What is said of it.
const TOLD: &str = "1 of the agent's processes ran out of memory";

fn text<'a>(events: &'a [Value], key: &str) -> Vec<&'a str> {
    events
        .iter()
        .filter_map(|event| event[key].as_str())
        .collect()
}

#[tokio::test]
async fn a_kill_for_want_of_memory_is_reported_however_the_turn_ends() -> anyhow::Result<()> {
    let test = "a_kill_for_want_of_memory_is_reported";
    let Some(up) = shell::up(test, &["ada"]).await? else {
        return Ok(());
    };
    if up.lacks("memory") {
        return skip(test, "memory", "this user cannot limit memory here");
    }
    let api = &up.api;
    let said = api.reply("ada", &format!("{EAT}; echo survived")).await?;
    ensure!(said == "survived\n", "{said}");
    let done = api.logged("ada", "done").await?;
    ensure!(text(&done, "operator_note") == [TOLD], "{done:?}");
    ensure!(api.reply("ada", "echo light").await? == "light\n");
    let done = api.logged("ada", "done").await?;
    ensure!(
        text(&done, "operator_note") == [TOLD],
        "only of the turn in which it was: {done:?}"
    );

    let error = api.failure("ada", &format!("{EAT}; exit 3")).await?;
    ensure!(error.text("code") == "agent_failed", "{error:?}");
    let failed = api.logged("ada", "failed").await?;
    ensure!(
        text(&failed, "operator_reason")[0].ends_with(TOLD),
        "{failed:?}"
    );

    let error = api.failure("ada", &format!("exec {EAT}")).await?;
    ensure!(error.text("code") == "agent_died", "{error:?}");
    let failed = api.logged("ada", "failed").await?;
    let restarted = api.logged("ada", "restarted").await?;
    let mut reasons = text(&restarted, "reason");
    reasons.push(text(&failed, "operator_reason").pop().context("a reason")?);
    ensure!(
        reasons.len() == 3 && reasons.iter().all(|reason| reason.ends_with(TOLD)),
        "{reasons:?}"
    );
    let turn = api.turn("ada", error.text("turn_id")).await?;
    ensure!(
        !turn.to_string().contains("memory"),
        "the learner is not told: {turn}"
    );
    Ok(())
}
