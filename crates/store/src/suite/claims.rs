//! Owners and their leases.

use carrel_core::event::ToolStatus;
use carrel_core::learner::StartKind;
use carrel_core::turn::{Death, FailureCode, TurnState};
use carrel_core::{Epoch, LearnerId, TurnId};

use super::fixture::{
    accept, at, at_once, begin, claim, commit, committed, failure, learner, message, owner,
    running, story,
};
use crate::SharedStore;
use crate::turns::{Attachment, Lease, OwnerWrite, Ownership, Timing, ToolUse};

pub async fn a_claim_brings_all_that_is_needed_to_run_the_turn(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let mut new = message(&ada, "k1");
    new.attachments = vec![
        Attachment {
            name: "b.txt".to_owned(),
            media_type: "text/plain".to_owned(),
            data: b"first".to_vec(),
        },
        Attachment {
            name: "a.png".to_owned(),
            media_type: "image/png".to_owned(),
            data: vec![0, 255, 1],
        },
    ];
    store.accept(&new, at(1)).await.expect("accepted");
    let me = owner();
    let claimed = claim(&store, &ada, me, 2).await;
    assert_eq!(claimed.turn.turn_id, new.turn_id);
    assert_eq!(claimed.turn.learner, ada);
    assert_eq!(claimed.lease.owner, me);
    assert_eq!(claimed.attachments, new.attachments);
    let named = ["b.txt", "a.png"]
        .into_iter()
        .zip(["text/plain", "image/png"]);
    let named: Vec<_> = named.map(|(n, m)| (n.to_owned(), m.to_owned())).collect();
    assert_eq!(claimed.turn.message.attachments, named);
}

pub async fn turns_of_a_learner_run_one_at_a_time_in_order(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let first = accept(&store, &ada, "k1", 1).await;
    let second = accept(&store, &ada, "k2", 2).await;
    let me = owner();
    let claimed = claim(&store, &ada, me, 3).await;
    assert_eq!(claimed.turn.turn_id, first);
    begin(&store, &claimed, 1, 4).await;
    let again = claim(&store, &ada, me, 5).await;
    assert_eq!(again.turn.turn_id, first, "the first has not ended");
    committed(&store, &commit(&ada, 1, 1, Some(first))).await;
    assert_eq!(claim(&store, &ada, me, 6).await.turn.turn_id, second);
}

pub async fn the_owner_of_a_turn_is_told_while_its_lease_lives(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let told = async |second| store.owner(&ada, at(second)).await.expect("answered");
    assert_eq!(told(0).await, Ownership::NothingOpen);
    let turn = accept(&store, &ada, "k1", 1).await;
    assert_eq!(told(1).await, Ownership::Free, "nobody has claimed it");
    let me = owner();
    let claimed = store.claim(&ada, me, at(2), at(10)).await;
    claimed.expect("answered").expect("claimed");
    accept(&store, &ada, "k2", 3).await;
    assert_eq!(told(9).await, Ownership::Held(me));
    assert_eq!(told(10).await, Ownership::Free, "its lease has ended");
    let again = claim(&store, &ada, me, 11).await;
    begin(&store, &again, 1, 12).await;
    committed(&store, &commit(&ada, 1, 1, Some(turn))).await;
    assert_eq!(
        told(13).await,
        Ownership::Free,
        "the next is not claimed yet"
    );
}

pub async fn a_live_lease_keeps_others_away_until_it_ends(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let turn = accept(&store, &ada, "k1", 1).await;
    claim(&store, &ada, owner(), 2).await;
    let other = owner();
    let early = store.claim(&ada, other, at(61), at(121)).await;
    assert_eq!(early.expect("answered"), None, "the lease ends at 62");
    let late = claim(&store, &ada, other, 62).await;
    assert_eq!(late.turn.turn_id, turn);
}

pub async fn owners_racing_for_a_turn_have_one_winner(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    accept(&store, &ada, "k1", 1).await;
    let claims = at_once(20, |_| {
        let (store, ada) = (store.clone(), ada.clone());
        async move {
            let claimed = store.claim(&ada, owner(), at(2), at(62)).await;
            claimed.expect("answered")
        }
    })
    .await;
    assert_eq!(claims.iter().flatten().count(), 1);
}

pub async fn every_claim_has_a_higher_lease_generation(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    accept(&store, &ada, "k1", 1).await;
    let me = owner();
    let mut before = claim(&store, &ada, me, 2).await.lease.generation;
    for (claimant, second) in [(me, 3), (owner(), 100), (me, 200)] {
        let generation = claim(&store, &ada, claimant, second).await.lease.generation;
        assert!(generation > before, "{generation} after {before}");
        before = generation;
    }
}

