//! Makes a pod: its folder, its sidecar, and side by side with it the agent's container.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use carrel_core::PodUid;
use carrel_core::class::ClassSpec;
use carrel_core::learner::{PodRef, StartKind};
use carrel_core::lifecycle::PodSeen;
use carrel_protocol::Endpoint;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::watch::Watched;
use super::{Pod, SharedGround};
use crate::container::{ContainerId, ContainerSpec, Limits, RootKind, Runtime, in_own_session};
use crate::image::{Image, Images};
use carrel_wire::Trust;
use carrel_wire::sidecar::Sidecar;

/// Where the shim's socket is below the shared folder.
const SHIM_SOCKET: &str = "shim.sock";

/// Why a pod could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error("its folder could not be made")]
    Folder(#[source] std::io::Error),
    #[error("its sidecar could not be started")]
    Sidecar(#[source] std::io::Error),
    #[error("its image could not be had")]
    Image(#[source] Arc<crate::image::Error>),
    #[error(
        "an image needs containers: with isolation 'process' the command of class image '{0}' would run on this machine \
         itself; run Carrel where containers can be started, or give the class no image"
    )]
    ImageWithoutContainers(String),
    #[error("its name cannot be used")]
    Name(#[source] crate::container::InvalidContainerId),
}

/// Makes pods.
pub(crate) struct Maker {
    ground: SharedGround,
    /// Absent: isolation `process`.
    runtime: Option<Runtime>,
    images: Images,
    next_slot: AtomicU32,
}

/// How the agent is started beside its sidecar.
#[derive(Debug)]
pub(super) enum AgentStart {
    /// In a container.
    Container(Box<Runtime>, Box<ContainerSpec>),
    /// As a plain process.
    Process(Command),
}

impl Maker {
    pub(crate) fn new(ground: SharedGround, runtime: Option<Runtime>, images: Images) -> Self {
        Self {
            ground,
            runtime,
            images,
            next_slot: AtomicU32::new(1),
        }
    }

    /// Whether an image has to be pulled before a pod of this class can be made.
    pub(crate) fn must_pull(&self, class: &ClassSpec) -> bool {
        let image = &class.agent.image;
        let is_wanted = self.runtime.is_some() && !image.is_empty();
        is_wanted && !matches!(self.images.present(image), Ok(Some(_)))
    }

    /// Pulls a class's image; a pod can be made without a pull then.
    pub(crate) async fn pull(&self, class: &ClassSpec) -> Result<(), PodError> {
        self.image_of(class).await.map(drop)
    }

    /// Makes a blank pod of a class. It may be assigned at once; that its parts are still starting only delays them.
    ///
    /// # Cancel safety
    /// Safe: only its image is waited for, and nothing is there before that.
    pub(crate) async fn make(&self, uid: PodUid, class: &ClassSpec) -> Result<Pod, PodError> {
        let image = self.image_of(class).await?;
        let name = name_of(uid);
        let dir = self.ground.pods_dir.join(&name);
        let made = self.make_in(&dir, uid, name, image.as_ref(), class);
        if made.is_err() {
            // Nothing runs in it yet; that it cannot be removed is found at the next start.
            let _: std::io::Result<()> = std::fs::remove_dir_all(&dir);
        }
        made
    }

    fn make_in(
        &self,
        dir: &Path,
        uid: PodUid,
        name: String,
        image: Option<&Image>,
        class: &ClassSpec,
    ) -> Result<Pod, PodError> {
        let host = Runtime::host_ids(self.next_slot.fetch_add(1, Ordering::Relaxed));
        let (shared, workspace) = (dir.join("shared"), dir.join("workspace"));
        let owned_by = self.runtime.is_some().then_some((host.uid, host.gid));
        for folder in [dir, &shared, &workspace] {
            make_folder(folder, owned_by).map_err(PodError::Folder)?;
        }
        let socket = self.ground.socket_of(&name);
        let mut memory_events = None;
        let agent = match &self.runtime {
            Some(runtime) => {
                let spec = container_spec(&name, image, &shared, &workspace, host, class)?;
                memory_events = runtime.memory_events(&spec.id);
                AgentStart::Container(Box::new(runtime.clone()), Box::new(spec))
            }
            None => AgentStart::Process(self.plain_shim(&shared, &workspace)),
        };
        let mut sidecar = self.sidecar(uid, &socket, &shared, &workspace);
        if let Some(events) = memory_events {
            sidecar.arg("--memory-events").arg(events);
        }
        if let Some((user, group)) = owned_by {
            sidecar.uid(user).gid(group);
        }
        // It dies with the thread that starts it: one of the async runtime's own, which live as long as this process.
        let child = sidecar.spawn().map_err(PodError::Sidecar)?;
        let reference = PodRef {
            address: self.ground.address_of(&name),
            name,
            uid,
        };
        let blank = PodSeen::Blank {
            pod: reference.clone(),
            start_kind: StartKind::Cold,
        };
        let (seen_sender, seen) = tokio::sync::watch::channel(blank);
        let (assigned, assigned_seen) = tokio::sync::watch::channel(None);
        let (kill, cleared) = (CancellationToken::new(), CancellationToken::new());
        let sidecar = Sidecar::at(Endpoint::Unix(socket), Trust::default());
        let watched = Watched {
            ground: self.ground.clone(),
            uid,
            dir: dir.to_path_buf(),
            child,
            agent,
            sidecar: sidecar.clone(),
            seen: seen_sender,
            assigned: assigned_seen,
            kill: kill.clone(),
            cleared: cleared.clone(),
        };
        self.ground.tracker.spawn(watched.run());
        Ok(Pod {
            reference,
            sidecar,
            seen,
            assigned,
            kill,
            cleared,
        })
    }

    async fn image_of(&self, class: &ClassSpec) -> Result<Option<Image>, PodError> {
        if class.agent.image.is_empty() {
            return Ok(None);
        }
        if self.runtime.is_none() {
            return Err(PodError::ImageWithoutContainers(class.agent.image.clone()));
        }
        self.images
            .get(&class.agent.image)
            .await
            .map(Some)
            .map_err(PodError::Image)
    }

    fn sidecar(&self, uid: PodUid, socket: &Path, shared: &Path, workspace: &Path) -> Command {
        let mut command = Command::new(&self.ground.executable);
        command
            .arg("sidecar")
            .arg("--pod")
            .arg(uid.to_string())
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .arg("--shim-socket")
            .arg(shared.join(SHIM_SOCKET))
            .arg("--workspace")
            .arg(workspace)
            .arg("--keys")
            .arg(&self.ground.keys_file)
            .arg("--parent")
            .arg(std::process::id().to_string())
            .env_clear()
            // Memory of a large message is given back to the system.
            .env("MALLOC_ARENA_MAX", "1")
            .env("MALLOC_MMAP_THRESHOLD_", "131072")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        in_own_session(&mut command);
        if self.runtime.is_some() {
            command
                .args(["--agent-workspace", crate::container::WORKSPACE])
                .args(["--agent-executable", crate::container::EXECUTABLE]);
        }
        command
    }

    fn plain_shim(&self, shared: &Path, workspace: &Path) -> Command {
        let mut command = Command::new(&self.ground.executable);
        command
            .arg("shim")
            .arg("--socket")
            .arg(shared.join(SHIM_SOCKET))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir(workspace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        in_own_session(&mut command);
        command
    }
}

/// A name that people can say: `w-` and the random end of the identity.
fn name_of(uid: PodUid) -> String {
    let text = uid.0.simple().to_string();
    format!("w-{}", &text[text.len() - 8..])
}

fn make_folder(path: &Path, owned_by: Option<(u32, u32)>) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)?;
    match owned_by {
        Some((user, group)) => chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

fn container_spec(
    name: &str,
    image: Option<&Image>,
    shared: &Path,
    workspace: &Path,
    host: crate::container::HostIds,
    class: &ClassSpec,
) -> Result<ContainerSpec, PodError> {
    let mut env = BTreeMap::from([(
        "PATH".to_owned(),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    )]);
    let variables = image.iter().flat_map(|image| &image.env);
    env.extend(variables.filter_map(|variable| {
        variable
            .split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }));
    let socket = format!("{}/{SHIM_SOCKET}", crate::container::SHARED);
    let mut argv = [
        crate::container::EXECUTABLE,
        "shim",
        "--socket",
        &socket,
        "--",
    ]
    .map(str::to_owned)
    .to_vec();
    argv.extend(image.iter().flat_map(|image| image.command.clone()));
    Ok(ContainerSpec {
        id: ContainerId::try_from(name.to_owned()).map_err(PodError::Name)?,
        root: image.map_or(RootKind::HostUsr, Image::root),
        shared_dir: shared.to_path_buf(),
        workspace_dir: workspace.to_path_buf(),
        argv,
        env,
        host,
        limits: Limits {
            cpu_millis: class.resources.cpu.0,
            memory_bytes: class.resources.memory.0,
            pids: class.resources.pids,
            tmp_bytes: (class.resources.memory.0 / 4).max(1 << 20),
        },
        hostname: name.to_owned(),
    })
}
