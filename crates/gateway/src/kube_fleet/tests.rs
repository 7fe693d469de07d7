use std::sync::Arc;

use carrel_core::learner::DesiredState;
use http::Method;
use serde_json::{Value, json};

use super::script::{Server, Stage, object, refusal, step};
use super::*;

const LEARNERS: &str = "/apis/carrel.dev/v1alpha1/namespaces/learning/learners";
const ADA: &str = "/apis/carrel.dev/v1alpha1/namespaces/learning/learners/ada";

fn ada() -> LearnerId {
    "ada".parse().expect("a label")
}

/// Ada as she is asleep after her epoch 3.
fn asleep(version: u64, asked: Option<u64>) -> Value {
    let mut spec = json!({"className": "free"});
    if let Some(asked) = asked {
        spec["wakeAfterEpoch"] = json!(asked);
    }
    object("ada", version, spec, json!({"epoch": 3, "conditions": []}))
}

#[tokio::test]
async fn nothing_is_answered_before_the_first_list_is_complete() {
    let mut stage = Stage::unlisted().await;
    for refused in [
        stage.fleet.status(&ada()).await.map(drop),
        stage.fleet.wake(&ada(), Epoch(0)).await,
        stage.fleet.admits(&ada()).await,
    ] {
        assert!(
            matches!(refused, Err(Error::Unavailable { .. })),
            "{refused:?}"
        );
    }
    stage.server.is_done().await;
}

#[tokio::test]
async fn a_wake_is_one_patch_and_what_is_there_already_is_not_written_again() {
    let mut stage = Stage::with([asleep(10, None)]).await;
    let patch = step(
        Method::PATCH,
        &[ADA, "fieldManager=carrel-gateway"],
        200,
        &asleep(11, Some(3)),
    )
    .sends(json!({"spec": {"wakeAfterEpoch": 3}}));
    let (fleet, learner) = (stage.fleet.clone(), ada());
    // Two at once, and the watch has shown nothing of it yet.
    let wakes = async {
        tokio::join!(
            fleet.wake(&learner, Epoch(3)),
            fleet.wake(&learner, Epoch(3))
        )
    };
    let ((first, second), ()) = tokio::join!(wakes, stage.server.play([patch]));
    first.expect("woken");
    second.expect("woken");
    stage.fleet.wake(&ada(), Epoch(3)).await.expect("woken");
    stage.fleet.wake(&ada(), Epoch(2)).await.expect("woken");
    stage.server.is_done().await;
    assert_eq!(stage.written("patch"), "1");
}

#[tokio::test]
async fn a_wish_that_would_be_lowered_is_granted_already_and_any_other_refusal_is_none() {
    let lowered = refusal(
        422,
        "Invalid",
        "spec: Invalid value: wakeAfterEpoch must not be lowered",
    );
    let mut stage = Stage::with([asleep(10, None)]).await;
    let steps = [
        step(Method::PATCH, &[ADA], 422, &lowered),
        step(Method::GET, &[ADA], 200, &asleep(12, Some(5))),
    ];
    let learner = ada();
    let (woken, ()) = tokio::join!(
        stage.fleet.wake(&learner, Epoch(3)),
        stage.server.play(steps)
    );
    woken.expect("somebody asked for more");
    stage.server.is_done().await;

    let mut stage = Stage::with([asleep(10, None)]).await;
    let steps = [
        step(
            Method::PATCH,
            &[ADA],
            422,
            &refusal(422, "Invalid", "something else"),
        ),
        step(Method::GET, &[ADA], 200, &asleep(12, None)),
    ];
    let (woken, ()) = tokio::join!(
        stage.fleet.wake(&learner, Epoch(3)),
        stage.server.play(steps)
    );
    assert!(matches!(woken, Err(Error::Unavailable { .. })), "{woken:?}");
}

#[tokio::test]
async fn who_is_deleted_meanwhile_is_no_learner() {
    let mut stage = Stage::with([asleep(10, None)]).await;
    let gone = refusal(404, "NotFound", "learners \"ada\" not found");
    let steps = [step(Method::PATCH, &[ADA], 404, &gone)];
    let learner = ada();
    let (woken, ()) = tokio::join!(
        stage.fleet.wake(&learner, Epoch(3)),
        stage.server.play(steps)
    );
    assert!(matches!(woken, Err(Error::NoLearner(_))), "{woken:?}");
    stage.server.is_done().await;
}

