//! Starts containers, tells what isolation this machine allows, and clears what an earlier run left.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures::StreamExt as _;
use rustix::process::Pid;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::cgroup::Cgroups;
use super::error::{Doing, Error};
use super::handle::{Container, remove_traces};
use super::host::privileged;
use super::maker::{Answer, CREATE, PROBE, Request};
use super::process::{Exit, KILLED_WITHIN, Process, Stranger, end_process, reap_stranger};
use super::record::Record;
use super::spec::{ContainerId, ContainerSpec, EXECUTABLE, HostIds, Limit, Limits, RootKind};

/// First host user of the containers when we are root: the start of the range that systemd's list of
/// user ids leaves to nobody, above those of other container managers.
const FIRST_HOST_ID: u32 = 0x7000_0000;

/// So many left-over containers are cleared side by side: those that the kernel holds cost one wait, and each costs descriptors.
const CLEARED_AT_ONCE: usize = 64;

/// How a runtime is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The executable to start as maker and inside containers (`std::env::current_exe`).
    pub executable: PathBuf,
    /// The words that lead that executable to [`super::container_main`].
    pub subcommand: Vec<String>,
    /// Folder of the runtime's own state; belongs to no other runtime.
    pub state_root: PathBuf,
    /// A container that is not made by then is given up; it takes milliseconds.
    pub made_within: Duration,
}

/// What isolation is possible here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Isolation {
    /// Containers work.
    Oci {
        /// Whether they do so with an ordinary user's rights.
        rootless: bool,
        /// What cannot be limited.
        limits_missing: Vec<Limit>,
    },
    /// Containers do not work; agents would be plain processes.
    Process {
        /// Why.
        reason: String,
    },
}

/// Makes containers. Cheap to clone; when the last clone is dropped, the containers are killed.
#[derive(Clone, Debug)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    cgroups: Arc<Cgroups>,
    /// Commands for the thread that is the parent of makers and containers.
    starter: mpsc::Sender<(Command, oneshot::Sender<io::Result<Child>>)>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cgroups.release();
    }
}

