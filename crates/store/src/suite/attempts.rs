//! Attempts and deaths.

use carrel_core::event::{EventBody, ToolStatus};
use carrel_core::learner::StartKind;
use carrel_core::turn::{AfterDeath, Death, Deaths, FailureCode, TurnState};
use carrel_core::{Epoch, TurnId};

use super::fixture::{
    accept, at, begin, claim, commit, committed, events, learner, newest, owner, running, story,
};
use crate::SharedStore;
use crate::turns::{Begun, Lease, OwnerWrite, ToolUse};

async fn dies(
    store: &SharedStore,
    (turn, lease): (TurnId, Lease),
    epoch: u64,
    death: Death,
) -> OwnerWrite<AfterDeath> {
    let answer = store.attempt_died(turn, lease, Epoch(epoch), death, "seen", "half", at(30));
    match answer.await.expect("an answer") {
        OwnerWrite::Written((_, after)) => OwnerWrite::Written(after),
        OwnerWrite::NotOwner => OwnerWrite::NotOwner,
        OwnerWrite::Ended => OwnerWrite::Ended,
        OwnerWrite::StaleEpoch { fence } => OwnerWrite::StaleEpoch { fence },
    }
}

pub async fn an_attempt_makes_the_turn_run_in_its_epoch(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let turn = accept(&store, &ada, "k1", 1).await;
    let lease = claim(&store, &ada, owner(), 2).await.lease;
    let begun = store.begin_attempt(turn, lease, Epoch(7), StartKind::Cold, at(3));
    let begun = begun.await.expect("begun");
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    let expected = Begun {
        version: row.version,
        attempt: 1,
        context: Vec::new(),
    };
    assert_eq!(begun, OwnerWrite::Written(expected));
    assert_eq!(row.state, TurnState::Running);
    assert_eq!((row.epoch, row.attempts), (Some(Epoch(7)), 1));
    assert_eq!(row.start_kind, Some(StartKind::Cold));
    let started = EventBody::Started {
        lost_turns_told: 0,
        turn_id: turn,
        epoch: Epoch(7),
        attempt: 1,
    };
    assert_eq!(newest(&store, &ada).await, started);
}

pub async fn beginning_again_in_the_same_epoch_is_the_same_attempt(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let turn = accept(&store, &ada, "k1", 1).await;
    let lease = claim(&store, &ada, owner(), 2).await.lease;
    let first = store.begin_attempt(turn, lease, Epoch(2), StartKind::Warm, at(3));
    let first = first.await.expect("begun");
    let tool = ToolUse {
        tool_id: "t1".to_owned(),
        name: "read".to_owned(),
        status: ToolStatus::Started,
        summary: "reads".to_owned(),
    };
    store.tool(turn, lease, &tool, at(4)).await.expect("kept");
    let next = claim(&store, &ada, owner(), 100).await.lease;
    let second = store.begin_attempt(turn, next, Epoch(2), StartKind::Live, at(101));
    assert_eq!(second.await.expect("begun"), first);
    let told = story(&store, &ada).await;
    assert_eq!(told, ["learner_created", "queued", "started", "tool"]);
}

pub async fn beginning_below_the_fence_is_refused(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let turn = accept(&store, &ada, "k1", 1).await;
    let lease = claim(&store, &ada, owner(), 2).await.lease;
    store.contact(&ada, Epoch(5)).await.expect("contact");
    let begun = store.begin_attempt(turn, lease, Epoch(4), StartKind::Warm, at(3));
    let fenced = OwnerWrite::StaleEpoch { fence: Epoch(5) };
    assert_eq!(begun.await.expect("answered"), fenced);
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!((row.state, row.attempts), (TurnState::Queued, 0));
}

pub async fn a_newer_incarnation_says_that_the_older_one_died(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    let claimed = claim(&store, &ada, owner(), 100).await;
    begin(&store, &claimed, 4, 101).await;
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!((row.epoch, row.attempts), (Some(Epoch(4)), 2));
    let one = Deaths {
        infrastructure: 1,
        agent: 0,
    };
    assert_eq!(row.deaths, one);
    let told = story(&store, &ada).await;
    assert_eq!(told[2..], ["started", "restarted", "started"]);
    let back = store.begin_attempt(turn, claimed.lease, Epoch(3), StartKind::Warm, at(102));
    let stale = OwnerWrite::StaleEpoch { fence: Epoch(4) };
    assert_eq!(back.await.expect("answered"), stale);
}

pub async fn a_death_puts_the_turn_back_and_is_counted_once(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, lease) = running(&store, &ada, "k1", 3).await;
    for _ in 0..2 {
        let after = dies(&store, (turn, lease), 3, Death::Agent).await;
        assert_eq!(after, OwnerWrite::Written(AfterDeath::RunAgain));
    }
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!((row.state, row.deaths.agent), (TurnState::Queued, 1));
    let claimed = claim(&store, &ada, lease.owner, 31).await;
    begin(&store, &claimed, 4, 32).await;
    let late = dies(&store, (turn, claimed.lease), 3, Death::Agent).await;
    assert_eq!(late, OwnerWrite::Written(AfterDeath::RunAgain));
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!((row.state, row.deaths.agent), (TurnState::Running, 1));
    let told = story(&store, &ada).await;
    assert_eq!(told[2..], ["started", "restarted", "started"]);
}

