use super::facts::{Dependency, File, Package, Workspace};
use super::rules::{MOST_LINES, breaches, sizes};

fn package(name: &str, dependencies: Vec<Dependency>) -> Workspace {
    let package = Package {
        name: name.to_owned(),
        has_readme: true,
        dependencies,
    };
    Workspace {
        packages: vec![package],
        files: Vec::new(),
    }
}

fn arrow(name: &str, ours: bool, for_tests: bool) -> Vec<Dependency> {
    vec![Dependency {
        name: name.to_owned(),
        ours,
        for_tests,
    }]
}

fn file(path: &str, lines: usize) -> Workspace {
    let file = File {
        path: path.to_owned(),
        lines,
    };
    Workspace {
        packages: Vec::new(),
        files: vec![file],
    }
}

#[test]
fn no_role_uses_another_not_even_in_its_tests() {
    assert_eq!(
        breaches(&package(
            "carrel-gateway",
            arrow("carrel-router", true, false)
        )),
        ["carrel-gateway: may not use carrel-router"]
    );
    assert_eq!(
        breaches(&package(
            "carrel-gateway",
            arrow("carrel-fleet-local", true, true)
        )),
        ["carrel-gateway: may not use carrel-fleet-local"]
    );
}

#[test]
fn only_tests_may_use_the_stand_ins() {
    assert_eq!(
        breaches(&package(
            "carrel-router",
            arrow("carrel-testkit", true, false)
        )),
        ["carrel-router: may not use carrel-testkit"]
    );
    assert!(
        breaches(&package(
            "carrel-router",
            arrow("carrel-testkit", true, true)
        ))
        .is_empty()
    );
}

#[test]
fn an_arrow_of_the_table_is_allowed() {
    assert!(breaches(&package("carrel-router", arrow("carrel-llm", true, false))).is_empty());
    assert!(breaches(&package("carrel-router", arrow("axum", false, false))).is_empty());
}

#[test]
fn the_pure_crates_use_nothing_that_can_do_io() {
    let found = breaches(&package("carrel-core", arrow("tokio", false, false)));
    assert!(
        found[0].starts_with("carrel-core: pure, so it may not use 'tokio'"),
        "{found:?}"
    );
    assert!(!breaches(&package("carrel-llm", arrow("reqwest", false, false))).is_empty());
    assert!(breaches(&package("carrel-core", arrow("proptest", false, true))).is_empty());
}

#[test]
fn a_crate_that_the_table_does_not_know_is_a_breach() {
    let found = breaches(&package("carrel-new", Vec::new()));
    assert!(
        found[0].starts_with("carrel-new: not in the table"),
        "{found:?}"
    );
}

#[test]
fn a_crate_says_what_it_is_for() {
    let mut workspace = package("carrel-core", Vec::new());
    workspace.packages[0].has_readme = false;
    assert_eq!(
        breaches(&workspace),
        ["carrel-core: no README.md that says what it is for"]
    );
}

#[test]
fn a_file_may_have_five_hundred_lines_and_no_more() {
    assert!(breaches(&file("crates/core/src/lib.rs", MOST_LINES)).is_empty());
    assert_eq!(
        breaches(&file("crates/core/src/lib.rs", 501)),
        ["crates/core/src/lib.rs: 501 lines, more than 500"]
    );
}

#[test]
fn rooms_have_names() {
    assert_eq!(
        breaches(&file("crates/core/src/helpers.rs", 3)),
        ["crates/core/src/helpers.rs: 'helpers' does not say what is in it"]
    );
    assert!(!breaches(&file("crates/core/src/common/ids.rs", 3)).is_empty());
    assert!(breaches(&file("crates/core/src/uncommon.rs", 3)).is_empty());
}

#[test]
fn sizes_are_told_by_nearest_rank() {
    let lines = [90, 10, 80, 20, 70, 30, 60, 40, 50, 100];
    let files: Vec<File> = lines
        .iter()
        .map(|&lines| File {
            path: format!("f{lines}.rs"),
            lines,
        })
        .collect();
    assert_eq!(
        sizes(&files),
        "files: 10, median 50 lines, ninetieth percentile 90, longest 100 (f100.rs)"
    );
}
