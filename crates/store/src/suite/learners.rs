//! Learners: made once, listed, wished for and seen.

use carrel_core::class::ClassSpec;
use carrel_core::event::EventBody;
use carrel_core::learner::{
    Condition, ConditionStatus, DesiredState, LearnerState, PodRef, StartKind, Status,
};
use carrel_core::{Epoch, PodUid};
use uuid::Uuid;

use super::fixture::{at, at_once, id, learner, new_learner, newest, running, story};
use crate::SharedStore;
use crate::learners::{Alias, Counted, Created};

fn alias(channel: &str, external_id: &str) -> Alias {
    Alias {
        channel: channel.to_owned(),
        external_id: external_id.to_owned(),
    }
}

/// A status that differs from the first one in every field.
fn awake() -> Status {
    Status {
        epoch: Epoch(1),
        state: LearnerState::Waking,
        since: Some(at(5)),
        detail: "fetching notes".to_owned(),
        pod: Some(PodRef {
            name: "w-x2f9".to_owned(),
            uid: PodUid(Uuid::now_v7()),
            address: "unix:/run/w-x2f9".to_owned(),
        }),
        start_kind: Some(StartKind::Cold),
        young_deaths: 2,
        retry_time: Some(at(9)),
        conditions: vec![Condition {
            name: "Restored".to_owned(),
            status: ConditionStatus::True,
            reason: "FellBack".to_owned(),
            message: "its newest state was damaged".to_owned(),
            last_transition_time: at(4),
        }],
    }
}

pub async fn making_a_learner_twice_makes_one(store: SharedStore) {
    let mut new = new_learner("ada");
    new.aliases = vec![alias("lti", "2"), alias("whatsapp", "1")];
    let made = store.create_learner(&new, at(0)).await.expect("made");
    assert_eq!(made, Created::New);
    new.aliases.reverse();
    let again = store.create_learner(&new, at(1)).await.expect("answered");
    assert_eq!(again, Created::Same, "the order of aliases means nothing");
    let mut other = new.clone();
    other.class = "paid".parse().expect("a class's name");
    let answer = store.create_learner(&other, at(1)).await;
    assert_eq!(answer.expect("answered"), Created::Differs);
    new.aliases.pop();
    let answer = store.create_learner(&new, at(1)).await.expect("answered");
    assert_eq!(answer, Created::Differs);
    let row = store.learner(&id("ada"), at(2)).await.expect("read");
    let row = row.expect("the learner");
    assert_eq!(row.class.as_str(), "free");
    assert_eq!(row.aliases, [alias("lti", "2"), alias("whatsapp", "1")]);
    assert_eq!((row.created_time, row.last_activity_time), (at(0), None));
    assert_eq!((row.fence, row.status), (Epoch(0), Status::default()));
    assert_eq!(row.newest_snapshot, None);
    assert_eq!(story(&store, &id("ada")).await, ["learner_created"]);
    let class = store.class_of(&id("ada")).await.expect("read");
    assert_eq!(class, Some(row.class));
    assert_eq!(store.class_of(&id("nobody")).await.expect("read"), None);
}

pub async fn an_alias_belongs_to_one_learner(store: SharedStore) {
    let mut ada = new_learner("ada");
    ada.aliases = vec![alias("whatsapp", "1")];
    store.create_learner(&ada, at(0)).await.expect("made");
    let mut bob = new_learner("bob");
    bob.aliases = vec![alias("lti", "1"), alias("whatsapp", "1")];
    let taken = Created::AliasTaken(alias("whatsapp", "1"));
    let answer = store.create_learner(&bob, at(1)).await;
    assert_eq!(answer.expect("answered"), taken);
    let row = store.learner(&bob.id, at(2)).await.expect("read");
    assert_eq!(row, None, "nothing of a refused learner stays");
    bob.aliases.pop();
    store.create_learner(&bob, at(3)).await.expect("made");
    for (known, expected) in [
        (alias("whatsapp", "1"), Some(ada.id.clone())),
        (alias("lti", "1"), Some(bob.id.clone())),
        (alias("lti", "2"), None),
    ] {
        let found = store.learner_by_alias(&known).await.expect("read");
        assert_eq!(found, expected);
    }
}

