//! What operators ask is done for gateways alone, and an older state taken for the controller, while the learner sleeps.

mod support;

use std::fs;

use carrel_core::{Epoch, LearnerId, SnapshotId};
use carrel_protocol::token::{Caller, Signer};
use carrel_protocol::vault::{OfSnapshot, RestoreWish, Restored, Verified};
use reqwest::StatusCode;
use serde::Serialize;
use support::{Desk, Pod, answer, now, tree};
use tempfile::TempDir;

const CALLS: [&str; 6] = ["restore", "verify", "remove", "restic", "erase", "rewrap"];

async fn ask(desk: &Desk, call: &str, token: &str, body: &impl Serialize) -> reqwest::Response {
    let request = desk
        .client
        .post(format!("http://vault/v1/admin/{call}"))
        .bearer_auth(token)
        .json(body);
    request.send().await.expect("answered")
}

/// A pod of ada's with what she wrote, and the snapshots of it.
async fn saved_twice<'desk>(
    desk: &'desk Desk,
    ada: &LearnerId,
) -> (Pod<'desk>, TempDir, [SnapshotId; 2]) {
    let workspace = tempfile::tempdir().expect("a folder");
    let mut pod = desk.pod(ada, 1).await;
    let mut save = async |text: &str| {
        fs::write(workspace.path().join("note"), text).expect("written");
        pod.save(workspace.path()).await;
        pod.head.snapshot_id.clone().expect("it is saved")
    };
    let snapshots = [save("first").await, save("second").await];
    (pod, workspace, snapshots)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_token_opens_what_operators_ask_and_no_other_does() {
    let desk = Desk::new().await;
    let ada = desk.learner("ada").await;
    let (_, _, snapshots) = saved_twice(&desk, &ada).await;
    let of = OfSnapshot {
        learner: ada.clone(),
        snapshot_id: snapshots[0].clone(),
    };
    let stranger = Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap();
    let refused = [
        String::new(),
        desk.token(&ada, 1),
        desk.gateway
            .caller_token(Caller::Gateway, &ada, Epoch(1), now())
            .unwrap(),
        desk.gateway.relay_token(&ada, now()).unwrap(),
        desk.signer.vault_admin_token(now()).unwrap(),
        stranger.vault_admin_token(now()).unwrap(),
    ];
    for call in CALLS {
        for token in &refused {
            let answer = ask(&desk, call, token, &of).await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{call}");
        }
    }
    let head = desk.store.head(&ada).await.unwrap().unwrap().0;
    assert_eq!(head.generation.0, 2, "nothing was done");
    let token = desk.gateway.vault_admin_token(now()).unwrap();
    let verified = ask(&desk, "verify", &token, &of).await;
    let verified: Verified = verified.json().await.unwrap();
    assert_eq!(verified.damage, Vec::<String>::new());
    let restored = ask(&desk, "restore", &token, &of).await;
    let restored: Restored = restored.json().await.unwrap();
    assert_eq!(restored.generation.0, 3);
    let nonsense = ask(&desk, "restore", &token, &serde_json::json!({"who": 1})).await;
    assert_eq!(nonsense.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_takes_an_older_state_and_never_from_a_newer_incarnation() {
    let desk = Desk::new().await;
    let (ada, bob) = (desk.learner("ada").await, desk.learner("bob").await);
    let (pod, workspace, snapshots) = saved_twice(&desk, &ada).await;
    let older = RestoreWish {
        snapshot_id: snapshots[0].clone(),
    };
    let restore = async |token: &str| {
        let call = desk.client.post(pod.url("restore")).bearer_auth(token);
        answer::<Restored>(call.json(&older)).await
    };
    let of = |signer: &Signer, epoch| {
        let token = signer.vault_restore_token(&ada, Epoch(epoch), now());
        token.unwrap()
    };
    let refused = [
        String::new(),
        pod.token(),
        of(&desk.gateway, 1),
        desk.gateway.vault_admin_token(now()).unwrap(),
        desk.signer
            .vault_restore_token(&bob, Epoch(1), now())
            .unwrap(),
        desk.signer
            .caller_token(Caller::Controller, &ada, Epoch(1), now())
            .unwrap(),
    ];
    for token in &refused {
        let answered = restore(token).await.unwrap_err();
        assert_eq!(answered, (401, "unauthenticated".to_owned()));
    }
    let ours = of(&desk.signer, 1);
    let answered = ask(&desk, "verify", &ours, &older).await;
    assert_eq!(answered.status(), StatusCode::UNAUTHORIZED);
    for generation in [3, 4] {
        let restored = restore(&ours).await.unwrap();
        assert_eq!(restored.generation.0, generation, "nobody has woken since");
    }

    // The next incarnation goes on from there, and what was asked before that comes late.
    let mut next = desk.pod(&ada, 2).await;
    assert_eq!(next.head.snapshot_id.as_ref(), Some(&snapshots[0]));
    let late = || async { restore(&ours).await.unwrap_err() };
    assert_eq!(late().await, (409, "stale_epoch".to_owned()));
    fs::write(workspace.path().join("note"), "third").unwrap();
    next.save(workspace.path()).await;
    assert_eq!(late().await, (409, "stale_epoch".to_owned()));
    let head = desk.store.head(&ada).await.unwrap().unwrap().0;
    assert_eq!(head.snapshot, next.head.snapshot_id);
    assert_eq!(
        tree::tree(next.restore().await.path()),
        tree::tree(workspace.path())
    );
    assert!(restore(&of(&desk.signer, 2)).await.is_ok());
}
