//! What an agent uses up: room on the disk, watched here for as long as it is awake; memory, counted by the kernel.
//!
//! Room is what has a name in the workspace, measured here, and what has none any more and is still held, which the shim
//! sees as far as it can: what escapes it stands in `docs/adr/0003`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::awake::Awake;
use crate::link::Error;
use crate::shim::memory::kills_in;
use crate::shim::protocol::{Look, Unseen, Why};

/// How closely an agent is watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How often the file system's fill is looked at.
    look_every: Duration,
    /// How often the workspace is measured although the file system hardly filled: others may have freed as much.
    measure_every: Duration,
    /// How long it is not measured again, however the file system fills: others fill it, too.
    rest: Duration,
}

/// While it has something to do.
pub(crate) const AT_WORK: Pace = Pace {
    look_every: Duration::from_millis(250),
    measure_every: Duration::from_secs(5),
    rest: Duration::ZERO,
};
/// While nobody asked it anything.
pub(crate) const AT_REST: Pace = Pace {
    look_every: Duration::from_secs(1),
    measure_every: Duration::from_mins(1),
    rest: Duration::from_secs(10),
};

/// What each file or folder counts beside its blocks: file systems have room for so many only, and empty ones are many soon.
const ENTRY_BYTES: u64 = 512;
/// How many files there may be for each that a snapshot may have: what is left out of snapshots is not endless either.
const FILES_FOR_EACH: u64 = 10;
/// After so many looks in a row that did not see everything, whoever it was that could not be seen, somebody hides.
const PARTIAL_LOOKS: u32 = 8;
/// How often an agent is stopped anew because something was on its way when it was.
const FREEZES: usize = 5;
/// How long it may go on between two of these.
const GO_ON: Duration = Duration::from_millis(50);

/// What was measured last.
struct Measured {
    /// When that was done.
    at: Instant,
    took: Duration,
    /// The file system's fill before.
    used: u64,
    size: u64,
    /// How many looks in a row have not seen everything.
    partial: u32,
}

impl Measured {
    /// Whether it is time to measure again. A large workspace takes long: a tenth of the time is spent on it, and half of
    /// it while the file system fills by more than what was left.
    fn is_over(&self, used: u64, limit: u64, pace: Pace) -> bool {
        let (age, left) = (self.at.elapsed(), limit.saturating_sub(self.size));
        let grown = used.saturating_sub(self.used);
        // A second look tells who hides from who was passing something on.
        if self.partial == 1 {
            return true;
        }
        if age < self.took.max(pace.rest) {
            return false;
        }
        let calm = age >= self.took * 9;
        grown > left || calm && (grown > left / 8 || age > pace.measure_every)
    }
}

/// Why an agent may not go on with what it keeps on the disk; written out, for the operator: names are the agent's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Excess {
    /// What was seen is more than its class allows, or cannot be counted.
    #[error(
        "the workspace holds more than {limit} bytes or too many files, or has a folder that cannot be read"
    )]
    Full {
        /// The most bytes.
        limit: u64,
    },
    /// Too much stayed unseen.
    #[error("{}", unseen(.0))]
    Unseen(Unseen),
    /// The shim cannot look at all.
    #[error("what the agent's processes hold cannot be looked at: {0}")]
    Blind(String),
}

impl Excess {
    /// What the learner is told.
    pub(crate) fn detail(&self) -> &'static str {
        match self {
            Self::Full { .. } => "The workspace is full.",
            Self::Unseen(unseen) => match unseen.why {
                Why::Maps => {
                    "A program still uses a file that was replaced or removed. Stop the program first."
                }
                Why::Hides => "A program hides how full the workspace is.",
                Why::NoTime => "How full the workspace is could not be seen in time.",
            },
            Self::Blind(_) => "How full the workspace is cannot be seen.",
        }
    }

    /// Whether the same message may fare better in the workspace as it was.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            // The program that went on with the old file has ended; the machine may have less to do.
            Self::Unseen(unseen) => matches!(unseen.why, Why::Maps | Why::NoTime),
            Self::Full { .. } | Self::Blind(_) => false,
        }
    }
}

