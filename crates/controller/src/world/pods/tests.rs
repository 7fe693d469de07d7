use uuid::Uuid;

use super::*;

fn id(name: &str) -> LearnerId {
    name.parse().unwrap()
}

pub(crate) fn pod(number: u128, version: u64, life: Life) -> SeenPod {
    SeenPod {
        uid: PodUid(Uuid::from_u128(number)),
        namespace: "learners-0".to_owned(),
        name: format!("w-{number}"),
        version,
        hash: "abc".to_owned(),
        learner: None,
        epoch: None,
        address: Some("10.0.0.7".to_owned()),
        node: Some("node-1".to_owned()),
        created: Timestamp::from_second(1_783_591_200).unwrap(),
        ready: life == Life::Running,
        waits: String::new(),
        life,
        deleted: false,
        gone: false,
    }
}

fn ready(pods: &Pods) -> Vec<PodUid> {
    let blanks = pods.blanks("abc");
    blanks
        .map(|blanks| blanks.ready.iter().map(|(_, uid)| *uid).collect())
        .unwrap_or_default()
}

#[test]
fn a_blank_pod_is_offered_while_it_is_nobodys() {
    let mut pods = Pods::default();
    let (first, second) = (pod(1, 1, Life::Running), pod(2, 2, Life::Starting));
    pods.put(first.clone());
    pods.put(second.clone());
    assert_eq!(ready(&pods), [first.uid]);
    assert_eq!(pods.blanks("abc").unwrap().starting.len(), 1);
    pods.claim(first.uid, &id("ada"));
    assert_eq!(ready(&pods), []);
    pods.release(first.uid, &id("bob"));
    assert_eq!(ready(&pods), [], "it is not bob's to give back");
    pods.release(first.uid, &id("ada"));
    assert_eq!(ready(&pods), [first.uid]);
    pods.put(SeenPod {
        learner: Some(id("ada")),
        version: 3,
        ..first.clone()
    });
    assert_eq!(ready(&pods), [], "a label makes it somebody's, too");
    assert_eq!(pods.labelled(&id("ada")).count(), 1);
    assert_eq!(pods.count("learners-0"), 2);
}

#[test]
fn what_is_older_than_what_is_known_changes_nothing() {
    let mut pods = Pods::default();
    pods.put(pod(1, 5, Life::Running));
    assert_eq!(pods.put(pod(1, 4, Life::Starting)), Touched::default());
    assert_eq!(ready(&pods).len(), 1);
}

#[test]
fn how_a_claimed_pod_ended_is_kept_until_its_learner_has_heard() {
    let mut pods = Pods::default();
    let (ada, running) = (id("ada"), pod(1, 1, Life::Running));
    pods.put(running.clone());
    pods.claim(running.uid, &ada);
    let ended = Life::Ended {
        farewell: None,
        reason: "Evicted".to_owned(),
    };
    let touched = pods.delete(&SeenPod {
        version: 2,
        life: ended.clone(),
        ..running.clone()
    });
    assert_eq!(touched.learners, HashSet::from([ada.clone()]));
    let kept = pods.get(running.uid).unwrap();
    assert_eq!((&kept.life, kept.gone), (&ended, true));
    assert_eq!(pods.count("learners-0"), 0);
    pods.release(running.uid, &ada);
    assert!(pods.get(running.uid).is_none());
}

#[test]
fn what_a_new_list_does_not_have_is_gone() {
    let mut pods = Pods::default();
    pods.put(pod(1, 1, Life::Running));
    pods.put(pod(2, 2, Life::Running));
    pods.claim(pod(2, 2, Life::Running).uid, &id("ada"));
    let mut unlisted = pods.within("learners-0");
    assert!(unlisted.remove(&pod(1, 1, Life::Running).uid));
    let touched = pods.lose(&unlisted);
    assert_eq!(touched.learners, HashSet::from([id("ada")]));
    assert!(pods.get(pod(2, 2, Life::Running).uid).is_none());
    assert_eq!(ready(&pods).len(), 1);
}