#[tokio::test]
async fn whom_the_watch_has_not_shown_yet_is_looked_for_once() {
    let mut stage = Stage::with([]).await;
    let (fleet, learner) = (stage.fleet.clone(), ada());
    let steps = [step(Method::GET, &[ADA], 200, &asleep(10, None))];
    let asks = async { tokio::join!(fleet.admits(&learner), fleet.status(&learner)) };
    let ((admitted, status), ()) = tokio::join!(asks, stage.server.play(steps));
    admitted.expect("it is there");
    assert_eq!(status.expect("it is there").epoch, Epoch(3));
    // Nor is one that is not there asked for with each message of a burst.
    let bob: LearnerId = "bob".parse().expect("a label");
    let gone = refusal(404, "NotFound", "learners \"bob\" not found");
    let steps = [step(Method::GET, &[LEARNERS, "/bob"], 404, &gone)];
    let (refused, ()) = tokio::join!(fleet.admits(&bob), stage.server.play(steps));
    assert!(matches!(refused, Err(Error::NoLearner(_))), "{refused:?}");
    let again = fleet.admits(&bob).await;
    assert!(matches!(again, Err(Error::NoLearner(_))), "{again:?}");
    stage.server.is_done().await;
}

#[tokio::test]
async fn one_whose_object_was_made_a_moment_ago_gets_a_row_when_somebody_asks() {
    let mut stage = Stage::with([]).await;
    let (fleet, learner) = (stage.fleet.clone(), ada());
    let steps = [step(Method::GET, &[ADA], 200, &asleep(10, None))];
    let asks = async { tokio::join!(fleet.enrol(&learner), fleet.enrol(&learner)) };
    let ((first, second), ()) = tokio::join!(asks, stage.server.play(steps));
    assert!(first.expect("answered") && second.expect("answered"));
    let now = jiff::Timestamp::UNIX_EPOCH;
    let row = stage.store.learner(&learner, now).await.expect("a store");
    assert_eq!(row.expect("a row").status.epoch, Epoch(3));
    stage.fleet.admits(&learner).await.expect("it is there");
    stage.server.is_done().await;
}

#[tokio::test]
async fn who_was_erased_gets_no_row_again_by_a_question_though_the_watch_shows_them_still() {
    let mut stage = Stage::with([asleep(10, None)]).await;
    let (fleet, learner) = (stage.fleet.clone(), ada());
    let mut going = asleep(11, None);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let gone = refusal(404, "NotFound", "learners \"ada\" not found");
    for (code, answer) in [(404, gone), (200, going)] {
        let steps = [step(Method::GET, &[ADA], code, &answer)];
        let (found, ()) = tokio::join!(fleet.enrol(&learner), stage.server.play(steps));
        assert!(!found.expect("answered"), "{code}");
        let now = jiff::Timestamp::UNIX_EPOCH;
        let row = stage.store.learner(&learner, now).await.expect("a store");
        assert_eq!(row, None, "{code}");
        fleet.0.strangers.invalidate(&learner).await;
    }
    stage.server.is_done().await;
}

#[tokio::test]
async fn whoever_asks_for_names_that_nobody_has_keeps_the_api_server_busy_so_often_and_no_more() {
    let mut stage = Stage::with([]).await;
    let fleet = stage.fleet.clone();
    let name = |number: u32| format!("nobody-{number}").parse::<LearnerId>();
    let gone = refusal(404, "NotFound", "learners not found");
    for number in 0..STRANGERS_A_MINUTE {
        let steps = [step(Method::GET, &[LEARNERS, "nobody-"], 404, &gone)];
        let stranger = name(number).expect("a label");
        let (found, ()) = tokio::join!(fleet.enrol(&stranger), stage.server.play(steps));
        assert!(!found.expect("answered"));
    }
    let one_more = fleet.enrol(&ada()).await;
    assert!(
        matches!(one_more, Err(Error::Unavailable { .. })),
        "{one_more:?}"
    );
    stage.server.is_done().await;
}

#[tokio::test]
async fn a_learner_is_made_by_apply_and_is_there_at_once() {
    let mut stage = Stage::with([]).await;
    let made = object("ada", 10, json!({"className": "free"}), json!(null));
    let apply = step(
        Method::PATCH,
        &[ADA, "fieldManager=carrel-admin"],
        201,
        &made,
    )
    .sends(json!({
        "apiVersion": "carrel.dev/v1alpha1",
        "kind": "Learner",
        "metadata": {"name": "ada"},
        "spec": {"className": "free"},
    }));
    let (learner, class) = (ada(), "free".parse().expect("a label"));
    let declared = stage.fleet.declare(&learner, &class);
    let (declared, ()) = tokio::join!(declared, stage.server.play([apply]));
    declared.expect("made");
    assert!(stage.fleet.lists(&learner));
    stage.fleet.admits(&learner).await.expect("it is there");
    stage.server.is_done().await;
}

