use std::fs;
use std::os::unix::fs::symlink;

use super::*;

const GOOD: &str = "routes: {default: [{model: demo/one}]}\n";
const BETTER: &str = "routes: {default: [{model: demo/two}]}\n";

fn watch(source: &Path) -> Watch {
    let loaded = config::load(Some(source), std::iter::empty()).expect("valid");
    Watch::new(source.to_path_buf(), loaded, "token".to_owned())
}

/// Looks as often as it takes for a change to count; the model of the route `default` and what waits.
fn next(watch: &mut Watch) -> Option<Result<(String, Vec<String>), String>> {
    assert!(
        watch.look().is_none(),
        "a change counts when it has settled"
    );
    Some(match watch.look()? {
        Change::Valid(options, waiting) => {
            Ok((options.routes.0["default"][0].model.clone(), waiting))
        }
        Change::Invalid(reason) => Err(reason),
    })
}

fn valid(model: &str) -> (String, Vec<String>) {
    (model.to_owned(), Vec::new())
}

#[test]
fn a_file_written_in_place_or_renamed_over_is_taken_over_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("carrel.yaml");
    fs::write(&file, GOOD).expect("written");
    let mut watch = watch(&file);
    assert!(next(&mut watch).is_none());
    fs::write(&file, BETTER).expect("written");
    assert_eq!(next(&mut watch), Some(Ok(valid("two"))));
    assert!(next(&mut watch).is_none());
    let new = dir.path().join("new");
    fs::write(&new, GOOD).expect("written");
    fs::rename(&new, &file).expect("renamed");
    assert_eq!(next(&mut watch), Some(Ok(valid("one"))));
}

#[test]
fn a_folder_behind_a_swapped_symbolic_link_is_taken_over() {
    // As a mounted ConfigMap is: carrel.yaml -> ..data/carrel.yaml, ..data -> ..1, then ..data -> ..2 by a rename.
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    for (version, text) in [("..1", GOOD), ("..2", BETTER)] {
        fs::create_dir(path(version)).expect("made");
        fs::write(path(version).join("carrel.yaml"), text).expect("written");
    }
    symlink("..1", path("..data")).expect("linked");
    symlink("..data/carrel.yaml", path("carrel.yaml")).expect("linked");
    let mut watch = watch(dir.path());
    symlink("..2", path("..data_tmp")).expect("linked");
    fs::rename(path("..data_tmp"), path("..data")).expect("swapped");
    assert_eq!(next(&mut watch), Some(Ok(valid("two"))));
    fs::write(path("more.yaml"), GOOD).expect("a further file");
    assert_eq!(next(&mut watch), Some(Ok(valid("one"))));
}

#[test]
fn what_is_invalid_is_said_once_without_its_values_and_the_next_valid_one_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("carrel.yaml");
    fs::write(&file, GOOD).expect("written");
    let mut watch = watch(&file);
    let provider = |keys: &str| {
        format!("{BETTER}providers: [{{name: p, dialect: Anthropic, baseUrl: x, keys: {keys}}}]\n")
    };
    for text in [
        "routes: [".to_owned(),
        "rout: {}\n".to_owned(),
        provider("sk-ant-4711"),
        provider("[sk-ant-4711]"),
        provider("'4711'"),
        provider("[env:NO_SUCH_VARIABLE_OF_THIS_TEST]"),
    ] {
        fs::write(&file, &text).expect("written");
        let reason = next(&mut watch).expect("a change").expect_err("invalid");
        assert!(!reason.is_empty() && !reason.contains("4711"), "{reason}");
        assert!(next(&mut watch).is_none(), "said once");
    }
    // A key file that comes later is reason to read again.
    let key = dir.path().join("key");
    fs::write(&file, provider(&format!("[{}]", key.display()))).expect("written");
    next(&mut watch).expect("a change").expect_err("no key yet");
    fs::write(&key, "sk-ant-0815").expect("written");
    assert_eq!(next(&mut watch), Some(Ok(valid("two"))));
}

#[test]
fn what_waits_for_the_next_start_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("carrel.yaml");
    fs::write(&file, GOOD).expect("written");
    let mut watch = watch(&file);
    let text = format!(
        "{BETTER}router: {{listen: '127.0.0.1:1', openOnLoopback: true}}\nstore: {{url: 'sqlite:other.db'}}\n"
    );
    fs::write(&file, text).expect("written");
    let (model, waiting) = next(&mut watch).expect("a change").expect("valid");
    assert_eq!(model, "two");
    assert_eq!(waiting, ["router.listen", "store.url"]);
}

#[test]
fn a_route_to_a_provider_that_is_not_there_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("carrel.yaml");
    fs::write(&file, GOOD).expect("written");
    let mut watch = watch(&file);
    fs::write(&file, "routes: {default: [{model: nope/one}]}\n").expect("written");
    let Some(Err(reason)) = next(&mut watch) else {
        unreachable!("it is refused");
    };
    assert_eq!(
        reason,
        "routes.default: there is no provider 'nope': name it under providers"
    );
}
