//! How fast the log is read through a gateway while it is written: by several at once, one to three events a transaction.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrel_tests::Api;
use carrel_tests::figures::{Figures, shown};
use jiff::Timestamp;
use reqwest::Method;

use super::{LEARNERS, school};
use crate::percentile;

/// Transactions a second, of two events each on average: a little more than the bar.
const TRANSACTIONS: u32 = 2_750;
const BAR: f64 = 5_000.0;
const SECONDS: u32 = 20;
const WRITERS: u32 = 32;
/// Between two looks of a reader that has seen all.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// As the store appends: under the learner's lock, with the version that follows.
const APPEND: &str = r#"
\set learner random(0, LEARNERS - 1)
\set events random(1, 3)
WITH locked AS (SELECT lock_learner('l' || :learner)),
l AS (UPDATE learner SET event_version = event_version + :events FROM locked WHERE id = 'l' || :learner
    RETURNING id, event_version - :events AS before)
INSERT INTO event (learner, version, time, type, body)
    SELECT id, before + n, (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint, 'state_changed',
        '{"type": "state_changed", "state": "Ready", "epoch": 1}' FROM l, generate_series(1, :events) n;
"#;

/// What a reader has seen.
#[derive(Default)]
struct Seen {
    events: HashSet<(String, u64)>,
    lags: Vec<f64>,
    times: Vec<Timestamp>,
}

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let roles = school("feed")?;
    let gateway = roles.start("gateway").await?;
    let api = roles.api(&gateway)?;
    let script = roles.data().join("append.sql");
    std::fs::write(&script, APPEND.replace("LEARNERS", &LEARNERS.to_string()))?;
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let mut writers = roles.server.program("pgbench");
    // One plan for a statement, as the store's sessions have it.
    writers.env("PGOPTIONS", "-c plan_cache_mode=force_generic_plan");
    let numbers = [
        ("--client", WRITERS),
        ("--rate", TRANSACTIONS),
        ("--time", SECONDS),
    ];
    writers
        .args(["--no-vacuum", "--protocol=prepared", "--file"])
        .arg(&script);
    for (flag, number) in numbers {
        writers.args([flag, &number.to_string()]);
    }
    let mut writers = writers
        .arg(&roles.database)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;

    let (mut seen, mut after) = (Seen::default(), "0-0".to_owned());
    loop {
        let status = writers.try_wait()?;
        let events = read(&api, &mut after, &mut seen).await?;
        match status {
            Some(status) if events == 0 => {
                ensure!(status.success(), "the writers failed: {status}");
                break;
            }
            _ if events == 0 => tokio::time::sleep(LOOK_EVERY).await,
            _ => {}
        }
    }
    let written = roles
        .server
        .psql(&roles.database, "SELECT count(*) FROM event");
    let written: usize = written.trim().parse()?;
    let lost = written - seen.events.len();
    let twice = seen.times.len() - seen.events.len();
    seen.times.sort_unstable();
    let (first, last) = (seen.times.first(), seen.times.last());
    let lasted = *last.context("events")? - *first.context("events")?;
    let rate = f64::from(u32::try_from(seen.events.len())?) / lasted.total(jiff::Unit::Second)?;
    let p99 = percentile(&mut seen.lags, 0.99)?;
    figures.held(
        "event feed, read at a gateway while 32 connections write; lag p99",
        &format!(
            "{rate:.0} /s, {lost} lost, {twice} twice; {} ms",
            shown(p99)
        ),
        "≥ 5,000 /s, 0 lost, none twice; ≤ 250 ms",
        rate >= BAR && lost == 0 && twice == 0 && p99 <= 250.0,
    );
    Ok(())
}

/// A page; how many events were on it.
#[expect(
    clippy::disallowed_methods,
    reason = "the lag is by the clock of the machine, which is the writers'"
)]
async fn read(api: &Api, after: &mut String, seen: &mut Seen) -> anyhow::Result<usize> {
    let path = format!("events?limit=1000&after={after}");
    let page = api.admin(Method::GET, &path, None).await?;
    let now = Timestamp::now();
    let events = page["events"].as_array().context("a page has events")?;
    for event in events {
        let time: Timestamp = event["time"].as_str().context("a time")?.parse()?;
        let learner = event["learner"].as_str().context("a learner")?.to_owned();
        let version = event["version"].as_u64().context("a version")?;
        seen.events.insert((learner, version));
        seen.lags.push((now - time).total(jiff::Unit::Millisecond)?);
        seen.times.push(time);
    }
    page["next"].as_str().context("a place")?.clone_into(after);
    Ok(events.len())
}
