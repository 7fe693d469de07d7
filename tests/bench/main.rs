//! The figures of `docs/BENCHMARKS.md`, measured on this machine against the executable as it ships. Arguments choose some
//! of them by name; without any, all are measured. A missed bar is a failure.

#![expect(clippy::print_stdout, reason = "figures are for people to read")]

mod bucket;
mod cluster;
mod idle;
mod many;
mod memory;
mod store;
mod takeover;
mod talk;

use std::fs;

use anyhow::{Context as _, ensure};
use carrel_tests::figures::Figures;
use carrel_tests::{Setup, Up};
use serde_json::json;

/// Times are medians over so many runs.
const RUNS: usize = 3;

#[tokio::main]
#[expect(
    clippy::disallowed_methods,
    reason = "the date stands beside the figures"
)]
async fn main() -> anyhow::Result<()> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|word| word == name);
    println!("machine: {}", machine()?);
    println!("date: {}", jiff::Timestamp::now());
    println!("\n| figure | measured | bar |\n|---|---|---|");
    let mut figures = Figures::default();
    if wanted("talk") {
        talk::measure(&mut figures).await?;
    }
    if wanted("bucket") {
        bucket::measure(&mut figures).await?;
    }
    if wanted("memory") {
        memory::measure(&mut figures).await?;
    }
    if wanted("many") {
        many::measure(&mut figures).await?;
    }
    if wanted("idle") {
        idle::measure(&mut figures).await?;
    }
    store::measure(&mut figures, wanted).await?;
    if wanted("takeover") {
        takeover::measure(&mut figures).await?;
    }
    let of_cluster = |part: &str| wanted(part) || wanted("cluster");
    if of_cluster("wakes") {
        cluster::wakes(&mut figures).await?;
    }
    if of_cluster("crowd") {
        cluster::crowd(&mut figures).await?;
    }
    if of_cluster("rush") {
        cluster::rush(&mut figures).await?;
    }
    if of_cluster("node") {
        cluster::node(&mut figures).await?;
    }
    figures.end()
}

/// A server with nothing but what is given.
async fn up(name: &str, learners: usize) -> anyhow::Result<Up> {
    let documents = (0..learners)
        .map(|n| carrel_tests::agent::learner(&format!("l{n}"), "default"))
        .collect();
    let settings = Some(json!({"fleet": {"maxLive": 250, "startsPerSecond": 100}}));
    let up = Up::start(
        name,
        Setup {
            documents,
            settings,
            ..Setup::default()
        },
    )
    .await?;
    up.context("figures are of containers, which this machine does not give")
}

/// The value below which `share` of the measured ones lie.
fn percentile(values: &mut [f64], share: f64) -> anyhow::Result<f64> {
    ensure!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a short list"
    )]
    let place = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1;
    Ok(values[place])
}

/// The median.
fn median(values: &mut [f64]) -> anyhow::Result<f64> {
    percentile(values, 0.5)
}

/// Processor, cores, memory and kernel, without which a figure means nothing.
fn machine() -> anyhow::Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let model = field(&processors, "model name").unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism()?;
    let total = field(&memory, "MemTotal").unwrap_or("unknown memory");
    Ok(format!(
        "{model}, {cores} cores, {total}, Linux {}",
        kernel.trim()
    ))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}
