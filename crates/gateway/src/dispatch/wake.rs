//! Gets a learner's incarnation that takes turns: asks the fleet, waits for a pod, waits at its sidecar.
//!
//! Used by turns and by the proxy. Many may ask for the same learner: the wish is the same epoch and costs nothing twice.

use std::sync::Arc;
use std::time::Duration;

use carrel_core::learner::{LearnerState, PodRef, StartKind, Status};
use carrel_core::lifecycle::{gave_up, is_last_try, names};
use carrel_core::{Epoch, LearnerId};
use carrel_protocol::fleet;
use carrel_protocol::gateway::TurnStep;
use carrel_protocol::sidecar::{Hello, Phase};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::sidecar::{Error, Sidecar};
use crate::stream::Hub;

/// Waits no longer for a hint than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A sidecar that was just started may not listen yet.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);
/// A sidecar that does not answer for so long may be gone though its learner is called ready.
pub(super) const DOUBTED_AFTER: Duration = Duration::from_secs(2);
/// A wake that takes longer says what it waits for.
const LONG: SignedDuration = SignedDuration::from_secs(2);
/// What a learner is told while it wakes.
const FETCHING: &str = "Fetching your notes…";
/// What a learner is told whose workspace cannot be restored yet.
const NOT_FETCHED: &str = "Your notes cannot be fetched just now; it is tried again…";
/// What a learner is told whose tutor did not start more than once.
const TRYING_AGAIN: &str = "Your tutor could not start yet; it is tried again…";
/// What a learner is told whose document keeps it asleep.
const KEPT_ASLEEP: &str = "Your tutor is resting for now; your message waits for it.";

/// An incarnation that takes turns.
#[derive(Debug, Clone)]
pub(crate) struct Incarnation {
    pub(crate) epoch: Epoch,
    pub(crate) sidecar: Sidecar,
    pub(crate) start_kind: StartKind,
    pub(crate) restore_ms: u64,
    pub(crate) agent_ms: u64,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotAwake {
    /// One that was started for this ended before it was ready.
    Died {
        /// Which.
        epoch: Epoch,
        /// What was seen.
        reason: String,
    },
    /// No pod could be made for one, however often it was tried.
    GivenUp {
        /// Why.
        reason: String,
    },
    /// No such learner, or it is being erased.
    NoLearner,
}

/// What follows from what is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// A pod to wait at.
    Try(PodRef),
    /// A new incarnation after this epoch is wanted.
    Ask(Epoch),
    /// The one that was waited for has ended.
    Ended(Epoch),
    /// The one that was asked for was given up.
    GivenUp,
    /// Nothing will come.
    Gone,
}

/// What a look came to.
enum Step {
    Ready(Incarnation),
    LookAgain(Duration),
}

/// Gets incarnations of one learner, for one turn or request.
#[derive(Debug)]
pub(crate) struct Waker {
    learner: LearnerId,
    hub: Arc<Hub>,
    /// The newest epoch when this began; its end is not ours to mourn.
    present: Option<Epoch>,
    was_awake: bool,
    /// Incarnations up to this take no turn.
    beyond: Option<Epoch>,
    asked: Option<Epoch>,
    /// What was asked for last may be given up without a try of its own: that is no answer, and it is asked for once more.
    untried: bool,
    tried: Option<Epoch>,
    /// Since when no sidecar answers.
    silent: Option<Instant>,
    /// How many sidecars said that they could not start.
    could_not_start: u32,
    /// The sidecar has said why it takes so long.
    is_explained: bool,
    /// What was said last.
    told: Option<(TurnStep, String)>,
}

