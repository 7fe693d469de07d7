//! The rules. Pure: facts in, sentences about what breaks them out.

use super::facts::{Dependency, File, Package, Workspace};
use super::table::{ALL_TESTS_USE, Row, TABLE};

/// No file is longer.
pub(super) const MOST_LINES: usize = 500;
/// Names that say nothing of what is in a room.
const NAMELESS: [&str; 8] = [
    "utils",
    "util",
    "common",
    "commons",
    "helpers",
    "helper",
    "misc",
    "miscellaneous",
];

/// All breaches, each a sentence that says where and what.
pub(super) fn breaches(workspace: &Workspace) -> Vec<String> {
    let packages = workspace.packages.iter().flat_map(of_package);
    packages
        .chain(workspace.files.iter().flat_map(of_file))
        .collect()
}

fn of_package(package: &Package) -> Vec<String> {
    let name = &package.name;
    let mut found = Vec::new();
    if !package.has_readme {
        found.push(format!("{name}: no README.md that says what it is for"));
    }
    match TABLE.iter().find(|row| row.name == name) {
        None => found.push(format!(
            "{name}: not in the table of crates (xtask/src/arch/table.rs)"
        )),
        Some(row) => {
            found.extend(
                package
                    .dependencies
                    .iter()
                    .filter_map(|arrow| of_arrow(row, arrow)),
            );
        }
    }
    found
}

fn of_arrow(row: &Row, arrow: &Dependency) -> Option<String> {
    let name = arrow.name.as_str();
    if !arrow.ours {
        let pure = row.only_from_outside.filter(|_| !arrow.for_tests)?;
        return (!pure.contains(&name)).then(|| {
            format!(
                "{}: pure, so it may not use '{name}' (only {})",
                row.name,
                pure.join(", ")
            )
        });
    }
    let in_tests =
        arrow.for_tests && (ALL_TESTS_USE.contains(&name) || row.tests_use.contains(&name));
    let allowed = row.uses.contains(&name) || in_tests;
    (!allowed).then(|| format!("{}: may not use {name}", row.name))
}

fn of_file(file: &File) -> Vec<String> {
    let File { path, lines } = file;
    let mut found = Vec::new();
    if *lines > MOST_LINES {
        found.push(format!("{path}: {lines} lines, more than {MOST_LINES}"));
    }
    let mut rooms = path.split('/').map(|room| room.trim_end_matches(".rs"));
    if let Some(room) = rooms.find(|room| NAMELESS.contains(room)) {
        found.push(format!("{path}: '{room}' does not say what is in it"));
    }
    found
}

/// One line about how long the files are.
pub(super) fn sizes(files: &[File]) -> String {
    let mut sorted: Vec<&File> = files.iter().collect();
    sorted.sort_by_key(|file| file.lines);
    let Some(longest) = sorted.last() else {
        return "files: none".to_owned();
    };
    format!(
        "files: {}, median {} lines, ninetieth percentile {}, longest {} ({})",
        sorted.len(),
        percentile(&sorted, 50),
        percentile(&sorted, 90),
        longest.lines,
        longest.path
    )
}

/// The lines of the smallest file that so many of a hundred do not exceed (nearest rank).
fn percentile(sorted: &[&File], of_hundred: usize) -> usize {
    let rank = (sorted.len() * of_hundred).div_ceil(100);
    sorted[rank.saturating_sub(1)].lines
}
