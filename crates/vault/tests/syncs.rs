//! Before a head moves, everything it leads to is on the disk: the system calls of a commit are recorded, and replayed
//! on what a power cut would lose. A kill does not show this: the kernel still writes what a killed process left.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use carrel_core::SnapshotId;

use carrel_vault::Objects;
use support::Desk;

/// Set for this program when it runs under `strace`.
const RECORDED: &str = "CARREL_TEST_RECORDED";
/// Opened, and never there, before and after the commit: the record then says when the head moves, and in which folder.
const BEFORE: &str = "the-head-moves-now";
const AFTER: &str = "the-head-has-moved";
/// What makes and moves files, and what syncs them; `?` for those that not every processor has.
const CALLS: &str = "trace=?open,?creat,openat,?mkdir,mkdirat,?link,linkat,?unlink,unlinkat,?rename,?renameat,renameat2,fsync,fdatasync";

#[test]
fn whatever_a_head_leads_to_is_synced_before_the_head_is() {
    let name = "whatever_a_head_leads_to_is_synced_before_the_head_is";
    if std::env::var_os(RECORDED).is_some() {
        return commit_a_snapshot();
    }
    let record = tempfile::NamedTempFile::new().unwrap();
    let ran = Command::new("strace")
        .args(["-f", "-y", "-qq", "-e", "signal=none", "-e", CALLS, "-o"])
        .arg(record.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(RECORDED, "1")
        .output();
    let record = fs::read_to_string(record.path()).unwrap();
    let ran = match ran {
        Ok(ran) if !record.is_empty() => ran,
        _ => {
            let required = std::env::var_os("CARREL_REQUIRE").unwrap_or_default();
            let required = required.to_string_lossy().into_owned();
            let required = required.split(',').any(|item| item == "strace");
            let reason = "strace is not installed ('apt-get install strace') or may not trace here";
            assert!(!required, "{reason}, and it is required");
            println!("SKIP {name}: {reason}");
            return;
        }
    };
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{told}");

    let mut disk = Disk::default();
    let mut written = BTreeSet::new();
    let mut moves = false;
    let mut syncs = 0;
    for event in events(&record) {
        match &event {
            Event::Opened(path) if path.ends_with(BEFORE) => moves = true,
            Event::Opened(path) if path.ends_with(AFTER) => panic!("the head was never synced"),
            Event::Synced { path, .. } if is_store(path) => {
                if moves {
                    let folder = path.parent().unwrap();
                    let lost = disk.lost_within(folder);
                    assert!(lost.is_empty(), "the head is synced before {lost:#?}");
                    for kind in ["config", "data", "index", "snapshots"] {
                        let there = |path: &PathBuf| {
                            path.starts_with(folder.join("made/objects")) && has(path, kind)
                        };
                        assert!(written.iter().any(there), "no {kind} in {written:#?}");
                    }
                    println!("{syncs} syncs before the head's");
                    return;
                }
            }
            Event::Synced { .. } => syncs += 1,
            Event::Linked { to, .. } | Event::Renamed { to, .. } => {
                written.insert(to.clone());
            }
            Event::Opened(_) | Event::Made { .. } | Event::Unlinked(_) => {}
        }
        disk.apply(event);
    }
    panic!("the head was never synced\n{told}");
}

fn has(path: &Path, part: &str) -> bool {
    path.iter().any(|has| has == part)
}

/// SQLite orders its own files.
fn is_store(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with("store.db")
}

/// What is recorded: a learner's first snapshot and its commit.
fn commit_a_snapshot() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = Objects::local(folder.path().join("made/objects")).expect("objects");
        let desk = Desk::with(folder, objects).await;
        let pod = desk.pod(&desk.learner("ada").await, 1).await;
        let workspace = tempfile::tempdir().expect("a folder");
        fs::write(workspace.path().join("note"), "seven times eight").expect("written");
        let outcome = pod.backup(workspace.path()).await;
        repeat(&desk, &pod, &outcome.snapshot_id).await;
        let request = pod.request(&outcome.snapshot_id);
        assert!(File::open(desk.folder.path().join(BEFORE)).is_err());
        pod.put_head(&request).await.expect("committed");
        assert!(File::open(desk.folder.path().join(AFTER)).is_err());
    });
}

/// Writes an object that is there already, as a client does that had no answer.
async fn repeat(desk: &Desk, pod: &support::Pod<'_>, snapshot: &SnapshotId) {
    let repository = pod.head.repository.to_string();
    let snapshots = desk
        .folder
        .path()
        .join("made/objects")
        .join(repository)
        .join("snapshots");
    let bytes = fs::read(snapshots.join(snapshot.as_str())).expect("a snapshot");
    let url = format!("http://vault/restic/{}/snapshots/{snapshot}", pod.learner);
    let call = desk.client.post(url).bearer_auth(pod.token()).body(bytes);
    assert!(call.send().await.expect("an answer").status().is_success());
}