fn unseen(unseen: &Unseen) -> String {
    let program = &unseen.program;
    match (unseen.why, &unseen.file) {
        (Why::Maps, Some(file)) => format!(
            "the program '{program}' still uses '{file}', a file of the workspace that was replaced or removed: how much \
            room it takes cannot be seen"
        ),
        (Why::Maps, None) => format!(
            "the program '{program}' still uses a file of the workspace that was replaced or removed: how much room it \
            takes cannot be seen"
        ),
        (Why::Hides, _) => format!(
            "the program '{program}' hides what it holds: it cannot be seen into, or descriptors wait in its sockets"
        ),
        (Why::NoTime, _) => {
            format!("what the program '{program}' holds could not be looked at in time")
        }
    }
}

/// Why a look has no figure.
enum Stop {
    Excess(Excess),
    Link(Error),
}

/// Returns, with the reason, when the workspace has outgrown its class, and never otherwise.
pub(crate) async fn outgrown(awake: &Awake, pace: Pace) -> Excess {
    let limit = limit(awake);
    let workspace = &awake.pod.options.workspace;
    let mut last = None::<Measured>;
    loop {
        tokio::time::sleep(pace.look_every).await;
        let used = used_bytes(workspace);
        if last.as_ref().is_some_and(|m| !m.is_over(used, limit, pace)) {
            continue;
        }
        let began = Instant::now();
        let Look { bytes, unseen } = match measure(awake).await {
            Ok(look) => look,
            Err(Stop::Excess(excess)) => return excess,
            // That the shim is gone is heard by whoever waits for it.
            Err(Stop::Link(_)) => return std::future::pending().await,
        };
        let partial = match unseen {
            None => 0,
            Some(unseen) => {
                let partial = last.map_or(0, |m| m.partial) + 1;
                if partial >= PARTIAL_LOOKS {
                    return Excess::Unseen(unseen);
                }
                partial
            }
        };
        last = Some(Measured {
            at: Instant::now(),
            took: began.elapsed(),
            used,
            size: bytes,
            partial,
        });
    }
}

/// Stops the agent and looks once more at what it holds, which no snapshot would see; the reason if that is too much.
pub(crate) async fn freeze(awake: &Awake) -> Result<Option<Excess>, Error> {
    let mut excess = None;
    for time in 0..FREEZES {
        if time > 0 {
            awake.link.thaw().await?;
            tokio::time::sleep(GO_ON).await;
        }
        awake.link.freeze().await?;
        match held(awake, 0).await {
            Ok(Look { unseen: None, .. }) => return Ok(None),
            Ok(Look {
                unseen: Some(unseen),
                ..
            }) => excess = Some(Excess::Unseen(unseen)),
            Err(Stop::Excess(excess)) => return Ok(Some(excess)),
            Err(Stop::Link(error)) => return Err(error),
        }
    }
    Ok(excess)
}

fn limit(awake: &Awake) -> u64 {
    awake.assignment.class.resources.ephemeral_storage.0
}

/// What the agent keeps, with and without a name.
async fn measure(awake: &Awake) -> Result<Look, Stop> {
    let (folder, limit) = (awake.pod.options.workspace.clone(), limit(awake));
    let max_files = FILES_FOR_EACH * awake.assignment.class.snapshot.max_files;
    // Dropped with us: a walk that nobody waits for ends.
    let waiter = Arc::new(());
    let waits = Arc::downgrade(&waiter);
    let walk = move || named_bytes(&folder, limit, max_files, &waits);
    let named = tokio::task::spawn_blocking(walk).await.unwrap_or(0);
    drop(waiter);
    if named > limit {
        return Err(Stop::Excess(Excess::Full { limit }));
    }
    held(awake, named).await
}

