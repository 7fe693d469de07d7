//! How long a learner waits: with a workspace of 10 MB, asleep and awake, and for `done`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carrel_tests::figures::{Figures, shown};
use carrel_tests::{Api, Up, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{RUNS, median, percentile, up};

pub(super) const LEARNER: &str = "l0";
/// Messages of one run.
const MESSAGES: usize = 100;
/// So many of them at the beginning are compared with as many at the end.
const FEW: usize = 10;
/// Files of the workspace, sent in messages of so many at once.
const FILES: usize = 100;
const FILES_AT_ONCE: usize = 25;
/// Bytes of each: 10 MB in all.
const FILE_BYTES: usize = 100_000;

/// What was measured in one turn, in milliseconds.
pub(super) struct Times {
    first_text: f64,
    pub(super) until_done: f64,
    /// From the agent's last line, when it begins to be frozen, until its workspace was committed.
    pub(super) snapshot: f64,
    /// The turn.
    pub(super) turn: String,
}

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let (mut asleep, mut asleep_99) = (Vec::new(), Vec::new());
    let (mut awake, mut done) = (Vec::new(), Vec::new());
    let (mut first_done, mut last_done) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (mut cold, mut warm, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        // A server each, so that what one part leaves in the repository is not in the other's way.
        let up = filled("asleep").await?;
        for _ in 0..MESSAGES {
            up.api.sleep(LEARNER).await?;
            cold.push(turn(&up.api).await?.first_text);
        }
        drop(up);
        let up = filled("awake").await?;
        for _ in 0..MESSAGES {
            let times = turn(&up.api).await?;
            warm.push(times.first_text);
            ends.push(times.until_done);
        }
        asleep.push(median(&mut cold)?);
        asleep_99.push(percentile(&mut cold, 0.99)?);
        awake.push(median(&mut warm)?);
        first_done.push(median(&mut ends[..FEW].to_vec())?);
        last_done.push(median(&mut ends[MESSAGES - FEW..].to_vec())?);
        done.push(median(&mut ends)?);
    }
    figures.at_most(
        "message accepted → first text, learner asleep with a 10 MB workspace, p50 / p99 of 100",
        "ms",
        &[
            (median(&mut asleep)?, 350.0),
            (median(&mut asleep_99)?, 700.0),
        ],
    );
    figures.at_most(
        "the same, learner awake, agent and stand-in model included, p50 (the bar is of our share)",
        "ms",
        &[(median(&mut awake)?, 15.0)],
    );
    figures.at_most(
        "end of text → `done`, one small change in the 10 MB workspace, p50",
        "ms",
        &[(median(&mut done)?, 80.0)],
    );
    let (first, last) = (median(&mut first_done)?, median(&mut last_done)?);
    figures.noted(
        "the same, p50 of the first ten and of the last ten of 100 turns without sleep",
        &format!("{} / {} ms", shown(first), shown(last)),
    );
    Ok(())
}

async fn filled(name: &str) -> anyhow::Result<Up> {
    let up = up(name, 1).await?;
    fill(&up).await?;
    Ok(up)
}

/// Gives the learner 10 MB that cannot be compressed.
pub(super) async fn fill(up: &Up) -> anyhow::Result<()> {
    for first in (0..FILES).step_by(FILES_AT_ONCE) {
        let attachments: Vec<Value> = (first..first + FILES_AT_ONCE)
            .map(|n| {
                let bytes: Vec<u8> = (0..FILE_BYTES).map(|_| rand::random()).collect();
                json!({
                    "name": format!("notes-{n}.bin"),
                    "media_type": "application/octet-stream",
                    "data": STANDARD.encode(bytes),
                })
            })
            .collect();
        let accepted = up
            .api
            .post_with(LEARNER, "Keep these.", attachments)
            .await?;
        eventually(
            "the files are in the workspace",
            Duration::from_mins(1),
            || async {
                let turn = up.api.turn(LEARNER, &accepted.turn).await?;
                ensure!(
                    turn["state"] != "failed",
                    "the files were not taken: {turn}"
                );
                Ok((turn["state"] == "done").then_some(()))
            },
        )
        .await?;
    }
    let path = format!("learners/{LEARNER}");
    let document = up.api.admin(Method::GET, &path, None).await?;
    document["newest_snapshot"]
        .as_object()
        .context("the workspace was not kept")?;
    Ok(())
}

pub(super) async fn turn(api: &Api) -> anyhow::Result<Times> {
    let key = uuid::Uuid::new_v4().to_string();
    let began = Instant::now();
    let mut stream = api.post_and_follow(LEARNER, "Hello!", &key).await?;
    let (mut first, mut last, mut quiet) = (None, began, None);
    while let Some(event) = stream.next().await? {
        match event.name.as_str() {
            "delta" => {
                last = Instant::now();
                first.get_or_insert(last);
            }
            "state" if event.data["state"] == "snapshotting" => {
                quiet = Some(Instant::now());
            }
            "done" => {
                let first = first.context("an answer has text")?;
                let quiet = quiet.context("a turn is snapshotted before it is done")?;
                return Ok(Times {
                    first_text: (first - began).as_secs_f64() * 1e3,
                    until_done: last.elapsed().as_secs_f64() * 1e3,
                    snapshot: quiet.elapsed().as_secs_f64() * 1e3,
                    turn: event.data["turn_id"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                });
            }
            "error" => anyhow::bail!("the turn failed: {:?}", event.data),
            _ => {}
        }
    }
    anyhow::bail!("the stream ended early")
}
