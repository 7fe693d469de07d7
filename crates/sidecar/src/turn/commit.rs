//! A frozen workspace becomes the learner's newest state: snapshot, then one call to the vault.

use std::time::Duration;

use carrel_core::turn::FailureCode;
use carrel_core::{Epoch, TurnId};
use carrel_protocol::Code;
use carrel_protocol::sidecar::Assignment;
use carrel_protocol::vault::{CommitAnswer, CommitRequest, SnapshotFigures, TurnResult};
use tokio::time::{Instant, sleep};

use crate::awake::Awake;
use crate::fingerprint;
use crate::link;
use crate::pod::Pod;
use crate::snapshot::{BackupOutcome, Error, ErrorKind};
use crate::upstream::chain;
use crate::vault;

/// How long a commit waits for a vault that is away.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long it waits for a storage that is full: somebody may be making room.
const FULL_PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why nothing was committed.
#[derive(Debug)]
pub(crate) enum Uncommitted {
    /// The workspace or its snapshot is refused: the turn fails.
    Refused {
        code: FailureCode,
        detail: String,
        retryable: bool,
        reason: String,
    },
    /// This incarnation is over.
    Over(String),
    /// The vault was away too long. The commit may have happened or not: who runs the turn again is told.
    Away(String),
    /// The shim is gone.
    Lost(String),
}

impl Uncommitted {
    fn snapshot_failed(reason: String) -> Self {
        Self::Refused {
            code: FailureCode::SnapshotFailed,
            detail: "Your work could not be saved, so this answer does not count.".to_owned(),
            retryable: true,
            reason,
        }
    }
}

impl From<link::Error> for Uncommitted {
    fn from(error: link::Error) -> Self {
        match error {
            link::Error::Lost | link::Error::Socket(_) => Self::Lost(error.to_string()),
            link::Error::Refused(reason) => Self::snapshot_failed(reason),
        }
    }
}

/// Snapshots and commits; the turn's end with it, if there is one. Nothing may write meanwhile.
pub(crate) async fn commit(
    awake: &mut Awake,
    turn: Option<(TurnId, TurnResult)>,
) -> Result<CommitAnswer, Uncommitted> {
    let began = Instant::now();
    let until = began + PATIENCE;
    let tree = take_fingerprint(awake);
    let (tree, snapshot) = tokio::join!(tree, backup(awake, until));
    let snapshot = snapshot?;
    tracing::debug!(
        new_bytes = snapshot.new_bytes,
        total_bytes = snapshot.total_bytes,
        files = snapshot.files,
        left_out = snapshot.skipped_special,
        "snapshot taken"
    );
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (turn_id, mut result) = turn.unzip();
    if let Some(result) = &mut result {
        result.timing.snapshot = took_ms;
    }
    let request = CommitRequest {
        epoch: awake.assignment.epoch,
        generation: awake.head.generation.next(),
        parent_snapshot_id: awake.head.snapshot_id.clone(),
        snapshot_id: snapshot.snapshot_id,
        figures: SnapshotFigures {
            took_ms,
            new_bytes: snapshot.new_bytes,
            total_bytes: snapshot.total_bytes,
        },
        turn_id,
        result,
    };
    let answer = move_head(awake, &request, until).await?;
    awake.head.generation = answer.generation;
    awake.head.snapshot_id = Some(answer.snapshot_id.clone());
    awake.committed_tree = tree;
    awake.pod.set_newest(awake.head.snapshot_id.clone());
    awake.pod.note(|hello| hello.committed = true);
    Ok(answer)
}

/// What the workspace is like now.
pub(crate) async fn take_fingerprint(awake: &Awake) -> fingerprint::Fingerprint {
    fingerprint_of(&awake.pod, &awake.assignment).await
}

/// The same, before the agent is there.
pub(crate) async fn fingerprint_of(pod: &Pod, assignment: &Assignment) -> fingerprint::Fingerprint {
    let workspace = pod.options.workspace.clone();
    let exclude = assignment.class.snapshot.exclude.clone();
    tokio::task::spawn_blocking(move || fingerprint::take(&workspace, &exclude))
        .await
        .unwrap_or(fingerprint::Fingerprint::UNKNOWN)
}

async fn backup(awake: &Awake, until: Instant) -> Result<BackupOutcome, Uncommitted> {
    let (workspace, parent) = (
        &awake.pod.options.workspace,
        awake.head.snapshot_id.as_ref(),
    );
    let full_until = Instant::now() + FULL_PATIENCE;
    let (mut pause, mut faults) = (Duration::from_millis(50), 0);
    loop {
        let error = match awake.snapshots.backup(workspace, parent).await {
            Ok(snapshot) => return Ok(snapshot),
            Err(error) => error,
        };
        tracing::warn!(error = chain(&error), "the snapshot failed");
        let reason = chain(&error);
        let now = Instant::now();
        match (error.kind(), error) {
            (ErrorKind::Workspace, _) => {
                return Err(Uncommitted::Refused {
                    code: FailureCode::WorkspaceLimit,
                    detail: "The workspace holds more than may be saved.".to_owned(),
                    retryable: false,
                    reason,
                });
            }
            (ErrorKind::Fenced, error) => {
                awake.pod.note_fence(error.fence());
                return Err(Uncommitted::Over(reason));
            }
            (ErrorKind::Storage, Error::StorageFull) if now >= full_until => {
                return Err(Uncommitted::snapshot_failed(reason));
            }
            (ErrorKind::Storage, _) if now >= until => return Err(Uncommitted::Away(reason)),
            (ErrorKind::Storage, _) => {}
            (ErrorKind::Internal | ErrorKind::Damaged, _) => {
                faults += 1;
                if faults == 3 {
                    return Err(Uncommitted::snapshot_failed(reason));
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn move_head(
    awake: &Awake,
    request: &CommitRequest,
    until: Instant,
) -> Result<CommitAnswer, Uncommitted> {
    let mut pause = Duration::from_millis(20);
    loop {
        let error = match awake.vault.commit(request).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        tracing::warn!(%error, "the commit failed");
        match error {
            vault::Error::Over(problem) => {
                awake.pod.note_fence(problem.fence.map(Epoch));
                return Err(Uncommitted::Over(problem.to_string()));
            }
            vault::Error::Refused(problem) if problem.code == Code::SnapshotUnreadable => {
                return Err(Uncommitted::snapshot_failed(problem.to_string()));
            }
            vault::Error::Refused(problem) => {
                return Err(Uncommitted::snapshot_failed(problem.to_string()));
            }
            vault::Error::Away(reason) if Instant::now() >= until => {
                return Err(Uncommitted::Away(reason));
            }
            vault::Error::Away(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