pub async fn a_learner_changes_class_and_aliases(store: SharedStore) {
    let mut ada = new_learner("ada");
    ada.aliases = vec![alias("lti", "1")];
    store.create_learner(&ada, at(0)).await.expect("made");
    let bob = learner(&store, "bob").await;
    let paid = "paid".parse().expect("a class's name");
    let new = [alias("lti", "2"), alias("web", "3")];
    let changed = store.change_learner(&ada.id, None, Some(&new)).await;
    assert_eq!(changed.expect("answered"), Some(Created::Same));
    let taken = store.change_learner(&bob, Some(&paid), Some(&new)).await;
    let expected = Created::AliasTaken(alias("lti", "2"));
    assert_eq!(taken.expect("answered"), Some(expected));
    let changed = store.change_learner(&ada.id, Some(&paid), None).await;
    assert_eq!(changed.expect("answered"), Some(Created::Same));
    let read = |id| {
        let store = store.clone();
        async move {
            let row = store.learner(&id, at(1)).await.expect("read");
            row.map(|row| (row.class.to_string(), row.aliases))
        }
    };
    assert_eq!(read(ada.id).await, Some(("paid".to_owned(), new.to_vec())));
    assert_eq!(
        read(bob).await,
        Some(("free".to_owned(), vec![])),
        "all or nothing"
    );
    let nobody = store.change_learner(&id("nobody"), Some(&paid), None).await;
    assert_eq!(nobody.expect("answered"), None);
}

pub async fn learners_are_listed_by_id_in_pages(store: SharedStore) {
    for name in ["c", "a", "d", "b"] {
        learner(&store, name).await;
    }
    let page = |after: Option<&'static str>, limit| {
        let (store, after) = (store.clone(), after.map(id));
        async move {
            let page = store.learners(after.as_ref(), limit, at(1)).await;
            let ids = page.expect("listed").into_iter().map(|row| row.id);
            ids.map(String::from).collect::<Vec<_>>()
        }
    };
    assert_eq!(page(None, 3).await, ["a", "b", "c"]);
    assert_eq!(page(Some("c"), 3).await, ["d"]);
    assert_eq!(page(Some("aa"), 1).await, ["b"]);
}

pub async fn the_status_is_written_by_compare_and_set(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (asleep, waking) = (Status::default(), awake());
    let written = store.put_status(&ada, &asleep, &waking, at(5)).await;
    assert!(written.expect("answered"));
    let row = store.learner(&ada, at(6)).await.expect("read");
    assert_eq!(row.expect("the learner").status, waking);
    let changed = EventBody::StateChanged {
        state: LearnerState::Waking,
        epoch: Epoch(1),
    };
    assert_eq!(newest(&store, &ada).await, changed);
    let late = store.put_status(&ada, &asleep, &awake(), at(7)).await;
    assert!(!late.expect("answered"), "someone else wrote");
    let detailed = Status {
        detail: "starting the tutor".to_owned(),
        pod: None,
        ..waking.clone()
    };
    let written = store.put_status(&ada, &waking, &detailed, at(8)).await;
    assert!(written.expect("answered"));
    let told = story(&store, &ada).await;
    assert_eq!(
        told,
        ["learner_created", "state_changed"],
        "the state is the same"
    );
    let row = store.learner(&ada, at(9)).await.expect("read");
    assert_eq!(row.expect("the learner").status, detailed);
    let nobody = store
        .put_status(&id("nobody"), &asleep, &waking, at(9))
        .await;
    assert!(!nobody.expect("answered"));
}

pub async fn of_two_fleets_one_writes_the_status(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let written = at_once(20, |_| {
        let (store, ada) = (store.clone(), ada.clone());
        async move {
            let asleep = Status::default();
            let written = store.put_status(&ada, &asleep, &awake(), at(5)).await;
            written.expect("answered")
        }
    })
    .await;
    assert_eq!(written.iter().filter(|won| **won).count(), 1);
}

