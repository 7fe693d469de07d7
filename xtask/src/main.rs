#![doc = include_str!("../README.md")]
#![expect(
    clippy::print_stdout,
    reason = "a command line for people, whose output is its purpose"
)]

mod arch;
mod bench;
mod cargo;
mod chaos;
mod chart;
mod image;
mod lint;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test    builds and runs all tests; installs what they need
cargo xtask test alerts
                    checks and plays deploy/rules with promtool, which it builds, once
cargo xtask test checkov
                    has checkov judge the chart, which it installs, once
cargo xtask test cilium
                    network policies where Cilium enforces them, which it builds, once
cargo xtask test outage
                    five minutes without an API server
cargo xtask needs   installs and builds what they need, and no more
cargo xtask lint    formatting, clippy with warnings as errors, arch
cargo xtask arch    arrows between crates, sizes of files, names and READMEs
cargo xtask bench   the figures of docs/BENCHMARKS.md, on this machine
cargo xtask chaos [--minutes N] [--seed S]
                    schedules of faults, newly drawn for so long or of one seed (docs/FAULTS.md)
cargo xtask image [--out FILE] [--tag REFERENCE] [--ca FILE] [--dev]
                    the container image, as an archive
cargo xtask manifests [--check]
                    what is made from the chart and the definitions of resources (needs helm)";

fn main() -> anyhow::Result<ExitCode> {
    let word = std::env::args().nth(1).unwrap_or_default();
    let passed = match word.as_str() {
        "test" => test::run()?,
        "needs" => test::provide(),
        "lint" => lint::run()?,
        "arch" => arch::run()?,
        "bench" => bench::run()?,
        "chaos" => chaos::run()?,
        "image" => image::run()?,
        "manifests" => chart::run()?,
        _ => {
            println!("{USAGE}");
            return Ok(ExitCode::from(if word == "help" { 0 } else { 2 }));
        }
    };
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
