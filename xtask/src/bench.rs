//! `cargo xtask bench`: builds the executable as it ships and runs the measurements of `carrel-tests` against it.

use anyhow::{Context, bail};

use crate::cargo;
use crate::image::{self, Wanted};
use crate::test::build::{self, Artifact};

/// The measurements that need the image.
const OF_IMAGE: [&str; 2] = ["cluster", "node"];

/// Arguments after `bench` are the measurements' own (say, the names of some of them).
pub(crate) fn run() -> anyhow::Result<bool> {
    let words: Vec<String> = std::env::args().skip(2).collect();
    let image = Wanted::default();
    // A real node runs the image; what cargo builds last of a name is what lies there, so it comes first.
    if words.is_empty() || words.iter().any(|word| OF_IMAGE.contains(&word.as_str())) {
        println!("== building the container image as it ships");
        image::write(&image)?;
    }
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
        .args(words)
        .current_dir(cargo::root())
        .env("CARREL_BIN", carrel)
        .env("CARREL_IMAGE", image.out)
        .status()
        .context("starting the measurements")?;
    Ok(status.success())
}