impl Waker {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self {
            learner: hub.learner().clone(),
            hub,
            present: None,
            was_awake: false,
            beyond: None,
            asked: None,
            untried: false,
            tried: None,
            silent: None,
            could_not_start: 0,
            is_explained: false,
            told: None,
        }
    }

    /// How many sidecars said that they could not start; unlike those that vanished, that is most often the agent's doing.
    pub(super) fn could_not_start(&self) -> u32 {
        self.could_not_start
    }

    /// Incarnations up to this take no turn any more.
    pub(super) fn dismiss(&mut self, epoch: Epoch) {
        self.beyond = self.beyond.max(Some(epoch));
        self.tried = None;
    }

    /// Waits for an incarnation that takes turns, saying what it waits for.
    ///
    /// # Cancel safety
    /// Safe: the next call goes on where this one was.
    pub(crate) async fn wake(
        &mut self,
        gateway: &Gateway,
        say: &(dyn Fn(TurnStep, &str) + Sync),
    ) -> Result<Incarnation, NotAwake> {
        let mut hints = self.hub.hints();
        loop {
            hints.mark_unchanged();
            let pause = match gateway.options.fleet.status(&self.learner).await {
                Ok(status) => match self.step(gateway, &status, say).await? {
                    Step::Ready(incarnation) => return Ok(incarnation),
                    Step::LookAgain(pause) => pause,
                },
                Err(fleet::Error::NoLearner(_)) => return Err(NotAwake::NoLearner),
                Err(error) => {
                    tracing::warn!(learner.id = %self.learner, %error, "the fleet does not answer");
                    LOOK_AGAIN
                }
            };
            tokio::select! {
                _ = hints.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn step(
        &mut self,
        gateway: &Gateway,
        status: &Status,
        say: &(dyn Fn(TurnStep, &str) + Sync),
    ) -> Result<Step, NotAwake> {
        self.first(status);
        match self.look(status) {
            Look::Gone => Err(NotAwake::NoLearner),
            Look::Ended(epoch) => {
                self.dismiss(epoch);
                if self.present < Some(epoch) {
                    let reason = ended(status);
                    return Err(NotAwake::Died { epoch, reason });
                }
                Ok(Step::LookAgain(Duration::ZERO))
            }
            Look::GivenUp => {
                let reason = ended(status);
                Err(NotAwake::GivenUp { reason })
            }
            Look::Ask(after) => {
                let detail = waits_for(status, gateway.now());
                self.tell(TurnStep::Waking, detail, say);
                self.ask(gateway, after, status).await?;
                Ok(Step::LookAgain(LOOK_AGAIN))
            }
            Look::Try(pod) => {
                self.tried = Some(status.epoch);
                if !is_up(status.state) {
                    let detail = if self.is_explained {
                        NOT_FETCHED
                    } else {
                        FETCHING
                    };
                    self.tell(TurnStep::Restoring, detail, say);
                }
                self.wait_at(gateway, &pod, status).await
            }
        }
    }

    /// Says each thing once.
    fn tell(&mut self, step: TurnStep, detail: &str, say: &(dyn Fn(TurnStep, &str) + Sync)) {
        let news = (step, detail.to_owned());
        if self.told.as_ref() != Some(&news) {
            say(step, detail);
            self.told = Some(news);
        }
    }

    fn first(&mut self, status: &Status) {
        if self.present.is_none() {
            self.present = Some(status.epoch);
            self.was_awake = is_up(status.state);
        }
    }

    fn look(&self, status: &Status) -> Look {
        let takes_turns = match status.state {
            LearnerState::Deleting => return Look::Gone,
            LearnerState::Waking
            | LearnerState::Restoring
            | LearnerState::Ready
            | LearnerState::Busy => true,
            LearnerState::Asleep
            | LearnerState::Draining
            | LearnerState::Snapshotting
            | LearnerState::Failed => false,
        };
        let pod = status.pod.clone().filter(|_| takes_turns);
        if let Some(tried) = self.tried
            && (status.epoch > tried || pod.is_none())
        {
            return Look::Ended(tried);
        }
        let heard = self.asked.is_some_and(|after| status.epoch > after);
        if heard && gave_up(status) && !self.untried {
            return Look::GivenUp;
        }
        match pod {
            Some(pod) if Some(status.epoch) > self.beyond => Look::Try(pod),
            _ => Look::Ask(self.beyond.unwrap_or_default().max(status.epoch)),
        }
    }

    async fn ask(
        &mut self,
        gateway: &Gateway,
        after: Epoch,
        seen: &Status,
    ) -> Result<(), NotAwake> {
        if self.asked == Some(after) {
            return Ok(());
        }
        match gateway.options.fleet.wake(&self.learner, after).await {
            Ok(()) => self.has_asked(after, seen, gateway.now()),
            Err(fleet::Error::NoLearner(_)) => return Err(NotAwake::NoLearner),
            Err(error) => {
                tracing::warn!(learner.id = %self.learner, %error, "the fleet cannot be asked");
            }
        }
        Ok(())
    }

    /// `seen` was read before: when one failure more is the last, that one may be of a try that is older than the wish.
    fn has_asked(&mut self, after: Epoch, seen: &Status, now: Timestamp) {
        self.asked = Some(after);
        self.untried = !self.untried && is_last_try(seen, now);
    }

    /// Waits at a pod's sidecar.
    async fn wait_at(
        &mut self,
        gateway: &Gateway,
        pod: &PodRef,
        status: &Status,
    ) -> Result<Step, NotAwake> {
        let epoch = status.epoch;
        let Ok(endpoint) = pod.address.parse() else {
            tracing::error!(learner.id = %self.learner, address = pod.address, "a pod's address makes no sense");
            return Ok(Step::LookAgain(LOOK_AGAIN));
        };
        let sidecar = gateway.sidecar(&self.learner, epoch, endpoint);
        let hello = match sidecar.ready().await {
            Ok(hello) => hello,
            Err(Error::Lost(why)) => {
                tracing::debug!(learner.id = %self.learner, why, "the sidecar is not there");
                let since = *self.silent.get_or_insert_with(Instant::now);
                if !is_up(status.state) || since.elapsed() < DOUBTED_AFTER {
                    return Ok(Step::LookAgain(CONNECT_AGAIN));
                }
                gateway.doubt(&self.learner, epoch).await;
                return Ok(Step::LookAgain(LOOK_AGAIN));
            }
            Err(error) => {
                tracing::warn!(learner.id = %self.learner, %error, "the sidecar cannot be used");
                return Ok(Step::LookAgain(LOOK_AGAIN));
            }
        };
        self.silent = None;
        match hello.phase {
            Phase::Ready | Phase::Busy => {
                Ok(Step::Ready(self.incarnation(sidecar, status, &hello)))
            }
            Phase::Blank | Phase::Restoring => {
                let is_explained = !hello.detail.is_empty();
                if is_explained && !self.is_explained {
                    tracing::warn!(learner.id = %self.learner, why = hello.detail, "a learner waits for its workspace");
                }
                self.is_explained = is_explained;
                Ok(Step::LookAgain(CONNECT_AGAIN))
            }
            Phase::Draining | Phase::Snapshotting => {
                self.dismiss(epoch);
                Ok(Step::LookAgain(CONNECT_AGAIN))
            }
            Phase::Ending => {
                self.dismiss(epoch);
                if self.present < Some(epoch) {
                    self.could_not_start += 1;
                    let reason = hello.detail;
                    return Err(NotAwake::Died { epoch, reason });
                }
                Ok(Step::LookAgain(CONNECT_AGAIN))
            }
        }
    }

    fn incarnation(&self, sidecar: Sidecar, status: &Status, hello: &Hello) -> Incarnation {
        let live = self.was_awake && self.present == Some(status.epoch);
        Incarnation {
            epoch: status.epoch,
            sidecar,
            start_kind: if live {
                StartKind::Live
            } else {
                status.start_kind.unwrap_or(StartKind::Cold)
            },
            restore_ms: hello.restore_ms.filter(|_| !live).unwrap_or_default(),
            agent_ms: hello.agent_ms.filter(|_| !live).unwrap_or_default(),
        }
    }
}

fn is_up(state: LearnerState) -> bool {
    matches!(state, LearnerState::Ready | LearnerState::Busy)
}

/// What a learner is told that it waits for: something better than the usual only when that takes long.
fn waits_for(status: &Status, now: Timestamp) -> &str {
    let is_long = status
        .since
        .is_some_and(|since| now.duration_since(since) > LONG);
    match status.state {
        LearnerState::Waking if is_long && !status.detail.is_empty() => &status.detail,
        // The first retry is at once.
        LearnerState::Failed if status.retry_time.is_some() => TRYING_AGAIN,
        LearnerState::Asleep if status.detail == names::KEPT_ASLEEP => KEPT_ASLEEP,
        LearnerState::Asleep
        | LearnerState::Waking
        | LearnerState::Restoring
        | LearnerState::Ready
        | LearnerState::Busy
        | LearnerState::Draining
        | LearnerState::Snapshotting
        | LearnerState::Failed
        | LearnerState::Deleting => FETCHING,
    }
}

/// Returns when something about the learner changed; a missed change is as good as one.
pub(crate) async fn changed(changes: &mut Receiver<LearnerId>, learner: &LearnerId) {
    loop {
        match changes.recv().await {
            Ok(who) if who != *learner => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

fn ended(status: &Status) -> String {
    if status.detail.is_empty() {
        "its pod ended before it was ready".to_owned()
    } else {
        status.detail.clone()
    }
}

#[cfg(test)]
mod tests;
