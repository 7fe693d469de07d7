//! Hands a turn to a sidecar and passes on what comes back, until the turn or the incarnation ends.

use std::time::Duration;

use carrel_core::TurnId;
use carrel_core::event::ToolStatus;
use carrel_core::turn::{Death, FailureCode};
use carrel_protocol::gateway::{StreamEvent, TurnStep};
use carrel_protocol::sidecar::{Frame, TurnOrder};
use carrel_protocol::{Code, Problem};
use carrel_store::turns::{Failure, OwnerWrite, Timing, ToolUse};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use super::turn::Run;
use super::wake::{DOUBTED_AFTER, Incarnation};
use crate::sidecar::{Error, Frames};

/// Before the first try to attach again to a sidecar that the fleet believes alive; each further one waits twice as long.
const ATTACH_AGAIN: Duration = Duration::from_millis(100);
/// The longest of these waits.
const MOST_PAUSE: Duration = Duration::from_secs(1);
/// A sidecar whose turn before has not ended so long after its outcome was stored is not waited for.
const BUSY_FOR: Duration = Duration::from_secs(10);
/// What store and fleet say of the turn is read this often without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What a pod that has ended said last may still be on its way.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The turn has its outcome in the store.
    Ended,
    /// Somebody else owns the turn.
    LetGo,
    /// The attempt died.
    Died(Death, String),
    /// The sidecar takes no more turns, and did nothing of this one.
    Refused,
}

/// What one attempt has said so far; a second delivery repeats it from the start.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Bytes of text that were published.
    text: usize,
    /// Tool uses that are in the store.
    tools: Vec<(String, ToolStatus)>,
}

impl Told {
    /// An attempt of which an earlier owner kept these tool uses.
    pub(super) fn before(tools: Vec<(String, ToolStatus)>) -> Self {
        Self { text: 0, tools }
    }

    fn is_nothing(&self) -> bool {
        self.text == 0 && self.tools.is_empty()
    }
}

/// Where one delivery of the attempt is.
#[derive(Debug, Default)]
struct Delivery {
    text: usize,
}

impl Delivery {
    /// What of a piece of text was not published by an earlier delivery.
    fn news<'a>(&mut self, told: &mut Told, text: &'a str) -> &'a str {
        let start = self.text;
        self.text += text.len();
        let known = told.text.saturating_sub(start).min(text.len());
        told.text = told.text.max(self.text);
        text.get(known..).unwrap_or_default()
    }
}

