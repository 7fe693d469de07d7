//! Deaths under a turn: run again at once, or parked with the reason.

use std::time::Duration;

use carrel_core::OwnerId;
use carrel_core::turn::FailureCode;
use carrel_protocol::sidecar::Phase;
use carrel_store::turns::{Failure, OwnerWrite, Timing};
use jiff::SignedDuration;
use tokio::time::timeout;

use crate::client::{assert_rising, text_of};
use crate::pod::Act;
use crate::world::{World, accepted, now, streamed, turn_of};

/// That a pod or the way to it is gone, which nobody says, is noticed by then.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
const EVENTS: &str = "/v1/learners/ada/events";

#[tokio::test]
async fn a_turn_whose_pod_dies_runs_again_from_the_head() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script(
        "ada",
        [
            Act::PodDies("wrong "),
            Act::PodDies("also wrong "),
            Act::Say(vec!["right"]),
        ],
    );
    let seen = streamed(&ada, "ada", "k", "answer").await.outcome().await;
    assert_eq!(text_of(&seen), "right");
    assert_rising(&seen);
    assert_eq!(
        seen.iter().filter(|event| event.name == "restart").count(),
        2,
        "{seen:?}"
    );
    let turn = seen[0].data["turn_id"].as_str().expect("a turn").to_owned();
    assert_eq!(turn_of(&ada, "ada", &turn).await["attempts"], 3);
}

#[tokio::test]
async fn an_agent_that_dies_three_times_on_a_message_parks_it_and_the_next_goes_on() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script(
        "ada",
        [
            Act::AgentDies("a"),
            Act::AgentDies("b"),
            Act::AgentDies("c"),
        ],
    );
    let seen = streamed(&ada, "ada", "k", "poison").await.outcome().await;
    let error = &seen[seen.len() - 1];
    assert_eq!(
        (error.name.as_str(), &error.data["code"]),
        ("error", &"agent_died".into())
    );
    let next = streamed(&ada, "ada", "k2", "hello").await.outcome().await;
    assert_eq!(text_of(&next), "You said: hello");
}

#[tokio::test]
async fn a_lost_connection_to_a_living_sidecar_is_taken_up_again() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::Break("one ", "two")]);
    let mut events = ada.events(EVENTS, None).await;
    let turn = accepted(&ada, "ada", "k", "count").await;
    let mut seen = events.until(|event| event.name == "delta").await;
    world.fleet.pod("ada").go_on.send_replace(true);
    seen.extend(events.outcome().await);
    assert_eq!(text_of(&seen), "one two");
    assert!(seen.iter().all(|event| event.name != "restart"), "{seen:?}");
    assert_eq!(turn_of(&ada, "ada", &turn).await["attempts"], 1);
}

#[tokio::test]
async fn a_pod_killed_between_turns_is_replaced() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    for n in 0..5 {
        let said = streamed(&ada, "ada", &format!("k{n}"), "x")
            .await
            .outcome()
            .await;
        assert_eq!(text_of(&said), "You said: x");
        world.fleet.kill("ada");
    }
}

#[tokio::test]
async fn a_gateway_that_ends_while_a_pod_dies_counts_the_death_and_runs_the_turn_again() {
    let mut world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::Hold("lost ", "never")]);
    let mut events = ada.events(EVENTS, None).await;
    let turn = accepted(&ada, "ada", "k", "once").await;
    let mut seen = events.until(|event| event.name == "delta").await;
    world.fleet.kill("ada");
    world.restart().await;
    let ada = world.client_of("ada").await;
    let last = seen[seen.len() - 1].id.clone();
    seen.extend(ada.events(EVENTS, Some(&last)).await.outcome().await);
    assert_rising(&seen);
    assert_eq!(text_of(&seen), "You said: once");
    assert_eq!(turn_of(&ada, "ada", &turn).await["attempts"], 2);
}

