//! Containers of the local fleet, without a daemon: namespaces, control groups and a read-only root.
//!
//! [`Runtime`] is what the fleet uses. It starts the executable again as a short-lived child with one
//! thread ([`container_main`]), because namespaces are entered by forking, which a process with threads
//! must not do. That child makes the container's first process a child of *this* process, so that its end
//! is seen here and the kernel ends it with us. Knows nothing of learners, turns or the sidecar.

mod assemble;
mod cgroup;
mod cgroup_mounts;
mod error;
mod first;
mod handle;
mod host;
mod layout;
mod maker;
mod process;
mod record;
mod runtime;
mod spec;
mod syscalls;

#[cfg(test)]
mod layout_tests;

pub use cgroup::Usage;
pub use error::Error;
pub use handle::Container;
pub use maker::container_main;
pub use process::Exit;
pub use runtime::{Isolation, Options, Runtime};
pub use spec::{
    CONTAINER_USER, ContainerId, ContainerSpec, EXECUTABLE, HostIds, InvalidContainerId, Limit,
    Limits, RootKind, SHARED, WORKSPACE,
};

pub(crate) use layout::{IMAGE_FILE, IMAGE_FOLDERS};
pub(crate) use process::{Stranger, end_process, open_process};
pub(crate) use syscalls::in_own_session;
