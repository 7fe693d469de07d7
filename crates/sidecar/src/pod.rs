//! What the parts of a sidecar share: whose it is, how far it is, what it takes on.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use carrel_core::{Epoch, SnapshotId, TurnId};
use carrel_protocol::sidecar::{Assignment, Frame, Hello, Phase, TurnOrder};
use carrel_protocol::token::{self, Verifier};
use carrel_protocol::{Code, Problem};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::Attempt;
use crate::clock::now;
use crate::exit::Exit;
use crate::link::{Link, Ports};
use crate::options::SidecarOptions;

/// What the parts of a sidecar share.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) options: SidecarOptions,
    /// Everything that is spawned.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the pod shall sleep after its running turn.
    pub(crate) sleep: CancellationToken,
    /// Cancelled when the server shall end.
    pub(crate) end: CancellationToken,
    fleet: Verifier,
    hello: watch::Sender<Hello>,
    identity: OnceLock<Identity>,
    /// Set when the self-test has passed.
    kept_in: OnceLock<()>,
    /// Set when it was told to end from outside, as a pod is that is deleted.
    told_to_end: OnceLock<()>,
    /// The learner's newest snapshot that is known here.
    newest: Mutex<Option<SnapshotId>>,
    reach: OnceLock<Reach>,
    intake: Mutex<Intake>,
    turns: mpsc::Sender<Arc<Attempt>>,
}

/// Whose pod it is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) callers: Verifier,
}

/// How the agent's own HTTP server is reached.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    pub(crate) link: Link,
    pub(crate) ports: Ports,
}

#[derive(Debug, Default)]
struct Intake {
    is_open: bool,
    latest: Option<Arc<Attempt>>,
    /// Requests to the agent that run now.
    requests: usize,
}

impl Pod {
    /// A blank pod, and where its turns come out.
    pub(crate) fn blank(
        options: SidecarOptions,
        fleet: Verifier,
    ) -> (Arc<Self>, mpsc::Receiver<Arc<Attempt>>) {
        let (turns, taken) = mpsc::channel(1);
        let hello = Hello {
            pod: options.pod,
            learner: None,
            epoch: None,
            phase: Phase::Blank,
            detail: String::new(),
            agent_connected: false,
            restore_ms: None,
            agent_ms: None,
            quiet_since: None,
            committed: false,
            fell_back: false,
            fence: None,
            revision: 0,
        };
        let kept_in = OnceLock::new();
        if options.must_not_reach.is_empty() {
            let _ = kept_in.set(());
        }
        let pod = Self {
            options,
            tasks: TaskTracker::new(),
            sleep: CancellationToken::new(),
            end: CancellationToken::new(),
            fleet,
            hello: watch::Sender::new(hello),
            identity: OnceLock::new(),
            kept_in,
            told_to_end: OnceLock::new(),
            newest: Mutex::default(),
            reach: OnceLock::new(),
            intake: Mutex::default(),
            turns,
        };
        (Arc::new(pod), taken)
    }

    /// Takes the first assignment that is meant for this pod; the same again changes nothing.
    pub(crate) fn assign(&self, signed: &str, time: Timestamp) -> Result<(), Problem> {
        let refuse = |error: token::Error| Problem::new(Code::Unauthenticated, error.to_string());
        let assignment = self.fleet.assignment(signed, time).map_err(refuse)?;
        if assignment.pod != self.options.pod {
            return Err(Problem::new(
                Code::Conflict,
                "the assignment is for another pod",
            ));
        }
        self.check_kept_in()?;
        let callers = Verifier::new(&assignment.callers).map_err(refuse)?;
        let (learner, epoch) = (assignment.learner.clone(), assignment.epoch);
        let _one_at_a_time = self.intake();
        if let Some(Identity {
            assignment: taken, ..
        }) = self.identity.get()
        {
            return if (&taken.learner, taken.epoch) == (&learner, epoch) {
                Ok(())
            } else {
                Err(Problem::new(Code::Conflict, "the pod is assigned already"))
            };
        }
        let identity = Identity {
            assignment: Arc::new(assignment),
            callers,
        };
        if self.identity.set(identity).is_ok() {
            self.note(|hello| {
                hello.learner = Some(learner);
                hello.epoch = Some(epoch);
                hello.phase = Phase::Restoring;
            });
        }
        Ok(())
    }

