//! `cargo xtask test`: gets what the tests need, builds everything once, runs every test program, and says on the
//! last line how many tests passed, failed and were skipped. A tier of its own, which is too dear for every run, is named.

mod alerts;
pub(crate) mod build;
mod checkov;
mod cilium;
mod cluster;
mod needs;
mod outage;
mod program;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use build::Artifact;
use program::Product;
use report::{Counts, Report};

use crate::image;

/// The package of the tests that start the whole executable.
const END_TO_END: &str = "carrel-tests";
/// What one test program of a crate may take.
const BOUND: Duration = Duration::from_mins(10);
/// What one end-to-end program may take.
const END_TO_END_BOUND: Duration = Duration::from_mins(20);

/// Gets what the tests need, and says what could not be had: their tests are skipped.
pub(crate) fn provide() -> bool {
    println!("== what the tests need of this machine");
    needs::provide();
    true
}

pub(crate) fn run() -> anyhow::Result<bool> {
    match std::env::args().nth(2).as_deref() {
        None => all(),
        Some("alerts") => alerts::run(),
        Some("checkov") => checkov::run(),
        Some("cilium") => cilium::run(),
        Some("outage") => outage::run(),
        Some(other) => {
            bail!("no tier is called '{other}': cargo xtask test [alerts|checkov|cilium|outage]")
        }
    }
}

fn all() -> anyhow::Result<bool> {
    let started = Instant::now();
    provide();

    println!("== building the container image");
    // First: what cargo builds last of a name is what lies there.
    let image = match image::for_tests() {
        Ok(image) => Some(image),
        Err(error) => {
            println!("no image, its tests are skipped: {error:#}");
            None
        }
    };
    println!("== building everything once: the executable, the crates, their tests");
    let built = match build::build(&build::EVERYTHING) {
        Ok(built) => built,
        Err(error) => {
            println!("nothing could be tested: {error}");
            let failed = Counts {
                failed: 1,
                ..Counts::default()
            };
            println!("total: {failed}");
            return Ok(false);
        }
    };
    let carrel = executable(&built, "carrel")?;
    let product = Product {
        carrel: &carrel.executable,
        image: image.as_deref(),
    };
    let mut tests: Vec<&Artifact> = built.iter().filter(|artifact| artifact.is_test).collect();
    tests.sort_by_key(|test| (&test.package, &test.name));
    let (end_to_end, of_crates): (Vec<&Artifact>, Vec<&Artifact>) =
        tests.iter().partition(|test| test.package == END_TO_END);
    let mut total = Counts::default();
    println!("== tests of the crates ({} programs)", of_crates.len());
    for test in of_crates {
        total += one(test, &[], &product, BOUND)?;
    }
    println!(
        "== end-to-end tests, against {}",
        carrel.executable.display()
    );
    for test in end_to_end {
        total += one(test, &[], &product, END_TO_END_BOUND)?;
    }

    println!("== done in {} s", started.elapsed().as_secs());
    println!("total: {total}");
    Ok(total.failed == 0)
}

/// An executable that a build gave.
fn executable<'a>(built: &'a [Artifact], name: &str) -> anyhow::Result<&'a Artifact> {
    let mut built = built.iter();
    built
        .find(|artifact| artifact.name == name && artifact.kind == "bin" && !artifact.is_test)
        .with_context(|| format!("the build gave no executable '{name}'"))
}

/// Runs one test program and says how it went; all of its output, if it failed.
fn one(
    test: &Artifact,
    words: &[&str],
    product: &Product<'_>,
    bound: Duration,
) -> anyhow::Result<Counts> {
    let label = format!("{} {} ({})", test.package, test.name, test.kind);
    let ran = program::run(test, words, product, bound)?;
    let Report { counts, skips } = report::read(&ran.output, ran.ended_well);
    if counts.is_nothing() {
        return Ok(counts);
    }
    println!("{label}: {counts} in {:.1} s", ran.took.as_secs_f64());
    for skip in skips {
        println!("    {skip}");
    }
    if counts.failed > 0 {
        println!("---- output of {label}, which {}", ran.ending);
        println!("{}", report::without_successes(&ran.output));
        println!("---- end of the output of {label}");
    }
    Ok(counts)
}