/// What the agent keeps beside so many bytes that were seen already.
async fn held(awake: &Awake, named: u64) -> Result<Look, Stop> {
    let mut look = match awake.link.held(awake.folder().clone()).await {
        Ok(look) => look,
        Err(Error::Refused(reason)) => return Err(Stop::Excess(Excess::Blind(reason))),
        Err(error) => return Err(Stop::Link(error)),
    };
    let limit = limit(awake);
    look.bytes = look.bytes.saturating_add(named);
    if look.bytes > limit {
        return Err(Stop::Excess(Excess::Full { limit }));
    }
    match look.unseen {
        Some(unseen) if unseen.again => Err(Stop::Excess(Excess::Unseen(unseen))),
        unseen => Ok(Look { unseen, ..look }),
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

/// Bytes that a folder takes on its disk, hardly more than `limit` of them counted; 0 when `waits` has gone. A folder that
/// cannot be read, for its mode or its depth, hides what it holds and could not be saved either: it counts as more than any
/// limit, as do more than `max_files` files and folders.
fn named_bytes(folder: &Path, limit: u64, max_files: u64, waits: &Weak<()>) -> u64 {
    let (mut size, mut files) = (0, 0);
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // What goes away meanwhile takes no room.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return u64::MAX,
        };
        for entry in entries.flatten() {
            files += 1;
            if files > max_files {
                return u64::MAX;
            }
            if waits.strong_count() == 0 {
                return 0;
            }
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            size += metadata.blocks() * 512 + ENTRY_BYTES;
            if size > limit {
                return size;
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    size
}

/// How many of the agent's processes the kernel has killed for want of memory; 0 where nobody can tell any more.
pub(crate) async fn memory_kills(awake: &Awake) -> u64 {
    match &awake.pod.options.memory_events {
        Some(path) => fs::read_to_string(path).map_or(0, |text| kills_in(&text)),
        None => awake.link.memory_kills().await.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_ends_at_its_files_and_with_its_waiter() {
        let folder = tempfile::tempdir().unwrap();
        for name in 0..5 {
            fs::write(folder.path().join(name.to_string()), "").unwrap();
        }
        let waiter = Arc::new(());
        let waits = Arc::downgrade(&waiter);
        let bytes = |max_files| named_bytes(folder.path(), u64::MAX, max_files, &waits);
        assert_eq!(bytes(5), 5 * ENTRY_BYTES);
        assert_eq!(bytes(4), u64::MAX);
        drop(waiter);
        assert_eq!(bytes(5), 0);
    }

    #[test]
    fn a_slow_walk_is_repeated_early_only_when_the_room_may_be_used_up() {
        let measured = |age, took, partial| Measured {
            at: Instant::now()
                .checked_sub(Duration::from_secs(age))
                .unwrap(),
            took: Duration::from_secs(took),
            used: 1000,
            size: 20,
            partial,
        };
        let (limit, all) = (100, 1081);
        let slow = measured(30, 10, 0);
        assert!(slow.is_over(all, limit, AT_WORK), "may be over its room");
        assert!(!slow.is_over(all - 1, limit, AT_WORK), "nine tenths rest");
        assert!(!measured(9, 10, 0).is_over(all, limit, AT_WORK), "half");
        assert!(measured(91, 10, 0).is_over(1011, limit, AT_WORK));
        let quick = measured(9, 0, 0);
        assert!(quick.is_over(1011, limit, AT_WORK));
        assert!(!quick.is_over(all, limit, AT_REST), "others write, too");
        assert!(measured(10, 0, 0).is_over(1011, limit, AT_REST));
        assert!(measured(0, 1, 1).is_over(1000, limit, AT_REST), "in doubt");
        assert!(!measured(0, 1, 2).is_over(1000, limit, AT_REST));
    }
}
