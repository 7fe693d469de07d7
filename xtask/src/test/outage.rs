//! `cargo xtask test outage`: five minutes without an API server. A tier of its own: it waits for all of them.

use anyhow::Context as _;

use super::build::{self, EVERYTHING};
use super::program::Product;
use super::{BOUND, executable, one, provide};

/// Runs the tier; whether it passed.
pub(super) fn run() -> anyhow::Result<bool> {
    provide();
    println!("== building the executable and the tests");
    let built = build::build(&EVERYTHING)?;
    let product = Product {
        carrel: &executable(&built, "carrel")?.executable,
        image: None,
    };
    let mut tests = built.iter().filter(|artifact| artifact.is_test);
    let cluster = tests.find(|test| test.name == "cluster");
    let cluster = cluster.context("the build gave no tests of the cluster")?;
    let words = ["--ignored", "controller::away"];
    let total = one(cluster, &words, &product, BOUND)?;
    println!("total: {total}");
    Ok(total.passed > 0 && total.failed == 0 && total.skipped == 0)
}
