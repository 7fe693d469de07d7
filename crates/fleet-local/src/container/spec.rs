//! What a container is to be: the data that the fleet decides and the container maker executes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// User and group of the agent as seen inside every container.
pub const CONTAINER_USER: u32 = 10_001;
/// Where Carrel's own executable is inside every container.
pub const EXECUTABLE: &str = "/carrel";
/// Where the workspace is inside every container.
pub const WORKSPACE: &str = "/workspace";
/// Where the folder with the sidecar's socket is inside every container (read-only: connecting to a
/// socket needs no more, and an agent could otherwise fill the host's disk through it).
pub const SHARED: &str = "/run/carrel";

/// Name of one container on this machine: at most 64 of `a-z A-Z 0-9 - _ .`, not starting with a dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A container id that could be taken for something else as a folder's name.
#[derive(Debug, thiserror::Error)]
#[error("a container id is 1 to 64 of a-z A-Z 0-9 - _ . and does not start with a dot")]
pub struct InvalidContainerId;

impl TryFrom<String> for ContainerId {
    type Error = InvalidContainerId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let valid = !text.is_empty()
            && text.len() <= 64
            && !text.starts_with('.')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if valid {
            Ok(Self(text))
        } else {
            Err(InvalidContainerId)
        }
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the container's `/` is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootKind {
    /// The host's `/usr` (with `/bin`, `/lib` …) and certificates, read-only.
    HostUsr,
    /// An unpacked image, read-only; its folder was prepared by [`crate::image`].
    Image {
        /// Folder of the unpacked image on the host.
        rootfs: PathBuf,
    },
}

/// User and group on the host that own a container's files and processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIds {
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
}

/// What a container may use of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of one processor.
    pub cpu_millis: u32,
    /// Memory with page cache and temporary files; no swap.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Size of the temporary folder, which lies in memory.
    pub tmp_bytes: u64,
}

/// A limit that depends on the machine and the user's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Number of processes.
    Pids,
}

impl Limit {
    /// All limits.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// The name of the limit in documents, and of its cgroup controller.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name; unique among the living.
    pub id: ContainerId,
    /// What `/` is made of.
    pub root: RootKind,
    /// Folder with the sidecar's socket, seen at [`SHARED`].
    pub shared_dir: PathBuf,
    /// The workspace, seen at [`WORKSPACE`], the one folder that the container may write.
    pub workspace_dir: PathBuf,
    /// First process: absolute path and arguments, usually [`EXECUTABLE`] and `shim …`.
    pub argv: Vec<String>,
    /// The whole environment of the first process.
    pub env: BTreeMap<String, String>,
    /// Who the container's user is on the host; see [`super::Runtime::host_ids`].
    pub host: HostIds,
    /// What it may use.
    pub limits: Limits,
    /// Its host name.
    pub hostname: String,
}
