//! From an assignment to an agent that waits for a message: first contact with the vault, restore, start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carrel_core::Epoch;
use carrel_core::class::Adapter;
use carrel_protocol::sidecar::{Assignment, Phase};
use carrel_protocol::vault::{DamageReport, Head};
use carrel_wire::Trust;
use http::Request;
use tokio::time::{Instant, sleep, timeout};

use crate::agent_log::AgentLog;
use crate::awake::{Awake, describe};
use crate::egress::{self, Egress, Policy, Route};
use crate::exit::Exit;
use crate::link::{self, Link};
use crate::pod::{Pod, Reach};
use crate::room;
use crate::snapshot::{ErrorKind, Limits, Repository, Snapshots};
use crate::turn;
use crate::upstream::{self, Upstream, Whole};
use crate::vault::{self, Vault};
use crate::{loopback, models};

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long one backup or restore may take.
const WORKER_WITHIN: Duration = Duration::from_mins(10);
/// The most bytes of a path in a workspace.
const PATH_BYTES: u64 = 1024;

/// Why an incarnation did not wake, and what to say of it.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Exit, pub(crate) String);

impl From<link::Error> for Failure {
    fn from(error: link::Error) -> Self {
        match error {
            link::Error::Lost => Self(Exit::ShimLost, error.to_string()),
            link::Error::Refused(_) => Self(Exit::AgentNotReady, error.to_string()),
            link::Error::Socket(_) => Self(Exit::Internal, upstream::chain(&error)),
        }
    }
}

/// Wakes.
///
/// # Cancel safety
/// Dropping it leaves a workspace that is of no use.
pub(crate) async fn wake(
    pod: &Arc<Pod>,
    assignment: &Arc<Assignment>,
    link: impl Future<Output = Link>,
) -> Result<Awake, Failure> {
    let began = Instant::now();
    let unusable = |error: upstream::Error| Failure(Exit::Internal, error.to_string());
    let trust = Trust::of(&assignment.authorities);
    let trust = trust.map_err(|error| Failure(Exit::Internal, error.to_string()))?;
    let upstream = |endpoint: &carrel_protocol::Endpoint| {
        let (token, tasks) = (&assignment.token, pod.tasks.clone());
        Upstream::new(endpoint.clone(), token, trust.clone(), tasks).map_err(unusable)
    };
    let vault = Vault::new(upstream(&assignment.vault)?, assignment.learner.clone());
    let restore = async {
        let (head, snapshots) = first_contact(pod, assignment, &vault).await?;
        let head = restore(pod, &vault, &snapshots, head).await?;
        pod.note(|hello| hello.restore_ms = milliseconds(began));
        Ok::<_, Failure>((head, snapshots))
    };
    let prepare = async {
        let link = link.await;
        let prepared = link.prepare(assignment.class.agent.port).await?;
        Ok::<_, Failure>((link, prepared))
    };
    let ((head, snapshots), (link, prepared)) = tokio::try_join!(restore, prepare)?;
    let restored = Instant::now();
    let lost = |error: std::io::Error| Failure(Exit::Internal, error.to_string());
    let router = upstream(&assignment.router)?;
    let respond = move |request| models::forward(router.clone(), request);
    loopback::serve(prepared.models, pod, respond).map_err(lost)?;
    let egress = Arc::new(Egress {
        policy: Policy::new(&assignment.class.egress.allow),
        route: Route::new(
            assignment.egress.as_ref(),
            &assignment.token,
            &trust,
            &pod.tasks,
        )
        .map_err(unusable)?,
        tasks: pod.tasks.clone(),
    });
    let respond = move |request| egress::forward(Arc::clone(&egress), request);
    loopback::serve(prepared.egress, pod, respond).map_err(lost)?;
    let gaps = &head.recent_gaps_seconds;
    let mut awake = Awake {
        committed_tree: turn::fingerprint_of(pod, assignment).await,
        pod: Arc::clone(pod),
        assignment: Arc::clone(assignment),
        ports: prepared.ports,
        vault,
        snapshots,
        agent: None,
        log: AgentLog::default(),
        gaps: gaps
            .iter()
            .map(|gap| Duration::from_secs((*gap).into()))
            .collect(),
        head,
        last_message: None,
        link: link.clone(),
    };
    if assignment.class.agent.adapter == Adapter::Http {
        awake.start_agent().await?;
        healthy(&awake).await?;
        pod.set_reach(Reach {
            link,
            ports: prepared.ports,
        });
    }
    pod.note(|hello| hello.agent_ms = milliseconds(restored));
    Ok(awake)
}

fn milliseconds(since: Instant) -> Option<u64> {
    u64::try_from(since.elapsed().as_millis()).ok()
}

