//! What the behaviours are told with: learners, messages, turns that run and commit, all at given times.

use std::future::Future;
use std::time::Duration;

use carrel_core::event::{Cursor, Event, EventBody, FeedEvent, Reply};
use carrel_core::learner::StartKind;
use carrel_core::turn::FailureCode;
use carrel_core::{
    Epoch, EventVersion, Generation, LearnerId, MessageId, OwnerId, SnapshotId, TurnId,
};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::SharedStore;
use crate::heads::{Commit, Committed, TurnResult};
use crate::learners::{Created, NewLearner};
use crate::turns::{Accepted, Begun, Claimed, Failure, Lease, NewMessage, OwnerWrite, Timing};

/// How long the log may hold back what is committed, at most, on a machine that is busy with other tests.
pub const SHOWN_WITHIN: Duration = Duration::from_secs(30);

/// 2026-07-09T10:00:00Z and so many seconds.
pub fn at(second: i64) -> Timestamp {
    let start = Timestamp::from_second(1_783_591_200).expect("a time of our day");
    start + SignedDuration::from_secs(second)
}

pub fn id(name: &str) -> LearnerId {
    name.parse().expect("a learner's name")
}

pub fn owner() -> OwnerId {
    OwnerId(Uuid::new_v4())
}

/// The snapshot with this number in every byte.
pub fn snapshot(number: u8) -> SnapshotId {
    format!("{number:02x}")
        .repeat(32)
        .parse()
        .expect("64 hexadecimal digits")
}

pub fn new_learner(name: &str) -> NewLearner {
    NewLearner {
        id: id(name),
        class: "free".parse().expect("a class's name"),
        aliases: Vec::new(),
    }
}

/// Makes a learner at second 0.
pub async fn learner(store: &SharedStore, name: &str) -> LearnerId {
    let created = store.create_learner(&new_learner(name), at(0)).await;
    assert_eq!(created.expect("made"), Created::New);
    id(name)
}

/// A message that differs from others in every part that the key decides.
pub fn message(learner: &LearnerId, key: &str) -> NewMessage {
    let mut body_hash = [7; 32];
    body_hash
        .iter_mut()
        .zip(key.bytes())
        .for_each(|(place, byte)| *place = byte);
    NewMessage {
        learner: learner.clone(),
        message_id: MessageId(Uuid::now_v7()),
        turn_id: TurnId(Uuid::now_v7()),
        idempotency_key: key.to_owned(),
        body_hash,
        channel: "web".to_owned(),
        text: format!("text of {key}"),
        attachments: Vec::new(),
        max_queued: 20,
    }
}

/// Takes a message; its turn.
pub async fn accept(store: &SharedStore, learner: &LearnerId, key: &str, second: i64) -> TurnId {
    let accepted = store.accept(&message(learner, key), at(second)).await;
    match accepted.expect("accepted") {
        Accepted::Stored { turn_id, .. } => turn_id,
        other => refused(&other),
    }
}

/// Claims the oldest turn for a minute.
pub async fn claim(
    store: &SharedStore,
    learner: &LearnerId,
    owner: OwnerId,
    second: i64,
) -> Claimed {
    let claimed = store.claim(learner, owner, at(second), at(second + 60));
    claimed.await.expect("claimed").expect("a turn to claim")
}

/// Begins an attempt.
pub async fn begin(store: &SharedStore, claimed: &Claimed, epoch: u64, second: i64) -> Begun {
    let turn = claimed.turn.turn_id;
    let begun = store.begin_attempt(
        turn,
        claimed.lease,
        Epoch(epoch),
        StartKind::Warm,
        at(second),
    );
    match begun.await.expect("begun") {
        OwnerWrite::Written(begun) => begun,
        other => refused(&other),
    }
}

/// Takes a message and lets its turn run in an epoch; its turn and lease.
pub async fn running(
    store: &SharedStore,
    learner: &LearnerId,
    key: &str,
    epoch: u64,
) -> (TurnId, Lease) {
    let turn = accept(store, learner, key, 10).await;
    let claimed = claim(store, learner, owner(), 11).await;
    assert_eq!(claimed.turn.turn_id, turn);
    begin(store, &claimed, epoch, 12).await;
    (turn, claimed.lease)
}

/// A commit of `generation` with the snapshot of that number, from the one before.
pub fn commit(learner: &LearnerId, epoch: u64, generation: u8, turn: Option<TurnId>) -> Commit {
    Commit {
        learner: learner.clone(),
        epoch: Epoch(epoch),
        generation: Generation(generation.into()),
        parent: (generation > 1).then(|| snapshot(generation - 1)),
        snapshot: snapshot(generation),
        turn: turn.map(|turn_id| TurnResult {
            turn_id,
            stopped: false,
            reply: Reply {
                text: format!("reply {generation}"),
                files: Vec::new(),
            },
            files: Vec::new(),
            timing: Timing {
                agent: 40,
                snapshot: 5,
                ..Timing::default()
            },
            operator_note: format!("note {generation}"),
        }),
    }
}

/// Commits at second 20.
pub async fn committed(store: &SharedStore, commit: &Commit) -> EventVersion {
    let answer = store.commit(commit, at(20)).await.expect("an answer");
    match answer {
        Committed::Committed { version, .. } => version,
        other => refused(&other),
    }
}

/// Takes a message, runs its turn in an epoch and commits it as `generation`.
pub async fn turn_of(
    store: &SharedStore,
    learner: &LearnerId,
    epoch: u64,
    generation: u8,
) -> TurnId {
    let (turn, _) = running(store, learner, &format!("key {generation}"), epoch).await;
    committed(store, &commit(learner, epoch, generation, Some(turn))).await;
    turn
}

pub fn failure(code: FailureCode) -> Failure {
    Failure {
        code,
        detail: "Sorry.".to_owned(),
        retryable: true,
        partial_text: "so far".to_owned(),
        operator_reason: "exit 3".to_owned(),
    }
}

/// All events of a learner.
pub async fn events(store: &SharedStore, learner: &LearnerId) -> Vec<Event> {
    let events = store.events(learner, EventVersion(0), 10_000).await;
    events.expect("events")
}

/// What the log of all learners has after a place, once it has so many events. Another transaction that still runs, of whatever
/// learner or program, may hold up what was appended meanwhile; it is shown when that has ended.
pub async fn log(store: &SharedStore, after: Cursor, count: usize) -> Vec<FeedEvent> {
    let all = async {
        loop {
            let page = store.feed(after, 10_000).await.expect("read");
            if page.len() >= count {
                return page;
            }
            tokio::task::yield_now().await;
        }
    };
    let shown = tokio::time::timeout(SHOWN_WITHIN, all).await;
    shown.expect("the log shows what was appended")
}

/// The types of a learner's events, in order.
pub async fn story(store: &SharedStore, learner: &LearnerId) -> Vec<&'static str> {
    let events = events(store, learner).await;
    events.iter().map(|event| (&event.body).into()).collect()
}

/// The newest event of a learner.
pub async fn newest(store: &SharedStore, learner: &LearnerId) -> EventBody {
    let event = events(store, learner).await.pop();
    event.expect("an event").body
}

/// Runs the same thing many times at once, on all threads; what each gave.
pub async fn at_once<T, F>(times: u32, make: impl Fn(u32) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for number in 0..times {
        tasks.spawn(make(number));
    }
    tasks.join_all().await
}

/// A refusal where the behaviour needs none.
#[expect(clippy::panic, reason = "a behaviour that is not shown ends its test")]
fn refused<T>(answer: &impl std::fmt::Debug) -> T {
    panic!("refused: {answer:?}")
}
