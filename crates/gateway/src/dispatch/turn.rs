//! One claimed turn, from its incarnation to its outcome.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carrel_core::event::EventBody;
use carrel_core::learner::StartKind;
use carrel_core::turn::{AfterDeath, Death, FailureCode, TurnState};
use carrel_core::{Epoch, LearnerId};
use carrel_protocol::gateway::{StreamEvent, TurnStep};
use carrel_protocol::sidecar::{AttachmentData, TurnOrder};
use carrel_protocol::{agent, fleet};
use carrel_store::turns::{Begun, Claimed, Failure, Lease, OwnerWrite, Timing};
use carrel_store::{Error, SharedStore};
use carrel_telemetry::wakes::Stage;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::relay::{After, Told};
use super::wake::{Incarnation, NotAwake, Waker};
use crate::gateway::Shared;
use crate::metrics::WakeResult;
use crate::stream::{Hub, turn_log};

/// Between tries while the store is away.
const STORE_AGAIN: Duration = Duration::from_millis(200);
/// Whether the document of a learner that has none is back is looked at so often without a hint.
const DOCUMENT_AGAIN: Duration = Duration::from_secs(5);
/// After so many sidecars that said they could not start, the message is not tried again.
const MOST_STARTS: u32 = 3;

/// One claimed turn.
pub(super) struct Run<'a> {
    pub(super) shared: &'a Shared,
    pub(super) learner: &'a LearnerId,
    pub(super) claimed: Claimed,
    pub(super) hub: Arc<Hub>,
}

/// What follows in the turn's life.
enum Next {
    Again,
    Over,
}

/// Runs a claimed turn to its outcome, or lets it go when somebody else owns it or the process ends; whether it has ended.
pub(super) async fn run(
    shared: &Shared,
    learner: &LearnerId,
    claimed: Claimed,
    lost: CancellationToken,
) -> bool {
    let hub = loop {
        match shared.hubs.open(learner, &shared.options.store).await {
            Ok(hub) => break hub,
            Err(error) => tracing::warn!(learner.id = %learner, %error, "the log cannot be read"),
        }
        tokio::select! {
            () = lost.cancelled() => return false,
            () = tokio::time::sleep(STORE_AGAIN) => {}
        }
    };
    hub.lease(claimed.lease.generation);
    let run = Run {
        shared,
        learner,
        claimed,
        hub,
    };
    tokio::select! {
        () = lost.cancelled() => {
            tracing::info!(turn.id = %run.turn_id(), "the turn is not ours any more");
            // Its outcome may have waited for what was relayed here. One that just ended has no lease either.
            let told = run.hub.catch_up(run.store()).await;
            told.is_ok_and(|()| run.hub.has_ended(run.turn_id())) && run.measure().await
        }
        () = run.to_the_end() => run.measure().await,
    }
}