impl Run<'_> {
    /// Runs the attempt to its end, attaching again when the connection is lost.
    pub(super) async fn relay(
        &self,
        incarnation: &Incarnation,
        order: &TurnOrder,
        mut told: Told,
    ) -> After {
        let (mut pause, mut busy_since, mut lost_since) = (ATTACH_AGAIN, None, None);
        loop {
            let why = match incarnation.sidecar.turn(order).await {
                Ok(frames) => {
                    (pause, lost_since) = (ATTACH_AGAIN, None);
                    match self.follow(incarnation, frames, &mut told).await {
                        Ok(after) => return after,
                        Err(error) => error,
                    }
                }
                // One that ran it would have let us attach.
                Err(Error::Refused(problem))
                    if problem.code == Code::Draining && told.is_nothing() =>
                {
                    return After::Refused;
                }
                // The turn before, of another gateway: its commit is in the store, and its sidecar is about to hear of it.
                Err(
                    error @ Error::Refused(Problem {
                        code: Code::Conflict,
                        ..
                    }),
                ) if told.is_nothing() => {
                    let since = *busy_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > BUSY_FOR && self.is_given_up(incarnation).await {
                        return After::Died(Death::Infrastructure, error.to_string());
                    }
                    error
                }
                Err(Error::Refused(problem)) => {
                    return After::Died(Death::Infrastructure, problem.to_string());
                }
                Err(error) => error,
            };
            if pause == ATTACH_AGAIN {
                tracing::info!(turn.id = %order.turn_id, %why, "the sidecar is asked again");
            } else {
                tracing::debug!(turn.id = %order.turn_id, %why, "the sidecar is asked once more");
            }
            if let Some(reason) = self.has_died(incarnation).await {
                return After::Died(Death::Infrastructure, reason);
            }
            if lost_since.get_or_insert_with(Instant::now).elapsed() > DOUBTED_AFTER {
                self.shared.doubt(self.learner, incarnation.epoch).await;
            }
            tokio::time::sleep(pause).await;
            pause = MOST_PAUSE.min(2 * pause);
        }
    }

    /// The turn runs in the next incarnation, which begins when this one has ended the turn before and sleeps.
    async fn is_given_up(&self, incarnation: &Incarnation) -> bool {
        let asked = incarnation.sidecar.sleep().await;
        if let Err(error) = &asked {
            tracing::info!(turn.id = %self.turn_id(), %error, "the sidecar cannot be asked to sleep");
        }
        asked.is_ok()
    }

    async fn follow(
        &self,
        incarnation: &Incarnation,
        mut frames: Frames<Frame>,
        told: &mut Told,
    ) -> Result<After, Error> {
        let mut delivery = Delivery::default();
        let (mut looks, mut is_stopped) = (Looks::new(self.hub.hints()), false);
        loop {
            let frame = tokio::select! {
                biased;
                frame = frames.next() => frame?,
                () = looks.due() => {
                    if !is_stopped && self.is_stop_wanted().await {
                        incarnation.sidecar.stop(self.turn_id()).await?;
                        is_stopped = true;
                    }
                    let Some(reason) = self.has_died(incarnation).await else {
                        continue;
                    };
                    match timeout(LAST_WORDS_WITHIN, frames.next()).await {
                        Ok(frame) => frame?,
                        Err(_) => return Ok(After::Died(Death::Infrastructure, reason)),
                    }
                }
            };
            if let Some(after) = self.take(frame, &mut delivery, told, incarnation).await {
                return Ok(after);
            }
        }
    }

    async fn is_stop_wanted(&self) -> bool {
        let row = self.store().turn(self.learner, self.turn_id()).await;
        row.is_ok_and(|row| row.is_some_and(|row| row.stop_requested))
    }

    async fn take(
        &self,
        frame: Frame,
        delivery: &mut Delivery,
        told: &mut Told,
        incarnation: &Incarnation,
    ) -> Option<After> {
        let turn_id = self.turn_id();
        match frame {
            Frame::Text { text } => {
                let text = delivery.news(told, &text);
                if !text.is_empty() {
                    let text = text.to_owned();
                    self.hub.live(StreamEvent::Delta { turn_id, text });
                }
                None
            }
            Frame::Tool {
                id,
                name,
                status,
                summary,
            } => {
                let tool = ToolUse {
                    tool_id: id,
                    name,
                    status,
                    summary,
                };
                self.keep_tool(tool, told).await
            }
            Frame::Status { text } => {
                self.say(TurnStep::Running, &text);
                None
            }
            Frame::Snapshotting => {
                self.say(TurnStep::Snapshotting, "");
                None
            }
            // The vault wrote it; the row and the event are there.
            Frame::Committed { .. } => Some(After::Ended),
            Frame::Failed {
                code,
                detail,
                retryable,
                operator_reason,
                timing,
            } => {
                let failure = Failure {
                    code,
                    detail,
                    retryable,
                    partial_text: self.hub.said(),
                    operator_reason,
                };
                if is_of_snapshot(code) {
                    let took = Duration::from_millis(timing.snapshot);
                    self.shared.options.metrics.snapshot_failed(took);
                }
                let timing = Timing {
                    restore: incarnation.restore_ms,
                    agent: timing.agent,
                    snapshot: timing.snapshot,
                    ..Timing::default()
                };
                Some(self.fail(&failure, timing).await)
            }
            Frame::Died { by_agent, reason } => {
                let death = if by_agent {
                    Death::Agent
                } else {
                    Death::Infrastructure
                };
                Some(After::Died(death, reason))
            }
        }
    }

    async fn keep_tool(&self, tool: ToolUse, told: &mut Told) -> Option<After> {
        let use_of = (tool.tool_id.clone(), tool.status);
        if told.tools.contains(&use_of) {
            return None;
        }
        let written = self
            .persist("keeping a tool use", || {
                self.store()
                    .tool(self.turn_id(), self.lease(), &tool, self.now())
            })
            .await;
        match written {
            Some(OwnerWrite::Written(_)) => {
                told.tools.push(use_of);
                self.catch_up().await;
                None
            }
            // The commit overtook it: it is shown to those who watch, and the last frame is about to come.
            Some(OwnerWrite::Ended) => {
                self.hub.live(StreamEvent::Tool {
                    turn_id: self.turn_id(),
                    tool_id: tool.tool_id,
                    name: tool.name,
                    status: tool.status,
                    summary: tool.summary,
                });
                told.tools.push(use_of);
                None
            }
            Some(OwnerWrite::StaleEpoch { .. } | OwnerWrite::NotOwner) | None => Some(After::LetGo),
        }
    }

    pub(super) async fn fail(&self, failure: &Failure, timing: Timing) -> After {
        let written = self
            .persist("failing a turn", || {
                let (turn, lease) = (self.turn_id(), self.lease());
                self.store().fail(turn, lease, failure, timing, self.now())
            })
            .await;
        match written {
            Some(OwnerWrite::Written(_) | OwnerWrite::Ended) => After::Ended,
            Some(OwnerWrite::StaleEpoch { .. } | OwnerWrite::NotOwner) | None => After::LetGo,
        }
    }

    /// Whether the fleet says that the incarnation has ended; `None` while it may live.
    async fn has_died(&self, incarnation: &Incarnation) -> Option<String> {
        let fleet = &self.shared.options.fleet;
        match fleet.status(self.learner).await {
            Ok(status) if status.epoch == incarnation.epoch && status.pod.is_some() => None,
            Ok(status) if status.detail.is_empty() => Some("its pod ended".to_owned()),
            Ok(status) => Some(status.detail),
            Err(carrel_protocol::fleet::Error::NoLearner(_)) => {
                Some("the learner is gone".to_owned())
            }
            Err(error) => {
                tracing::warn!(learner.id = %self.learner, %error, "the fleet does not answer");
                None
            }
        }
    }

    pub(super) fn turn_id(&self) -> TurnId {
        self.claimed.turn.turn_id
    }
}

/// Whether the turn failed for want of a snapshot.
fn is_of_snapshot(code: FailureCode) -> bool {
    matches!(
        code,
        FailureCode::SnapshotFailed | FailureCode::WorkspaceLimit
    )
}

/// When to look at what store and fleet say: at once, at each hint, and every few seconds.
#[derive(Debug)]
struct Looks {
    hints: watch::Receiver<()>,
    ticks: Interval,
}

impl Looks {
    fn new(hints: watch::Receiver<()>) -> Self {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { hints, ticks }
    }

    async fn due(&mut self) {
        tokio::select! {
            _ = self.hints.changed() => {}
            _ = self.ticks.tick() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_delivery_tells_only_what_the_first_did_not() {
        let mut told = Told::default();
        let mut first = Delivery::default();
        assert_eq!(first.news(&mut told, "two plus "), "two plus ");
        assert_eq!(first.news(&mut told, "two"), "two");
        let mut second = Delivery::default();
        assert_eq!(second.news(&mut told, "two plus two is "), " is ");
        assert_eq!(second.news(&mut told, "four"), "four");
        let mut third = Delivery::default();
        assert_eq!(third.news(&mut told, "two"), "");
        assert_eq!(third.news(&mut told, " plus two is four!"), "!");
    }
}
