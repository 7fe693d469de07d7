//! The static executable: the target and folder of every other build, so that few dependencies are built a second time; only the
//! last step, linking, is told to leave no library to be found at run time.

use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::test::build;

/// How it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As the tests build it.
    Dev,
    /// As it ships.
    Release,
}

/// glibc's own resolver reads `/etc/resolv.conf` and `/etc/hosts` without a library: names resolve in an empty root.
const STATIC: [&str; 5] = [
    "--",
    "-C",
    "target-feature=+crt-static",
    "-C",
    "strip=symbols",
];

pub(super) fn build(profile: Profile) -> anyhow::Result<PathBuf> {
    let mut words = vec!["-p", "carrel", "--bin", "carrel"];
    if profile == Profile::Release {
        words.push("--release");
    }
    let built = build::run("rustc", &words, &STATIC)?;
    let carrel = built
        .into_iter()
        .find(|artifact| artifact.name == "carrel" && artifact.kind == "bin")
        .context("the build gave no executable 'carrel'")?
        .executable;
    let program =
        std::fs::read(&carrel).with_context(|| format!("reading {}", carrel.display()))?;
    ensure!(
        interpreter(&program).is_none(),
        "{} needs a library at run time",
        carrel.display()
    );
    Ok(carrel)
}

/// The offset of a 64-bit ELF file's program header of type `PT_INTERP` (elf(5)): what loads its libraries. A static one has none.
fn interpreter(program: &[u8]) -> Option<usize> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let field = program.get(at..at + bytes)?;
        field.iter().rev().try_fold(0_usize, |number, byte| {
            number.checked_mul(256)?.checked_add(usize::from(*byte))
        })
    };
    let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    (0..count)
        .map(|index| start + index * size)
        .find(|at| number(*at, 4) == Some(PT_INTERP as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_libraries_is_told_from_one_that_needs_none() {
        let itself = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let at = interpreter(&itself).expect("tests are linked to libraries");
        let mut without = itself.clone();
        without[at] = 0;
        assert_eq!(interpreter(&without), None);
    }
}
