//! Everything at once: two gateways, two routers, two vaults and a fleet on a real database and a real bucket, learners who go on
//! talking, and a schedule of faults that a seed draws. When all is healed and at rest, an auditor looks at what must hold.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests print their evidence, and are told by variables what to repeat"
)]

mod audit;
mod bill;
mod broken;
mod clients;
mod disk;
mod faults;
mod round;
mod schedule;
mod school;
mod stale;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use audit::Refused;
use carrel_tests::skip;
use rand::Rng as _;
use round::{Judged, Plan, round};
use schedule::kinds::missed;

/// What every change is tried on: between them they have every kind of fault.
const SEEDS: [u64; 3] = [64_856, 69_209, 64_324];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_nothing_is_lost_and_nothing_happens_twice() -> anyhow::Result<()> {
    let told = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let (seed, minutes) = (told("CARREL_SEED"), told("CARREL_CHAOS_MINUTES"));
    let until = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let mut seeds: Vec<u64> = match (seed, minutes) {
        (Some(seed), _) => vec![seed],
        (None, Some(_)) => Vec::new(),
        (None, None) => SEEDS.to_vec(),
    };
    seeds.reverse();
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let what = "the full disk of the pods' machine";
        skip(what, "root", "only root can mount one")?;
    }
    let mut met = BTreeSet::new();
    let (mut failed, mut ran, mut refused) = (Vec::new(), 0, Refused::default());
    loop {
        let goes_on = until.is_some_and(|until| Instant::now() < until);
        let seed = match seeds.pop() {
            Some(seed) => seed,
            None if goes_on => seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000)),
            None => break,
        };
        match round(seed, Plan::default()).await {
            Ok(None) => return Ok(()),
            Ok(Some(judged)) => {
                refused += judged.refused;
                met.extend(judged.met);
                if !judged.findings.0.is_empty() {
                    failed.push(seed);
                }
            }
            Err(error) => {
                println!("seed {seed}: {error:#}");
                failed.push(seed);
            }
        }
        ran += 1;
    }
    println!("{ran} seeds, failed: {failed:?}; of those who were replaced: {refused}");
    if let Some(seed) = failed.first() {
        bail!("repeat with: cargo xtask chaos --seed {seed}");
    }
    // Each round demands it of itself: this is the sum, said once more.
    ensure!(
        refused.each_at_least(ran),
        "not every seed has seen each of them refused: {refused}"
    );
    if (seed, minutes) == (None, None) {
        let missed = missed(&met);
        ensure!(missed.is_empty(), "in no seed: {missed:?}");
    }
    Ok(())
}

/// The auditor can see: what is broken on purpose is found, and named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_broken_on_purpose_is_caught_by_its_name() -> anyhow::Result<()> {
    let plan = Plan {
        lasts: Duration::from_secs(12),
        faults: 0,
        executable: Some(broken::build()?),
    };
    let Some(Judged {
        findings, missing, ..
    }) = round(SEEDS[0], plan).await?
    else {
        return Ok(());
    };
    ensure!(missing.is_empty(), "not brought about: {missing:?}");
    let unseen = broken::unseen(&findings);
    ensure!(
        unseen.is_empty(),
        "the auditor has no evidence of what was broken at {unseen:?}"
    );
    Ok(())
}
