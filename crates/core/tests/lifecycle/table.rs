//! The table and the picture in `docs/lifecycle.md` are what the plan does.

use std::fmt::Write as _;

use carrel_core::Epoch;
use carrel_core::class::ClassSpec;
use carrel_core::learner::{Desired, DesiredState, LearnerState, StartKind, Status};
use carrel_core::lifecycle::{
    Effect, Ending, MOST_UNASKED, Observed, Phase, Plan, PodSeen, Policy, Write, plan,
};

use crate::any;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lifecycle.md");
const MARK: &str =
    "<!-- What follows is written by the test `the_document_says_what_the_plan_does`. -->\n";

const POD: u64 = 7;
const SINCE: i64 = any::NOW - 3;
const LONG_AGO: i64 = any::NOW - 80_000;

/// What is wanted.
#[derive(Clone, Copy)]
enum Wanted {
    Nothing,
    Message,
    Sleep,
    Erasure,
}

use Wanted::{Erasure, Message, Nothing, Sleep};

impl Wanted {
    fn desired(self) -> Desired {
        let (state, wake_after_epoch, deleting) = match self {
            Self::Nothing => (DesiredState::Auto, None, false),
            Self::Message => (DesiredState::Auto, Some(Epoch(4)), false),
            Self::Sleep => (DesiredState::Asleep, Some(Epoch(4)), false),
            Self::Erasure => (DesiredState::Auto, None, true),
        };
        Desired {
            state,
            wake_after_epoch,
            deleting,
        }
    }
}

/// A row of the table: a state, and what is wanted and seen in it.
struct Row {
    state: LearnerState,
    when: &'static str,
    plan: Plan,
}

fn starting(since: i64) -> PodSeen {
    PodSeen::Starting {
        pod: any::pod(POD).uid,
        since: any::second(since),
        detail: String::new(),
    }
}

fn blank() -> PodSeen {
    PodSeen::Blank {
        pod: any::pod(POD),
        start_kind: StartKind::Warm,
    }
}

fn assigned(phase: Phase, since: i64) -> PodSeen {
    PodSeen::Assigned {
        pod: any::pod(POD).uid,
        phase,
        since: any::second(since),
        committed: false,
        fell_back: false,
        detail: String::new(),
    }
}

fn exited(ending: Ending) -> PodSeen {
    PodSeen::Exited {
        pod: any::pod(POD).uid,
        ending,
        committed: ending != Ending::Died,
        reason: "it ended".to_owned(),
    }
}

fn unborn() -> PodSeen {
    PodSeen::Unborn {
        pod: None,
        time: any::second(any::NOW),
        reason: "no such image".to_owned(),
    }
}

/// What is wanted and seen.
struct Seen {
    wanted: Wanted,
    pod: PodSeen,
    admitted: bool,
    make_room: bool,
    young_deaths: u32,
}

fn seen(wanted: Wanted, pod: PodSeen) -> Seen {
    Seen {
        wanted,
        pod,
        admitted: true,
        make_room: false,
        young_deaths: 0,
    }
}

fn row(state: LearnerState, has_pod: bool, when: &'static str, seen: Seen) -> Row {
    let status = Status {
        epoch: Epoch(4),
        state,
        since: Some(any::second(SINCE)),
        pod: has_pod.then(|| any::pod(POD)),
        young_deaths: seen.young_deaths,
        ..Status::default()
    };
    let observed = Observed {
        status,
        fence: Epoch(4),
        pod: seen.pod,
        admitted: seen.admitted,
        wanting: String::new(),
        make_room: seen.make_room,
        renewed: false,
    };
    let policy = Policy::of(&ClassSpec::default());
    let now = any::second(any::NOW);
    Row {
        state,
        when,
        plan: plan(&seen.wanted.desired(), &observed, &policy, now),
    }
}

