//! The sidecar's end of its connection with the shim.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::shim::protocol::{self, End, Look, Order, Report, Wanted};

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The connection has closed: shim and agent are gone.
    #[error("the agent's container has ended")]
    Lost,
    /// The shim could not do it.
    #[error("{0}")]
    Refused(String),
    /// What came with the answer is of no use.
    #[error("using what the shim sent")]
    Socket(#[source] io::Error),
}

type Answer = (Report, Vec<OwnedFd>);

struct Asked {
    order: Order,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

/// Gives orders to the shim. Cheap to clone; when the last is gone, the connection closes and all agents end.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    orders: mpsc::Sender<Asked>,
    ends: watch::Receiver<Option<(i32, End)>>,
    lost: CancellationToken,
    running: Arc<Running>,
}

/// An agent in our own pid namespace: nobody but us ends it if its shim was killed.
#[derive(Debug, Default)]
struct Running {
    is_shared: AtomicBool,
    pid: AtomicI32,
}

impl Running {
    fn started(&self, pid: i32) {
        if self.is_shared.load(Ordering::Relaxed) {
            self.pid.store(pid, Ordering::Relaxed);
        }
    }

    fn ended(&self, pid: i32) {
        let _ = self
            .pid
            .compare_exchange(pid, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn kill(&self) {
        if let Some(group) = Pid::from_raw(self.pid.swap(0, Ordering::Relaxed)) {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// What the shim prepared.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) models: std::net::TcpListener,
    pub(crate) egress: std::net::TcpListener,
    pub(crate) ports: Ports,
}

/// Ports on the agent's loopback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) models: u16,
    pub(crate) egress: u16,
    pub(crate) agent: u16,
}

/// Where the shim will connect.
#[derive(Debug)]
pub(crate) struct ShimListener(UnixListener);

impl ShimListener {
    /// Listens for one connection.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 1)?;
        // Accepting is the same for packets as for streams.
        UnixListener::from_std(socket.into()).map(Self)
    }

    /// Takes the first connection and removes the path: there is no second.
    pub(crate) async fn accept(self, path: &Path) -> io::Result<UnixStream> {
        let (connection, _) = self.0.accept().await?;
        fs::remove_file(path)?;
        Ok(connection)
    }
}

impl Link {
    /// The link, and the work of it, to be spawned.
    pub(crate) fn over(connection: UnixStream) -> (Self, impl Future<Output = ()> + Send) {
        let (orders, asked) = mpsc::channel(16);
        let (ended, ends) = watch::channel(None);
        let lost = CancellationToken::new();
        let running = Arc::<Running>::default();
        let link = Self {
            orders,
            ends,
            lost: lost.clone(),
            running: Arc::clone(&running),
        };
        let work = async move {
            let _lost = lost.drop_guard();
            if let Err(error) = carry(&connection, asked, &ended, &running).await {
                tracing::warn!(%error, "the connection with the shim broke");
            }
            running.kill();
        };
        (link, work)
    }

    /// Waits until the connection has closed.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Waits until this agent has ended; never returns when the shim goes first.
    pub(crate) async fn ended(&self, pid: i32) -> End {
        let mut ends = self.ends.clone();
        let found = ends
            .wait_for(|end| end.is_some_and(|(ended, _)| ended == pid))
            .await;
        match found.ok().and_then(|end| *end) {
            Some((_, end)) => end,
            None => std::future::pending().await,
        }
    }

    /// Opens the listeners and settles the ports.
    pub(crate) async fn prepare(&self, agent_port: u16) -> Result<Prepared, Error> {
        match self.ask(Order::Prepare { agent_port }).await? {
            (
                Report::Prepared {
                    model_port,
                    egress_port,
                    agent_port,
                    alone,
                },
                sockets,
            ) => {
                self.running.is_shared.store(!alone, Ordering::Relaxed);
                let [models, egress] = descriptors(sockets)?;
                let ports = Ports {
                    models: model_port,
                    egress: egress_port,
                    agent: agent_port,
                };
                Ok(Prepared {
                    models: models.into(),
                    egress: egress.into(),
                    ports,
                })
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Starts an agent; its process id and `N` pipes.
    pub(crate) async fn start<const N: usize>(
        &self,
        wanted: Wanted,
    ) -> Result<(i32, [OwnedFd; N]), Error> {
        match self.ask(Order::Start(wanted)).await? {
            (Report::Started { pid }, pipes) => {
                self.running.started(pid);
                Ok((pid, descriptors(pipes)?))
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Connects to a port on the agent's loopback.
    pub(crate) async fn dial(&self, port: u16) -> Result<TcpStream, Error> {
        let (_, sockets) = self.ask(Order::Dial { port }).await?;
        let [socket] = descriptors(sockets)?;
        let stream = TcpStream::from_std(socket.into()).map_err(Error::Socket)?;
        stream.writable().await.map_err(Error::Socket)?;
        match stream.take_error() {
            Ok(None) => Ok(stream),
            Ok(Some(error)) | Err(error) => Err(Error::Socket(error)),
        }
    }

    /// Stops every process of the agent.
    pub(crate) async fn freeze(&self) -> Result<(), Error> {
        self.ask(Order::Freeze).await.map(drop)
    }

    /// Lets them go on.
    pub(crate) async fn thaw(&self) -> Result<(), Error> {
        self.ask(Order::Thaw).await.map(drop)
    }

    /// Ends every process of the agent.
    pub(crate) async fn kill_all(&self) -> Result<(), Error> {
        self.ask(Order::KillAll).await.map(drop)
    }

    /// Asks the agent to end.
    pub(crate) async fn terminate(&self) -> Result<(), Error> {
        self.ask(Order::Terminate).await.map(drop)
    }

    /// How many of the agent's processes the kernel has killed for want of memory, as far as the shim can tell.
    pub(crate) async fn memory_kills(&self) -> Result<u64, Error> {
        match self.ask(Order::MemoryKills).await? {
            (Report::MemoryKills { count }, _) => Ok(count),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// What the agent's processes hold on the disk of files without a name, in the workspace as they see it.
    pub(crate) async fn held(&self, folder: PathBuf) -> Result<Look, Error> {
        match self.ask(Order::Held { folder }).await? {
            (Report::Held(look), _) => Ok(look),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, order: Order) -> Result<Answer, Error> {
        let (answer, answered) = oneshot::channel();
        self.orders
            .send(Asked { order, answer })
            .await
            .map_err(|_| Error::Lost)?;
        match answered.await.map_err(|_| Error::Lost)?? {
            (Report::Refused { reason }, _) => Err(Error::Refused(reason)),
            answer => Ok(answer),
        }
    }
}

fn descriptors<const N: usize>(sent: Vec<OwnedFd>) -> Result<[OwnedFd; N], Error> {
    sent.try_into()
        .map_err(|_| Error::Refused("the shim sent too few descriptors".to_owned()))
}

fn unexpected(report: &Report) -> Error {
    Error::Refused(format!("the shim answered {report:?}"))
}

/// Orders out, reports in, until either side is gone.
async fn carry(
    connection: &UnixStream,
    mut asked: mpsc::Receiver<Asked>,
    ended: &watch::Sender<Option<(i32, End)>>,
    running: &Running,
) -> io::Result<()> {
    let mut waiting: VecDeque<oneshot::Sender<Result<Answer, Error>>> = VecDeque::new();
    let mut next = None::<Asked>;
    loop {
        tokio::select! {
            more = asked.recv(), if next.is_none() => match more {
                Some(more) => next = Some(more),
                None => return Ok(()),
            },
            // Reports are read meanwhile: a shim that cannot get rid of them takes no orders.
            writable = connection.writable(), if next.is_some() => {
                writable?;
                let Some(Asked { order, answer }) = next.take() else { continue };
                let write = || protocol::send(connection.as_fd(), &order, &[]);
                match connection.try_io(Interest::WRITABLE, write) {
                    Ok(()) => waiting.push_back(answer),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        next = Some(Asked { order, answer });
                    }
                    // Nothing of it was sent, and the others can be.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        let _ = answer.send(Err(Error::Refused(error.to_string())));
                    }
                    Err(error) => return Err(error),
                }
            }
            readable = connection.readable() => {
                readable?;
                let read = || protocol::receive::<Report>(connection.as_fd());
                let received = match connection.try_io(Interest::READABLE, read) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    received => received,
                };
                match received? {
                    None => return Ok(()),
                    Some((Report::Exited { pid, end }, _)) => {
                        running.ended(pid);
                        ended.send_replace(Some((pid, end)));
                    }
                    Some(answer) => {
                        if let Some(waiter) = waiting.pop_front() {
                            // Who asked may have given up.
                            let _ = waiter.send(Ok(answer));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as Blocking;
    use std::thread::{self, JoinHandle};
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;
    use crate::shim::protocol::Pipes;

    /// A link, and a shim that does this with its end of it.
    fn with_shim<T: Send + 'static>(
        shim: impl FnOnce(OwnedFd) -> T + Send + 'static,
    ) -> (Link, JoinHandle<T>) {
        let flags = SocketFlags::CLOEXEC;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (ours, theirs) = pair.unwrap();
        let ours = Blocking::from(ours);
        ours.set_nonblocking(true).unwrap();
        let (link, work) = Link::over(UnixStream::from_std(ours).unwrap());
        tokio_util::task::TaskTracker::new().spawn(work);
        (link, thread::spawn(move || shim(theirs)))
    }

    /// Answers orders until the other side has gone; how many.
    fn obey(socket: &OwnedFd) -> usize {
        let mut orders = 0;
        while let Ok(Some(_)) = protocol::receive::<Order>(socket.as_fd()) {
            orders += 1;
            protocol::send(socket.as_fd(), &Report::Done, &[]).unwrap();
        }
        orders
    }

    /// Closes the connection; what the shim says at its end.
    async fn end<T: Send + 'static>(link: Link, shim: JoinHandle<T>) -> T {
        drop(link);
        let joined = tokio::task::spawn_blocking(|| shim.join());
        joined.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn reports_are_read_while_the_shim_takes_no_orders() {
        // More of either than the socket has room for.
        const EACH: usize = 4000;
        let (link, shim) = with_shim(|socket| {
            for pid in 0..4000 {
                let end = End::Code(0);
                protocol::send(socket.as_fd(), &Report::Exited { pid, end }, &[]).unwrap();
            }
            obey(&socket)
        });
        let asked = join_all((0..EACH).map(|_| link.freeze()));
        let answers = tokio::time::timeout(Duration::from_secs(30), asked).await;
        assert!(answers.expect("neither waits").iter().all(Result::is_ok));
        assert_eq!(end(link, shim).await, EACH);
    }

    #[tokio::test]
    async fn an_order_that_is_too_large_is_refused_and_the_next_is_sent() {
        let (link, shim) = with_shim(|socket| obey(&socket));
        let wanted = Wanted {
            argv: vec!["x".repeat(1 << 20)],
            environment: Vec::new(),
            folder: PathBuf::new(),
            home: PathBuf::new(),
            pipes: Pipes::Log,
        };
        let refused = link.start::<1>(wanted).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        link.freeze().await.unwrap();
        assert_eq!(end(link, shim).await, 1);
    }
}
