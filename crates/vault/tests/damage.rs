//! Destroyed and unreadable data: what is proved, what is mended, what is lost and said, and what changes nothing.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use carrel_core::Generation;
use carrel_core::event::EventBody;
use carrel_protocol::vault::Head;
use carrel_sidecar::snapshot::{Error, ErrorKind};
use carrel_testkit::until;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::faults::Fault;
use support::{Desk, Pod, restic, tree};

/// Bits flipped in each kind of storage.
const FLIPS: usize = 500;

/// Three generations of a small workspace, in which each turn wrote a file of its own.
async fn three_turns<'a>(desk: &'a Desk, workspace: &Path) -> Pod<'a> {
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    for turn in 1_u8..=3 {
        let content = vec![turn; 30_000];
        fs::write(workspace.join(format!("turn-{turn}")), content).expect("written");
        pod.save(workspace).await;
    }
    pod
}

fn packs(desk: &Desk, head: &Head) -> Vec<PathBuf> {
    tree::files(&desk.repository(head).join("data"))
}

fn flip(path: &Path, random: &mut StdRng) {
    let mut content = fs::read(path).expect("a file");
    let place = random.random_range(0..content.len());
    content[place] ^= 1 << random.random_range(0..8);
    fs::write(path, content).expect("written");
}