fn rows() -> Vec<Row> {
    let of = |state: LearnerState, has_pod: bool| {
        move |(when, seen): (&'static str, Seen)| row(state, has_pod, when, seen)
    };
    let mut rows = Vec::new();
    rows.extend(asleep().map(of(LearnerState::Asleep, false)));
    rows.extend(without_epoch().map(of(LearnerState::Waking, false)));
    rows.extend(with_epoch().map(of(LearnerState::Waking, true)));
    rows.extend(restoring().map(of(LearnerState::Restoring, true)));
    rows.extend(ready().map(of(LearnerState::Ready, true)));
    rows.extend(busy().map(of(LearnerState::Busy, true)));
    rows.extend(draining().map(of(LearnerState::Draining, true)));
    rows.extend(snapshotting().map(of(LearnerState::Snapshotting, true)));
    rows.extend(failed().map(of(LearnerState::Failed, false)));
    let ended = ("the pod ended", seen(Erasure, exited(Ending::Died)));
    rows.push(of(LearnerState::Deleting, true)(ended));
    let gone = ("no pod is left", seen(Erasure, PodSeen::None));
    rows.push(of(LearnerState::Deleting, false)(gone));
    rows
}

type When<const N: usize> = std::array::IntoIter<(&'static str, Seen), N>;

fn asleep() -> When<5> {
    let queued = Seen {
        admitted: false,
        ..seen(Message, PodSeen::None)
    };
    [
        ("nothing is wanted", seen(Nothing, PodSeen::None)),
        ("a message, no place yet", queued),
        ("a message", seen(Message, PodSeen::None)),
        ("a message, a blank pod waits", seen(Message, blank())),
        ("it is to be erased", seen(Erasure, PodSeen::None)),
    ]
    .into_iter()
}

fn without_epoch() -> When<5> {
    [
        ("its pod starts", seen(Message, starting(SINCE))),
        ("its pod cannot be made", seen(Message, unborn())),
        ("its pod is late", seen(Message, starting(LONG_AGO))),
        ("its pod is blank", seen(Message, blank())),
        ("it is wished asleep", seen(Sleep, blank())),
    ]
    .into_iter()
}

fn with_epoch() -> When<3> {
    let refused = PodSeen::Refused {
        pod: any::pod(POD).uid,
    };
    let taken = assigned(Phase::Restoring, SINCE);
    [
        ("epoch and pod are stored", seen(Nothing, blank())),
        ("the sidecar refuses", seen(Nothing, refused)),
        ("the sidecar took it", seen(Nothing, taken)),
    ]
    .into_iter()
}

fn restoring() -> When<3> {
    let late = assigned(Phase::Restoring, LONG_AGO);
    [
        (
            "the agent is ready",
            seen(Nothing, assigned(Phase::Ready, SINCE)),
        ),
        ("it takes too long", seen(Nothing, late)),
        ("the pod died", seen(Nothing, exited(Ending::Died))),
    ]
    .into_iter()
}

fn ready() -> When<8> {
    let ready = || assigned(Phase::Ready, SINCE);
    let room = Seen {
        make_room: true,
        ..seen(Nothing, ready())
    };
    let quiet = assigned(Phase::Snapshotting, SINCE);
    let old = assigned(Phase::Ready, LONG_AGO);
    [
        ("a turn runs", seen(Nothing, assigned(Phase::Busy, SINCE))),
        ("it was quiet long enough", seen(Nothing, quiet)),
        ("others need its place", room),
        ("it was awake too long", seen(Nothing, old)),
        ("it is wished asleep", seen(Sleep, ready())),
        ("the pod died", seen(Nothing, exited(Ending::Died))),
        ("the pod is gone", seen(Nothing, PodSeen::None)),
        ("it is to be erased", seen(Erasure, ready())),
    ]
    .into_iter()
}

fn busy() -> When<6> {
    let late = assigned(Phase::Busy, LONG_AGO);
    [
        (
            "the turn committed",
            seen(Nothing, assigned(Phase::Ready, SINCE)),
        ),
        ("the turn failed", seen(Nothing, exited(Ending::Discarded))),
        ("the turn takes too long", seen(Nothing, late)),
        (
            "it is wished asleep",
            seen(Sleep, assigned(Phase::Busy, SINCE)),
        ),
        ("the pod died", seen(Nothing, exited(Ending::Died))),
        (
            "the pod is silent too long",
            seen(Nothing, starting(LONG_AGO)),
        ),
    ]
    .into_iter()
}

fn draining() -> When<2> {
    let saves = assigned(Phase::Snapshotting, SINCE);
    let late = assigned(Phase::Draining, LONG_AGO);
    [
        ("the last turn ended", seen(Nothing, saves)),
        ("it takes too long", seen(Nothing, late)),
    ]
    .into_iter()
}

fn snapshotting() -> When<3> {
    let late = assigned(Phase::Snapshotting, LONG_AGO);
    [
        ("it is committed", seen(Nothing, exited(Ending::Slept))),
        ("it takes too long", seen(Nothing, late)),
        ("the pod died", seen(Nothing, exited(Ending::Died))),
    ]
    .into_iter()
}

fn failed() -> When<4> {
    let last = Seen {
        young_deaths: MOST_UNASKED - 1,
        ..seen(Message, unborn())
    };
    [
        ("its wait is over", seen(Nothing, PodSeen::None)),
        ("its pod cannot be made once more", last),
        ("a blank pod waits", seen(Nothing, blank())),
        ("it is wished asleep", seen(Sleep, PodSeen::None)),
    ]
    .into_iter()
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::CreatePod { .. } => "`CreatePod`".to_owned(),
        Effect::Assign { .. } => "`Assign`".to_owned(),
        Effect::AskToSleep { reason, .. } => format!("`AskToSleep` ({reason})"),
        Effect::KillPod { reason, .. } => format!("`KillPod` ({reason})"),
        Effect::LetGo { .. } => "`LetGo`".to_owned(),
        Effect::DeletePod { .. } => "`DeletePod`".to_owned(),
        Effect::FinishErase => "`FinishErase`".to_owned(),
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = "| in | when | then | stored | does | looks again after | says |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    for Row { state, when, plan } in rows {
        let next = match plan.status.epoch {
            Epoch(4) => plan.status.state.to_string(),
            _ => format!("{}, next epoch", plan.status.state),
        };
        let stored = match plan.write {
            Write::Nothing => "–",
            Write::May => "if cheap",
            Write::Must => "first",
        };
        let does: Vec<String> = plan.effects.iter().map(effect).collect();
        let again = plan.requeue_at.map_or("–".to_owned(), |at| {
            format!("{} s", at.duration_since(any::second(any::NOW)).as_secs())
        });
        let says: Vec<String> = plan
            .news
            .iter()
            .filter(|news| news.name == "DataAtRisk" && news.holds)
            .map(|news| format!("{}: {}", news.name, news.reason))
            .collect();
        writeln!(
            text,
            "| {state} | {when} | {next} | {stored} | {} | {again} | {} |",
            does.join(", "),
            says.join(", "),
        )
        .expect("a string takes all");
    }
    text
}

fn picture(rows: &[Row]) -> String {
    let mut arrows: Vec<(LearnerState, LearnerState, Vec<&str>)> = Vec::new();
    for Row { state, when, plan } in rows {
        let next = plan.status.state;
        let known = arrows
            .iter_mut()
            .find(|(a, b, _)| (*a, *b) == (*state, next));
        match known {
            _ if next == *state => {}
            Some((_, _, reasons)) => reasons.push(when),
            None => arrows.push((*state, next, vec![when])),
        }
    }
    let lines: Vec<String> = arrows
        .iter()
        .map(|(from, to, reasons)| format!("    {from} --> {to}: {}\n", reasons.join(" / ")))
        .collect();
    format!(
        "```mermaid\nstateDiagram-v2\n    [*] --> Asleep\n{}```\n",
        lines.concat()
    )
}

#[test]
fn the_document_says_what_the_plan_does() {
    let document = std::fs::read_to_string(DOCUMENT).expect("docs/lifecycle.md is there");
    let (prose, _) = document
        .split_once(MARK)
        .expect("docs/lifecycle.md has the mark");
    let rows = rows();
    let wanted = format!("{prose}{MARK}\n{}\n{}", picture(&rows), table(&rows));
    if document != wanted {
        let place = concat!(env!("CARGO_TARGET_TMPDIR"), "/lifecycle.md");
        std::fs::write(place, wanted).expect("the test's folder takes a file");
        assert!(
            document.is_empty(),
            "the plan has changed: look at {place}, then copy it to docs/lifecycle.md"
        );
    }
}

#[test]
fn every_state_is_in_the_table_and_every_one_but_sleep_has_a_deadline() {
    use strum::IntoEnumIterator;
    let rows = rows();
    for state in LearnerState::iter() {
        assert!(
            rows.iter().any(|row| row.state == state),
            "{state} is missing"
        );
    }
    for Row { when, plan, .. } in rows {
        let sleeps = plan.status.state == LearnerState::Asleep;
        assert!(
            sleeps || plan.requeue_at.is_some(),
            "{when} has no deadline"
        );
    }
}
