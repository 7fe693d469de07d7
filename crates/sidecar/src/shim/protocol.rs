//! What sidecar and shim say to each other: one JSON message a packet over a Unix socket (`SOCK_SEQPACKET`), with file
//! descriptors beside it (`SCM_RIGHTS`). Every order is answered by one report, in order; [`Report::Exited`] comes unasked.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The most bytes in a message.
const MESSAGE_BYTES: usize = 96 * 1024;
/// The most descriptors beside a message.
const DESCRIPTORS: usize = 3;

/// What the sidecar asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Listeners for the model proxy and the egress proxy, and the agent's port; answered by [`Report::Prepared`].
    Prepare {
        /// The class's port, which is taken unless others listen on the same loopback.
        agent_port: u16,
    },
    /// The agent; answered by [`Report::Started`], with its pipes.
    Start(Wanted),
    /// A connection to a port on loopback, beside the answer; it may still be connecting.
    Dial {
        /// The port.
        port: u16,
    },
    /// Every process is stopped when this is answered.
    Freeze,
    /// Lets them go on.
    Thaw,
    /// Kills every process but the shim.
    KillAll,
    /// Asks the agent to end.
    Terminate,
    /// How many processes the kernel has killed for want of memory; answered by [`Report::MemoryKills`].
    MemoryKills,
    /// What is held of files that have no name any more; answered by [`Report::Held`].
    Held {
        /// The workspace.
        folder: PathBuf,
    },
}

/// An agent to start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Program and arguments; empty: the image's own.
    pub(crate) argv: Vec<String>,
    /// Its environment beside what the container has.
    pub(crate) environment: Vec<(String, String)>,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Made before it starts.
    pub(crate) home: PathBuf,
    /// What of it the sidecar reads and writes.
    pub(crate) pipes: Pipes,
}

/// Which pipes of an agent come with [`Report::Started`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pipes {
    /// One, for standard output and error together.
    Log,
    /// Three: standard input, output, error.
    Talk,
}

/// What the shim answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// It is done; for [`Order::Dial`] the connection is beside it.
    Done,
    /// It cannot be done.
    Refused {
        /// Why.
        reason: String,
    },
    /// Model proxy's and egress proxy's listeners are beside it.
    Prepared {
        /// The model proxy's port.
        model_port: u16,
        /// The egress proxy's port.
        egress_port: u16,
        /// The agent's port.
        agent_port: u16,
        /// Whether the shim is the first process of its pid namespace, with which all others end.
        alone: bool,
    },
    /// The agent runs.
    Started {
        /// Its process id, as the shim sees it.
        pid: i32,
    },
    /// So many were killed since the container began; 0 where the shim cannot tell.
    MemoryKills {
        /// How many.
        count: u64,
    },
    /// So much is held on the disk.
    Held(Look),
    /// The agent ended.
    Exited {
        /// Its process id.
        pid: i32,
        /// How.
        end: End,
    },
}

/// What was seen of what processes hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    /// Bytes that nameless files take on the disk while processes hold them.
    pub(crate) bytes: u64,
    /// Who holds what was not seen, if anybody does: of many the gravest.
    pub(crate) unseen: Option<Unseen>,
}

/// A process of which not everything was seen that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unseen {
    /// What its program is called.
    pub(crate) program: String,
    /// Why.
    pub(crate) why: Why,
    /// The file in the workspace, for [`Why::Maps`].
    pub(crate) file: Option<String>,
    /// Whether the look before did not see everything of it either.
    pub(crate) again: bool,
}

/// Why not everything was seen that a process holds; the gravest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// There was no time to look, or it holds too much to be looked at.
    NoTime,
    /// It maps a file of the workspace that was replaced or removed, and nobody has a descriptor of it.
    Maps,
    /// It cannot be seen into, or descriptors wait in its sockets.
    Hides,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// Sends one message.
pub(crate) fn send<T: Serialize>(
    to: BorrowedFd<'_>,
    message: &T,
    descriptors: &[OwnedFd],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_BYTES || descriptors.len() > DESCRIPTORS {
        let kind = io::ErrorKind::InvalidInput;
        return Err(io::Error::new(kind, "the message is too large"));
    }
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let flags = SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(to, &[IoSlice::new(&bytes)], &mut beside, flags)
    })?;
    Ok(())
}

/// Receives one message with what came beside it; `None` when the other side has gone.
pub(crate) fn receive<T: DeserializeOwned>(
    from: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut into = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(from, &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Ok(received) => received,
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::other("a message was cut short"));
    }
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    Ok(Some((
        serde_json::from_slice(&bytes[..received.bytes])?,
        descriptors,
    )))
}