async fn fell_back(desk: &Desk) -> Vec<(u64, u64, usize)> {
    let ada = "ada".parse().expect("a label");
    let events = desk
        .store
        .events(&ada, carrel_core::EventVersion(0), 1000)
        .await
        .expect("events");
    let fallen = |body| match body {
        EventBody::FellBack {
            from,
            to,
            lost_turns,
            ..
        } => Some((from.0, to.0, lost_turns.len())),
        _ => None,
    };
    events
        .into_iter()
        .filter_map(|event| fallen(event.body))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pack_falls_back_to_the_newest_intact_generation() {
    check_a_lost_pack_falls_back_to_the_newest_intact_generation(Desk::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3_a_lost_pack_falls_back_to_the_newest_intact_generation() {
    if let Some(desk) =
        Desk::on_s3("on_s3_a_lost_pack_falls_back_to_the_newest_intact_generation").await
    {
        check_a_lost_pack_falls_back_to_the_newest_intact_generation(desk).await;
    }
}

async fn check_a_lost_pack_falls_back_to_the_newest_intact_generation(desk: Desk) {
    let workspace = tempfile::tempdir().unwrap();
    let mut pod = three_turns(&desk, workspace.path()).await;
    let known = packs(&desk, &pod.head);
    fs::write(workspace.path().join("turn-4"), vec![4; 30_000]).unwrap();
    pod.save(workspace.path()).await;
    let of_turn_4 = packs(&desk, &pod.head)
        .into_iter()
        .filter(|pack| !known.contains(pack));
    for pack in of_turn_4 {
        fs::remove_file(pack).unwrap();
    }
    let target = tempfile::tempdir().unwrap();
    let snapshot = pod.head.snapshot_id.clone().unwrap();
    let error = pod
        .snapshots()
        .restore(&snapshot, target.path())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    let verified = desk.vault.verify(&pod.learner, None).await.unwrap();
    assert!(
        !verified.intact && !verified.wrong.is_empty(),
        "{verified:?}"
    );

    pod.head = pod.report_damage().await.unwrap();
    assert_eq!(pod.head.generation, Generation(5));
    assert_eq!(fell_back(&desk).await, [(4, 3, 0)]);
    let restored = pod.restore().await;
    let names: Vec<_> = tree::tree(restored.path()).into_keys().collect();
    assert_eq!(names, ["turn-1", "turn-2", "turn-3"].map(PathBuf::from));

    // The same content again is stored again: nothing builds on what is lost.
    pod.save(workspace.path()).await;
    assert_eq!(
        tree::tree(pod.restore().await.path()),
        tree::tree(workspace.path())
    );
    assert!(desk.vault.verify(&pod.learner, None).await.unwrap().intact);
    let listed = desk.vault.list(&pod.learner).await.unwrap();
    let damaged: Vec<_> = listed
        .iter()
        .filter(|row| row.damaged)
        .map(|row| row.generation.0)
        .collect();
    assert_eq!(damaged, [4]);
    if restic::is_there("a_lost_pack") {
        restic::agrees(&pod).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nothing_is_intact_the_learner_starts_empty_and_it_is_said() {
    check_when_nothing_is_intact_the_learner_starts_empty_and_it_is_said(Desk::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3_when_nothing_is_intact_the_learner_starts_empty_and_it_is_said() {
    if let Some(desk) =
        Desk::on_s3("on_s3_when_nothing_is_intact_the_learner_starts_empty_and_it_is_said").await
    {
        check_when_nothing_is_intact_the_learner_starts_empty_and_it_is_said(desk).await;
    }
}

async fn check_when_nothing_is_intact_the_learner_starts_empty_and_it_is_said(desk: Desk) {
    let workspace = tempfile::tempdir().unwrap();
    let mut pod = three_turns(&desk, workspace.path()).await;
    for pack in packs(&desk, &pod.head) {
        fs::write(pack, "nothing of it").unwrap();
    }
    pod.head = pod.report_damage().await.unwrap();
    assert_eq!(
        (pod.head.generation, &pod.head.snapshot_id),
        (Generation(4), &None)
    );
    assert_eq!(fell_back(&desk).await, [(3, 0, 0)]);
    let aside = fs::read_dir(desk.repository(&pod.head).join("damaged")).unwrap();
    assert!(
        aside.count() >= 2,
        "what is damaged is kept for the operator"
    );
    pod.save(workspace.path()).await;
    assert_eq!(
        tree::tree(pod.restore().await.path()),
        tree::tree(workspace.path())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_indexes_and_configs_are_made_anew_and_nothing_is_lost() {
    check_lost_indexes_and_configs_are_made_anew_and_nothing_is_lost(Desk::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3_lost_indexes_and_configs_are_made_anew_and_nothing_is_lost() {
    if let Some(desk) =
        Desk::on_s3("on_s3_lost_indexes_and_configs_are_made_anew_and_nothing_is_lost").await
    {
        check_lost_indexes_and_configs_are_made_anew_and_nothing_is_lost(desk).await;
    }
}

async fn check_lost_indexes_and_configs_are_made_anew_and_nothing_is_lost(desk: Desk) {
    let workspace = tempfile::tempdir().unwrap();
    let mut pod = three_turns(&desk, workspace.path()).await;
    let repository = desk.repository(&pod.head);
    let mut random = StdRng::seed_from_u64(11);
    for damage in 0..5 {
        let indexes = tree::files(&repository.join("index"));
        match damage {
            0 => flip(&indexes[0], &mut random),
            1 => indexes
                .iter()
                .for_each(|index| fs::remove_file(index).unwrap()),
            2 => flip(&repository.join("config"), &mut random),
            3 => {
                flip(&repository.join("config"), &mut random);
                flip(&indexes[0], &mut random);
            }
            _ => fs::write(&indexes[0], "").unwrap(),
        }
        let head = pod.report_damage().await;
        assert_eq!(head.as_ref(), Ok(&pod.head), "damage {damage}");
        assert_eq!(
            tree::tree(pod.restore().await.path()),
            tree::tree(workspace.path())
        );
        fs::write(workspace.path().join(format!("after-{damage}")), "more").unwrap();
        pod.save(workspace.path()).await;
        assert_eq!(
            tree::tree(pod.restore().await.path()),
            tree::tree(workspace.path())
        );
    }
    assert_eq!(fell_back(&desk).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_does_not_answer_in_time_changes_nothing() {
    let (desk, switch) = Desk::faulty().await;
    let workspace = tempfile::tempdir().unwrap();
    let pod = three_turns(&desk, workspace.path()).await;
    let before = tree::tree(&desk.repository(&pod.head));
    let snapshot = pod.head.snapshot_id.as_ref().unwrap();

    switch.set(Fault::Stall);
    let mut impatient = pod.snapshots();
    impatient.timeout = Duration::from_secs(1);
    let target = tempfile::tempdir().unwrap();
    let error = impatient.restore(snapshot, target.path()).await;
    let error = error.unwrap_err();
    assert!(switch.has_stalled.swap(false, Ordering::SeqCst));
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Storage, "no reason for a report");

    // One that reports it all the same, and gives up: nothing was proved.
    tokio::select! {
        answer = pod.report_damage() => panic!("it was not read and yet answered: {answer:?}"),
        () = until("the storage stalls", async || switch.has_stalled.load(Ordering::SeqCst)) => {}
    }

    switch.set(Fault::None);
    let unavailable = Err((503, "unavailable".to_owned()));
    assert_eq!(pod.report_damage().await, unavailable, "nothing is damaged");
    assert_eq!(fell_back(&desk).await, []);
    assert_eq!(pod.get::<Head>("head").await.unwrap(), pod.head);
    assert_eq!(tree::tree(&desk.repository(&pod.head)), before);
    assert_eq!(
        tree::tree(pod.restore().await.path()),
        tree::tree(workspace.path())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_error_and_a_false_report_change_nothing() {
    let (desk, switch) = Desk::faulty().await;
    let workspace = tempfile::tempdir().unwrap();
    let pod = three_turns(&desk, workspace.path()).await;
    let before = tree::tree(&desk.repository(&pod.head));
    let unavailable = Err((503, "unavailable".to_owned()));
    assert_eq!(pod.report_damage().await, unavailable, "nothing is damaged");

    switch.set(Fault::Read);
    assert_eq!(
        pod.report_damage().await,
        unavailable,
        "nothing can be read"
    );
    let commit = pod.request(pod.head.snapshot_id.as_ref().unwrap());
    assert_eq!(pod.put_head(&commit).await.unwrap_err().0, 503);
    let target = tempfile::tempdir().unwrap();
    let snapshot = pod.head.snapshot_id.as_ref().unwrap();
    let error = pod
        .snapshots()
        .restore(snapshot, target.path())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");

    switch.set(Fault::Full);
    fs::write(workspace.path().join("more"), "more").unwrap();
    let error = pod
        .snapshots()
        .backup(workspace.path(), Some(snapshot))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::StorageFull), "{error}");

    switch.set(Fault::None);
    assert_eq!(pod.get::<Head>("head").await.unwrap(), pod.head);
    assert_eq!(tree::tree(&desk.repository(&pod.head)), before);
    assert_eq!(fell_back(&desk).await, []);
    let written = switch.written.lock().unwrap();
    assert!(
        written.iter().all(|(_, create_only)| *create_only),
        "{written:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_is_never_restored_as_if_it_were_right() {
    check_a_flipped_bit_anywhere_is_never_restored_as_if_it_were_right(Desk::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3_a_flipped_bit_anywhere_is_never_restored_as_if_it_were_right() {
    if let Some(desk) =
        Desk::on_s3("on_s3_a_flipped_bit_anywhere_is_never_restored_as_if_it_were_right").await
    {
        check_a_flipped_bit_anywhere_is_never_restored_as_if_it_were_right(desk).await;
    }
}

async fn check_a_flipped_bit_anywhere_is_never_restored_as_if_it_were_right(desk: Desk) {
    let workspace = tempfile::tempdir().unwrap();
    let pod = three_turns(&desk, workspace.path()).await;
    // With the key for stock restic.
    desk.vault.restic_access(&pod.learner).await.unwrap();
    let repository = desk.repository(&pod.head);
    let expected = tree::tree(workspace.path());
    let snapshot = pod.head.snapshot_id.clone().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..FLIPS {
        let files = tree::files(&repository);
        let victim = &files[round % files.len()];
        let content = fs::read(victim).unwrap();
        flip(victim, &mut random);
        let target = tempfile::tempdir().unwrap();
        let outcome = match pod.snapshots().restore(&snapshot, target.path()).await {
            Ok(_) => {
                assert_eq!(
                    tree::tree(target.path()),
                    expected,
                    "silently wrong: {}",
                    victim.display()
                );
                "right all the same"
            }
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    ErrorKind::Damaged,
                    "{}: {error}",
                    victim.display()
                );
                let names = fs::read_dir(target.path())
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name());
                assert!(names.into_iter().all(|name| name == ".carrel-restore"));
                "refused"
            }
        };
        *outcomes.entry(outcome).or_default() += 1;
        fs::write(victim, content).unwrap();
    }
    assert!(outcomes["refused"] > FLIPS / 4, "{outcomes:?}");
}
