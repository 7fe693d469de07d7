//! What an agent uses up during a turn: room in its workspace, watched here; memory, counted by the kernel.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use carrel_core::turn::FailureCode;

use super::outcome::Outcome;
use crate::awake::Awake;

/// How often the file system's fill is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often the workspace is measured although the file system hardly filled: others may have freed as much.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Returns when the workspace has outgrown its class, and never otherwise.
pub(super) async fn watch(awake: &Awake) -> Outcome {
    let limit = awake.assignment.class.resources.ephemeral_storage.0;
    let workspace = &awake.pod.options.workspace;
    let (mut measured, mut size) = (None::<(Instant, u64)>, 0);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let used = used_bytes(workspace);
        let due = measured.is_none_or(|(time, then)| {
            used.saturating_sub(then) > limit.saturating_sub(size) / 8
                || time.elapsed() > MEASURE_EVERY
        });
        if !due {
            continue;
        }
        let folder: PathBuf = workspace.clone();
        let began = Instant::now();
        size = tokio::task::spawn_blocking(move || measure(&folder, limit))
            .await
            .unwrap_or(0);
        measured = Some((Instant::now(), used));
        if size > limit {
            return Outcome::Failed {
                code: FailureCode::WorkspaceLimit,
                detail: "The workspace is full.".to_owned(),
                retryable: false,
                reason: format!(
                    "the workspace holds more than {limit} bytes, or hides what it holds"
                ),
            };
        }
        // A large workspace takes long to measure: spend a tenth of the time on it at most.
        tokio::time::sleep(began.elapsed() * 9).await;
    }
}

/// Bytes in use on the workspace's file system.
fn used_bytes(workspace: &Path) -> u64 {
    rustix::fs::statvfs(workspace).map_or(0, |fs| {
        fs.f_blocks
            .saturating_sub(fs.f_bfree)
            .saturating_mul(fs.f_frsize)
    })
}

/// Bytes that a folder takes on its disk, hardly more than `limit` of them counted. A folder that cannot be read, for its
/// mode or its depth, hides what it holds and could not be saved either: it counts as more than any limit.
fn measure(folder: &Path, limit: u64) -> u64 {
    let mut size = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // What goes away meanwhile takes no room.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return u64::MAX,
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            size += metadata.blocks() * 512;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
        if size > limit {
            break;
        }
    }
    size
}

/// How many of the agent's processes the kernel has killed for want of memory.
pub(super) fn memory_kills(awake: &Awake) -> u64 {
    let events = awake.pod.options.memory_events.as_ref();
    let text = events
        .and_then(|path| fs::read_to_string(path).ok())
        .unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}