#[tokio::test]
async fn a_connection_to_a_sidecar_that_brings_nothing_any_more_is_given_up_and_the_turn_is_not() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::Hold("one ", "two")]);
    let mut events = streamed(&ada, "ada", "k", "count").await;
    let mut seen = events.until(|event| event.name == "delta").await;
    let pod = world.fleet.pod("ada");
    pod.mute();
    pod.say("more ");
    let goes_on = timeout(NOTICED_WITHIN, events.until(|event| event.name == "delta"));
    seen.extend(goes_on.await.expect("it goes on"));
    pod.go_on.send_replace(true);
    seen.extend(events.outcome().await);
    assert_eq!(text_of(&seen), "one more two");
    assert!(seen.iter().all(|event| event.name != "restart"), "{seen:?}");
}

#[tokio::test]
async fn a_turn_is_not_followed_in_a_pod_that_the_fleet_calls_ended() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    let acts = [Act::Hold("wrong ", ""), Act::Say(vec!["right"])];
    world.fleet.script("ada", acts);
    let mut events = streamed(&ada, "ada", "k", "answer").await;
    let mut seen = events.until(|event| event.name == "delta").await;
    // Its connection stays, and says that it lives.
    world.fleet.forget("ada");
    let ends = timeout(NOTICED_WITHIN, events.outcome());
    seen.extend(ends.await.expect("it ends"));
    assert_eq!(text_of(&seen), "right");
    assert!(seen.iter().any(|event| event.name == "restart"), "{seen:?}");
}

#[tokio::test]
async fn what_a_pod_said_last_counts_although_the_fleet_has_called_it_ended_already() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    let acts = [Act::FailLater("half "), Act::Say(vec!["again"])];
    world.fleet.script("ada", acts);
    let mut events = streamed(&ada, "ada", "k", "answer").await;
    events.until(|event| event.name == "delta").await;
    let pod = world.fleet.pod("ada");
    let mut said_ended = world.fleet.said_ended.subscribe();
    said_ended.mark_unchanged();
    world.fleet.forget("ada");
    said_ended.changed().await.expect("a fleet");
    pod.go_on.send_replace(true);
    let seen = events.outcome().await;
    let error = &seen[seen.len() - 1];
    let code = &error.data["code"];
    assert_eq!(
        (error.name.as_str(), code),
        ("error", &"agent_failed".into())
    );
}

#[tokio::test]
async fn a_sidecar_that_falls_asleep_just_now_is_waited_out() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    streamed(&ada, "ada", "k1", "x").await.outcome().await;
    *world.fleet.pod("ada").phase.lock().expect("whole") = Phase::Draining;
    let seen = streamed(&ada, "ada", "k2", "y").await.outcome().await;
    assert_eq!(text_of(&seen), "You said: y");
    assert!(seen.iter().all(|event| event.name != "restart"), "{seen:?}");
    assert_eq!(world.fleet.pod("ada").epoch.0, 2);
}

#[tokio::test]
async fn a_turn_that_sidecars_refuse_because_they_fall_asleep_is_no_death() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    // More often than deaths are forgiven.
    world.fleet.script("ada", vec![Act::Drain; 22]);
    world.fleet.script("ada", [Act::Say(vec!["here"])]);
    let seen = streamed(&ada, "ada", "k", "x").await.outcome().await;
    assert_eq!(text_of(&seen), "here");
    assert!(seen.iter().all(|event| event.name != "restart"), "{seen:?}");
    assert_eq!(world.fleet.pod("ada").epoch.0, 23);
    let learner = "ada".parse().expect("a label");
    let history = world.store.history(&learner, None, 1);
    let turn = history.await.expect("a store").remove(0);
    assert_eq!(turn.deaths, carrel_core::turn::Deaths::default());
}

#[tokio::test]
async fn a_turn_waits_for_the_one_before_it_to_end_in_its_sidecar() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", vec![Act::Busy; 3]);
    world.fleet.script("ada", [Act::Say(vec!["here"])]);
    let seen = streamed(&ada, "ada", "k", "x").await.outcome().await;
    assert_eq!(text_of(&seen), "here");
    assert!(seen.iter().all(|event| event.name != "restart"), "{seen:?}");
    assert_eq!(world.fleet.pod("ada").epoch.0, 1);
}

