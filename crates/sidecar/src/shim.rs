//! The first process of the agent's container: starts, freezes, signals and reaps the agent on the sidecar's word.
//!
//! One thread, no runtime, no credential. It connects to the sidecar once, before the agent exists, shuts the kernel's
//! rare doors on itself and so on everything it starts, and then only answers [`protocol::Order`]s. It ignores SIGTERM
//! and ends, with all that runs below it, when the connection closes.

mod agent;
mod held;
mod install;
pub(crate) mod memory;
mod processes;
pub(crate) mod protocol;
mod seccomp;
mod sockets;

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Pid, Signal, kill_process, set_dumpable_behavior};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use agent::start;
use processes::Processes;
use protocol::{End, Order, Report};

/// How long the shim looks for its sidecar.
const CONNECT_WITHIN: Duration = Duration::from_mins(1);

/// What the shim is told on its command line.
#[derive(Debug, Clone, clap::Args)]
pub struct ShimOptions {
    /// The sidecar's socket for its shim.
    #[arg(long, required_unless_present = "install")]
    pub socket: Option<PathBuf>,
    /// Copies this executable there and ends: another container starts it from there.
    #[arg(long, value_name = "PATH", exclusive = true)]
    pub install: Option<PathBuf>,
    /// The command of an agent whose class names none: its image's own.
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// Serves one sidecar; returns when the connection has closed and nothing runs below us any more.
pub fn shim_main(options: ShimOptions) -> ExitCode {
    let done = match (options.install, options.socket) {
        (Some(path), _) => install::install(&path),
        (None, Some(socket)) => serve(&socket, options.command),
        (None, None) => Err(io::Error::other("neither --socket nor --install")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the shim ends");
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: &Path, command: Vec<String>) -> io::Result<()> {
    // The agent is of our user: it may neither look into us nor write there. What we start is as usual again.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Handlers, not `SIG_IGN`: an agent would inherit that.
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ignored))?;
    }
    let (mut children, handler) = UnixStream::pair()?;
    children.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, handler)?;
    let processes = Processes::adopt()?;
    seccomp::install().map_err(io::Error::other)?;
    let connection = connect(socket)?;
    let mut shim = Shim {
        processes,
        command,
        agent: None,
        unseen: HashSet::new(),
    };
    let ended = shim.answer(connection.as_fd(), &mut children);
    shim.processes.kill_all().and(ended)
}

struct Shim {
    processes: Processes,
    command: Vec<String>,
    agent: Option<Pid>,
    /// Processes that the last look at what is held could not see into.
    unseen: HashSet<Pid>,
}

impl Shim {
    fn answer(&mut self, connection: BorrowedFd<'_>, children: &mut UnixStream) -> io::Result<()> {
        loop {
            let (asked, died) = wait(connection, children.as_fd())?;
            if died {
                drain(children)?;
                while let Some(child) = processes::reap_one()? {
                    self.report_end(connection, child)?;
                }
            }
            if asked {
                let Some((order, _)) = protocol::receive::<Order>(connection)? else {
                    return Ok(());
                };
                let (report, descriptors) = self.obey(order, connection).unwrap_or_else(|error| {
                    let reason = error.to_string();
                    (Report::Refused { reason }, Vec::new())
                });
                protocol::send(connection, &report, &descriptors)?;
            }
        }
    }

    fn obey(
        &mut self,
        order: Order,
        connection: BorrowedFd<'_>,
    ) -> io::Result<(Report, Vec<OwnedFd>)> {
        let done = |()| (Report::Done, Vec::new());
        match order {
            Order::Prepare { agent_port } => {
                sockets::prepare(agent_port, self.processes.are_alone())
            }
            Order::Start(mut wanted) => {
                if wanted.argv.is_empty() {
                    wanted.argv.clone_from(&self.command);
                }
                let (pid, pipes) = start(&wanted, self.processes.are_alone())?;
                self.agent = Some(pid);
                let pid = pid.as_raw_nonzero().get();
                Ok((Report::Started { pid }, pipes))
            }
            Order::Dial { port } => Ok((Report::Done, vec![sockets::dial(port)?])),
            Order::Freeze => self.processes.freeze().map(done),
            Order::Thaw => self.processes.thaw().map(done),
            Order::KillAll => {
                for child in self.processes.kill_all()? {
                    self.report_end(connection, child)?;
                }
                Ok(done(()))
            }
            Order::MemoryKills => {
                // Of another's control group it would tell what is not the agent's.
                let count = if self.processes.are_alone() {
                    memory::kills()
                } else {
                    0
                };
                Ok((Report::MemoryKills { count }, Vec::new()))
            }
            Order::Held { folder } => {
                let list = || self.processes.list();
                let look = held::measure(list, &folder, held::WITHIN, &mut self.unseen)?;
                Ok((Report::Held(look), Vec::new()))
            }
            Order::Terminate => {
                if let Some(agent) = self.agent {
                    kill_process(agent, Signal::TERM)?;
                }
                Ok(done(()))
            }
        }
    }

    fn report_end(&mut self, connection: BorrowedFd<'_>, (pid, end): (Pid, End)) -> io::Result<()> {
        if self.agent != Some(pid) {
            return Ok(());
        }
        self.agent = None;
        let pid = pid.as_raw_nonzero().get();
        protocol::send(connection, &Report::Exited { pid, end }, &[])
    }
}

/// Waits until there is an order, or a child ended.
fn wait(connection: BorrowedFd<'_>, children: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
    let mut fds = [
        PollFd::from_borrowed_fd(connection, PollFlags::IN),
        PollFd::from_borrowed_fd(children, PollFlags::IN),
    ];
    match poll(&mut fds, None) {
        Ok(_) => Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok((false, true)),
        Err(error) => Err(error.into()),
    }
}

fn drain(children: &mut UnixStream) -> io::Result<()> {
    let mut bytes = [0; 64];
    loop {
        match children.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Connects to the sidecar, which may still be starting.
fn connect(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let (began, mut pause) = (Instant::now(), Duration::from_millis(1));
    loop {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = rustix::net::socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(error) if began.elapsed() > CONNECT_WITHIN => return Err(error.into()),
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