/// Head and key. Tried until there is an answer: a fleet that has waited long enough ends us.
async fn first_contact(
    pod: &Pod,
    assignment: &Assignment,
    vault: &Vault,
) -> Result<(Head, Snapshots), Failure> {
    let mut pause = Duration::from_millis(20);
    let (head, key) = loop {
        match tokio::try_join!(vault.head(), vault.key()) {
            Ok(both) => break both,
            Err(error) => later(pod, &mut pause, error).await?,
        }
    };
    let snapshot = &assignment.class.snapshot;
    let snapshots = Snapshots {
        program: PathBuf::from("/proc/self/exe"),
        arguments: vec!["snapshot-worker".to_owned()],
        repository: Repository {
            endpoint: assignment.vault.clone(),
            authorities: assignment.authorities.clone(),
            learner: assignment.learner.clone(),
            token: assignment.token.clone(),
            key,
        },
        limits: Limits {
            max_bytes: snapshot.max_bytes.0,
            max_files: snapshot.max_files,
            max_path_bytes: PATH_BYTES,
            exclude: snapshot.exclude.clone(),
        },
        timeout: WORKER_WITHIN,
    };
    Ok((head, snapshots))
}

/// Waits after a refusal that may pass.
async fn later(pod: &Pod, pause: &mut Duration, error: vault::Error) -> Result<(), Failure> {
    match error {
        vault::Error::Over(problem) => {
            pod.note_fence(problem.fence.map(Epoch));
            Err(Failure(Exit::Fenced, problem.to_string()))
        }
        vault::Error::Away(_) | vault::Error::Refused(_) => {
            pod.enter(Phase::Restoring, error.to_string());
            sleep(*pause).await;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
            Ok(())
        }
    }
}

/// The head's snapshot into the workspace. Only damage that the vault has proved changes what is restored.
async fn restore(
    pod: &Pod,
    vault: &Vault,
    snapshots: &Snapshots,
    mut head: Head,
) -> Result<Head, Failure> {
    let workspace = &pod.options.workspace;
    let mut pause = Duration::from_millis(50);
    while let Some(snapshot) = &head.snapshot_id {
        let Err(error) = snapshots.restore(snapshot, workspace).await else {
            break;
        };
        tracing::warn!(error = upstream::chain(&error), "restoring failed");
        let detail = error.to_string();
        match error.kind() {
            ErrorKind::Fenced => {
                pod.note_fence(error.fence());
                return Err(Failure(Exit::Fenced, detail));
            }
            ErrorKind::Damaged => {
                let report = DamageReport {
                    generation: head.generation,
                    detail: detail.clone(),
                };
                match vault.damage(&report).await {
                    Ok(other) => {
                        if other.generation != head.generation {
                            // Only a fall-back moves the head of an incarnation that has not committed.
                            pod.note(|hello| hello.fell_back = true);
                        }
                        head = other;
                    }
                    Err(error) => later(pod, &mut pause, error).await?,
                }
            }
            ErrorKind::Storage | ErrorKind::Internal | ErrorKind::Workspace => {
                let error = vault::Error::Away(detail.clone());
                later(pod, &mut pause, error).await?;
            }
        }
        pod.enter(Phase::Restoring, detail);
        clear(workspace).map_err(|error| Failure(Exit::Internal, error.to_string()))?;
    }
    pod.enter(Phase::Restoring, "");
    pod.set_newest(head.snapshot_id.clone());
    Ok(head)
}

/// Empties a folder in which a restore has failed; no agent has run in it.
fn clear(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Waits until the agent's `GET /healthz` answers 200.
async fn healthy(awake: &Awake) -> Result<(), Failure> {
    let seconds = awake.assignment.class.agent.start_seconds;
    let not_ready = |why: String| Failure(Exit::AgentNotReady, awake.log.last_words(&why));
    let answers = async {
        let mut pause = Duration::from_millis(2);
        while !is_healthy(awake).await {
            sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(100));
        }
    };
    tokio::select! {
        answered = timeout(Duration::from_secs(seconds.into()), answers) => answered
            .map_err(|_| not_ready(format!("the agent was not ready after {seconds} s"))),
        end = awake.agent_ended() => Err(not_ready(describe(end))),
        excess = room::outgrown(awake, room::AT_WORK) => Err(not_ready(excess.to_string())),
        () = awake.link.lost() => Err(link::Error::Lost.into()),
    }
}

async fn is_healthy(awake: &Awake) -> bool {
    let Ok(stream) = awake.link.dial(awake.ports.agent).await else {
        return false;
    };
    let request = Request::get("/healthz")
        .header("host", "127.0.0.1")
        .body(Whole::default());
    let Ok(request) = request else { return false };
    let answer = upstream::exchange(stream, request, &awake.pod.tasks);
    match timeout(Duration::from_secs(5), answer).await {
        Ok(Ok(answer)) => answer.status() == http::StatusCode::OK,
        _ => false,
    }
}
