//! Pods whose parts end when they should not. What is left of one is gone before anybody hears that it has ended.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use carrel_core::class::{ClassSpec, DEFAULT_CLASS};
use carrel_core::learner::Status;
use carrel_core::{Epoch, LearnerId};
use carrel_fleet_local::{Budget, LocalFleet, Metrics, Options, WantedIsolation};
use carrel_protocol::Endpoint;
use carrel_protocol::fleet::Fleet;
use carrel_protocol::token::Signer;
use carrel_store::Learners;
use carrel_store::learners::NewLearner;
use carrel_store_sqlite::SqliteStore;
use carrel_telemetry::{Registry, Wakes};
use carrel_testkit::until;
use carrel_wire::Trust;
use jiff::Timestamp;
use rustix::process::{Pid, Signal};

use crate::fixture::{Bed, Outcome};

crate::tests![
    a_container_that_is_dead_before_its_shim_connects_ends_its_pod,
    a_pod_that_is_killed_while_its_container_starts_leaves_nothing,
];

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
/// While this file is in the folder, containers are not made before somebody writes into [`GATE`].
const HELD: &str = "held";
const GATE: &str = "gate";

/// A sidecar that says nothing and waits.
pub(crate) fn sidecar() -> ExitCode {
    let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    loop {
        bound.unwrap();
        std::thread::park();
    }
}

/// A shim that ends before it has connected.
pub(crate) fn shim() -> ExitCode {
    println!("the shim ends");
    ExitCode::from(3)
}

/// A fleet with one learner, who is being woken.
struct Woken {
    fleet: LocalFleet,
    learner: LearnerId,
    folder: PathBuf,
}

impl Woken {
    async fn new(bed: &Bed, is_held: bool) -> Self {
        let folder = bed.folder.path().to_owned();
        let store = Arc::new(SqliteStore::open(&folder.join("store.db")).await.unwrap());
        let learner: LearnerId = "ada".parse().unwrap();
        let class = DEFAULT_CLASS.parse().unwrap();
        store
            .put_class(&class, &ClassSpec::default())
            .await
            .unwrap();
        let new = NewLearner {
            id: learner.clone(),
            class,
            aliases: Vec::new(),
        };
        store.create_learner(&new, now()).await.unwrap();
        let nobody = Endpoint::Unix(folder.join("nobody"));
        let mut registry = Registry::default();
        let wakes = Wakes::register(&mut registry);
        let fleet = LocalFleet::start(Options {
            alone: true,
            metrics: Metrics::register(&mut registry, wakes),
            store,
            signer: Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap(),
            callers: Vec::new(),
            executable: executable(&folder),
            images_dir: folder.join("images"),
            run_dir: folder.clone(),
            vault: nobody.clone(),
            router: nobody,
            door: None,
            trust: Trust::default(),
            isolation: WantedIsolation::Oci,
            budget: Budget {
                live: 1,
                starting: 1,
                per_second: 100,
            },
            clock: now,
            time_zone: "UTC".to_owned(),
            locale: "C".to_owned(),
        });
        let fleet = fleet.await.unwrap();
        if is_held {
            std::fs::write(folder.join(HELD), "").unwrap();
        }
        fleet.wake(&learner, Epoch(0)).await.unwrap();
        Self {
            fleet,
            learner,
            folder,
        }
    }

    /// The learner's status as soon as this holds of it.
    async fn when(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let mut changes = self.fleet.changes();
        let seen = async {
            loop {
                let status = self.fleet.status(&self.learner).await.unwrap();
                if holds(&status) {
                    return status;
                }
                changes.recv().await.unwrap();
            }
        };
        let seen = tokio::time::timeout(LONG, seen).await;
        seen.unwrap_or_else(|_| panic!("never seen: {what}"))
    }

    /// The pod's name, as soon as it has one.
    async fn pod(&self) -> String {
        let status = self.when("a pod", |status| status.pod.is_some()).await;
        status.pod.unwrap().name
    }

    /// What there is of a pod: its folder, its container's, and control groups.
    fn traces(&self, pod: &str) -> Vec<PathBuf> {
        let mut found = vec![
            self.folder.join("p").join(pod),
            self.folder.join("c").join(pod),
        ];
        found.retain(|path| path.exists());
        let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name() == pod {
                    found.push(entry.path());
                } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
        }
        found
    }
}

#[expect(clippy::disallowed_methods, reason = "the fleet's clock is read here")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// This program, where any user may run it, behind a script that holds up whoever makes containers.
fn executable(folder: &Path) -> PathBuf {
    let program = folder.join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let (held, gate) = (folder.join(HELD), folder.join(GATE));
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = container ] && [ -e {} ] && read go < {}\nexec {} \"$@\"\n",
        held.display(),
        gate.display(),
        program.display()
    );
    let script = folder.join("executable");
    std::fs::write(&script, text).unwrap();
    for file in [&program, &script] {
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).unwrap();
    }
    script
}

/// The process that was started as this pod's sidecar.
fn sidecar_of(pod: &str) -> Pid {
    let socket = format!("/{pod}/sidecar.sock");
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = pids.find(|pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&socket)
    });
    found.and_then(Pid::from_raw).unwrap()
}

async fn a_container_that_is_dead_before_its_shim_connects_ends_its_pod(bed: Bed) -> Outcome {
    let woken = Woken::new(&bed, false).await;
    let pod = woken.pod().await;
    let died = "its container ended before its agent ran";
    woken
        .when(died, |status| status.detail.contains(died))
        .await;
    assert_eq!(woken.traces(&pod), [] as [PathBuf; 0]);
    woken.fleet.drain(LONG).await;
    Outcome::Passed
}

async fn a_pod_that_is_killed_while_its_container_starts_leaves_nothing(bed: Bed) -> Outcome {
    let woken = Woken::new(&bed, true).await;
    let pod = woken.pod().await;
    // Opened when the container's maker waits there.
    let gate = woken.folder.join(GATE);
    let gate = tokio::task::spawn_blocking(move || std::fs::File::create(gate).unwrap());
    let mut gate = gate.await.unwrap();
    std::fs::remove_file(woken.folder.join(HELD)).unwrap();
    assert!(woken.traces(&pod).len() >= 2, "both folders are there");
    let sidecar = sidecar_of(&pod);
    rustix::process::kill_process(sidecar, Signal::KILL).unwrap();
    // It is reaped by who then waits for the container.
    let is_reaped = async || rustix::process::test_kill_process(sidecar).is_err();
    until("the sidecar's end is seen", is_reaped).await;
    std::io::Write::write_all(&mut gate, b"go\n").unwrap();
    drop(gate);
    let ended = woken.when("its end", |status| {
        status.pod.as_ref().is_none_or(|named| named.name != pod)
    });
    ended.await;
    assert_eq!(woken.traces(&pod), [] as [PathBuf; 0]);
    woken.fleet.drain(LONG).await;
    Outcome::Passed
}
