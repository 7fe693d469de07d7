//! Commits: whole, once, or refused with the reason.

use carrel_core::event::{EventBody, ReplyFile};
use carrel_core::learner::StartKind;
use carrel_core::turn::{FailureCode, TurnState};
use carrel_core::{Epoch, Generation};

use super::fixture::{
    at, at_once, begin, claim, commit, committed, events, failure, id, learner, newest, owner,
    running, snapshot, story, turn_of,
};
use crate::SharedStore;
use crate::heads::{Committed, Head};
use crate::turns::{Attachment, OwnerWrite, Timing};

pub async fn a_commit_moves_the_head_and_ends_the_turn(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    let answer = store.commit(&commit(&ada, 3, 1, Some(turn)), at(20)).await;
    let event = events(&store, &ada).await.pop().expect("an event");
    let expected = Committed::Committed {
        version: event.version,
        usage: carrel_core::event::Usage::default(),
        repeated: false,
    };
    assert_eq!(answer.expect("committed"), expected);
    let (head, _) = store.head(&ada).await.expect("read").expect("a head");
    let new = Head {
        generation: Generation(1),
        snapshot: Some(snapshot(1)),
    };
    assert_eq!(head, new);
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!((row.state, row.stopped), (TurnState::Done, false));
    assert_eq!(row.reply.expect("a reply").text, "reply 1");
    assert_eq!(row.snapshot_id, Some(snapshot(1)));
    assert_eq!(row.version, event.version);
    let EventBody::Done {
        turn_id,
        generation,
        snapshot_id,
        reply,
        operator_note,
        ..
    } = event.body
    else {
        unreachable!("the newest event is the end");
    };
    assert_eq!((turn_id, generation), (turn, Generation(1)));
    assert_eq!(
        (snapshot_id, reply.text.as_str(), operator_note.as_str()),
        (Some(snapshot(1)), "reply 1", "note 1")
    );
    let row = store.learner(&ada, at(21)).await.expect("read");
    let row = row.expect("the learner");
    assert_eq!(row.newest_snapshot, Some((snapshot(1), at(20))));
    assert_eq!(row.last_activity_time, Some(at(20)));
}

pub async fn an_equal_commit_gets_the_same_answer(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    let mut equal = commit(&ada, 3, 1, Some(turn));
    let first = store.commit(&equal, at(20)).await.expect("committed");
    let before = story(&store, &ada).await;
    if let Some(result) = &mut equal.turn {
        result.timing.snapshot = 999;
    }
    let Committed::Committed { version, usage, .. } = first else {
        unreachable!("committed, not {first:?}");
    };
    let same = Committed::Committed {
        version,
        usage,
        repeated: true,
    };
    for second in [21, 22] {
        let again = store.commit(&equal, at(second)).await;
        assert_eq!(again.expect("answered"), same);
    }
    assert_eq!(story(&store, &ada).await, before);
}

pub async fn an_equal_commit_gets_the_same_answer_from_above_its_epoch_too(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    let equal = commit(&ada, 3, 1, Some(turn));
    let version = committed(&store, &equal).await;
    store.contact(&ada, Epoch(4)).await.expect("contact");
    turn_of(&store, &ada, 4, 2).await;
    let again = store.commit(&equal, at(50)).await.expect("answered");
    let Committed::Committed {
        version: then,
        repeated,
        ..
    } = again
    else {
        unreachable!("a repeat is told the truth, not {again:?}");
    };
    assert_eq!((then, repeated), (version, true));
}

pub async fn another_commit_of_a_taken_generation_is_refused(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    let first = commit(&ada, 3, 1, Some(turn));
    committed(&store, &first).await;
    let mut other = first.clone();
    if let Some(result) = &mut other.turn {
        "another reply".clone_into(&mut result.reply.text);
    }
    let answer = store.commit(&other, at(21)).await.expect("answered");
    assert_eq!(answer, Committed::TurnNotRunning);
    other.turn = None;
    let answer = store.commit(&other, at(21)).await.expect("answered");
    let head = Head {
        generation: Generation(1),
        snapshot: Some(snapshot(1)),
    };
    assert_eq!(answer, Committed::HeadMoved { head });
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(row.reply.expect("a reply").text, "reply 1");
}