#[tokio::test]
async fn a_sidecar_whose_turn_before_never_ends_is_not_waited_for_for_ever() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    // As often as one asks in ten seconds, ever more seldom.
    world.fleet.script("ada", vec![Act::Busy; 14]);
    world.fleet.script("ada", [Act::Say(vec!["here"])]);
    let mut events = streamed(&ada, "ada", "k", "x").await;
    events.until(|event| event.data["state"] == "running").await;
    let pod = world.fleet.pod("ada");
    let seen = events.outcome().await;
    assert_eq!(text_of(&seen), "here");
    assert_eq!(world.fleet.pod("ada").epoch.0, 2);
    let phase = *pod.phase.lock().expect("whole");
    assert_eq!(phase, Phase::Draining, "it was not asked to sleep");
}

#[tokio::test]
async fn a_turn_that_incarnations_refuse_without_falling_asleep_is_parked_in_the_end() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", vec![Act::Refuse; 20]);
    let seen = streamed(&ada, "ada", "k", "x").await.outcome().await;
    let error = &seen[seen.len() - 1];
    let code = &error.data["code"];
    assert_eq!((error.name.as_str(), code), ("error", &"parked".into()));
    let made = world.fleet.made.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(made, 20);
}

#[tokio::test]
async fn an_agent_that_cannot_start_fails_its_turn_with_a_reason() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world
        .fleet
        .births([Phase::Ending, Phase::Ending, Phase::Ending]);
    let seen = streamed(&ada, "ada", "k", "x").await.outcome().await;
    let error = &seen[seen.len() - 1];
    assert_eq!(
        (error.name.as_str(), &error.data["code"]),
        ("error", &"agent_not_ready".into())
    );
    let next = streamed(&ada, "ada", "k2", "y").await.outcome().await;
    assert_eq!(text_of(&next), "You said: y");
}

#[tokio::test]
async fn a_learner_whose_pod_can_never_be_made_fails_its_turn_and_its_document_says_why() {
    const WHY: &str = "its image could not be had";
    let world = World::new().await;
    let ada = world.learner("ada").await;
    *world.fleet.impossible.lock().expect("whole") = Some(WHY);
    for key in ["k1", "k2"] {
        let seen = streamed(&ada, "ada", key, "x").await.outcome().await;
        let error = &seen[seen.len() - 1];
        assert_eq!(
            (
                error.name.as_str(),
                &error.data["code"],
                &error.data["retryable"]
            ),
            ("error", &"agent_not_ready".into(), &true.into())
        );
        assert!(!error.data.to_string().contains(WHY), "{error:?}");
    }
    let operator = world.operator();
    let document = operator.get("/admin/v1/learners/ada").await.is(200).json();
    assert_eq!(document["state_detail"], WHY);
    assert_eq!(document["conditions"][1]["reason"], "GivenUp", "{document}");
    let log = operator
        .get("/admin/v1/events?learner=ada&limit=1000")
        .await;
    let log = log.is(200).json();
    let failed = log["events"].as_array().expect("a page").iter();
    let mut reasons = failed.filter(|event| event["type"] == "failed");
    assert!(
        reasons.all(|event| event["operator_reason"] == WHY),
        "{log}"
    );
    let metrics = world.nobody().get("/metrics").await.text;
    let given_up = r#"carrel_wakes_total{start_kind="cold",result="given_up"} 2"#;
    assert!(metrics.contains(given_up), "{metrics}");
    *world.fleet.impossible.lock().expect("whole") = None;
    let next = streamed(&ada, "ada", "k3", "y").await.outcome().await;
    assert_eq!(text_of(&next), "You said: y");
}

#[tokio::test]
async fn a_wish_that_is_given_up_untried_is_wished_once_more() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    *world.fleet.lazy.lock().expect("whole") = true;
    world.fleet.fails_almost_for_good("ada").await;
    let mut events = streamed(&ada, "ada", "k", "x").await;
    let mut wished = world.fleet.wished.subscribe();
    let heard = wished.wait_for(Option::is_some).await.expect("a fleet");
    assert_eq!(*heard, Some(carrel_core::Epoch(0)));
    drop(heard);
    *world.fleet.lazy.lock().expect("whole") = false;
    world.fleet.gives_up("ada").await;
    let seen = events.outcome().await;
    assert_eq!(text_of(&seen), "You said: x");
}