pub async fn a_wake_is_written_once_and_never_lowered(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let wanted = || async {
        let row = store.learner(&ada, at(1)).await.expect("read");
        row.expect("the learner").desired.wake_after_epoch
    };
    assert_eq!(wanted().await, None);
    for (epoch, changes, then) in [(0, true, 0), (0, false, 0), (4, true, 4), (3, false, 4)] {
        let changed = store.wake_after(&ada, Epoch(epoch)).await;
        assert_eq!(changed.expect("answered"), changes, "a wake after {epoch}");
        assert_eq!(wanted().await, Some(Epoch(then)));
    }
    let nobody = store.wake_after(&id("nobody"), Epoch(1)).await;
    assert!(!nobody.expect("answered"));
}

pub async fn stirring_lists_those_that_are_not_plainly_asleep(store: SharedStore) {
    for name in [
        "asleep", "waking", "wanted", "running", "kept", "closing", "served",
    ] {
        learner(&store, name).await;
    }
    let asleep = Status::default();
    let seen = store
        .put_status(&id("waking"), &asleep, &awake(), at(1))
        .await;
    assert!(seen.expect("answered"));
    store
        .wake_after(&id("wanted"), Epoch(0))
        .await
        .expect("wished");
    let served = Status {
        epoch: Epoch(3),
        ..Status::default()
    };
    let seen = store
        .put_status(&id("served"), &asleep, &served, at(1))
        .await;
    assert!(seen.expect("answered"));
    store
        .wake_after(&id("served"), Epoch(2))
        .await
        .expect("wished");
    for (name, state) in [
        ("running", DesiredState::Running),
        ("kept", DesiredState::Asleep),
    ] {
        let set = store.set_desired_state(&id(name), state).await;
        assert!(set.expect("answered"));
    }
    store
        .close_learner(&id("closing"), at(2))
        .await
        .expect("closed");
    let stirring = store.stirring().await.expect("listed");
    let names: Vec<_> = stirring.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(names, ["closing", "running", "waking", "wanted"]);
    assert_eq!(stirring[1].desired.state, DesiredState::Running);
}

pub async fn the_census_counts_every_learner_once(store: SharedStore) {
    for name in ["one", "two", "three", "busy"] {
        learner(&store, name).await;
    }
    let class = store.learner(&id("one"), at(1)).await.expect("read");
    let class = class.expect("a learner").class;
    let ready = Status {
        state: LearnerState::Ready,
        ..awake()
    };
    for name in ["three", "busy"] {
        let seen = store
            .put_status(&id(name), &Status::default(), &ready, at(1))
            .await;
        assert!(seen.expect("answered"));
    }
    running(&store, &id("busy"), "k1", 3).await;
    let census = store.census().await.expect("counted");
    let counted = |state, learners| Counted {
        class: class.clone(),
        state,
        learners,
    };
    let expected = [
        counted(LearnerState::Asleep, 2),
        counted(LearnerState::Busy, 1),
        counted(LearnerState::Ready, 1),
    ];
    assert_eq!(census, expected);
}

pub async fn classes_are_kept_whole(store: SharedStore) {
    let name = |text: &str| text.parse().expect("a class's name");
    let mut free = ClassSpec::default();
    free.turn.max_queued = 3;
    let mut paid = ClassSpec::default();
    paid.agent.command = vec!["tutor".to_owned()];
    for (class, spec) in [
        ("paid", &paid),
        ("free", &ClassSpec::default()),
        ("free", &free),
    ] {
        store.put_class(&name(class), spec).await.expect("written");
    }
    let class = store.class(&name("free")).await.expect("read");
    assert_eq!(class, Some(free.clone()));
    assert_eq!(store.class(&name("none")).await.expect("read"), None);
    let all = store.classes().await.expect("listed");
    assert_eq!(all, [(name("free"), free), (name("paid"), paid)]);
}
