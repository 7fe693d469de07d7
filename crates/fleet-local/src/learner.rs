//! Keeps one learner as the plan says: looks, plans, writes, acts, waits; ends when the learner rests.

mod handle;
mod making;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use carrel_core::class::ClassSpec;
use carrel_core::learner::{DesiredState, LearnerState, PodRef, Status};
use carrel_core::lifecycle::{self, Effect, Observed, Plan, PodSeen, Policy, Write};
use carrel_core::{ClassName, LearnerId};
use carrel_protocol::Code;
use carrel_protocol::token::Caller;
use carrel_store::learners::Learner;
use carrel_telemetry::wakes::Stage;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast;
use tokio::time::Instant;

use self::making::Making;
use self::waiting::Asking;
use crate::admission::Place;
use crate::assignment;
use crate::fleet::{CONNECT_AGAIN, STORE_AGAIN, Shared};
use crate::metrics::Round;
use crate::pod::Pod;
use carrel_wire::sidecar;
pub(crate) use handle::Handle;

/// How long an assigned sidecar may take to say what it is doing.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// A restore that takes longer is explained to other processes.
const EXPLAINED_AFTER: SignedDuration = SignedDuration::from_secs(3);

type Tried = (DesiredState, ClassName, Option<ClassSpec>);

fn tried_with(learner: &Learner, class: Option<&ClassSpec>) -> Tried {
    let (wish, name) = (learner.desired.state, learner.class.clone());
    (wish, name, class.cloned())
}

