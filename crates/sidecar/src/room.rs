//! What an agent uses up: room on the disk, watched here for as long as it is awake; memory, counted by the kernel.
//!
//! Room is what has a name in the workspace, measured here, and what has none any more and is still held, which the shim
//! sees as far as it can: what escapes it stands in `docs/adr/0003`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::awake::Awake;
use crate::link::Error;

/// How closely an agent is watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How often the file system's fill is looked at.
    look_every: Duration,
    /// How often the workspace is measured although the file system hardly filled: others may have freed as much.
    measure_every: Duration,
}

/// While it has something to do.
pub(crate) const AT_WORK: Pace = Pace {
    look_every: Duration::from_millis(250),
    measure_every: Duration::from_secs(5),
};
/// While nobody asked it anything.
pub(crate) const AT_REST: Pace = Pace {
    look_every: Duration::from_secs(1),
    measure_every: Duration::from_mins(1),
};

/// What each file or folder counts beside its blocks: file systems have room for so many only, and empty ones are many soon.
const ENTRY_BYTES: u64 = 512;

/// Returns, with the reason, when the workspace has outgrown its class, and never otherwise.
pub(crate) async fn outgrown(awake: &Awake, pace: Pace) -> String {
    let limit = limit(awake);
    let workspace = &awake.pod.options.workspace;
    let (mut measured, mut size) = (None::<(Instant, u64)>, 0);
    loop {
        tokio::time::sleep(pace.look_every).await;
        let used = used_bytes(workspace);
        let due = measured.is_none_or(|(time, then)| {
            used.saturating_sub(then) > limit.saturating_sub(size) / 8
                || time.elapsed() > pace.measure_every
        });
        if !due {
            continue;
        }
        let began = Instant::now();
        let Ok(now) = measure(awake).await else {
            // That the shim is gone is heard by whoever waits for it.
            return std::future::pending().await;
        };
        size = now;
        measured = Some((Instant::now(), used));
        if size > limit {
            return reason(limit);
        }
        // A large workspace takes long to measure: spend a tenth of the time on it at most.
        tokio::time::sleep(began.elapsed() * 9).await;
    }
}

/// Looks once more at what a stopped agent holds, which no snapshot would see; the reason if that is too much.
pub(crate) async fn check_held(awake: &Awake) -> Result<Option<String>, Error> {
    let limit = limit(awake);
    Ok((held(awake).await? > limit).then(|| reason(limit)))
}

fn limit(awake: &Awake) -> u64 {
    awake.assignment.class.resources.ephemeral_storage.0
}

fn reason(limit: u64) -> String {
    format!("the workspace holds more than {limit} bytes, or hides what it holds")
}

async fn measure(awake: &Awake) -> Result<u64, Error> {
    let (folder, limit) = (awake.pod.options.workspace.clone(), limit(awake));
    let named = tokio::task::spawn_blocking(move || named_bytes(&folder, limit))
        .await
        .unwrap_or(0);
    if named > limit {
        return Ok(named);
    }
    Ok(named.saturating_add(held(awake).await?))
}

async fn held(awake: &Awake) -> Result<u64, Error> {
    match awake.link.held(awake.folder().clone()).await {
        // A shim that cannot look sees nothing.
        Err(Error::Refused(_)) => Ok(u64::MAX),
        answer => answer,
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
fn named_bytes(folder: &Path, limit: u64) -> u64 {
    let mut size = 0;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
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
            size += metadata.blocks() * 512 + ENTRY_BYTES;
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
pub(crate) fn memory_kills(awake: &Awake) -> u64 {
    let events = awake.pod.options.memory_events.as_ref();
    let text = events
        .and_then(|path| fs::read_to_string(path).ok())
        .unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}
