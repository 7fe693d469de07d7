//! Makes room at the live cap: asks those who have been ready longest how long they have been quiet, and puts the quietest to sleep.

use std::time::Duration;

use carrel_core::learner::{DesiredState, LearnerState};
use carrel_core::{Epoch, LearnerId};
use carrel_protocol::Endpoint;
use carrel_protocol::token::Caller;
use carrel_wire::sidecar::Sidecar;
use futures::StreamExt as _;
use jiff::Timestamp;

use crate::shared::Handle;

/// Looks so often whether somebody waits for room.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many are asked for each who waits, at least so many.
const ASKED_FOR_EACH: usize = 4;
const ASKED: usize = 32;
/// How many are asked at once.
const AT_ONCE: usize = 16;
/// How long one may take to answer: others are as good.
const ANSWER: Duration = Duration::from_secs(2);

/// Makes room; never returns.
pub(crate) async fn run(shared: Handle) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (wanted, asked) = candidates(&shared);
        if wanted == 0 || !shared.is_leader() {
            continue;
        }
        let answers = futures::stream::iter(asked).map(|candidate| quiet_since(&shared, candidate));
        let mut quiet: Vec<(Timestamp, LearnerId)> = answers
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        quiet.sort();
        for (_, id) in quiet.into_iter().take(wanted) {
            let mut world = shared.world();
            world.stirs.entry(id.clone()).or_default().make_room = true;
            drop(world);
            shared.queue.now(&id);
        }
    }
}

struct Candidate {
    id: LearnerId,
    epoch: Epoch,
    endpoint: Endpoint,
}

/// How many are to make room, and whom to ask: of those who are ready, those who are so longest.
fn candidates(shared: &Handle) -> (usize, Vec<Candidate>) {
    let world = shared.world();
    let leaving = world.stirs.values().filter(|stir| stir.make_room).count();
    let wanted = world.gate.wanting_room().saturating_sub(leaving);
    if wanted == 0 {
        return (0, Vec::new());
    }
    let ready = world.learners.iter().filter(|(id, known)| {
        let is_told = world.stirs.get(*id).is_some_and(|stir| stir.make_room);
        // One who is kept awake would be woken again at once.
        let may_rest = known.desired.state != DesiredState::Running;
        known.status.state == LearnerState::Ready && may_rest && !is_told
    });
    let mut ready: Vec<_> = ready
        .map(|(id, known)| (known.status.since, id, known))
        .collect();
    ready.sort_unstable_by_key(|(since, id, _)| (*since, *id));
    let count = (wanted * ASKED_FOR_EACH).max(ASKED);
    let asked = ready.into_iter().take(count).filter_map(|(_, id, known)| {
        Some(Candidate {
            id: id.clone(),
            epoch: known.status.epoch,
            endpoint: known.status.pod.as_ref()?.address.parse().ok()?,
        })
    });
    (wanted, asked.collect())
}

/// Since when one is quiet; `None` for one who is not, or does not say.
async fn quiet_since(shared: &Handle, of: Candidate) -> Option<(Timestamp, LearnerId)> {
    let signer = &shared.options.signer;
    let token = signer
        .caller_token(Caller::Controller, &of.id, of.epoch, shared.now())
        .ok()?;
    let sidecar = Sidecar::at(of.endpoint, shared.options.trust.clone());
    let hello = tokio::time::timeout(ANSWER, sidecar.hello(&token, None))
        .await
        .ok()?
        .ok()?;
    Some((hello.quiet_since?, of.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Progress;
    use crate::shared::tests::{Parts, at, id, ready};
    use crate::world::pod::Life;
    use crate::world::pods::tests::pod;

    #[tokio::test]
    async fn who_is_kept_awake_is_not_asked_and_who_is_told_already_makes_room() {
        let parts = Parts::new(2, 1);
        let mut world = parts.shared.world();
        let states = [("ada", DesiredState::Running), ("bob", DesiredState::Auto)];
        for (number, (name, state)) in (1..).zip(states) {
            let mut known = ready(3, &pod(number, 1, Life::Running));
            known.desired.state = state;
            world.put_learner(&id(name), known);
            world.gate.adopt(&id(name), Progress::Lives, at(0));
        }
        drop(world);
        assert_eq!(candidates(&parts.shared).0, 0, "nobody waits");
        parts.shared.world().gate.ask(&id("cyd"), at(1));
        let (wanted, asked) = candidates(&parts.shared);
        let asked: Vec<_> = asked.into_iter().map(|asked| asked.id).collect();
        assert_eq!((wanted, asked), (1, vec![id("bob")]));
        let mut world = parts.shared.world();
        world.stirs.entry(id("bob")).or_default().make_room = true;
        drop(world);
        assert_eq!(candidates(&parts.shared).0, 0, "one makes room already");
    }
}
