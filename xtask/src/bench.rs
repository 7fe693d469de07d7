//! `cargo xtask bench`: builds the executable as it ships and runs the measurements of `carrel-tests` against it.

use anyhow::{Context, bail};

use crate::cargo;
use crate::test::build::{self, Artifact};

/// Arguments after `bench` are the measurements' own (say, the names of some of them).
pub(crate) fn run() -> anyhow::Result<bool> {
    println!("== building carrel and its measurements as they ship");
    let built = build::build(&["--release", "-p", "carrel", "-p", "carrel-tests", "--bins"])?;
    let find = |name: &str| {
        let found = built
            .iter()
            .find(|artifact: &&Artifact| !artifact.is_test && artifact.name == name);
        found.map(|artifact| artifact.executable.clone())
    };
    let (Some(carrel), Some(bench)) = (find("carrel"), find("bench")) else {
        bail!("the build gave no executables 'carrel' and 'bench'");
    };
    let status = std::process::Command::new(bench)
        .args(std::env::args_os().skip(2))
        .current_dir(cargo::root())
        .env("CARREL_BIN", carrel)
        .status()
        .context("starting the measurements")?;
    Ok(status.success())
}
