//! A real server of S3's protocol: commits, sleeps and wakes, stock restic, and every way in which it fails.

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use carrel_sidecar::snapshot::ErrorKind;
use carrel_testkit::s3::{ACCESS_KEY_ID, Fault, S3Server, SECRET_ACCESS_KEY};
use carrel_vault::Objects;
use support::{Desk, bucket, tree};

fn server(desk: &Desk) -> &S3Server {
    desk.server.as_ref().expect("the desk is on a server")
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_restic_checks_and_restores_what_was_committed_to_s3() {
    let test = "stock_restic_checks_and_restores_what_was_committed_to_s3";
    let Some(desk) = Desk::on_s3(test).await else {
        return;
    };
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    tree::ten_megabytes(workspace.path(), 3);
    for turn in 0..3 {
        tree::one_turn(workspace.path(), turn);
        pod.save(workspace.path()).await;
    }
    assert_eq!(
        tree::tree(pod.restore().await.path()),
        tree::tree(workspace.path())
    );
    assert!(desk.vault.verify(&pod.learner, None).await.unwrap().intact);
    if Command::new("restic").arg("version").output().is_err() {
        println!("SKIP {test}: restic is not installed ('apt-get install restic')");
        return;
    }
    let access = desk.vault.restic_access(&pod.learner).await.unwrap();
    let restic = |arguments: &[&str]| {
        let options = access.options.iter().flat_map(|option| ["-o", option]);
        let output = Command::new("restic")
            .args(options)
            .args(arguments)
            .arg("--no-cache")
            .env("RESTIC_REPOSITORY", &access.repository)
            .env("RESTIC_PASSWORD_FILE", &access.password_file)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
            .output()
            .expect("restic runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "restic {arguments:?}: {told}");
    };
    restic(&["check", "--read-data"]);
    let target = tempfile::tempdir().unwrap();
    let head = pod.head.snapshot_id.as_ref().unwrap().as_str();
    restic(&["restore", head, "--target", target.path().to_str().unwrap()]);
    assert_eq!(tree::tree(target.path()), tree::tree(workspace.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_at_times_loses_nothing_and_one_that_fails_always_changes_nothing() {
    let test =
        "a_server_that_fails_at_times_loses_nothing_and_one_that_fails_always_changes_nothing";
    let Some(desk) = Desk::on_s3(test).await else {
        return;
    };
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    let faults = [
        Fault::Answer(503, "SlowDown"),
        Fault::Answer(500, "InternalError"),
        Fault::Slow(Duration::from_millis(100)),
        Fault::Truncated,
        Fault::Cut,
    ];
    for (turn, fault) in faults.into_iter().enumerate() {
        fs::write(
            workspace.path().join(format!("turn-{turn}")),
            vec![7; 50_000],
        )
        .unwrap();
        let before = server(&desk).disturbed();
        server(&desk).disturb(Some(fault), 3);
        pod.save(workspace.path()).await;
        let restored = pod.restore().await;
        assert_eq!(
            tree::tree(restored.path()),
            tree::tree(workspace.path()),
            "{fault:?}"
        );
        assert!(server(&desk).disturbed() > before, "{fault:?} was not met");
        server(&desk).disturb(None, 0);
        let verified = desk.vault.verify(&pod.learner, None).await.unwrap();
        assert!(verified.intact, "{fault:?}: {verified:?}");
    }
    let before = tree::tree(&desk.repository(&pod.head));
    server(&desk).disturb(Some(Fault::Answer(503, "SlowDown")), 1);
    assert_eq!(
        pod.report_damage().await,
        Err((503, "unavailable".to_owned())),
        "a server's error proves no damage"
    );
    server(&desk).disturb(None, 0);
    assert_eq!(
        pod.get::<carrel_protocol::vault::Head>("head")
            .await
            .unwrap(),
        pod.head
    );
    assert_eq!(tree::tree(&desk.repository(&pod.head)), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_refuses_the_turn_and_a_bucket_that_is_gone_is_no_lost_snapshot() {
    let test = "a_full_server_refuses_the_turn_and_a_bucket_that_is_gone_is_no_lost_snapshot";
    let Some(desk) = Desk::on_s3(test).await else {
        return;
    };
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("note"), "kept").unwrap();
    pod.save(workspace.path()).await;
    let head = pod.head.clone();

    server(&desk).disturb(Some(Fault::Answer(403, "QuotaExceeded")), 1);
    fs::write(workspace.path().join("note"), "more").unwrap();
    let refused = pod.snapshots().backup(workspace.path(), None).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Storage);
    server(&desk).disturb(None, 0);

    let folder = server(&desk).bucket_folder();
    let away = folder.with_extension("away");
    fs::rename(&folder, &away).unwrap();
    let unavailable = Err((503, "unavailable".to_owned()));
    assert_eq!(pod.report_damage().await, unavailable, "no bucket");
    fs::create_dir(&folder).unwrap();
    assert_eq!(
        pod.report_damage().await,
        unavailable,
        "another, empty bucket"
    );
    fs::remove_dir(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    assert_eq!(
        pod.get::<carrel_protocol::vault::Head>("head")
            .await
            .unwrap(),
        head
    );
    let restored = pod.restore().await;
    assert_eq!(
        fs::read_to_string(restored.path().join("note")).unwrap(),
        "kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_conditional_writes_is_found_out_and_serves() {
    let test = "a_server_without_conditional_writes_is_found_out_and_serves";
    let Some(first) = Desk::on_s3(test).await else {
        return;
    };
    server(&first).disturb(Some(Fault::NoConditions), 1);
    let objects = Objects::s3(&bucket(server(&first))).await.unwrap();
    assert!(server(&first).disturbed() > 0, "it was tried");
    let desk = Desk::with(tempfile::tempdir().unwrap(), objects).await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("note"), "n").unwrap();
    let tried = server(&first).disturbed();
    pod.save(workspace.path()).await;
    assert_eq!(
        server(&first).disturbed(),
        tried,
        "no condition is sent any more"
    );
    assert_eq!(
        tree::tree(pod.restore().await.path()),
        tree::tree(workspace.path())
    );
}

/// Prints the figures of one learner with ten megabytes on a server; `--release --nocapture` for real ones.
#[tokio::test(flavor = "multi_thread")]
async fn figures_of_ten_megabytes_on_s3() {
    let Some(desk) = Desk::on_s3("figures_of_ten_megabytes_on_s3").await else {
        return;
    };
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    tree::ten_megabytes(workspace.path(), 5);
    pod.save(workspace.path()).await;
    let (mut saves, mut restores) = (Vec::new(), Vec::new());
    for turn in 0..9 {
        tree::one_turn(workspace.path(), turn);
        let start = Instant::now();
        pod.save(workspace.path()).await;
        saves.push(start.elapsed());
        let start = Instant::now();
        let restored = pod.restore().await;
        restores.push(start.elapsed());
        assert_eq!(tree::tree(restored.path()), tree::tree(workspace.path()));
    }
    saves.sort_unstable();
    restores.sort_unstable();
    println!(
        "s3: a small change p50 {:?}, restore p50 {:?}",
        saves[4], restores[4]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_where_nothing_was_kept_is_refused_each_time_when_something_was() {
    let test = "a_place_where_nothing_was_kept_is_refused_each_time_when_something_was";
    let Some(desk) = Desk::on_s3(test).await else {
        return;
    };
    let mut other = bucket(server(&desk));
    other.prefix = "mistyped".to_owned();
    other.may_be_new = false;
    for _ in 0..2 {
        assert!(Objects::s3(&other).await.is_err());
    }
    other.may_be_new = true;
    Objects::s3(&other).await.unwrap();
    other.may_be_new = false;
    Objects::s3(&other).await.unwrap();
}