pub async fn a_refused_attempt_waits_again_without_a_word(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, lease) = running(&store, &ada, "k1", 3).await;
    for _ in 0..2 {
        let refused = store.attempt_refused(turn, lease, Epoch(3), at(30)).await;
        assert_eq!(refused.expect("answered"), OwnerWrite::Written(()));
    }
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(
        (row.state, row.deaths),
        (TurnState::Queued, Deaths::default())
    );
    let claimed = claim(&store, &ada, lease.owner, 31).await;
    begin(&store, &claimed, 4, 32).await;
    let late = store.attempt_refused(turn, claimed.lease, Epoch(3), at(33));
    assert_eq!(late.await.expect("answered"), OwnerWrite::Written(()));
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!((row.state, row.attempts), (TurnState::Running, 2));
    let told = story(&store, &ada).await;
    assert_eq!(told[2..], ["started", "started"]);
    let former = store.attempt_refused(turn, lease, Epoch(4), at(33)).await;
    assert_eq!(former.expect("answered"), OwnerWrite::NotOwner);
}

pub async fn a_refused_attempt_that_should_stop_is_stopped(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, lease) = running(&store, &ada, "k1", 3).await;
    let wished = store.request_stop(&ada, turn, at(13)).await;
    wished.expect("wished");
    let refused = store.attempt_refused(turn, lease, Epoch(3), at(14)).await;
    assert_eq!(refused.expect("answered"), OwnerWrite::Ended);
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(row.state, TurnState::Stopped);
}

pub async fn the_third_death_of_the_agent_parks_the_message(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let turn = accept(&store, &ada, "k1", 1).await;
    let next = accept(&store, &ada, "k2", 1).await;
    let claimed = claim(&store, &ada, owner(), 2).await;
    for (epoch, expected) in [
        (1, AfterDeath::RunAgain),
        (2, AfterDeath::RunAgain),
        (3, AfterDeath::Park),
    ] {
        begin(&store, &claimed, epoch, 3).await;
        let after = dies(&store, (turn, claimed.lease), epoch, Death::Agent).await;
        assert_eq!(after, OwnerWrite::Written(expected));
    }
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!((row.state, row.attempts), (TurnState::Failed, 3));
    assert_eq!(row.deaths.agent, 3);
    let failure = row.failure.expect("a failure");
    assert_eq!(failure.code, FailureCode::AgentDied);
    assert_eq!(failure.partial_text, "half");
    assert_eq!(failure.operator_reason, "seen");
    assert!(!failure.detail.is_empty(), "an apology to the learner");
    let claimed = claim(&store, &ada, owner(), 40).await;
    assert_eq!(claimed.turn.turn_id, next, "a parked message blocks nobody");
    begin(&store, &claimed, 4, 41).await;
    committed(&store, &commit(&ada, 4, 1, Some(next))).await;
}

pub async fn the_twentieth_death_of_infrastructure_parks_the_message(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let turn = accept(&store, &ada, "k1", 1).await;
    let claimed = claim(&store, &ada, owner(), 2).await;
    for epoch in 1..=20 {
        begin(&store, &claimed, epoch, 3).await;
        let after = dies(&store, (turn, claimed.lease), epoch, Death::Infrastructure).await;
        let expected = if epoch < 20 {
            AfterDeath::RunAgain
        } else {
            AfterDeath::Park
        };
        assert_eq!(after, OwnerWrite::Written(expected), "death {epoch}");
    }
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(row.failure.expect("a failure").code, FailureCode::Parked);
}

pub async fn tool_uses_are_events_of_their_turn(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, lease) = running(&store, &ada, "k1", 3).await;
    let tool = ToolUse {
        tool_id: "t1".to_owned(),
        name: "write".to_owned(),
        status: ToolStatus::Done,
        summary: "notes.md".to_owned(),
    };
    let kept = store.tool(turn, lease, &tool, at(13)).await.expect("kept");
    let event = events(&store, &ada).await.pop().expect("an event");
    assert_eq!(kept, OwnerWrite::Written(event.version));
    let expected = EventBody::Tool {
        turn_id: turn,
        tool_id: "t1".to_owned(),
        name: "write".to_owned(),
        status: ToolStatus::Done,
        summary: "notes.md".to_owned(),
    };
    assert_eq!((event.body, event.time), (expected, at(13)));
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(row.version, event.version);
}

pub async fn waiting_and_waking_are_timed_by_the_store(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let turn = accept(&store, &ada, "k1", 1).await;
    let claimed = claim(&store, &ada, owner(), 4).await;
    begin(&store, &claimed, 1, 9).await;
    committed(&store, &commit(&ada, 1, 1, Some(turn))).await;
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!((row.timing.queue, row.timing.wake), (3_000, 5_000));
    assert_eq!((row.timing.agent, row.timing.snapshot), (40, 5));
}