#[tokio::test]
async fn draining_refuses_new_messages_and_lets_running_turns_finish() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::Hold("one ", "two")]);
    let mut events = ada.events(EVENTS, None).await;
    accepted(&ada, "ada", "k", "count").await;
    events.until(|event| event.name == "delta").await;
    let pod = world.fleet.pod("ada");
    let (drained, seen) = tokio::join!(world.handle.drain(), async {
        let refused = crate::world::post(&ada, "ada", "k2", "more").await;
        assert_eq!(refused.is(503).problem(), "unavailable");
        assert!(refused.headers.contains_key("retry-after"));
        pod.go_on.send_replace(true);
        events.outcome().await
    });
    assert_eq!((drained, text_of(&seen)), ((), "two".to_owned()));
}

#[tokio::test]
async fn a_former_owner_writes_nothing_and_the_new_ones_outcome_is_the_only_one() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::FailLater("half ")]);
    let mut events = ada.events(EVENTS, None).await;
    let turn = accepted(&ada, "ada", "k", "go").await;
    events.until(|event| event.name == "delta").await;
    let (learner, other) = (
        "ada".parse().expect("a label"),
        OwnerId(uuid::Uuid::from_u128(77)),
    );
    let later = now() + SignedDuration::from_mins(2);
    let claimed = world
        .store
        .claim(&learner, other, later, later)
        .await
        .expect("a store");
    let claimed = claimed.expect("an abandoned turn");
    let pod = world.fleet.pod("ada");
    pod.go_on.send_replace(true);
    world.handle.drain().await;
    assert_eq!(turn_of(&ada, "ada", &turn).await["state"], "running");
    let failure = Failure {
        code: FailureCode::Timeout,
        detail: "by the new owner".to_owned(),
        retryable: false,
        partial_text: String::new(),
        operator_reason: String::new(),
    };
    let (id, lease) = (claimed.turn.turn_id, claimed.lease);
    let written = world
        .store
        .fail(id, lease, &failure, Timing::default(), now())
        .await;
    assert!(matches!(written, Ok(OwnerWrite::Written(_))), "{written:?}");
    let seen = events.outcome().await;
    assert_eq!(seen[seen.len() - 1].data["detail"], "by the new owner");
}

#[tokio::test]
async fn a_store_that_is_away_is_named_and_clients_hear_when_to_come_back() {
    let world = World::new().await;
    let (ada, nobody) = (world.learner("ada").await, world.nobody());
    world.database.close().await;
    let operator = world.operator();
    for answer in [
        crate::world::post(&ada, "ada", "k", "hello").await,
        ada.get("/v1/learners/ada/messages").await,
        ada.get(EVENTS).await,
        ada.get("/l/ada/").await,
        operator.get("/admin/v1/learners").await,
        operator.get("/admin/v1/usage").await,
    ] {
        assert_eq!(answer.is(503).problem(), "unavailable");
        assert_eq!(answer.headers["retry-after"], "2");
        assert!(answer.text.contains("the store"), "{}", answer.text);
    }
    let ready = nobody.get("/readyz").await;
    assert_eq!(ready.is(503).text, "store: it cannot be reached\n");
    assert_eq!(nobody.get("/healthz").await.is(200).text, "alive\n");
}

/// Answers everything as another learner's sidecar does, and counts.
async fn stranger() -> (String, tokio::sync::watch::Receiver<u32>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = tokio::sync::watch::Sender::new(0);
    let heard = asked.subscribe();
    let answer = move || {
        asked.send_modify(|times| *times += 1);
        async { axum::http::StatusCode::MISDIRECTED_REQUEST }
    };
    let app = axum::Router::new().fallback(answer);
    tokio_util::task::TaskTracker::new().spawn(async move { axum::serve(listener, app).await });
    (address, heard)
}

#[tokio::test]
async fn another_learners_pod_at_an_old_address_is_not_taken_for_ones_own() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    let (address, mut heard) = stranger().await;
    world.fleet.is_misled("ada", address).await;
    let mut events = streamed(&ada, "ada", "k", "hello").await;
    heard.wait_for(|times| *times > 0).await.expect("asked");
    world.fleet.comes_up("ada").await;
    let seen = events.outcome().await;
    assert_eq!(text_of(&seen), "You said: hello");
    assert_eq!(
        world.fleet.made.load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}
