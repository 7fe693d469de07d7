//! The keys of a new installation, made where no server is.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use carrel_tests::variables;
use serde_json::Value;

use crate::{Said, said};

const NAMES: [&str; 6] = [
    "admin.token",
    "gateway.key",
    "gateway.pub",
    "kek",
    "signing.key",
    "signing.pub",
];

fn keys(words: &[&str]) -> anyhow::Result<Said> {
    let mut command = Command::new(carrel_tests::carrel()?);
    variables::unheard(&mut command);
    said(
        command
            .args(["keys", "create"])
            .args(words)
            .stdin(Stdio::null())
            .output()?,
    )
}

#[test]
fn keys_are_made_once_in_a_folder_of_their_own_that_nobody_else_reads() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("keys");
    let made = keys(&["--out", &place.display().to_string()])?;
    assert_eq!(made.status, Some(0), "{made:?}");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(&place)? {
        let entry = entry?;
        assert_eq!(entry.metadata()?.permissions().mode() & 0o777, 0o600);
        assert!(
            made.stdout.contains(&entry.path().display().to_string()),
            "{made:?}"
        );
        found.insert(entry.file_name().to_string_lossy().into_owned());
    }
    assert_eq!(found, NAMES.map(str::to_owned).into());
    let kek = std::fs::read(place.join("kek"))?;
    let again = keys(&["--out", &place.display().to_string()])?;
    assert_eq!(again.status, Some(6), "{again:?}");
    assert_eq!(std::fs::read(place.join("kek"))?, kek);
    Ok(())
}

#[test]
fn a_secret_for_kubernetes_has_the_same_keys_and_leaves_no_file() -> anyhow::Result<()> {
    let made = keys(&["--secret", "school-keys", "--namespace", "school"])?;
    assert_eq!(made.status, Some(0), "{made:?}");
    let secret: Value = serde_yaml::from_str(&made.stdout)?;
    assert_eq!(
        (&secret["kind"], &secret["immutable"]),
        (&"Secret".into(), &true.into())
    );
    assert_eq!(
        secret["metadata"],
        serde_json::json!({"name": "school-keys", "namespace": "school"})
    );
    let data = secret["stringData"].as_object().expect("it has data");
    assert_eq!(data.keys().collect::<Vec<_>>(), NAMES);
    assert!(
        data["signing.key"]
            .as_str()
            .is_some_and(|pem| pem.ends_with("-----END PRIVATE KEY-----\n")),
        "whole lines"
    );
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out").display().to_string();
    for refused in [
        &[][..],
        &["--namespace", "a"],
        &["--secret", "a", "--out", &out],
        &["--out", &out, "--namespace", "a"],
    ] {
        assert_eq!(keys(refused)?.status, Some(2), "{refused:?}");
    }
    Ok(())
}
