//! Older states of workspaces that documents want.

use carrel_protocol::{Code, Problem};
use carrel_tests::cluster::school::{CONTROLLER, SOON, School};
use carrel_tests::cluster::{Asked, End, Vault, tally};
use carrel_tests::eventually;
use http::Method;
use serde_json::{Value, json};

use super::{pool_of, school};

/// Its sidecar has ended by itself.
async fn falls_asleep(school: &School, name: &str, epoch: u64) -> anyhow::Result<()> {
    let up = school.status(name, "awake", |status| status.is_ready(epoch));
    up.await?;
    let came = school.stand_in.assignments();
    let ours = came
        .iter()
        .find(|came| came.learner == name && came.epoch == epoch);
    let pod = &ours.ok_or(anyhow::anyhow!("{name} has no pod"))?.pod;
    let slept = json!({"ending": "slept", "committed": true});
    school.stand_in.end(pod, &End::with(&slept)).await
}

/// Waits until it is noted what came of this wish; with why it was not taken.
async fn noted(school: &School, name: &str, snapshot: &str) -> anyhow::Result<String> {
    let is_noted = |status: &Value| status["restore"]["snapshotId"] == snapshot;
    let noted = school.status(name, "noted", |status| is_noted(&status.0));
    let noted = noted.await?.0["restore"]["message"].clone();
    Ok(noted.as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_is_taken_once_while_its_learner_sleeps_and_a_wake_waits_for_it()
-> anyhow::Result<()> {
    let test = "an_older_state_is_taken_once_while_its_learner_sleeps_and_a_wake_waits_for_it";
    let mut vault = Vault::start().await?;
    let Some(school) = school(test, &vault.settings()).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(0)).await?;
    for name in ["ada", "bob"] {
        school.resting(name, "free").await?;
    }
    school.wake("ada", 0).await?;
    school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    let (older, other) = ("1a".repeat(32), "2b".repeat(32));
    school.wants("ada", Some(&older)).await?;
    school.wants("bob", Some(&other)).await?;
    let bobs = vault.next().await?;
    assert_eq!(bobs.learner, "bob", "ada is awake, and was there before");
    assert_eq!((bobs.epoch(), &bobs.snapshot), (Some(0), &other));
    let mark = school.plane.mark().await?;
    bobs.answers(Ok(()));
    assert_eq!(noted(&school, "bob", &other).await?, "");
    let writes = school.plane.writes_since(mark).await?;
    let mut ours = tally(&writes, CONTROLLER);
    ours.retain(|what, _| !what.ends_with(" leases"));
    assert_eq!(ours, [("update learners/status".to_owned(), 1)].into());

    falls_asleep(&school, "ada", 1).await?;
    let adas = vault.next().await?;
    let claims = (&adas.claims["aud"], &adas.claims["sub"], adas.epoch());
    let expected = (&json!("vault_restore"), &json!("ada"), Some(1));
    assert_eq!((claims, &adas.snapshot), (expected, &older));
    // Both are asked for; bob wakes and she does not.
    school.wake("ada", 1).await?;
    school.wake("bob", 0).await?;
    school
        .status("bob", "awake", |status| status.is_ready(1))
        .await?;
    let waits = school.status("ada", "a status", |_| true).await?;
    assert_eq!((waits.epoch(), waits.pod()), (1, ""));
    adas.answers(Ok(()));
    assert_eq!(noted(&school, "ada", &older).await?, "");
    falls_asleep(&school, "ada", 2).await?;
    school.wake("ada", 2).await?;
    school
        .status("ada", "awake", |status| status.is_ready(3))
        .await?;
    assert!(vault.is_quiet(), "it is taken once");

    // Wanted anew, it is taken once more.
    school.wants("ada", None).await?;
    let forgotten = school.status("ada", "forgotten", |status| status.0["restore"].is_null());
    forgotten.await?;
    school.wants("ada", Some(&older)).await?;
    falls_asleep(&school, "ada", 3).await?;
    let again = vault.next().await?;
    assert_eq!((again.epoch(), &again.snapshot), (Some(3), &older));
    again.answers(Ok(()));
    assert_eq!(noted(&school, "ada", &older).await?, "");
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_away_is_asked_again_and_what_it_refuses_is_said() -> anyhow::Result<()> {
    let test = "a_vault_that_is_away_is_asked_again_and_what_it_refuses_is_said";
    let mut vault = Vault::start().await?;
    let Some(school) = school(test, &vault.settings()).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(0)).await?;
    school.resting("ada", "free").await?;
    let nowhere = "1a".repeat(32);
    school.wants("ada", Some(&nowhere)).await?;
    school.wake("ada", 0).await?;
    for _ in 0..2 {
        let away = Problem::new(Code::Unavailable, "the store is away");
        vault.next().await?.answers(Err(away));
    }
    let last = vault.next().await?;
    let says = |reason: &'static str, what: &'static str| {
        let school = &school;
        eventually("it is said", SOON, move || async move {
            let said = school.events(reason).await?;
            Ok(said.iter().any(|note| note.contains(what)).then_some(()))
        })
    };
    says("RestoreWaits", "the store is away").await?;
    let waits = school.status("ada", "explained", |status| {
        let why = status.message("Ready");
        status.condition("Ready") == ("False", "Waking")
            && why.contains("an older state of the workspace is taken first")
            && why.contains("the store is away")
    });
    let waits = waits.await?;
    assert_eq!((waits.epoch(), waits.pod()), (0, ""));
    assert!(school.events("NamespacesFull").await?.is_empty());
    let none = Problem::new(Code::NotFound, "there is no such snapshot");
    last.answers(Err(none));
    let why = noted(&school, "ada", &nowhere).await?;
    assert_eq!(why, "there is no such snapshot");
    says("RestoreRefused", "there is no such snapshot").await?;
    school
        .status("ada", "awake as she was", |status| status.is_ready(1))
        .await?;
    assert!(vault.is_quiet());
    controller.stop()
}

/// Two leaders, of whom the old one had asked the vault for both: for ada it has heard and is about to note it, for bob it still waits.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_deposed_leader_asked_is_asked_again_before_anybody_wakes_and_not_after()
-> anyhow::Result<()> {
    let test = "what_a_deposed_leader_asked_is_asked_again_before_anybody_wakes_and_not_after";
    let mut vault = Vault::start().await?;
    let Some(school) = school(test, &vault.settings()).await? else {
        return Ok(());
    };
    let proxy = school.proxy().await?;
    let old = school.controller_by(&proxy.kubeconfig()).await?;
    school.class("free", &pool_of(0)).await?;
    for name in ["ada", "bob"] {
        school.resting(name, "free").await?;
    }
    let mut notes = proxy.stop(|asked: &Asked| asked.is(&Method::PUT, "/status"));
    let older = "1a".repeat(32);
    school.wants("ada", Some(&older)).await?;
    vault.next().await?.answers(Ok(()));
    let note = notes.next().await;
    school.wants("bob", Some(&older)).await?;
    let late = vault.next().await?;
    school.wake("ada", 0).await?;
    old.pause(true)?;
    school.free_lease().await?;
    let new = school.controller().await?;
    let mut asked = [vault.next().await?, vault.next().await?];
    asked.sort_by(|one, other| one.learner.cmp(&other.learner));
    let whose = asked.each_ref().map(|wish| (&*wish.learner, wish.epoch()));
    assert_eq!(whose, [("ada", Some(0)), ("bob", Some(0))]);
    let told = school.stand_in.assignments();
    assert!(told.is_empty(), "nobody wakes before: {told:?}");
    for wish in asked {
        wish.answers(Ok(()));
    }
    for name in ["ada", "bob"] {
        assert_eq!(noted(&school, name, &older).await?, "");
        school.wake(name, 0).await?;
        falls_asleep(&school, name, 1).await?;
        school.wake(name, 1).await?;
        school
            .status(name, "awake", |status| status.is_ready(2))
            .await?;
    }
    // The vault goes by the fence, which is above that by now.
    assert_eq!(late.epoch(), Some(0));
    let mark = school.plane.mark().await?;
    note.is_done_unanswered().await;
    let writes = school.plane.writes_since(mark).await?;
    let codes: Vec<u64> = writes
        .iter()
        .filter(|write| write.user == CONTROLLER && write.resource == "learners/status")
        .map(|write| write.code)
        .collect();
    assert_eq!(codes, [409], "what it heard, it notes no more");
    late.answers(Ok(()));
    old.pause(false)?;
    eventually("the old leader ends", SOON, || async {
        Ok(old.log()?.contains("the lease").then_some(()))
    })
    .await?;
    for name in ["ada", "bob"] {
        school
            .status(name, "as before", |status| status.is_ready(2))
            .await?;
    }
    assert!(vault.is_quiet(), "nothing is asked for once it is noted");
    drop(notes);
    drop(old);
    new.stop()
}