impl Runtime {
    /// Makes the folder of state and our control groups. Starts nothing yet.
    pub fn open(options: Options) -> Result<Self, Error> {
        let doing = || format!("preparing {}", options.state_root.display());
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o711)
            .create(&options.state_root)
            .doing(doing)?;
        let state_root = options.state_root.canonicalize().doing(doing)?;
        let tag = Sha256::digest(state_root.as_os_str().as_encoded_bytes());
        let tag = hex::encode(tag.iter().take(6).copied().collect::<Vec<_>>());
        let cgroups = Arc::new(Cgroups::claim(&tag));
        let (starter, commands) = mpsc::channel::<(Command, oneshot::Sender<io::Result<Child>>)>();
        // A death signal follows the parent thread, so it must not be one of a pool's, which may end.
        std::thread::Builder::new()
            .name("containers".into())
            .spawn(move || {
                for (mut command, answer) in commands {
                    // Nobody waits for it any more: the dropped child ends for want of a request.
                    let _ = answer.send(command.spawn());
                }
            })
            .doing(|| "starting the thread of containers".into())?;
        let options = Options {
            state_root,
            ..options
        };
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                cgroups,
                starter,
            }),
        })
    }

    /// Who the container in a slot is on the host: as root each slot has a user of its own, so that
    /// learners are strangers to each other there too; else it is the user that runs us. The sidecar
    /// beside the container runs as the same.
    pub fn host_ids(slot: u32) -> HostIds {
        if privileged() {
            let id = FIRST_HOST_ID.saturating_add(slot);
            HostIds { uid: id, gid: id }
        } else {
            HostIds {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
            }
        }
    }

    /// The file in which the kernel counts a container's processes that it killed for want of memory; absent where
    /// memory cannot be limited.
    pub fn memory_events(&self, id: &ContainerId) -> Option<PathBuf> {
        self.inner.cgroups.memory_events(id)
    }

    /// Makes a container and executes its command. When this returns, the command runs.
    ///
    /// # Cancel safety
    /// If dropped, a container that was on its way is ended and cleared.
    pub async fn start(&self, spec: ContainerSpec) -> Result<Container, Error> {
        let (answer, answered) = oneshot::channel();
        let runtime = self.clone();
        let made = async move {
            let id = spec.id.clone();
            let made = runtime.make(spec).await;
            if made.is_err() {
                warn_unless_cleared(&id, runtime.undo(&id).await);
            }
            if let Err(Ok(unwanted)) = answer.send(made) {
                warn_unless_cleared(&id, unwanted.remove().await.map(drop));
            }
        };
        // Goes on to its end also when nobody waits for it any more.
        let handle = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || handle.block_on(made));
        answered.await.map_err(|_| Error::Closed)?
    }

    async fn make(&self, spec: ContainerSpec) -> Result<Container, Error> {
        let id = spec.id.clone();
        let state_dir = self.state_dir(&id);
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o711)
            .create(state_dir.join("root"))
            .doing(|| format!("preparing container {id}"))?;
        let (output, input) = io::pipe().doing(|| "making a pipe".into())?;
        let maker = self.spawn_maker(input).await?;
        let request = Request {
            spec,
            cgroups: self.inner.cgroups.as_ref().clone(),
            state_dir: state_dir.clone(),
            parent: i32::try_from(std::process::id()).unwrap_or_default(),
        };
        match converse(maker, &request, self.inner.options.made_within).await? {
            Answer::Started {
                pid,
                limits_missing,
            } => {
                let pid = Pid::from_raw(pid).ok_or_else(|| Error::NoAnswer("pid 0".into()))?;
                let cgroups = Arc::clone(&self.inner.cgroups);
                Container::new(id, pid, limits_missing, cgroups, state_dir, output)
            }
            Answer::Refused { reason } => Err(Error::Refused(reason)),
        }
    }

    /// Clears a container that could not be made. Its first process, if there is one, is a child of ours that nobody waits for.
    async fn undo(&self, id: &ContainerId) -> Result<(), Error> {
        if let Some(first) = self.end_first(id).await? {
            reap_stranger(&first);
        }
        self.clear(id).await
    }

    /// Ends what there is of a container, and removes its traces.
    async fn clear(&self, id: &ContainerId) -> Result<(), Error> {
        self.end_first(id).await?;
        self.inner.cgroups.kill(id);
        remove_traces(&self.inner.cgroups, id, &self.state_dir(id)).await
    }

    /// Ends a container's first process, and with it all others; it is given, if it was there.
    async fn end_first(&self, id: &ContainerId) -> Result<Option<Stranger>, Error> {
        let doing = || format!("ending container {id}");
        let Some(record) = Record::read(&self.state_dir(id)).doing(doing)? else {
            return Ok(None);
        };
        let first = record.living().doing(doing)?;
        if let Some(first) = &first {
            end_process(first).await.doing(doing)?;
        }
        Ok(first)
    }

    async fn spawn_maker(&self, log: io::PipeWriter) -> Result<Child, Error> {
        let Options {
            executable,
            subcommand,
            ..
        } = &self.inner.options;
        let mut command = Command::new(executable);
        command
            .args(subcommand)
            .arg(CREATE)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let (answer, child) = oneshot::channel();
        let starter = &self.inner.starter;
        starter.send((command, answer)).map_err(|_| Error::Closed)?;
        let child = child.await.map_err(|_| Error::Closed)?;
        child.doing(|| format!("starting {}", executable.display()))
    }

    /// Finds out by starting a container what isolation is possible here.
    pub async fn detect(&self) -> Isolation {
        match self.probe().await {
            Ok(limits_missing) => Isolation::Oci {
                rootless: !privileged(),
                limits_missing,
            },
            Err(error) => Isolation::Process {
                reason: carrel_telemetry::chain(&error),
            },
        }
    }

    async fn probe(&self) -> Result<Vec<Limit>, Error> {
        let id = ContainerId::try_from(format!("probe-{}", uuid::Uuid::now_v7().simple()))
            .map_err(|error| Error::NoAnswer(error.to_string()))?;
        let host = Self::host_ids(0);
        let workspace = self.state_dir(&id).join("workspace");
        fs::create_dir_all(&workspace)
            .and_then(|()| chown(&workspace, Some(host.uid), Some(host.gid)))
            .doing(|| format!("preparing {}", workspace.display()))?;
        let mut argv = vec![EXECUTABLE.to_owned()];
        argv.extend(self.inner.options.subcommand.iter().cloned());
        argv.push(PROBE.to_owned());
        let spec = ContainerSpec {
            hostname: "probe".into(),
            root: RootKind::HostUsr,
            shared_dir: workspace.clone(),
            workspace_dir: workspace,
            argv,
            env: std::collections::BTreeMap::new(),
            host,
            limits: Limits {
                cpu_millis: 1000,
                memory_bytes: 256 << 20,
                pids: 64,
                tmp_bytes: 1 << 20,
            },
            id,
        };
        let container = self.start(spec).await?;
        let exit = container.wait().await;
        let missing = container.limits_missing().to_vec();
        let output = container.last_output();
        container.remove().await?;
        match exit? {
            Exit::Code(0) => Ok(missing),
            other => Err(Error::Refused(format!(
                "a trial ended with {other:?}: {output}"
            ))),
        }
    }

    /// Ends and clears every container that an earlier process with this folder of state left. Call it
    /// before starting any.
    pub async fn sweep(&self) -> Result<Vec<ContainerId>, Error> {
        let mut left = self.inner.cgroups.containers();
        let root = &self.inner.options.state_root;
        let entries = fs::read_dir(root).doing(|| format!("reading {}", root.display()))?;
        let names = entries
            .filter_map(Result::ok)
            .filter_map(|e| e.file_name().into_string().ok());
        left.extend(names.filter_map(|name| ContainerId::try_from(name).ok()));
        left.sort();
        left.dedup();
        futures::stream::iter(&left)
            .for_each_concurrent(CLEARED_AT_ONCE, |id| async move {
                // One that the kernel holds was killed and executes nothing more, whenever it is let go; the next sweep
                // finds it again, and no container has its name meanwhile.
                warn_unless_cleared(id, self.clear(id).await);
            })
            .await;
        Ok(left)
    }

    fn state_dir(&self, id: &ContainerId) -> PathBuf {
        self.inner.options.state_root.join(id.as_str())
    }
}