    /// From now on nothing is reached that must not be.
    pub(crate) fn set_kept_in(&self) {
        // Set once, before anybody is taken in.
        let _ = self.kept_in.set(());
    }

    fn check_kept_in(&self) -> Result<(), Problem> {
        if self.kept_in.get().is_some() {
            return Ok(());
        }
        let mut why = self.hello().detail;
        if why.is_empty() {
            why.push_str("the self-test has not passed yet");
        }
        Err(Problem::new(Code::Unavailable, why))
    }

    /// Whether somebody can be taken in, or could when it was blank.
    pub(crate) fn check_able(&self) -> Result<(), Problem> {
        self.check_kept_in()?;
        if self.hello().agent_connected {
            Ok(())
        } else {
            let why = "the agent's container has not connected yet";
            Err(Problem::new(Code::Unavailable, why))
        }
    }

    /// Was told to end from outside.
    pub(crate) fn set_told_to_end(&self) {
        let _ = self.told_to_end.set(());
    }

    /// Whether a lost shim is the agent's own death. Where a fleet watches the agent's container from beside, it may have
    /// been ended by anybody; in a pod on its own the kernel ended it for the memory that the agent took, unless the pod is
    /// ended as a whole.
    pub(crate) fn is_loss_by_agent(&self) -> bool {
        self.options.is_on_its_own() && self.told_to_end.get().is_none()
    }