#[tokio::test]
async fn what_another_has_in_hand_is_a_conflict_that_names_it() {
    let mut stage = Stage::with([asleep(10, None)]).await;
    let said = "Apply failed with 1 conflict: conflict with \"argocd\": .spec.className";
    let steps = [step(
        Method::PATCH,
        &[ADA],
        409,
        &refusal(409, "Conflict", said),
    )];
    let (learner, class) = (ada(), "paid".parse().expect("a label"));
    let declared = stage.fleet.declare(&learner, &class);
    let (declared, ()) = tokio::join!(declared, stage.server.play(steps));
    let Err(Error::Conflict(why)) = declared else {
        panic!("{declared:?}");
    };
    assert!(why.contains("argocd"), "{why}");
}

#[tokio::test]
async fn a_discarded_learners_object_is_deleted_by_its_uid_and_waited_for() {
    let mut stage = Stage::with([asleep(10, None)]).await;
    let mut going = asleep(11, None);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let gone = refusal(404, "NotFound", "learners \"ada\" not found");
    let mut anew = asleep(9, None);
    anew["metadata"]["uid"] = json!("an-older-one");
    let steps = [
        step(Method::GET, &[ADA], 200, &anew),
        step(
            Method::DELETE,
            &[ADA],
            409,
            &refusal(409, "Conflict", "the UID in the precondition"),
        ),
        step(Method::GET, &[ADA], 200, &asleep(10, None)),
        step(Method::DELETE, &[ADA], 200, &going)
            .sends(json!({"preconditions": {"uid": "uid-of-ada"}})),
        // A finalizer of somebody else holds it.
        step(Method::GET, &[ADA], 200, &going),
        step(Method::GET, &[ADA], 404, &gone),
    ];
    tokio::time::pause();
    let learner = ada();
    let (discarded, ()) = tokio::join!(stage.fleet.discard(&learner), stage.server.play(steps));
    discarded.expect("it is gone");
    stage.server.is_done().await;
    assert_eq!(stage.written("delete"), "2");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_lost_is_listed_anew_and_says_who_went() {
    let (client, mut server) = Server::new();
    let (cache, readiness) = (Arc::new(Cache::default()), Readiness::default());
    let cancel = CancellationToken::new();
    let follows = watch::learners(
        Api::namespaced(client, "learning"),
        Arc::clone(&cache),
        readiness.clone(),
        cancel.clone(),
    );
    let follows = tokio_util::task::TaskTracker::new().spawn(follows);
    let list = |version: &str, items: &[Value]| {
        json!({
            "apiVersion": "carrel.dev/v1alpha1", "kind": "LearnerList",
            "metadata": {"resourceVersion": version}, "items": items,
        })
    };
    let bob = object("bob", 4, json!({"className": "free"}), json!(null));
    let watched = step(
        Method::GET,
        &[LEARNERS, "watch=true", "resourceVersion=20"],
        200,
        &json!(null),
    );
    let event = |kind: &str, object: Value| json!({"type": kind, "object": object});
    let away = refusal(503, "ServiceUnavailable", "the server is starting");
    server
        .play([step(Method::GET, &[LEARNERS], 503, &away)])
        .await;
    testing(|| readiness.list().contains_key("learners")).await;
    assert!(!cache.is_complete());
    server
        .play([
            step(
                Method::GET,
                &[LEARNERS],
                200,
                &list("20", &[asleep(10, None), bob.clone()]),
            ),
            watched.lines(&[event("MODIFIED", asleep(21, Some(3)))]),
        ])
        .await;
    testing(|| {
        cache
            .get(&ada())
            .is_some_and(|ada| ada.desired.wake_after_epoch == Some(Epoch(3)))
    })
    .await;
    assert!(!readiness.list().contains_key("learners"));
    let mut changes = cache.changes();
    let expired = refusal(410, "Expired", "too old resource version");
    server
        .play([
            step(
                Method::GET,
                &[LEARNERS, "watch=true", "resourceVersion=21"],
                200,
                &json!(null),
            )
            .lines(&[event("ERROR", expired)]),
            step(
                Method::GET,
                &[LEARNERS, "limit=500"],
                200,
                &list("40", &[asleep(21, Some(3))]),
            ),
        ])
        .await;
    testing(|| !cache.has(&"bob".parse().expect("a label"))).await;
    assert!(cache.has(&ada()));
    assert_eq!(changes.recv().await.expect("a hint").as_str(), "bob");
    cancel.cancel();
    follows.await.expect("it ends");
}

/// Waits until it holds: the clock stands still but for those who wait.
async fn testing(holds: impl Fn() -> bool) {
    let waits = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waits)
        .await
        .expect("it comes to hold");
}

