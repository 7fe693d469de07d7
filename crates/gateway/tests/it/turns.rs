//! Turns: in order, stopped, failed.

use serde_json::json;

use crate::client::{PATIENCE, text_of};
use crate::pod::Act;
use crate::world::{World, accepted, streamed, turn_of};

#[tokio::test]
async fn turns_of_a_learner_run_one_at_a_time_in_order_and_reuse_the_incarnation() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    let mut events = ada.events("/v1/learners/ada/events", None).await;
    for n in 0..10 {
        accepted(&ada, "ada", &format!("k{n}"), &format!("number {n}")).await;
    }
    let mut replies = Vec::new();
    while replies.len() < 10 {
        let event = events.next().await.expect("an event");
        if event.name == "done" {
            replies.push(
                event.data["reply"]["text"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
    }
    let wanted: Vec<String> = (0..10).map(|n| format!("You said: number {n}")).collect();
    assert_eq!(replies, wanted);
    assert_eq!(
        world.fleet.made.load(std::sync::atomic::Ordering::SeqCst),
        1
    );
    let history = ada
        .get("/v1/learners/ada/messages?limit=3")
        .await
        .is(200)
        .json();
    let texts: Vec<_> = history["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|m| m["text"].clone())
        .collect();
    assert_eq!(
        texts,
        [json!("number 7"), json!("number 8"), json!("number 9")]
    );
    let before = history["messages"][0]["message_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/v1/learners/ada/messages?limit=2&before={before}");
    let earlier = ada.get(&path).await.is(200).json();
    assert_eq!(earlier["messages"][1]["text"], "number 6");
}

#[tokio::test]
async fn a_running_turn_that_is_stopped_keeps_what_it_said() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world
        .fleet
        .script("ada", [Act::Hold("as far as ", "never said")]);
    let mut events = ada.events("/v1/learners/ada/events", None).await;
    let turn = accepted(&ada, "ada", "k", "go on").await;
    events.until(|event| event.name == "delta").await;
    let stop = format!("/v1/learners/ada/turns/{turn}/stop");
    ada.post(&stop, &json!({})).await.is(202);
    let seen = events.outcome().await;
    let done = &seen[seen.len() - 1];
    assert_eq!(done.data["stopped"], true);
    assert_eq!(done.data["reply"]["text"], "as far as ");
    let document = turn_of(&ada, "ada", &turn).await;
    assert_eq!(document["stopped"], true);
    ada.post(&stop, &json!({})).await.is(202);
}

#[tokio::test]
async fn a_waiting_turn_that_is_stopped_never_runs() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    *world.fleet.lazy.lock().expect("whole") = true;
    let mut events = ada.events("/v1/learners/ada/events", None).await;
    let turn = accepted(&ada, "ada", "k", "never mind").await;
    events.until(|event| event.data["state"] == "waking").await;
    ada.post(&format!("/v1/learners/ada/turns/{turn}/stop"), &json!({}))
        .await
        .is(202);
    let seen = events.outcome().await;
    assert_eq!(seen[seen.len() - 1].data["stopped"], true);
    *world.fleet.lazy.lock().expect("whole") = false;
    let next = streamed(&ada, "ada", "k2", "hello").await.outcome().await;
    assert_eq!(text_of(&next), "You said: hello");
}

#[tokio::test]
async fn a_failed_turn_says_why_and_the_next_runs_in_a_new_incarnation() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::Fail("I tried")]);
    let seen = streamed(&ada, "ada", "k", "try").await.outcome().await;
    let error = &seen[seen.len() - 1];
    assert_eq!(error.name, "error");
    assert_eq!(error.data["code"], "agent_failed");
    assert_eq!(error.data["detail"], "It did not work.");
    assert_eq!(error.data["retryable"], true);
    let turn = error.data["turn_id"].as_str().expect("a turn").to_owned();
    let document = turn_of(&ada, "ada", &turn).await;
    assert_eq!(document["state"], "failed");
    assert_eq!(document["error"]["partial_text"], "I tried");
    assert!(
        !document.to_string().contains("exit code 3"),
        "that is the operator's"
    );
    let (operator, path) = (world.operator(), "/admin/v1/learners/ada");
    let learner = operator.get(path).await.is(200).json();
    let why = json!({"turn_id": turn, "code": "agent_failed", "reason": "exit code 3"});
    assert_eq!(learner["last_failure"], why);
    let next = streamed(&ada, "ada", "k2", "again").await.outcome().await;
    assert_eq!(text_of(&next), "You said: again");
    let learner = operator.get(path).await.is(200).json();
    assert_eq!(learner.get("last_failure"), None, "{learner}");
    assert_eq!(world.fleet.pod("ada").epoch.0, 2);
}

#[tokio::test]
async fn two_hundred_learners_at_once_each_get_their_answer() {
    let world = World::new().await;
    let turns = (0..200).map(|n| {
        let world = &world;
        async move {
            let id = format!("learner-{n}");
            let client = world.learner(&id).await;
            let seen = streamed(&client, &id, "k", &format!("I am {n}"))
                .await
                .outcome()
                .await;
            assert_eq!(text_of(&seen), format!("You said: I am {n}"));
        }
    });
    futures::future::join_all(turns).await;
    // The last is measured just after its client was told.
    let wanted = "carrel_turn_duration_seconds_count{result=\"done\"} 200";
    let mut metrics = String::new();
    let measured = async {
        while !metrics.contains(wanted) {
            metrics = world.nobody().get("/metrics").await.is(200).text.clone();
        }
    };
    let all = tokio::time::timeout(PATIENCE, measured).await;
    assert!(all.is_ok(), "not all were measured: {metrics}");
    assert!(metrics.contains("carrel_turns_waiting 0"), "{metrics}");
    assert!(
        metrics.contains("carrel_wakes_total{start_kind=\"cold\",result=\"ready\"} 200"),
        "{metrics}"
    );
}