    /// The learner's newest snapshot, as far as it is known here.
    pub(crate) fn newest(&self) -> Option<SnapshotId> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.clone()
    }

    /// Knows the learner's newest snapshot.
    pub(crate) fn set_newest(&self, snapshot: Option<SnapshotId>) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    /// Notes the fence that a refusal named.
    pub(crate) fn note_fence(&self, fence: Option<Epoch>) {
        if fence.is_some() {
            self.note(|hello| hello.fence = fence);
        }
    }

    /// Whose it is, once assigned.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.get()
    }

    /// Waits for the assignment.
    pub(crate) async fn assigned(&self) -> &Identity {
        let mut hello = self.hello.subscribe();
        loop {
            if let Some(identity) = self.identity.get() {
                return identity;
            }
            if hello.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Who may call, by what is known now.
    pub(crate) fn callers(&self) -> &Verifier {
        self.identity
            .get()
            .map_or(&self.fleet, |identity| &identity.callers)
    }

    /// How far it is.
    pub(crate) fn hello(&self) -> Hello {
        self.hello.borrow().clone()
    }

    /// How far it is, when that changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Hello> {
        self.hello.subscribe()
    }

    /// Changes how far it is.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Hello)) {
        self.hello.send_modify(|hello| {
            let before = hello.clone();
            change(hello);
            let told = |hello: &Hello| {
                let (phase, fence) = (hello.phase, hello.fence);
                (phase, hello.committed, hello.fell_back, fence)
            };
            if told(hello) != told(&before) || hello.detail != before.detail {
                hello.revision += 1;
            }
        });
    }

    /// Enters a phase.
    pub(crate) fn enter(&self, phase: Phase, detail: impl Into<String>) {
        let detail = detail.into();
        tracing::debug!(%phase, detail, "phase");
        self.note(|hello| {
            hello.phase = phase;
            hello.detail = detail;
        });
    }

    /// From now on the agent can be reached.
    pub(crate) fn set_reach(&self, reach: Reach) {
        // Set once, while waking.
        let _ = self.reach.set(reach);
    }

    /// Takes turns and requests from now on.
    pub(crate) fn open(&self) {
        self.intake().is_open = true;
        self.note(|hello| hello.quiet_since = Some(now()));
        self.enter(Phase::Ready, "");
    }

    /// Takes no more of either. A turn that was taken before still comes out.
    pub(crate) fn close(&self) {
        self.intake().is_open = false;
    }

    /// Takes no more of either and ends, which is no sleep.
    pub(crate) fn fail(&self, why: impl Into<String>) {
        let mut intake = self.intake();
        intake.is_open = false;
        self.enter(Phase::Ending, why);
    }

    /// Is over: nothing more is taken. Who still comes hears that it sleeps, or that it ended otherwise.
    pub(crate) fn over(&self, exit: Exit) {
        let mut intake = self.intake();
        intake.is_open = false;
        self.note(|hello| {
            hello.phase = if exit != Exit::Clean {
                Phase::Ending
            } else if hello.phase == Phase::Snapshotting {
                Phase::Snapshotting
            } else {
                Phase::Draining
            };
        });
    }

    /// Shall sleep after its running turn, and takes nothing more.
    pub(crate) fn drain(&self) {
        let mut intake = self.intake();
        intake.is_open = false;
        match self.hello().phase {
            Phase::Ready | Phase::Busy => self.enter(Phase::Draining, ""),
            Phase::Blank
            | Phase::Restoring
            | Phase::Draining
            | Phase::Snapshotting
            | Phase::Ending => {}
        }
        drop(intake);
        self.sleep.cancel();
    }

    /// A turn: a new one, or the one that runs or ran last.
    pub(crate) fn take_turn(&self, order: TurnOrder) -> Result<Arc<Attempt>, Problem> {
        let mut intake = self.intake();
        if let Some(latest) = intake.latest.as_ref().filter(|a| a.turn == order.turn_id) {
            return Ok(Arc::clone(latest));
        }
        self.check_open(&intake)?;
        if intake
            .latest
            .as_ref()
            .is_some_and(|attempt| !attempt.has_ended())
        {
            return Err(Problem::new(Code::Conflict, "another turn runs"));
        }
        let attempt = Arc::new(Attempt::new(order));
        if self.turns.try_send(Arc::clone(&attempt)).is_err() {
            return Err(Problem::new(Code::Draining, ""));
        }
        intake.latest = Some(Arc::clone(&attempt));
        self.note(|hello| hello.quiet_since = None);
        self.enter(Phase::Busy, "");
        // Last: whoever comes next sees all of it.
        drop(intake);
        Ok(attempt)
    }

    /// The turn that runs or ran last, if it is this one.
    pub(crate) fn find_turn(&self, turn: TurnId) -> Option<Arc<Attempt>> {
        self.intake()
            .latest
            .clone()
            .filter(|attempt| attempt.turn == turn)
    }

    /// Ends a turn that nobody will end any more.
    pub(crate) fn abandon_turn(&self, reason: &str) {
        if let Some(attempt) = &self.intake().latest {
            attempt.end(Frame::Died {
                by_agent: false,
                reason: reason.to_owned(),
            });
        }
    }

    /// After a turn; one that shall sleep is not ready again.
    pub(crate) fn turn_ended(&self) {
        let intake = self.intake();
        if intake.is_open {
            self.enter(Phase::Ready, "");
            self.calm(&intake);
        }
    }

    /// A request to the agent; it counts as activity while the guard lives.
    pub(crate) fn take_request(self: &Arc<Self>) -> Result<(Request, Reach), Problem> {
        let mut intake = self.intake();
        self.check_open(&intake)?;
        let away = || Problem::new(Code::AgentUnavailable, "the agent is not there");
        let reach = self.reach.get().cloned().ok_or_else(away)?;
        intake.requests += 1;
        self.note(|hello| hello.quiet_since = None);
        Ok((Request(Arc::clone(self)), reach))
    }

    fn check_open(&self, intake: &Intake) -> Result<(), Problem> {
        if intake.is_open {
            return Ok(());
        }
        let hello = self.hello.borrow();
        match hello.phase {
            Phase::Blank => Err(Problem::new(Code::Misdirected, "the pod is blank")),
            Phase::Restoring => Err(Problem::new(
                Code::Unavailable,
                "the workspace is being restored",
            )),
            Phase::Ready | Phase::Busy | Phase::Draining | Phase::Snapshotting => {
                Err(Problem::new(Code::Draining, "wake the learner again"))
            }
            // No sleep but a failure: whoever comes for a turn counts it as a death.
            Phase::Ending => Err(Problem::new(Code::AgentUnavailable, &hello.detail)),
        }
    }

    fn calm(&self, intake: &Intake) {
        let runs = intake
            .latest
            .as_ref()
            .is_some_and(|attempt| !attempt.has_ended());
        if !runs && intake.requests == 0 {
            self.note(|hello| hello.quiet_since = Some(now()));
        }
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request to the agent that runs.
#[derive(Debug)]
pub(crate) struct Request(Arc<Pod>);

impl Drop for Request {
    fn drop(&mut self) {
        let mut intake = self.0.intake();
        intake.requests -= 1;
        self.0.calm(&intake);
    }
}

#[cfg(test)]
pub(crate) mod tests;