/// Looks after one learner while it stirs. Dropping it ends the learner's pod.
pub(crate) struct Keeper {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: LearnerId,
    pub(crate) handle: Arc<Handle>,
    pod: Option<Pod>,
    making: Option<Making>,
    unborn: Option<(Timestamp, String)>,
    /// What its document and its class were when a pod was last tried.
    tried: Option<Tried>,
    place: Option<Place>,
    asking: Option<Asking>,
    refused: bool,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>, id: LearnerId, handle: Arc<Handle>) -> Self {
        Self {
            shared,
            id,
            handle,
            pod: None,
            making: None,
            unborn: None,
            tried: None,
            place: None,
            asking: None,
            refused: false,
        }
    }

    /// Looks after the learner until it rests.
    pub(crate) async fn run(mut self) {
        loop {
            let began = Instant::now();
            match self.look().await {
                Ok(Some((learner, class))) => {
                    if self.turn(&learner, class.as_ref(), began).await {
                        return;
                    }
                }
                Ok(None) => {
                    self.remove_pod().await;
                    return;
                }
                Err(error) => {
                    // Its pod goes on: that we do not see the store is no fault of the turn that runs.
                    self.shared.metrics.round(Round::Failed, began.elapsed());
                    tracing::warn!(learner.id = %self.id, %error, "a learner could not be looked at");
                    tokio::time::sleep(STORE_AGAIN).await;
                }
            }
        }
    }

    async fn look(&self) -> carrel_store::Result<Option<(Learner, Option<ClassSpec>)>> {
        let store = &self.shared.store;
        let Some(learner) = store.learner(&self.id, self.shared.ground.now()).await? else {
            return Ok(None);
        };
        let class = store.class(&learner.class).await?;
        Ok(Some((learner, class)))
    }

    /// One round; `true` when the learner rests and nothing is left to do for it.
    async fn turn(&mut self, learner: &Learner, class: Option<&ClassSpec>, began: Instant) -> bool {
        if self.shared.is_closing() && learner.status.pod.is_none() {
            // What waits to start is left to the next run of the fleet.
            self.remove_pod().await;
            return true;
        }
        self.handle.desired.send_replace(Some(learner.desired));
        let missing = ClassSpec::default();
        let policy = Policy::of(class.unwrap_or(&missing));
        let now = self.shared.ground.now();
        let mut desired = learner.desired;
        if self.handle.sleep_now.load(Ordering::Acquire) {
            if learner.status.pod.is_some() {
                desired.state = DesiredState::Asleep;
            } else {
                // Nothing sleeps that is not awake; kept, the wish would end the next incarnation.
                self.handle.sleep_now.store(false, Ordering::Release);
            }
        }
        let observed = self.observe(learner, class);
        let plan = lifecycle::plan(&desired, &observed, &policy, now);
        self.keep_place(&plan);
        if !self.write(learner, &plan, now).await {
            return false;
        }
        // Of a pod that an earlier run of the fleet had, the start of this one has spoken.
        if plan.write == Write::Must && risks_data(&plan) && self.pod.is_some() {
            tracing::warn!(
                learner.id = %self.id,
                detail = plan.status.detail,
                "an incarnation ends without its last snapshot: the learner goes on from its last finished turn"
            );
        }
        self.publish(lifecycle::shown(&learner.desired, plan.status.clone()));
        let resting = plan.effects.is_empty()
            && plan.requeue_at.is_none()
            && plan.status.pod.is_none()
            && self.pod.is_none()
            && self.making.is_none();
        if resting {
            return true;
        }
        let acted = self.perform(&plan, learner, class, now).await;
        self.shared.metrics.round(Round::Ok, began.elapsed());
        if !acted && plan.write != Write::Must {
            let explains = self.explains_at(learner, &plan).filter(|at| *at > now);
            let requeue_at = plan.requeue_at.into_iter().chain(explains).min();
            self.wait(requeue_at, now).await;
        }
        false
    }

    fn observe(&mut self, learner: &Learner, class: Option<&ClassSpec>) -> Observed {
        let named = learner.status.pod.as_ref().map(|pod| pod.uid);
        let pod = match (&mut self.pod, &self.making, &self.unborn) {
            (Some(pod), _, _) if self.refused => PodSeen::Refused {
                pod: pod.reference.uid,
            },
            (Some(pod), _, _) => born_for(pod.seen(), named),
            (None, Some(making), _) => PodSeen::Starting {
                pod: making.pod,
                since: making.since,
                detail: String::new(),
            },
            (None, None, Some((time, reason))) => PodSeen::Unborn {
                pod: None,
                time: *time,
                reason: reason.clone(),
            },
            (None, None, None) => PodSeen::None,
        };
        Observed {
            status: self.current(learner),
            fence: learner.fence,
            pod,
            admitted: self.place.is_some(),
            wanting: String::new(),
            make_room: self.handle.make_room.load(Ordering::Acquire),
            renewed: self.tried.as_ref() != Some(&tried_with(learner, class)),
        }
    }

    /// The stored status with the steps that are shown but not stored.
    fn current(&self, learner: &Learner) -> Status {
        let shown = self.handle.status.borrow();
        let same = shown.epoch == learner.status.epoch && shown.pod == learner.status.pod;
        if same && shown.pod.is_some() {
            Status {
                young_deaths: learner.status.young_deaths,
                retry_time: learner.status.retry_time,
                ..shown.clone()
            }
        } else {
            learner.status.clone()
        }
    }

    fn keep_place(&mut self, plan: &Plan) {
        match plan.status.state {
            LearnerState::Ready | LearnerState::Busy => {
                if let Some(place) = &mut self.place {
                    place.started();
                }
                if plan.status.state == LearnerState::Busy {
                    // It is not the quietest any more: whoever wants room looks again.
                    self.handle.make_room.store(false, Ordering::Release);
                }
            }
            LearnerState::Asleep => {
                if self.pod.is_none() {
                    self.give_place_back();
                }
                self.handle.sleep_now.store(false, Ordering::Release);
            }
            LearnerState::Waking
            | LearnerState::Restoring
            | LearnerState::Draining
            | LearnerState::Snapshotting
            | LearnerState::Failed
            | LearnerState::Deleting => {}
        }
    }

    /// Stores what must be stored; `false` when someone else wrote first and everything has to be looked at again.
    async fn write(&self, learner: &Learner, plan: &Plan, now: Timestamp) -> bool {
        let explains = self.explains_at(learner, plan).is_some_and(|at| at <= now);
        if plan.write != Write::Must && !explains {
            return true;
        }
        match self
            .shared
            .store
            .put_status(
                &self.id,
                &learner.status,
                &lifecycle::kept(&plan.status),
                now,
            )
            .await
        {
            Ok(written) => written,
            Err(error) => {
                tracing::warn!(learner.id = %self.id, %error, "a status could not be stored");
                tokio::time::sleep(STORE_AGAIN).await;
                false
            }
        }
    }

    /// When to store why a workspace is not restored yet, once, for those who see rows alone.
    fn explains_at(&self, learner: &Learner, plan: &Plan) -> Option<Timestamp> {
        let (shown, stored) = (&plan.status, &learner.status);
        let is_news = shown.state == LearnerState::Restoring
            && stored.state != LearnerState::Restoring
            && !shown.detail.is_empty();
        let since = shown.since.filter(|_| is_news && !self.shared.is_alone)?;
        since.checked_add(EXPLAINED_AFTER).ok()
    }

    fn publish(&self, status: Status) {
        let changed = self.handle.status.send_if_modified(|shown| {
            let differs = *shown != status;
            *shown = status;
            differs
        });
        if changed {
            // Nobody listening is no loss: it is a hint.
            let _: Result<usize, broadcast::error::SendError<_>> =
                self.shared.changes.send(self.id.clone());
        }
    }

    /// Performs the effects in order; `true` when something that is seen changed by it.
    async fn perform(
        &mut self,
        plan: &Plan,
        learner: &Learner,
        class: Option<&ClassSpec>,
        now: Timestamp,
    ) -> bool {
        let mut acted = false;
        for effect in &plan.effects {
            match effect {
                Effect::CreatePod { .. } => {
                    acted |= self.create_pod(learner, class);
                }
                Effect::Assign { pod, .. } => {
                    self.assign(plan, pod, class, now).await;
                    acted = true;
                }
                Effect::AskToSleep { .. } => self.ask_to_sleep(&plan.status, now).await,
                Effect::KillPod { pod, reason } => {
                    tracing::warn!(learner.id = %self.id, %pod, %reason, "a pod is ended");
                    if let Some(pod) = &self.pod {
                        pod.kill();
                    }
                }
                Effect::LetGo { .. } | Effect::DeletePod { .. } => {
                    self.remove_pod().await;
                    acted = true;
                }
                // Erasing is the gateway's to finish: it asks for `discard` first.
                Effect::FinishErase => {}
            }
        }
        acted
    }

    /// Begins to make a pod; `true` when it is known already that none can be made.
    fn create_pod(&mut self, learner: &Learner, class: Option<&ClassSpec>) -> bool {
        if self.pod.is_some() || self.making.is_some() {
            return false;
        }
        self.tried = Some(tried_with(learner, class));
        let Some(class) = class else {
            self.made(Err(format!("its class '{}' does not exist", learner.class)));
            return true;
        };
        let class = class.clone();
        self.making = Some(if self.shared.maker.must_pull(&class) {
            // A pull may take minutes and holds up nobody: whose image has come asks for a place again.
            self.place = None;
            Making::pull(&self.shared, class)
        } else {
            Making::begin(&self.shared, class)
        });
        false
    }

    fn made(&mut self, made: Result<Option<Pod>, String>) {
        self.making = None;
        match made {
            Ok(None) => self.unborn = None,
            Ok(Some(pod)) => {
                let since = self.handle.status.borrow().since;
                if let Some(since) = since {
                    let now = self.shared.ground.now();
                    self.shared.metrics.woke(Stage::Schedule, since, now);
                }
                self.handle.sidecar.send_replace(Some(pod.sidecar()));
                self.pod = Some(pod);
                self.unborn = None;
            }
            Err(reason) => {
                tracing::warn!(learner.id = %self.id, reason, "a pod could not be made");
                self.unborn = Some((self.shared.ground.now(), reason));
                // Others may start while this one waits to be tried again.
                self.place = None;
            }
        }
    }

    async fn assign(
        &mut self,
        plan: &Plan,
        named: &PodRef,
        class: Option<&ClassSpec>,
        now: Timestamp,
    ) {
        let (Some(pod), Some(class)) = (&mut self.pod, class) else {
            return;
        };
        if pod.reference.uid != named.uid {
            return;
        }
        let signed = assignment::signed(
            &self.shared,
            &self.id,
            plan.status.epoch,
            named.uid,
            class,
            now,
        );
        let assignment = match signed {
            Ok(assignment) => assignment,
            Err(error) => {
                tracing::error!(learner.id = %self.id, %error, "an assignment could not be made");
                tokio::time::sleep(STORE_AGAIN).await;
                return;
            }
        };
        loop {
            match pod
                .assign(&self.id, plan.status.epoch, assignment.clone())
                .await
            {
                Ok(()) => {
                    let taken = self.shared.ground.now();
                    self.shared.metrics.woke(Stage::Assign, now, taken);
                    // One that took it and then says nothing is assigned again until its deadline.
                    let _ = tokio::time::timeout(FIRST_WORD, pod.wait_for_phase()).await;
                    return;
                }
                Err(sidecar::Error::Refused(problem)) if problem.code == Code::Conflict => {
                    self.refused = true;
                    return;
                }
                // The sidecar does not listen yet, or has ended: the next look sees which.
                Err(error) => {
                    tokio::select! {
                        () = pod.changed() => return,
                        () = tokio::time::sleep(CONNECT_AGAIN) => {}
                    }
                    if self.shared.ground.now().duration_since(now).as_secs() > 20 {
                        tracing::warn!(learner.id = %self.id, %error, "an assignment did not arrive");
                        return;
                    }
                }
            }
        }
    }

    async fn ask_to_sleep(&self, status: &Status, now: Timestamp) {
        let Some(pod) = &self.pod else { return };
        let token =
            self.shared
                .ground
                .signer
                .caller_token(Caller::Controller, &self.id, status.epoch, now);
        let asked = match token {
            Ok(token) => pod.sleep(&token).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = asked {
            tracing::warn!(learner.id = %self.id, error, "a sidecar could not be asked to sleep");
        }
    }

    async fn remove_pod(&mut self) {
        self.making = None;
        if let Some(pod) = self.pod.take() {
            pod.kill();
            pod.cleared().await;
        }
        self.refused = false;
        self.handle.sidecar.send_replace(None);
        self.give_place_back();
    }

    /// Until then it counts as one whose place will be free.
    fn give_place_back(&mut self) {
        self.place = None;
        self.handle.make_room.store(false, Ordering::Release);
    }
}

fn risks_data(plan: &Plan) -> bool {
    let mut news = plan.news.iter();
    news.any(|news| news.name == lifecycle::names::DATA_AT_RISK && news.holds)
}

/// A pod that is named in the status is no longer blank, whatever it looked like before it was.
fn born_for(seen: PodSeen, named: Option<carrel_core::PodUid>) -> PodSeen {
    match seen {
        PodSeen::Exited { pod, reason, .. } if named != Some(pod) => PodSeen::Unborn {
            pod: Some(pod),
            time: Timestamp::MIN,
            reason,
        },
        other => other,
    }
}
