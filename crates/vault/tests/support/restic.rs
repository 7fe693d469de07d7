//! Stock `restic` on a learner's repository, wherever it lies, beside our own reading of it.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use carrel_protocol::vault::ResticAccess;
use carrel_testkit::s3::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

use super::{Pod, tree};

/// Whether there is one; said where there is none.
#[expect(clippy::print_stdout, reason = "a skip is printed with its reason")]
pub(crate) fn is_there(test: &str) -> bool {
    let found = Command::new("restic").arg("version").output().is_ok();
    if !found {
        let required = std::env::var_os("CARREL_REQUIRE").unwrap_or_default();
        let required = required.to_string_lossy();
        let is_required = required.split(',').any(|item| item == "restic");
        assert!(!is_required, "restic is required and absent");
        println!("SKIP {test}: restic is not installed ('apt-get install restic')");
    }
    found
}

/// Runs it; what it said.
pub(crate) fn run(access: &ResticAccess, arguments: &[&str]) -> Output {
    let options = access.options.iter().flat_map(|option| ["-o", option]);
    Command::new("restic")
        .args(options)
        .args(arguments)
        .arg("--no-cache")
        .env("RESTIC_REPOSITORY", &access.repository)
        .env("RESTIC_PASSWORD_FILE", &access.password_file)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .output()
        .expect("restic runs")
}

/// Checks that restic and we say the same of a repository: which snapshots it has, whether all of it is whole, and what each
/// snapshot that is whole holds.
pub(crate) async fn agrees(pod: &Pod<'_>) {
    let vault = &pod.desk.vault;
    let access = vault.restic_access(&pod.learner).await.expect("access");
    let listed = vault.list(&pod.learner).await.expect("a list");
    let ours: BTreeSet<String> = listed
        .iter()
        .map(|row| row.snapshot_id.to_string())
        .collect();
    let theirs = run(&access, &["snapshots", "--json"]);
    let theirs: serde_json::Value = serde_json::from_slice(&theirs.stdout).expect("JSON");
    let theirs = theirs.as_array().expect("a list").iter();
    let theirs = theirs.map(|one| one["id"].as_str().expect("an id").to_owned());
    assert_eq!(ours, theirs.collect());

    let mut all_whole = true;
    for row in &listed {
        let name = &row.snapshot_id;
        let verified = vault.verify(&pod.learner, Some(name)).await.expect("read");
        let folder = || tempfile::tempdir().expect("a folder");
        let (here, there) = (folder(), folder());
        let restored = pod.snapshots().restore(name, here.path()).await;
        let target = there.path().to_str().expect("UTF-8");
        let by_restic = run(&access, &["restore", name.as_str(), "--target", target]);
        let told = String::from_utf8_lossy(&by_restic.stderr);
        assert_eq!(restored.is_ok(), verified.intact, "{name}: {restored:?}");
        assert_eq!(
            by_restic.status.success(),
            verified.intact,
            "{name}: {told}"
        );
        all_whole &= verified.intact;
        if verified.intact {
            assert_eq!(tree::tree(there.path()), tree::tree(here.path()), "{name}");
        }
    }
    let check = run(&access, &["check", "--read-data"]);
    let told = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.success(), all_whole, "{told}");
}