/// Hands the request over and reads the answer. A maker that takes too long is killed.
async fn converse(mut maker: Child, request: &Request, within: Duration) -> Result<Answer, Error> {
    let text = serde_json::to_vec(request).map_err(|error| Error::NoAnswer(error.to_string()))?;
    let (stdin, stdout) = (maker.stdin.take(), maker.stdout.take());
    let process = Process::watch(Pid::from_child(&maker))?;
    let mut answer = Vec::new();
    let talk = async {
        if let Some(stdin) = stdin {
            pipe::Sender::from_owned_fd(stdin.into())?
                .write_all(&text)
                .await?;
        }
        if let Some(stdout) = stdout {
            let mut stdout = pipe::Receiver::from_owned_fd(stdout.into())?;
            stdout.read_to_end(&mut answer).await?;
        }
        Ok::<_, io::Error>(())
    };
    let talked = async {
        let talked = talk.await;
        let exit = process.wait().await?;
        talked.doing(|| "talking to the container maker".into())?;
        Ok(exit)
    };
    let Ok(exit) = tokio::time::timeout(within, talked).await else {
        process.kill()?;
        // One that the kernel does not let go is not waited for: it executes nothing more.
        let _ = tokio::time::timeout(KILLED_WITHIN, process.wait()).await;
        return Err(Error::NoAnswer(format!("none within {within:?}")));
    };
    let exit = exit?;
    serde_json::from_slice(&answer).map_err(|_| Error::NoAnswer(format!("{exit:?}")))
}

/// What led to it stands in its own error.
fn warn_unless_cleared(id: &ContainerId, cleared: Result<(), Error>) {
    if let Err(error) = cleared {
        let error = carrel_telemetry::chain(&error);
        tracing::warn!(container = %id, error, "a container could not be cleared");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::again;

    /// No process ends the first one of its own namespace: here that is the first of three containers.
    #[test]
    fn containers_that_the_kernel_holds_are_waited_for_side_by_side() {
        let name = "containers_that_the_kernel_holds_are_waited_for_side_by_side";
        if !again::is_again() {
            let test = format!("container::runtime::tests::{name}");
            let Some(mut command) = again::below_one_that_nobody_ends(&test) else {
                println!("SKIP {name}: no namespace can be entered here");
                return;
            };
            let ran = command.output().unwrap();
            assert!(ran.status.success(), "{ran:?}");
            return;
        }
        assert_eq!(std::os::unix::process::parent_id(), 1, "nobody else's");
        let folder = tempfile::tempdir().unwrap();
        let state_root = folder.path().join("state");
        let runtime = Runtime::open(Options {
            executable: "/absent".into(),
            subcommand: Vec::new(),
            state_root: state_root.clone(),
            made_within: Duration::ZERO,
        });
        let runtime = runtime.unwrap();
        for name in ["one", "two", "three"] {
            let state_dir = state_root.join(name);
            fs::create_dir(&state_dir).unwrap();
            Record::of(Pid::INIT).unwrap().write(&state_dir).unwrap();
        }
        // Time passes only while everybody waits.
        let mut asynchronous = tokio::runtime::Builder::new_current_thread();
        let asynchronous = asynchronous.enable_all().start_paused(true).build();
        asynchronous.unwrap().block_on(async {
            let begun = tokio::time::Instant::now();
            let swept = runtime.sweep().await.unwrap();
            let waited = begun.elapsed();
            assert_eq!(swept.len(), 3, "{swept:?}");
            assert!(
                (KILLED_WITHIN..2 * KILLED_WITHIN).contains(&waited),
                "{waited:?}"
            );
        });
        assert_eq!(fs::read_dir(&state_root).unwrap().count(), 3);
    }
}
