//! What is on its way for a learner who does not rest. All of it can be lost: a new leader finds it again.

use std::time::Duration;

use carrel_core::learner::{StartKind, Status};
use carrel_core::{Epoch, PodUid};
use carrel_protocol::sidecar::Hello;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::restore::Restoring;

/// What is only shown to people is written when it has lasted so long.
const EXPLAINED_AFTER: Duration = Duration::from_secs(3);
/// When there was no time then: see [`crate::world::World::explanations`].
const EXPLAINED_LATER: Duration = Duration::from_secs(30);
/// Between questions how one is who is doubted.
const DOUBTS_AGAIN: Duration = Duration::from_secs(10);

/// What is on its way for one learner.
#[derive(Debug, Default)]
pub(crate) struct Stir {
    /// The pod that was chosen or made for them, until their status names one.
    pub(crate) choice: Option<Choice>,
    /// The steps that are shown here and not stored.
    pub(crate) shown: Option<Status>,
    /// What the sidecar of the chosen pod says of whether it takes somebody, which its kubelet tells up to seconds later.
    pub(crate) answered: Option<(PodUid, Answered)>,
    /// The pod that refused its assignment.
    pub(crate) refused: Option<PodUid>,
    /// The pod that this process named in the status.
    pub(crate) named: Option<PodUid>,
    /// Since when the pod is known that an earlier leader named.
    pub(crate) found: Option<(PodUid, Timestamp)>,
    /// The pod that took its assignment, and when.
    pub(crate) taken: Option<(PodUid, Timestamp)>,
    /// For want of what no pod is made now, for people; empty: for want of none.
    pub(crate) wanting: String,
    /// That no pod could be made, when and why.
    pub(crate) unborn: Option<(Timestamp, String)>,
    /// What their sidecar said last.
    pub(crate) heard: Option<Heard>,
    /// The highest epoch that a refusal named.
    pub(crate) fence: Epoch,
    /// Others need their place.
    pub(crate) make_room: bool,
    /// The version of learner and class with which a pod was tried last.
    pub(crate) tried: Option<(Option<i64>, String)>,
    /// To whom somebody listens, and for what; ends when nobody needs to any more.
    pub(crate) listening: Option<(PodUid, Ear, CancellationToken)>,
    /// When their sidecar was asked how it is, because somebody doubts it.
    pub(crate) probed: Option<Timestamp>,
    /// What is shown of why they wait, and when that is to be written.
    pub(crate) explains: Option<(String, Timestamp)>,
    /// How far the vault is with the older state that is wanted.
    pub(crate) restoring: Restoring,
}

/// A pod that is not named in a status yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) pod: PodUid,
    pub(crate) start_kind: StartKind,
}

/// What the sidecar of a pod that starts says of whether it takes somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answered {
    /// It does.
    Ready,
    /// Not yet: why, for people.
    NotYet(String),
}

/// What one listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ear {
    /// Whether it takes somebody.
    Knock,
    /// How its learner is.
    Listen,
}

/// What a sidecar said last.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) pod: PodUid,
    /// Absent: it has not answered yet.
    pub(crate) hello: Option<Hello>,
    /// Since when it is in its phase.
    pub(crate) since: Timestamp,
    /// Since when it does not answer.
    pub(crate) silent_since: Option<Timestamp>,
}

impl Stir {
    /// Notes since when a named pod is known that another process named.
    pub(crate) fn finds(&mut self, named: Option<PodUid>, now: Timestamp) {
        let by_another = named.filter(|named| self.named != Some(*named));
        let known = self.found.filter(|(pod, _)| by_another == Some(*pod));
        self.found = known.or(by_another.map(|pod| (pod, now)));
    }

    /// Whether the sidecar of one who is doubted is to be asked now: it is, then.
    pub(crate) fn probes(&mut self, now: Timestamp) -> bool {
        let is_due = self.probes_again().is_none_or(|at| at <= now);
        if is_due {
            self.probed = Some(now);
        }
        is_due
    }

    /// When it is to be asked again.
    pub(crate) fn probes_again(&self) -> Option<Timestamp> {
        self.probed.map(|at| at + DOUBTS_AGAIN)
    }

    /// When it is to be written why they wait: when it has lasted for a while.
    pub(crate) fn explains_at(&mut self, why: &str, now: Timestamp) -> Timestamp {
        let same = self.explains.take().filter(|(what, _)| what == why);
        let explains = same.unwrap_or((why.to_owned(), now + EXPLAINED_AFTER));
        self.explains.insert(explains).1
    }

    /// There was no time to write it.
    pub(crate) fn explains_later(&mut self, now: Timestamp) {
        if let Some((_, at)) = &mut self.explains {
            *at = now + EXPLAINED_LATER;
        }
    }

    /// What the sidecar of a pod that starts says.
    pub(crate) fn answer_of(&self, pod: PodUid) -> Option<&Answered> {
        let of = self.answered.as_ref().filter(|(of, _)| *of == pod);
        of.map(|(_, answered)| answered)
    }

    /// What a pod's sidecar said last.
    pub(crate) fn heard_of(&self, pod: PodUid) -> Option<&Heard> {
        self.heard.as_ref().filter(|heard| heard.pod == pod)
    }

    /// Takes in an answer.
    pub(crate) fn hears(&mut self, pod: PodUid, hello: Hello, now: Timestamp) {
        let before = self.heard_of(pod);
        let phase_before = before
            .and_then(|before| before.hello.as_ref())
            .map(|hello| hello.phase);
        let same = before.filter(|_| phase_before == Some(hello.phase));
        let since = same.map_or(now, |before| before.since);
        self.fence = self.fence.max(hello.fence.unwrap_or_default());
        self.heard = Some(Heard {
            pod,
            since,
            hello: Some(hello),
            silent_since: None,
        });
    }

    /// Takes in that there was none.
    pub(crate) fn misses(&mut self, pod: PodUid, now: Timestamp) {
        match &mut self.heard {
            Some(heard) if heard.pod == pod => {
                heard.silent_since.get_or_insert(now);
            }
            Some(_) | None => {
                self.heard = Some(Heard {
                    pod,
                    hello: None,
                    since: now,
                    silent_since: Some(now),
                });
            }
        }
    }
}

impl Drop for Stir {
    fn drop(&mut self) {
        if let Some((_, _, listening)) = &self.listening {
            listening.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_doubted_is_asked_again_after_a_while_for_as_long_as_the_doubt_stays() {
        let now = Timestamp::from_second(1_783_591_200).unwrap();
        let mut stir = Stir::default();
        assert_eq!(stir.probes_again(), None);
        assert!(stir.probes(now));
        assert!(!stir.probes(now + DOUBTS_AGAIN / 2), "a moment ago");
        assert_eq!(stir.probes_again(), Some(now + DOUBTS_AGAIN));
        assert!(stir.probes(now + DOUBTS_AGAIN), "it may have died since");
    }
}
