use std::pin::pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use carrel_core::{MessageId, PodUid};
use carrel_protocol::agent::Message;
use uuid::Uuid;

use super::*;
use crate::options::Listen;

/// A blank pod that nobody can assign.
pub(crate) fn blank() -> Arc<Pod> {
    blank_of(Verifier::new(&[]).unwrap())
}

/// A blank pod of this fleet.
pub(crate) fn blank_of(fleet: Verifier) -> Arc<Pod> {
    with_turns(fleet).0
}

fn with_turns(fleet: Verifier) -> (Arc<Pod>, mpsc::Receiver<Arc<Attempt>>) {
    let options = SidecarOptions {
        pod: PodUid(Uuid::nil()),
        listen: Listen::from_str("unix:/absent").unwrap(),
        shim_socket: "/absent".into(),
        workspace: "/absent".into(),
        agent_workspace: None,
        agent_executable: None,
        keys: None,
        fleet_keys: None,
        parent: None,
        memory_events: None,
        farewell: None,
        must_not_reach: Vec::new(),
        must_reach: Vec::new(),
        grace_seconds: 25,
    };
    Pod::blank(options, fleet)
}

fn order() -> TurnOrder {
    TurnOrder {
        turn_id: TurnId(Uuid::nil()),
        attempt: 1,
        message: Message {
            message_id: MessageId(Uuid::nil()),
            text: "hello".to_owned(),
            attachments: Vec::new(),
            sent_time: now(),
        },
        attachments: Vec::new(),
        context: Vec::new(),
        restore_ms: 0,
    }
}

fn refusal(pod: &Pod) -> Problem {
    pod.take_turn(order()).expect_err("nothing is taken")
}

#[test]
fn one_that_ends_says_why_to_a_turn_and_not_that_it_falls_asleep() {
    let pod = blank();
    pod.open();
    pod.drain();
    assert_eq!(refusal(&pod).code, Code::Draining);
    pod.fail("the agent ended");
    let refused = refusal(&pod);
    assert_eq!(refused.code, Code::AgentUnavailable);
    assert_eq!(refused.detail, "the agent ended");
}

#[test]
fn a_turn_that_comes_after_a_clean_end_is_refused_as_by_one_that_falls_asleep() {
    for (before, after) in [
        (Phase::Restoring, Phase::Draining),
        (Phase::Draining, Phase::Draining),
        (Phase::Snapshotting, Phase::Snapshotting),
    ] {
        let pod = blank();
        pod.enter(before, "");
        pod.over(Exit::Clean);
        assert_eq!(pod.hello().phase, after, "{before}");
        assert_eq!(refusal(&pod).code, Code::Draining, "{before}");
        pod.over(Exit::Interrupted);
        assert_eq!(refusal(&pod).code, Code::AgentUnavailable, "{before}");
    }
}

/// Woken by a change of what is said of a pod, in the middle of it: whether the intake could be had then.
struct Glance {
    pod: Arc<Pod>,
    free: AtomicBool,
}

impl Wake for Glance {
    fn wake(self: Arc<Self>) {
        let free = self.pod.intake.try_lock().is_ok();
        self.free.fetch_or(free, Ordering::Relaxed);
    }
}

#[test]
fn nobody_comes_between_what_the_intake_knows_and_what_is_said_of_it() {
    let (pod, _turns) = with_turns(Verifier::new(&[]).unwrap());
    let steps: [(&str, &dyn Fn()); 3] = [
        ("a turn is taken", &|| drop(pod.take_turn(order()).unwrap())),
        ("it ended", &|| {
            pod.abandon_turn("for the test");
            pod.turn_ended();
        }),
        ("it shall sleep", &|| pod.drain()),
    ];
    pod.open();
    for (name, step) in steps {
        let glance = Arc::new(Glance {
            pod: Arc::clone(&pod),
            free: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&glance));
        let mut hello = pod.watch();
        let mut changed = pin!(hello.changed());
        let mut context = Context::from_waker(&waker);
        assert!(changed.as_mut().poll(&mut context).is_pending(), "{name}");
        step();
        assert!(changed.as_mut().poll(&mut context).is_ready(), "{name}");
        assert!(!glance.free.load(Ordering::Relaxed), "{name}");
    }
    assert_eq!(pod.hello().phase, Phase::Draining);
    pod.turn_ended();
    assert_eq!(
        pod.hello().phase,
        Phase::Draining,
        "one that shall sleep is not ready again"
    );
}