impl Run<'_> {
    pub(super) fn store(&self) -> &SharedStore {
        &self.shared.options.store
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.now()
    }

    pub(super) fn lease(&self) -> Lease {
        self.claimed.lease
    }

    pub(super) fn say(&self, state: TurnStep, detail: &str) {
        self.hub.live(StreamEvent::State {
            turn_id: self.turn_id(),
            state,
            detail: detail.to_owned(),
        });
    }

    /// Tries until the store answers. `None`: it answers nonsense, and the turn is let go.
    pub(super) async fn persist<T, F>(&self, doing: &str, write: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = carrel_store::Result<T>>,
    {
        loop {
            match write().await {
                Ok(written) => return Some(written),
                Err(error @ Error::Unavailable { .. }) => {
                    tracing::warn!(turn.id = %self.turn_id(), %error, "{doing} waits for the store");
                    tokio::time::sleep(STORE_AGAIN).await;
                }
                Err(error) => {
                    tracing::error!(turn.id = %self.turn_id(), %error, "{doing} failed");
                    return None;
                }
            }
        }
    }

    pub(super) async fn catch_up(&self) {
        self.persist("reading the log", || self.hub.catch_up(self.store()))
            .await;
    }

    async fn to_the_end(&self) {
        let mut waker = Waker::new(Arc::clone(&self.hub));
        if self.claimed.turn.state == TurnState::Running
            && let Next::Over = self.take_over(&mut waker).await
        {
            return;
        }
        while let Next::Again = self.attempt(&mut waker).await {}
    }

    /// A turn that an earlier owner left running: attaches to its incarnation while that lives.
    async fn take_over(&self, waker: &mut Waker) -> Next {
        let Some(epoch) = self.claimed.turn.epoch else {
            return Next::Again;
        };
        let status = loop {
            match self.shared.options.fleet.status(self.learner).await {
                Ok(status) => break Some(status),
                Err(fleet::Error::NoLearner(_)) => break None,
                // That nobody can be asked says nothing of the pod.
                Err(error) => {
                    tracing::warn!(turn.id = %self.turn_id(), %error, "whether its pod lives is asked again");
                    tokio::time::sleep(STORE_AGAIN).await;
                }
            }
        };
        let pod = status
            .filter(|status| status.epoch == epoch)
            .and_then(|s| s.pod);
        let Some(endpoint) = pod.and_then(|pod| pod.address.parse().ok()) else {
            return self
                .died(epoch, Death::Infrastructure, "its server ended")
                .await;
        };
        let newest = self.claimed.turn.version;
        let log = self
            .persist("reading the log", || {
                turn_log(self.store(), self.learner, self.turn_id(), newest)
            })
            .await;
        let tools = log
            .unwrap_or_default()
            .into_iter()
            .filter_map(|event| match event.body {
                EventBody::Tool {
                    tool_id, status, ..
                } => Some((tool_id, status)),
                _ => None,
            });
        let told = Told::before(tools.collect());
        // What the earlier owner published is not known here: the text comes whole, from the start of the attempt.
        self.hub.live(StreamEvent::Restart {
            turn_id: self.turn_id(),
            reason: "the server was started again".to_owned(),
        });
        let incarnation = Incarnation {
            epoch,
            sidecar: self.shared.sidecar(self.learner, epoch, endpoint),
            start_kind: self.claimed.turn.start_kind.unwrap_or(StartKind::Live),
            restore_ms: 0,
            agent_ms: 0,
        };
        // The same attempt; the sidecar may not have heard of it yet, so what is told with it is read again.
        match self.begin(&incarnation).await {
            Some(OwnerWrite::Written(begun)) => {
                self.deliver(&incarnation, begun, told, waker).await
            }
            Some(OwnerWrite::StaleEpoch { .. }) => Next::Again,
            Some(OwnerWrite::NotOwner | OwnerWrite::Ended) | None => Next::Over,
        }
    }

    async fn attempt(&self, waker: &mut Waker) -> Next {
        let began = self.now();
        let say = |state, detail: &str| self.say(state, detail);
        let woken = tokio::select! {
            biased;
            () = self.ended_meanwhile() => return Next::Over,
            () = self.shared.draining.cancelled() => return Next::Over,
            woken = waker.wake(self.shared, &say) => woken,
        };
        let incarnation = match woken {
            Ok(incarnation) => incarnation,
            Err(NotAwake::NoLearner) => return self.undocumented(waker).await,
            Err(NotAwake::GivenUp { reason }) => {
                let metrics = &self.shared.options.metrics;
                metrics.woke(StartKind::Cold, WakeResult::GivenUp);
                self.cannot_start(&reason).await;
                self.catch_up().await;
                return Next::Over;
            }
            Err(NotAwake::Died { epoch, reason }) => {
                let last = waker.could_not_start() >= MOST_STARTS;
                return self.died_unready(epoch, &reason, last).await;
            }
        };
        self.measure_wake(&incarnation, began);
        match self.begin(&incarnation).await {
            Some(OwnerWrite::Written(begun)) => {
                self.catch_up().await;
                self.deliver(&incarnation, begun, Told::default(), waker)
                    .await
            }
            Some(OwnerWrite::StaleEpoch { .. }) => {
                waker.dismiss(incarnation.epoch);
                Next::Again
            }
            Some(OwnerWrite::NotOwner | OwnerWrite::Ended) | None => Next::Over,
        }
    }

    /// Nobody can be woken. A learner that is being erased has no open turn, or soon none; of one whose document is gone, the
    /// message waits until it is back.
    async fn undocumented(&self, waker: &mut Waker) -> Next {
        let mut hints = self.hub.hints();
        *waker = Waker::new(Arc::clone(&self.hub));
        tokio::select! {
            biased;
            () = self.ended_meanwhile() => Next::Over,
            () = self.shared.draining.cancelled() => Next::Over,
            _ = hints.changed() => Next::Again,
            () = tokio::time::sleep(DOCUMENT_AGAIN) => Next::Again,
        }
    }

    async fn begin(&self, incarnation: &Incarnation) -> Option<OwnerWrite<Begun>> {
        let (epoch, kind) = (incarnation.epoch, incarnation.start_kind);
        self.persist("beginning an attempt", || {
            let (turn, lease) = (self.turn_id(), self.lease());
            self.store()
                .begin_attempt(turn, lease, epoch, kind, self.now())
        })
        .await
    }

    /// Hands the turn over and follows it to the end of the attempt.
    async fn deliver(
        &self,
        incarnation: &Incarnation,
        begun: Begun,
        told: Told,
        waker: &mut Waker,
    ) -> Next {
        let order = self.order(begun, incarnation.restore_ms);
        let relaying = self.hub.relay(self.turn_id());
        let after = self.relay(incarnation, &order, told).await;
        let next = match after {
            After::Ended | After::LetGo => Next::Over,
            After::Died(death, reason) => {
                waker.dismiss(incarnation.epoch);
                self.died(incarnation.epoch, death, &reason).await
            }
            After::Refused => {
                waker.dismiss(incarnation.epoch);
                self.refused(incarnation.epoch).await
            }
        };
        drop(relaying);
        self.catch_up().await;
        next
    }

    fn order(&self, begun: Begun, restore_ms: u64) -> TurnOrder {
        let message = &self.claimed.turn.message;
        let attachment = |file: &carrel_store::turns::Attachment| AttachmentData {
            name: file.name.clone(),
            media_type: file.media_type.clone(),
            data: STANDARD.encode(&file.data),
        };
        let context = begun.context.into_iter();
        TurnOrder {
            turn_id: self.turn_id(),
            attempt: begun.attempt,
            message: agent::Message {
                message_id: message.message_id,
                text: message.text.clone(),
                attachments: Vec::new(),
                sent_time: message.sent_time,
            },
            attachments: self.claimed.attachments.iter().map(attachment).collect(),
            context: context
                .map(|(message, reply)| agent::Exchange { message, reply })
                .collect(),
            restore_ms,
        }
    }

    async fn died(&self, epoch: Epoch, death: Death, reason: &str) -> Next {
        tracing::info!(turn.id = %self.turn_id(), %epoch, %death, reason, "an attempt died");
        let partial = self.hub.said();
        let written = self
            .persist("counting a death", || {
                let (turn, lease) = (self.turn_id(), self.lease());
                self.store()
                    .attempt_died(turn, lease, epoch, death, reason, &partial, self.now())
            })
            .await;
        match written {
            Some(
                OwnerWrite::Written((_, AfterDeath::RunAgain)) | OwnerWrite::StaleEpoch { .. },
            ) => Next::Again,
            Some(
                OwnerWrite::Written((_, AfterDeath::Park))
                | OwnerWrite::NotOwner
                | OwnerWrite::Ended,
            )
            | None => Next::Over,
        }
    }

    /// An incarnation that fell asleep just before the turn came: nobody's death.
    async fn refused(&self, epoch: Epoch) -> Next {
        tracing::info!(turn.id = %self.turn_id(), %epoch, "the sidecar falls asleep; the learner is woken again");
        let written = self
            .persist("taking an attempt back", || {
                let (turn, lease) = (self.turn_id(), self.lease());
                self.store().attempt_refused(turn, lease, epoch, self.now())
            })
            .await;
        match written {
            Some(OwnerWrite::Written(()) | OwnerWrite::StaleEpoch { .. }) => Next::Again,
            Some(OwnerWrite::NotOwner | OwnerWrite::Ended) | None => Next::Over,
        }
    }

    /// An incarnation that ended before it was ready counts like one that died under the turn: so that there is an end.
    async fn died_unready(&self, epoch: Epoch, reason: &str, last: bool) -> Next {
        let kind = StartKind::Cold;
        self.shared.options.metrics.woke(kind, WakeResult::Died);
        let begun = self
            .persist("beginning an attempt", || {
                let (turn, lease) = (self.turn_id(), self.lease());
                self.store()
                    .begin_attempt(turn, lease, epoch, kind, self.now())
            })
            .await;
        match begun {
            Some(OwnerWrite::Written(_)) => {
                let next = if last {
                    self.cannot_start(reason).await;
                    Next::Over
                } else {
                    self.died(epoch, Death::Infrastructure, reason).await
                };
                self.catch_up().await;
                next
            }
            Some(OwnerWrite::StaleEpoch { .. }) => Next::Again,
            Some(OwnerWrite::NotOwner | OwnerWrite::Ended) | None => Next::Over,
        }
    }

    async fn cannot_start(&self, reason: &str) {
        let failure = Failure {
            code: FailureCode::AgentNotReady,
            detail: "Sorry, your tutor could not start. Please try again later.".to_owned(),
            retryable: true,
            partial_text: String::new(),
            operator_reason: reason.to_owned(),
        };
        let timing = Timing::default();
        self.fail(&failure, timing).await;
    }

    /// Returns when the turn ended without us: stopped while it waited, or its learner is erased.
    async fn ended_meanwhile(&self) {
        let mut grown = self.hub.grown();
        self.catch_up().await;
        while !self.hub.has_ended(self.turn_id()) {
            // Whoever follows the store's hints reads the log.
            tokio::select! {
                () = self.hub.closed().cancelled() => return,
                Ok(()) = grown.changed() => {}
            }
        }
    }

    fn measure_wake(&self, incarnation: &Incarnation, began: Timestamp) {
        let metrics = &self.shared.options.metrics;
        let kind = incarnation.start_kind;
        let sent = self.claimed.turn.message.sent_time;
        metrics.woke(kind, WakeResult::Ready);
        metrics.wake_took(kind, Stage::Queue, between(sent, began));
        if kind != StartKind::Live {
            let restore = Duration::from_millis(incarnation.restore_ms);
            metrics.wake_took(kind, Stage::Restore, restore);
            let agent = Duration::from_millis(incarnation.agent_ms);
            metrics.wake_took(kind, Stage::Agent, agent);
        }
    }

    /// Measures the turn if it has ended; whether it has.
    async fn measure(&self) -> bool {
        let Ok(Some(turn)) = self.store().turn(self.learner, self.turn_id()).await else {
            return false;
        };
        if turn.state.is_ended() {
            let took = between(turn.message.sent_time, self.now());
            self.shared.options.metrics.turn_took(turn.state, took);
        }
        turn.state.is_ended()
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}