pub async fn a_commit_below_the_fence_is_refused_and_named_the_fence(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    store.contact(&ada, Epoch(9)).await.expect("contact");
    let late = store.commit(&commit(&ada, 3, 1, Some(turn)), at(20)).await;
    let stale = Committed::StaleEpoch { fence: Epoch(9) };
    assert_eq!(late.expect("answered"), stale);
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(row.state, TurnState::Running);
    let nobody = commit(&id("nobody"), 3, 1, None);
    let answer = store.commit(&nobody, at(20)).await.expect("answered");
    assert_eq!(answer, Committed::NoLearner);
}

pub async fn a_commit_of_a_turn_of_another_epoch_is_refused(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    let (of_ada, _) = running(&store, &ada, "k1", 3).await;
    let (of_bob, _) = running(&store, &bob, "k2", 4).await;
    for (epoch, turn) in [(4, of_ada), (4, of_bob)] {
        let foreign = commit(&ada, epoch, 1, Some(turn));
        let answer = store.commit(&foreign, at(20)).await.expect("answered");
        assert_eq!(answer, Committed::TurnNotRunning);
    }
    let (head, _) = store.head(&ada).await.expect("read").expect("a head");
    assert_eq!(head, Head::default());
}

pub async fn a_commit_after_the_failure_is_refused(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, lease) = running(&store, &ada, "k1", 3).await;
    let verdict = failure(FailureCode::Timeout);
    let failed = store.fail(turn, lease, &verdict, Timing::default(), at(19));
    failed.await.expect("failed");
    let late = store.commit(&commit(&ada, 3, 1, Some(turn)), at(20)).await;
    assert_eq!(late.expect("answered"), Committed::TurnNotRunning);
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!((row.state, row.reply), (TurnState::Failed, None));
}

pub async fn a_commit_from_another_snapshot_is_refused(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 3, 1).await;
    let (turn, _) = running(&store, &ada, "k2", 3).await;
    let head = Head {
        generation: Generation(1),
        snapshot: Some(snapshot(1)),
    };
    let moved = Committed::HeadMoved { head };
    let mut from_elsewhere = commit(&ada, 3, 2, Some(turn));
    from_elsewhere.parent = Some(snapshot(9));
    let answer = store.commit(&from_elsewhere, at(20)).await;
    assert_eq!(answer.expect("answered"), moved);
    let mut too_far = commit(&ada, 3, 3, Some(turn));
    too_far.parent = Some(snapshot(1));
    let answer = store.commit(&too_far, at(20)).await.expect("answered");
    assert_eq!(answer, moved);
    committed(&store, &commit(&ada, 3, 2, Some(turn))).await;
}

pub async fn a_commit_without_a_turn_is_a_snapshot(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 3, 1).await;
    committed(&store, &commit(&ada, 3, 2, None)).await;
    let expected = EventBody::Snapshotted {
        snapshot_id: snapshot(2),
        generation: Generation(2),
    };
    assert_eq!(newest(&store, &ada).await, expected);
    let rows = store.generations(&ada).await.expect("history");
    let numbers: Vec<_> = rows
        .iter()
        .map(|row| (row.generation.0, row.parent.0))
        .collect();
    assert_eq!(numbers, [(2, 1), (1, 0)], "newest first");
    assert_eq!(rows[0].turn, None);
    assert!(rows[1].turn.is_some());
}