/// One system call that succeeded, or an opening for reading, which may have failed.
#[derive(Debug)]
enum Event {
    Opened(PathBuf),
    Made {
        path: PathBuf,
        is_folder: bool,
    },
    Linked {
        from: PathBuf,
        to: PathBuf,
    },
    Renamed {
        from: PathBuf,
        to: PathBuf,
    },
    Unlinked(PathBuf),
    Synced {
        path: PathBuf,
        /// What had ended when it began, by count: later changes it need not have seen.
        since: usize,
    },
}

/// The calls in the order in which they ended.
fn events(record: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut begun: BTreeMap<&str, (String, usize)> = BTreeMap::new();
    for line in record.lines() {
        let (pid, call) = line.split_once(' ').expect("a process and its call");
        let call = call.trim_start();
        if let Some(call) = call.strip_suffix("<unfinished ...>") {
            begun.insert(pid, (call.to_owned(), events.len()));
            continue;
        }
        let (call, since) = match call.strip_prefix("<... ") {
            Some(rest) => {
                let (_, rest) = rest.split_once(" resumed>").expect("a call goes on");
                let (start, since) = begun.remove(pid).expect("a call that began");
                (start + rest, since)
            }
            None => (call.to_owned(), events.len()),
        };
        events.extend(event(&call, since));
    }
    events
}

fn event(call: &str, since: usize) -> Option<Event> {
    let (name, arguments) = call.split_once('(')?;
    // What somebody else has linked may not be on the disk yet.
    let is_there = name.starts_with("link") && call.contains(" EEXIST ");
    let failed = call.contains(" = -1 ") && !is_there;
    let paths: Vec<PathBuf> = arguments
        .split('"')
        .skip(1)
        .step_by(2)
        .map(PathBuf::from)
        .collect();
    match name {
        "open" | "openat" if !call.contains("O_CREAT") => {
            Some(Event::Opened(paths.first()?.clone()))
        }
        _ if failed => None,
        "open" | "openat" | "creat" | "mkdir" | "mkdirat" => Some(Event::Made {
            path: paths.first()?.clone(),
            is_folder: name.starts_with("mkdir"),
        }),
        "link" | "linkat" => Some(Event::Linked {
            from: paths.first()?.clone(),
            to: paths.get(1)?.clone(),
        }),
        "rename" | "renameat" | "renameat2" => Some(Event::Renamed {
            from: paths.first()?.clone(),
            to: paths.get(1)?.clone(),
        }),
        "unlink" | "unlinkat" => Some(Event::Unlinked(paths.first()?.clone())),
        "fsync" | "fdatasync" => {
            let (_, path) = arguments.split_once('<')?;
            let (path, _) = path.rsplit_once('>')?;
            Some(Event::Synced {
                path: PathBuf::from(path),
                since,
            })
        }
        _ => None,
    }
}

/// What a power cut would lose now, each with the count of events after which it was so.
#[derive(Debug, Default)]
struct Disk {
    contents: BTreeMap<PathBuf, usize>,
    entries: BTreeMap<PathBuf, usize>,
    applied: usize,
}

impl Disk {
    fn apply(&mut self, event: Event) {
        let now = self.applied;
        self.applied += 1;
        match event {
            Event::Opened(_) => {}
            Event::Made { path, is_folder } => {
                if !is_folder {
                    self.contents.insert(path.clone(), now);
                }
                self.entries.insert(path, now);
            }
            Event::Linked { from, to } => {
                if let Some(since) = self.contents.get(&from) {
                    self.contents.insert(to.clone(), *since);
                }
                self.entries.insert(to, now);
            }
            Event::Renamed { from, to } => {
                self.entries.remove(&from);
                if let Some(since) = self.contents.remove(&from) {
                    self.contents.insert(to.clone(), since);
                }
                self.entries.insert(to, now);
            }
            Event::Unlinked(path) => {
                self.entries.remove(&path);
                self.contents.remove(&path);
            }
            Event::Synced { path, since } => {
                self.contents
                    .retain(|file, at| *file != path || *at >= since);
                self.entries
                    .retain(|entry, at| entry.parent() != Some(&path) || *at >= since);
            }
        }
    }

    fn lost_within(&self, folder: &Path) -> BTreeSet<&PathBuf> {
        let lost = self.contents.keys().chain(self.entries.keys());
        lost.filter(|path| {
            path.parent().is_some_and(|above| above.starts_with(folder)) && !is_store(path)
        })
        .collect()
    }
}
