//! Starts containers, tells what isolation this machine allows, and clears what an earlier run left.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::cgroup::Cgroups;
use super::error::{Doing, Error};
use super::handle::{Container, remove_traces};
use super::host::privileged;
use super::maker::{Answer, CREATE, PROBE, Request};
use super::process::{Exit, Process, Stranger};
use super::record::Record;
use super::spec::{ContainerId, ContainerSpec, EXECUTABLE, HostIds, Limit, Limits, RootKind};

/// First host user of the containers when we are root: the start of the range that systemd's list of
/// user ids leaves to nobody, above those of other container managers.
const FIRST_HOST_ID: u32 = 0x7000_0000;

/// What is killed and not gone by then, the kernel holds.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

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
    starter: mpsc::Sender<(Command, tokio::sync::oneshot::Sender<io::Result<Child>>)>,
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
        let (starter, commands) =
            mpsc::channel::<(Command, tokio::sync::oneshot::Sender<io::Result<Child>>)>();
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
    /// If dropped, a container that was on its way is killed; [`Runtime::sweep`] clears its traces.
    pub async fn start(&self, spec: ContainerSpec) -> Result<Container, Error> {
        let id = spec.id.clone();
        let started = self.start_in(spec, &self.state_dir(&id)).await;
        if started.is_err() {
            self.clear(&id).await?;
        }
        started
    }

    /// Ends what there is of a container, and removes its traces.
    async fn clear(&self, id: &ContainerId) -> Result<(), Error> {
        let state_dir = self.state_dir(id);
        if let Some(first) = Record::read(&state_dir).and_then(|record| record.living()) {
            let ended = end_process(first).await;
            ended.doing(|| format!("ending container {id}"))?;
        }
        self.inner.cgroups.kill(id);
        remove_traces(&self.inner.cgroups, id, &state_dir).await
    }

    async fn start_in(&self, spec: ContainerSpec, state_dir: &Path) -> Result<Container, Error> {
        let id = spec.id.clone();
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
            state_dir: state_dir.to_path_buf(),
            parent: i32::try_from(std::process::id()).unwrap_or_default(),
        };
        let cgroups = Arc::clone(&self.inner.cgroups);
        let state_dir = state_dir.to_path_buf();
        let within = self.inner.options.made_within;
        let made = async move {
            match converse(maker, &request, within).await? {
                Answer::Started {
                    pid,
                    limits_missing,
                } => {
                    let pid = Pid::from_raw(pid).ok_or_else(|| Error::NoAnswer("pid 0".into()))?;
                    Container::new(id, pid, limits_missing, cgroups, state_dir, output)
                }
                Answer::Refused { reason } => Err(Error::Refused(reason)),
            }
        };
        // Heard to its end also when nobody waits for it any more: then the container that comes of it is dropped.
        let runtime = tokio::runtime::Handle::current();
        let converse = move || runtime.block_on(made);
        tokio::task::spawn_blocking(converse)
            .await
            .map_err(|_| Error::Closed)?
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
        let (answer, child) = tokio::sync::oneshot::channel();
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
                reason: super::error::chain(&error),
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
        for id in &left {
            if let Err(error) = self.clear(id).await {
                // Its first process was killed and executes nothing more, whenever the kernel lets it go; the next sweep
                // finds it again, and no container has its name meanwhile.
                let error = super::error::chain(&error);
                tracing::warn!(container = %id, error, "a container of an earlier run could not be cleared");
            }
        }
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

/// Kills a process and waits until it is gone.
pub(crate) async fn end_process(process: Stranger) -> io::Result<()> {
    if rustix::process::pidfd_send_signal(process.get_ref(), Signal::KILL).is_ok() {
        let gone = tokio::time::timeout(KILLED_WITHIN, process.readable()).await;
        gone.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
            .retain_ready();
    }
    Ok(())
}
