//! Watches one pod from its first process to its last trace, and says what is seen.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use carrel_core::PodUid;
use carrel_core::lifecycle::{Ending, Phase, PodSeen};
use carrel_protocol::sidecar::Hello;
use carrel_protocol::token::Caller;
use carrel_telemetry::chain;
use jiff::Timestamp;
use tokio::process::Child;
use tokio::sync::watch::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::make::AgentStart;
use super::{Assigned, SharedGround};
use crate::container::Container;
use crate::leftovers;
use crate::removal;
use carrel_wire::sidecar::Sidecar;

/// Between questions to a sidecar that gives no answer though it lives.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long what is left of a pod may take to end by itself once its sidecar has.
const AGENT_ENDS: Duration = Duration::from_secs(2);

/// The exit status by which a sidecar says that it discarded a failed turn's changes on purpose.
pub(crate) const EXIT_DISCARDED: i32 = 10;

pub(super) struct Watched {
    pub(super) ground: SharedGround,
    pub(super) uid: PodUid,
    pub(super) dir: PathBuf,
    pub(super) child: Child,
    pub(super) agent: AgentStart,
    pub(super) sidecar: Sidecar,
    pub(super) seen: Sender<PodSeen>,
    pub(super) assigned: Receiver<Option<Assigned>>,
    pub(super) kill: CancellationToken,
    pub(super) cleared: CancellationToken,
}

/// The agent's side of a pod, once it was started.
enum Agent {
    Container(Container),
    Process(Child),
}

impl Watched {
    pub(super) async fn run(self) {
        let Self {
            ground,
            uid,
            dir,
            mut child,
            agent,
            sidecar,
            seen,
            assigned,
            kill,
            cleared,
        } = self;
        let mut heard = None;
        let (agent, ending) = {
            let start = start_agent(agent);
            let phases = hear(&ground, uid, &sidecar, assigned, &seen, &mut heard);
            let mut start = std::pin::pin!(start);
            let mut phases = std::pin::pin!(phases);
            let mut agent = None;
            let (mut starts, mut runs) = (true, false);
            let ending = loop {
                tokio::select! {
                    status = child.wait() => break ended(status),
                    () = kill.cancelled() => {
                        let _ = child.start_kill();
                        break ended(child.wait().await);
                    }
                    started = &mut start, if starts => {
                        starts = false;
                        match started {
                            Ok(started) => {
                                agent = Some(started);
                                runs = true;
                            }
                            Err(reason) => {
                                let _ = child.start_kill();
                                let _ = child.wait().await;
                                break (Ending::Died, reason);
                            }
                        }
                    },
                    () = agent_ended(agent.as_mut()), if runs => {
                        runs = false;
                        // A sidecar that had its shim ends by itself; one that still waits for it would do so for long.
                        if waits_for_shim(&seen) {
                            if let Ok(status) = tokio::time::timeout(AGENT_ENDS, child.wait()).await {
                                break ended(status);
                            }
                            let _ = child.start_kill();
                            let _ = child.wait().await;
                            break (Ending::Died, "its container ended before its agent ran".to_owned());
                        }
                    }
                    () = &mut phases => {}
                }
            };
            if starts {
                // One on its way is waited for and ended like any other, or its groups and folder would stay.
                agent = start.await.ok();
            }
            (agent, ending)
        };
        let committed = heard.as_ref().is_some_and(|hello: &Hello| hello.committed);
        let log = end_agent(agent, &dir).await;
        let (ending, reason) = ending;
        if ending == Ending::Died {
            tracing::warn!(pod = %uid, reason, log, "a pod died");
        }
        remove_folder(dir).await;
        cleared.cancel();
        let reason = heard
            .map(|hello| hello.detail)
            .filter(|detail| !detail.is_empty() && ending != Ending::Slept)
            .unwrap_or(reason);
        seen.send_replace(PodSeen::Exited {
            pod: uid,
            ending,
            committed,
            reason,
        });
    }
}

/// Whether a sidecar may still wait for its shim to connect.
fn waits_for_shim(seen: &Sender<PodSeen>) -> bool {
    match &*seen.borrow() {
        PodSeen::Assigned { phase, .. } => *phase == Phase::Restoring,
        PodSeen::Starting { .. } | PodSeen::Blank { .. } => true,
        PodSeen::None
        | PodSeen::Unborn { .. }
        | PodSeen::Refused { .. }
        | PodSeen::Exited { .. } => false,
    }
}

