//! `cargo xtask chaos --minutes N [--seed S]`: builds everything as `test` does and draws schedules of faults until the time is
//! over; the test program itself says which seed failed and how to repeat it.

use std::process::Command;

use anyhow::{Context, bail};

use crate::cargo;
use crate::test::build::{self, Artifact, EVERYTHING};

/// The test that draws, in the program of this name.
const PROGRAM: &str = "chaos";
const TEST: &str = "whatever_goes_wrong_nothing_is_lost_and_nothing_happens_twice";

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    minutes: Option<u64>,
    seed: Option<u64>,
}

pub(crate) fn run() -> anyhow::Result<bool> {
    let words: Vec<String> = std::env::args().skip(2).collect();
    let wanted = read(&words)?;
    println!("== building everything");
    let built = build::build(&EVERYTHING)?;
    let find = |name: &str, is_test| {
        let found = built
            .iter()
            .find(|artifact: &&Artifact| artifact.is_test == is_test && artifact.name == name);
        found.map(|artifact| artifact.executable.clone())
    };
    let (Some(carrel), Some(chaos)) = (find("carrel", false), find(PROGRAM, true)) else {
        bail!("the build gave no executables 'carrel' and '{PROGRAM}'");
    };
    let mut command = Command::new(chaos);
    command
        .args(["--exact", TEST, "--nocapture"])
        .current_dir(cargo::root())
        .env("CARREL_BIN", carrel);
    for (name, value) in [
        ("CARREL_CHAOS_MINUTES", wanted.minutes),
        ("CARREL_SEED", wanted.seed),
    ] {
        command.env_remove(name);
        command.envs(value.map(|value| (name, value.to_string())));
    }
    let status = command.status().context("starting the chaos")?;
    Ok(status.success())
}

fn read(words: &[String]) -> anyhow::Result<Wanted> {
    let mut wanted = Wanted::default();
    for pair in words.chunks(2) {
        let number = pair.get(1).and_then(|text| text.parse().ok());
        match (pair[0].as_str(), number) {
            ("--minutes", Some(number)) => wanted.minutes = Some(number),
            ("--seed", Some(number)) => wanted.seed = Some(number),
            _ => bail!("usage: cargo xtask chaos [--minutes N] [--seed S]"),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_flags_take_a_number_and_nothing_else_is_taken() {
        let read = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            read(&words)
        };
        let wanted = Wanted {
            minutes: Some(9),
            seed: Some(77),
        };
        assert_eq!(read("--minutes 9 --seed 77").unwrap(), wanted);
        assert_eq!(read("").unwrap(), Wanted::default());
        for nonsense in ["--minutes", "--seed x", "9", "--hours 1"] {
            assert!(read(nonsense).is_err(), "{nonsense}");
        }
    }
}
