//! A way to a pod's port through the API server, for HTTP clients of this process: a socket without a name, so that nobody else
//! on this machine finds it, and nothing is left when the process is killed.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use rustix::fs::{Mode, OFlags};
use tokio::io::copy;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{Cluster, Right, failure};

const RIGHT: Right = Right {
    verb: "get",
    resource: "pods/portforward",
};

/// A way to a port; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// The socket's only name: it has lost that in the file system.
    socket: OwnedFd,
    _task: AbortOnDropHandle<()>,
}

impl Tunnel {
    /// Opens one. The first connection is made at once: without the right to, there is no tunnel.
    pub(crate) async fn open(cluster: &Cluster, pod: &str, port: u16) -> anyhow::Result<Self> {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let first = pods.portforward(pod, &[port]).await;
        let first = first.map_err(|error| failure(cluster, RIGHT, &error))?;
        let (listener, socket) = listen().context("making a socket for the way to the pod")?;
        let task = TaskTracker::new().spawn(accept(listener, pods, pod.to_owned(), port, first));
        Ok(Self {
            socket,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Where a client of this process connects to.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.socket.as_raw_fd()).into()
    }
}

/// A listener, and what it is reached by.
fn listen() -> std::io::Result<(UnixListener, OwnedFd)> {
    let folder = std::env::temp_dir().join(format!("carrel-{}", uuid::Uuid::new_v4().simple()));
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let path = folder.join("socket");
    let made = UnixListener::bind(&path).and_then(|listener| {
        let socket = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok((listener, socket))
    });
    // Whoever holds it reaches it by its descriptor.
    let removed = std::fs::remove_dir_all(&folder);
    made.and_then(|made| removed.map(|()| made))
}

async fn accept(
    listener: UnixListener,
    pods: Api<Pod>,
    pod: String,
    port: u16,
    first: Portforwarder,
) {
    let mut first = Some(first);
    // They end with this.
    let mut open = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let (pods, pod, ready) = (pods.clone(), pod.clone(), first.take());
        while open.try_join_next().is_some() {}
        open.spawn(async move {
            let forward = match ready {
                Some(forward) => Ok(forward),
                None => pods.portforward(&pod, &[port]).await,
            };
            // The client sees its connection close, and says so.
            if let Ok(forward) = forward {
                join(stream, forward, port).await;
            }
        });
    }
}

/// Carries bytes until either end has had enough.
async fn join(mut stream: UnixStream, mut forward: Portforwarder, port: u16) {
    if let Some(far) = forward.take_stream(port) {
        let (mut from_far, mut to_far) = tokio::io::split(far);
        let (mut from_near, mut to_near) = stream.split();
        // How one of them ends shows at the other.
        let _: std::io::Result<u64> = tokio::select! {
            ended = copy(&mut from_near, &mut to_far) => ended,
            ended = copy(&mut from_far, &mut to_near) => ended,
        };
    }
    forward.abort();
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_client_comes_by_a_socket_that_no_folder_holds() {
        let (listener, socket) = listen().expect("a socket");
        let before = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd()));
        let before = before.expect("a link").display().to_string();
        assert!(before.ends_with("(deleted)"), "{before}");
        let served = TaskTracker::new().spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            stream.write_all(b"answer").await.expect("it listens");
        });
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let mut client = UnixStream::connect(path).await.expect("it is there");
        let mut said = String::new();
        client.read_to_string(&mut said).await.expect("an answer");
        assert_eq!(said, "answer");
        served.await.expect("served");
    }
}