async fn start_agent(agent: AgentStart) -> Result<Agent, String> {
    match agent {
        AgentStart::Container(runtime, spec) => runtime
            .start(*spec)
            .await
            .map(Agent::Container)
            .map_err(|error| format!("its container could not be started: {}", chain(&error))),
        AgentStart::Process(mut command) => command
            .spawn()
            .map(Agent::Process)
            .map_err(|error| format!("its agent could not be started: {error}")),
    }
}

/// Returns when the agent's side has ended by itself; a container's output is read meanwhile.
async fn agent_ended(agent: Option<&mut Agent>) {
    match agent {
        Some(Agent::Container(container)) => drop(container.wait().await),
        Some(Agent::Process(child)) => drop(child.wait().await),
        None => std::future::pending().await,
    }
}

/// Ends what is left of the agent and gives what it said last.
async fn end_agent(agent: Option<Agent>, dir: &Path) -> String {
    match agent {
        Some(Agent::Container(container)) => {
            // The shim ends by itself when its sidecar has; the kernel ends the rest.
            let _ = tokio::time::timeout(AGENT_ENDS, container.wait()).await;
            if let Err(error) = container.remove().await {
                tracing::error!(error = chain(&error), "a container could not be removed");
            }
            container.last_output()
        }
        Some(Agent::Process(mut child)) => {
            if tokio::time::timeout(AGENT_ENDS, child.wait())
                .await
                .is_err()
            {
                let _ = child.kill().await;
            }
            // Who kills sidecar and shim at once leaves nobody that knows the agent.
            if let Err(error) = leftovers::end_processes(dir).await {
                tracing::error!(%error, "an agent's processes could not be ended");
            }
            String::new()
        }
        None => String::new(),
    }
}

async fn remove_folder(dir: std::path::PathBuf) {
    if let Err(error) = removal::remove_folder(dir.clone()).await {
        tracing::error!(dir = %dir.display(), %error, "a pod's folder could not be removed");
    }
}

fn ended(status: std::io::Result<ExitStatus>) -> (Ending, String) {
    match status {
        Ok(status) if status.success() => (Ending::Slept, "it fell asleep".to_owned()),
        Ok(status) if status.code() == Some(EXIT_DISCARDED) => (
            Ending::Discarded,
            "its last turn's changes were discarded".to_owned(),
        ),
        Ok(status) => (Ending::Died, format!("its sidecar ended with {status}")),
        Err(error) => (Ending::Died, format!("its sidecar was lost: {error}")),
    }
}

/// Hears the phases of an assigned sidecar; never returns.
async fn hear(
    ground: &SharedGround,
    uid: PodUid,
    sidecar: &Sidecar,
    mut assigned: Receiver<Option<Assigned>>,
    seen: &Sender<PodSeen>,
    heard: &mut Option<Hello>,
) {
    let Some(assigned) = (match assigned.wait_for(Option::is_some).await {
        Ok(assigned) => assigned.clone(),
        Err(_) => None,
    }) else {
        return std::future::pending().await;
    };
    let mut since = ground.now();
    let mut last = None;
    loop {
        let token = ground.signer.caller_token(
            Caller::Controller,
            &assigned.learner,
            assigned.epoch,
            ground.now(),
        );
        let after = heard.as_ref().map(|hello| hello.revision);
        let answer = match token {
            Ok(token) => sidecar.hello(&token, after).await,
            Err(error) => {
                tracing::error!(%error, "a call to a sidecar could not be signed");
                return std::future::pending().await;
            }
        };
        if let Ok(hello) = answer {
            let phase = hello.phase.into();
            if last != Some(phase) {
                since = ground.now();
                last = Some(phase);
            }
            say(seen, uid, phase, since, &hello);
            *heard = Some(hello);
        } else {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

fn say(seen: &Sender<PodSeen>, pod: PodUid, phase: Phase, since: Timestamp, hello: &Hello) {
    let now_seen = PodSeen::Assigned {
        pod,
        phase,
        since,
        committed: hello.committed,
        fell_back: hello.fell_back,
        detail: hello.detail.clone(),
    };
    seen.send_if_modified(|before| {
        let differs = *before != now_seen;
        *before = now_seen;
        differs
    });
}
