//! `cargo xtask test cilium`: network policies in a cluster whose network is Cilium. A tier of its own: building Cilium takes about seven
//! minutes, and it needs a compiler of programs for the kernel.

use carrel_cluster_tools::CILIUM;

use super::build::{self, EVERYTHING};
use super::program::Product;
use super::{BOUND, cluster, executable, needs, one, provide};
use crate::image;

/// Runs the tier; whether all passed.
pub(super) fn run() -> anyhow::Result<bool> {
    provide();
    needs::provide_packages(&needs::CILIUM);
    cluster::build(&CILIUM, needs::is_there("go"))?;
    println!("== building the container image");
    let image = image::for_tests()?;
    println!("== building the executable and the tier");
    let built = build::build(&EVERYTHING)?;
    let product = Product {
        carrel: &executable(&built, "carrel")?.executable,
        image: Some(&image),
    };
    let total = one(executable(&built, "cilium")?, &[], &product, BOUND)?;
    println!("total: {total}");
    Ok(total.failed == 0 && total.skipped == 0)
}