pub async fn a_renewed_lease_lives_on_and_a_lost_one_is_named(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    let of_ada = accept(&store, &ada, "k1", 1).await;
    let of_bob = accept(&store, &bob, "k2", 1).await;
    let (me, other) = (owner(), owner());
    let kept = claim(&store, &ada, me, 2).await.lease;
    let lost = claim(&store, &bob, me, 2).await.lease;
    claim(&store, &bob, other, 70).await;
    let leases = [(of_ada, kept), (of_bob, lost)];
    let gone = store.renew(&leases, at(130)).await.expect("renewed");
    assert_eq!(gone, [of_bob]);
    let early = store.claim(&ada, other, at(129), at(190)).await;
    assert_eq!(early.expect("answered"), None);
    claim(&store, &ada, other, 130).await;
}

pub async fn a_process_that_is_alone_ends_the_leases_of_others(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    let of_ada = accept(&store, &ada, "k1", 1).await;
    accept(&store, &bob, "k2", 1).await;
    let (dead, me) = (owner(), owner());
    let stale = claim(&store, &ada, dead, 2).await.lease;
    let mine = claim(&store, &bob, me, 2).await;
    store.release_leases_except(me).await.expect("released");
    let waiting = store.waiting(at(3), 10).await.expect("listed");
    assert_eq!(waiting, std::slice::from_ref(&ada), "my own lease lives");
    let gone = store.renew(&[(of_ada, stale)], at(90)).await;
    assert_eq!(gone.expect("answered"), [of_ada]);
    begin(&store, &mine, 1, 4).await;
    claim(&store, &ada, me, 4).await;
}

pub async fn waiting_names_learners_without_an_owner_longest_first(store: SharedStore) {
    for (name, second) in [("bob", 1), ("ada", 2), ("eve", 3)] {
        let learner = learner(&store, name).await;
        accept(&store, &learner, &format!("{name} 1"), second).await;
        accept(&store, &learner, &format!("{name} 2"), second + 10).await;
    }
    let (ada, bob, eve) = ("ada", "bob", "eve");
    let names = |now, limit| {
        let store = store.clone();
        async move {
            let waiting = store.waiting(at(now), limit).await.expect("listed");
            waiting.into_iter().map(String::from).collect::<Vec<_>>()
        }
    };
    assert_eq!(names(20, 10).await, [bob, ada, eve], "each once");
    assert_eq!(names(20, 2).await, [bob, ada]);
    claim(&store, &super::fixture::id(ada), owner(), 21).await;
    assert_eq!(
        names(22, 10).await,
        [bob, eve],
        "a second turn waits for the first"
    );
    let some = [ada, eve, "nobody"].map(super::fixture::id);
    let among = |now| store.waiting_among(&some, at(now));
    assert_eq!(among(22).await.expect("listed"), [some[1].clone()]);
    let mut both = among(81).await.expect("listed");
    both.sort();
    assert_eq!(both, some[..2], "the lease has ended");
    assert_eq!(names(81, 10).await, [bob, ada, eve], "the lease has ended");
}

pub async fn a_stale_owner_writes_nothing(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, stale) = running(&store, &ada, "k1", 3).await;
    // Another task of the same owner is another owner.
    claim(&store, &ada, stale.owner, 99).await;
    let gone = store.renew(&[(turn, stale)], at(100)).await;
    assert_eq!(gone.expect("answered"), [turn]);
    stale_lease_is_refused(&store, &ada, turn, stale).await;
    let current = claim(&store, &ada, owner(), 200).await.lease;
    stale_lease_is_refused(&store, &ada, turn, stale).await;
    let verdict = failure(FailureCode::Timeout);
    let failed = store.fail(turn, current, &verdict, Timing::default(), at(202));
    assert!(matches!(
        failed.await.expect("answered"),
        OwnerWrite::Written(_)
    ));
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(row.state, TurnState::Failed);
}

async fn stale_lease_is_refused(store: &SharedStore, ada: &LearnerId, turn: TurnId, stale: Lease) {
    let before = story(store, ada).await;
    let begun = store.begin_attempt(turn, stale, Epoch(4), StartKind::Cold, at(101));
    assert_eq!(begun.await.expect("answered"), OwnerWrite::NotOwner);
    let tool = ToolUse {
        tool_id: "t1".to_owned(),
        name: "read".to_owned(),
        status: ToolStatus::Started,
        summary: "reads".to_owned(),
    };
    let used = store.tool(turn, stale, &tool, at(101)).await;
    assert_eq!(used.expect("answered"), OwnerWrite::NotOwner);
    let died = store.attempt_died(turn, stale, Epoch(3), Death::Agent, "signal 9", "", at(101));
    assert_eq!(died.await.expect("answered"), OwnerWrite::NotOwner);
    let verdict = failure(FailureCode::Timeout);
    let failed = store.fail(turn, stale, &verdict, Timing::default(), at(101));
    assert_eq!(failed.await.expect("answered"), OwnerWrite::NotOwner);
    assert_eq!(story(store, ada).await, before);
}
