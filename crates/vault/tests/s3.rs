//! A real server of S3's protocol: commits, sleeps and wakes, stock restic, and every way in which it fails.

mod support;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carrel_sidecar::snapshot::ErrorKind;
use carrel_testkit::certificates::Authority;
use carrel_testkit::s3::{Fault, S3Server, SECRET_ACCESS_KEY, Setup};
use carrel_vault::{Objects, S3Keys};
use support::{Desk, bucket, restic, tree};

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
    if restic::is_there(test) {
        restic::agrees(&pod).await;
    }
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

    // Two vaults make the same repository at once: whose config stays, both go on with.
    let folder = tempfile::tempdir().unwrap();
    tree::copy(&desk.folder.path().join("kek"), &folder.path().join("kek"));
    let objects = Objects::s3(&bucket(server(&first))).await.unwrap();
    let other = Desk::on_store(folder, objects, Arc::clone(&desk.store));
    for name in ["bob", "eve", "kim", "lea"] {
        let learner = desk.learner(name).await;
        let (mut here, mut there) = tokio::join!(desk.pod(&learner, 1), other.pod(&learner, 1));
        here.save(workspace.path()).await;
        there.head = here.head.clone();
        fs::write(workspace.path().join("note"), format!("of {name}")).unwrap();
        there.save(workspace.path()).await;
        here.head = there.head.clone();
        let restored = here.restore().await;
        assert_eq!(tree::tree(restored.path()), tree::tree(workspace.path()));
        assert!(desk.vault.verify(&learner, None).await.unwrap().intact);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_proves_who_it_is_and_is_told_the_region() {
    let test = "a_server_proves_who_it_is_and_is_told_the_region";
    let (right, another) = (Authority::new("right"), Authority::new("another"));
    let setup = Setup {
        certificate: Some(right.certify(&["127.0.0.1"])),
        region: Some("eu-north-1"),
        domain: None,
    };
    let Some(desk) = Desk::on_s3_as(test, &setup).await else {
        return;
    };
    let mut options = bucket(server(&desk));
    assert!(
        options.endpoint.starts_with("https://"),
        "{}",
        options.endpoint
    );
    let pem = |authority: &Authority| Some(authority.pem.clone().into_bytes());
    for (authorities, region, opens) in [
        (pem(&right), "eu-north-1", true),
        (pem(&right), "us-east-1", false),
        (pem(&another), "eu-north-1", false),
        (None, "eu-north-1", false),
    ] {
        (options.authorities, options.region) = (authorities, region.to_owned());
        let opened = Objects::s3(&options).await;
        assert_eq!(opened.is_ok(), opens, "{region}: {opened:?}");
    }
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    tree::ten_megabytes(workspace.path(), 2);
    pod.save(workspace.path()).await;
    let restored = pod.restore().await;
    assert_eq!(tree::tree(restored.path()), tree::tree(workspace.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_replaced_while_the_vault_runs() {
    let test = "keys_are_replaced_while_the_vault_runs";
    let Some(first) = Desk::on_s3(test).await else {
        return;
    };
    let keys = first.folder.path().join("keys");
    fs::write(&keys, S3Server::credentials()).unwrap();
    let mut options = bucket(server(&first));
    options.keys = S3Keys::File(keys.clone());
    let objects = Objects::s3(&options).await.unwrap();
    let desk = Desk::with(tempfile::tempdir().unwrap(), objects).await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("note"), "kept").unwrap();
    pod.save(workspace.path()).await;

    let withdrawn = S3Server::credentials().replace(SECRET_ACCESS_KEY, "withdrawn");
    fs::write(&keys, withdrawn).unwrap();
    let refused = pod.snapshots().backup(workspace.path(), None).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Storage);
    fs::write(&keys, S3Server::credentials()).unwrap();
    fs::write(workspace.path().join("note"), "kept again").unwrap();
    pod.save(workspace.path()).await;
    let restored = pod.restore().await;
    assert_eq!(tree::tree(restored.path()), tree::tree(workspace.path()));
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