#[tokio::test]
async fn isolation_names_what_is_missing() {
    let stage = Stage::with([]).await;
    let class = |name: &str, spec: Value| {
        let object = json!({
            "apiVersion": "carrel.dev/v1alpha1", "kind": "LearnerClass",
            "metadata": {"name": name}, "spec": spec,
        });
        serde_json::from_value(object).expect("a class")
    };
    let classes = &stage.fleet.0.known_classes;
    classes.shown(class(
        "free",
        json!({"isolation": {"userNamespace": false}}),
    ));
    classes.shown(class("paid", json!({})));
    let report = stage.fleet.isolation().await.expect("told");
    assert_eq!(report.isolation, "kubernetes");
    assert_eq!(
        report.limits_missing,
        ["user namespaces (class free)", "pids"]
    );
}

mod mirrored {
    use carrel_store::learners::NewLearner;
    use jiff::Timestamp;

    use super::super::mirror::{take, take_all};
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    async fn row(stage: &Stage, learner: &LearnerId) -> Option<carrel_store::learners::Learner> {
        stage.store.learner(learner, NOW).await.expect("a store")
    }

    fn awake(version: u64) -> Value {
        let status = json!({
            "epoch": 4, "podName": "w-1", "podNamespace": "learners-1", "podAddress": "http://10.0.0.9:7080",
            "podUid": "0c1f6a52-2b60-4f3a-9f55-7d0a3d7a1c11",
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Ready", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        });
        object(
            "ada",
            version,
            json!({"className": "paid", "state": "Running"}),
            status,
        )
    }

    #[tokio::test]
    async fn an_object_without_a_row_gets_one_and_the_row_says_what_the_object_says() {
        let mut stage = Stage::with([awake(10)]).await;
        let steps = [step(Method::GET, &[ADA], 200, &awake(10))];
        let (left, ()) = tokio::join!(take_all(&stage.fleet), stage.server.play(steps));
        assert!(left.expect("a store").is_empty());
        let ada_row = row(&stage, &ada()).await.expect("a row");
        assert_eq!(ada_row.class.as_str(), "paid");
        assert_eq!(ada_row.desired.state, DesiredState::Running);
        assert_eq!(
            ada_row.status,
            stage.fleet.status(&ada()).await.expect("seen")
        );
        assert_eq!(ada_row.status.epoch, Epoch(4));

        // Once more, by hint and by comparing all: nothing differs, and nothing is written.
        let mut written = stage.store.changes();
        take_all(&stage.fleet).await.expect("a store");
        take(&stage.fleet, [ada()].into()).await.expect("a store");
        assert!(written.try_recv().is_err());
        stage.server.is_done().await;

        stage.fleet.0.cache.shown(ada(), changed(awake(11)));
        take(&stage.fleet, [ada()].into()).await.expect("a store");
        assert_eq!(
            row(&stage, &ada()).await.expect("a row").class.as_str(),
            "free"
        );
        assert!(written.try_recv().is_ok());
    }

    fn changed(mut object: Value) -> Record {
        object["spec"]["className"] = json!("free");
        let object = serde_json::from_value(object).expect("a learner");
        Record::of(object).expect("usable").1
    }

    #[tokio::test]
    async fn an_erased_learner_does_not_come_back_by_what_is_kept_of_its_object() {
        let mut stage = Stage::with([awake(10)]).await;
        let gone = refusal(404, "NotFound", "learners \"ada\" not found");
        let steps = [step(Method::GET, &[ADA], 404, &gone)];
        let (left, ()) = tokio::join!(take_all(&stage.fleet), stage.server.play(steps));
        assert!(left.expect("a store").is_empty());
        assert_eq!(row(&stage, &ada()).await, None);
    }

    #[tokio::test]
    async fn one_whose_namesake_is_still_being_erased_is_tried_again() {
        let mut stage = Stage::with([awake(10)]).await;
        let new = NewLearner {
            id: ada(),
            class: "free".parse().expect("a label"),
            aliases: Vec::new(),
        };
        stage
            .store
            .create_learner(&new, NOW)
            .await
            .expect("a store");
        stage
            .store
            .close_learner(&ada(), NOW)
            .await
            .expect("a store");
        let again = take_all(&stage.fleet).await;
        assert_eq!(again.expect("a store"), [ada()].into());
        let again = take(&stage.fleet, [ada()].into()).await;
        assert_eq!(again.expect("a store"), [ada()].into());
        stage
            .store
            .erase_learner(&ada(), NOW)
            .await
            .expect("a store");
        let steps = [step(Method::GET, &[ADA], 200, &awake(10))];
        let again = take(&stage.fleet, [ada()].into());
        let (again, ()) = tokio::join!(again, stage.server.play(steps));
        assert!(again.expect("a store").is_empty());
        assert!(row(&stage, &ada()).await.is_some());
    }
}
