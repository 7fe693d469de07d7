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

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use audit::Refused;
use rand::Rng as _;
use round::{Judged, Plan, round};

/// What every change is tried on: between them they have every kind of fault.
const SEEDS: [u64; 3] = [142, 253, 13_263];

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
    let Some(Judged { findings, .. }) = round(SEEDS[0], plan).await? else {
        return Ok(());
    };
    for rule in broken::rules() {
        ensure!(
            findings.0.iter().any(|broken| broken.rule == rule),
            "{rule:?} was broken, and the auditor did not see it"
        );
    }
    Ok(())
}
