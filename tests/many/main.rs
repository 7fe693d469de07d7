//! Many learners: 200 awake at once, and 2,000 that sleep and cost nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use carrel_tests::machine::pods;
use carrel_tests::{Setup, Up, agent, eventually};
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

const AWAKE: usize = 200;
const ASLEEP: usize = 2000;
/// By then nobody works any more who has answered.
const WITHIN: Duration = Duration::from_secs(10);
/// How long the sleepers are watched.
const WINDOW: Duration = Duration::from_secs(15);

fn learners(count: usize) -> Vec<serde_json::Value> {
    (0..count)
        .map(|n| agent::learner(&format!("learner-{n:04}"), "default"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_learners_are_awake_at_once_and_each_is_answered() -> anyhow::Result<()> {
    let fleet = json!({"fleet": {"maxLive": AWAKE, "startsPerSecond": 50}});
    let setup = Setup {
        documents: learners(AWAKE),
        settings: Some(fleet),
        ..Setup::default()
    };
    let Some(up) = Up::start("two_hundred_learners", setup).await? else {
        return Ok(());
    };
    let began = Instant::now();
    let turns = (0..AWAKE).map(|n| {
        let (api, learner) = (up.api.clone(), format!("learner-{n:04}"));
        async move {
            let events = api.ask(&learner, "Hello!").await?;
            let last = events.last().context("an outcome")?;
            ensure!(last.name == "done", "{learner}: {last:?}");
            api.turn(&learner, last.text("turn_id")).await
        }
    });
    let turns = join_all(turns)
        .await
        .into_iter()
        .collect::<anyhow::Result<Vec<_>>>()?;
    let took = began.elapsed();
    for turn in &turns {
        ensure!(turn["state"] == "done" && turn["attempts"] == 1, "{turn}");
        let said = turn["reply"]["text"].as_str().unwrap_or_default();
        ensure!(!said.is_empty(), "{turn}");
    }
    let awake = pods(up.pid()).len();
    println!(
        "{AWAKE} learners, one turn each: all done in {:.1} s, {awake} awake",
        took.as_secs_f64()
    );
    ensure!(awake == AWAKE, "{awake} are awake");
    // `done` is told when it is stored; that nobody works any more is known a moment later.
    eventually("all are ready", WITHIN, || async {
        let listed = up
            .api
            .admin(Method::GET, "learners?limit=1000", None)
            .await?;
        let learners = listed["learners"].as_array().context("a list")?;
        let count = |state: &str| learners.iter().filter(|it| it["state"] == state).count();
        let (ready, busy) = (count("Ready"), count("Busy"));
        ensure!(ready + busy == AWAKE, "{ready} are ready, {busy} at work");
        Ok((ready == AWAKE).then_some(()))
    })
    .await
}

#[tokio::test]
async fn two_thousand_learners_asleep_cost_nothing() -> anyhow::Result<()> {
    let setup = Setup {
        documents: learners(ASLEEP),
        ..Setup::default()
    };
    let Some(up) = Up::start("two_thousand_learners", setup).await? else {
        return Ok(());
    };
    // One was awake: what that left is at rest too.
    up.api.ask("learner-0000", "Hello!").await?;
    up.api.sleep("learner-0000").await?;
    ensure!(pods(up.pid()).is_empty(), "somebody is awake");
    let before = Cost::now(&up)?;
    tokio::time::sleep(WINDOW).await;
    let after = Cost::now(&up)?;
    ensure!(pods(up.pid()).is_empty(), "somebody woke");
    println!(
        "{ASLEEP} learners asleep for {WINDOW:?}: {} ms of processor time",
        (after.ticks - before.ticks) * 10
    );
    ensure!(
        after.files == before.files,
        "{:?} became {:?}",
        before.files,
        after.files
    );
    ensure!(
        after.written == before.written,
        "{} bytes were written",
        after.written - before.written
    );
    // The process itself looks at a clock now and then; 2,000 timers would show.
    ensure!(
        after.ticks - before.ticks <= 15,
        "{} ticks of 10 ms",
        after.ticks - before.ticks
    );
    Ok(())
}

/// What a server has used.
struct Cost {
    /// Every file of its data folder, with size and time of change.
    files: Vec<(String, u64, SystemTime)>,
    /// `write_bytes` of `/proc/PID/io` (proc_pid_io(5)).
    written: u64,
    /// Processor time, in ticks of 10 ms: fields 14 and 15 of `/proc/PID/stat` (proc_pid_stat(5)).
    ticks: u64,
}

impl Cost {
    fn now(up: &Up) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        list(&up.data(), &mut files)?;
        files.sort();
        let io = fs::read_to_string(format!("/proc/{}/io", up.pid()))?;
        let written = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        let stat = fs::read_to_string(format!("/proc/{}/stat", up.pid()))?;
        let fields: Vec<_> = stat
            .rsplit_once(") ")
            .context("a name")?
            .1
            .split(' ')
            .collect();
        Ok(Self {
            files,
            written: written.context("a count")?.parse()?,
            ticks: fields[11].parse::<u64>()? + fields[12].parse::<u64>()?,
        })
    }
}

fn list(folder: &Path, files: &mut Vec<(String, u64, SystemTime)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        files.push((
            entry.path().display().to_string(),
            metadata.len(),
            metadata.modified()?,
        ));
        if metadata.is_dir() {
            list(&entry.path(), files)?;
        }
    }
    Ok(())
}