pub async fn a_stopped_turn_commits_what_was_done(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    store
        .request_stop(&ada, turn, at(13))
        .await
        .expect("wished");
    let mut stopped = commit(&ada, 3, 1, Some(turn));
    if let Some(result) = &mut stopped.turn {
        result.stopped = true;
    }
    committed(&store, &stopped).await;
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!((row.state, row.stopped), (TurnState::Stopped, true));
    assert_eq!(row.reply.expect("a reply").text, "reply 1");
    assert_eq!(row.snapshot_id, Some(snapshot(1)));
}

pub async fn files_of_a_reply_come_back_by_place(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    let files = ["one", "three"].map(|word| Attachment {
        name: format!("{word}.txt"),
        media_type: format!("text/{word}"),
        data: word.as_bytes().to_vec(),
    });
    let mut with_files = commit(&ada, 3, 1, Some(turn));
    if let Some(result) = &mut with_files.turn {
        result.files = files.to_vec();
        result.reply.files = files
            .iter()
            .map(|file| ReplyFile {
                name: file.name.clone(),
                media_type: file.media_type.clone(),
                size_bytes: 3,
            })
            .collect();
    }
    committed(&store, &with_files).await;
    for (place, file) in (0..).zip(files) {
        let found = store.reply_file(&ada, turn, place).await.expect("read");
        assert_eq!(found, Some(file));
    }
    assert_eq!(store.reply_file(&ada, turn, 2).await.expect("read"), None);
    assert_eq!(store.reply_file(&bob, turn, 0).await.expect("read"), None);
    let mut other = with_files.clone();
    if let Some(result) = &mut other.turn {
        result.files[1].data.push(b'!');
    }
    let answer = store.commit(&other, at(21)).await.expect("answered");
    assert_eq!(
        answer,
        Committed::TurnNotRunning,
        "other content is another commit"
    );
}

pub async fn a_commit_and_a_failure_at_once_have_one_outcome(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let mut generation = 0;
    for round in 0..10_i64 {
        let claimed_at = 100 * (round + 1);
        let key = format!("race {round}");
        let turn = super::fixture::accept(&store, &ada, &key, claimed_at).await;
        let claimed = claim(&store, &ada, owner(), claimed_at).await;
        begin(&store, &claimed, 3, claimed_at).await;
        let racing = commit(&ada, 3, generation + 1, Some(turn));
        let verdict = failure(FailureCode::Timeout);
        let (done, failed) = tokio::join!(
            store.commit(&racing, at(claimed_at + 1)),
            store.fail(
                turn,
                claimed.lease,
                &verdict,
                Timing::default(),
                at(claimed_at + 1)
            ),
        );
        let done = matches!(done.expect("answered"), Committed::Committed { .. });
        let failed = matches!(failed.expect("answered"), OwnerWrite::Written(_));
        assert!(done != failed, "one outcome: done {done}, failed {failed}");
        generation += u8::from(done);
        let (head, _) = store.head(&ada).await.expect("read").expect("a head");
        assert_eq!(head.generation, Generation(generation.into()));
    }
    let ends = story(&store, &ada).await;
    let ends = ends.iter().filter(|kind| ["done", "failed"].contains(kind));
    assert_eq!(ends.count(), 10);
}

pub async fn commits_of_twenty_at_once_have_one_winner(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, lease) = running(&store, &ada, "k1", 3).await;
    let answers = at_once(20, |number| {
        let (store, mut racing) = (store.clone(), commit(&ada, 3, 1, Some(turn)));
        racing.snapshot = snapshot(u8::try_from(number).unwrap_or_default() + 1);
        async move { store.commit(&racing, at(20)).await.expect("answered") }
    })
    .await;
    let won = answers
        .iter()
        .filter(|answer| matches!(answer, Committed::Committed { .. }));
    assert_eq!(won.count(), 1);
    let late = store.begin_attempt(turn, lease, Epoch(3), StartKind::Live, at(21));
    assert_eq!(late.await.expect("answered"), OwnerWrite::Ended);
    assert_eq!(store.generations(&ada).await.expect("history").len(), 1);
}
