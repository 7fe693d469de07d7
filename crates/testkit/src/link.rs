//! A TCP link between two processes, on loopback or where other machines reach it, in a thread of its own, on which things go wrong
//! when it is told so.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long what a held connection was answered is waited for, once it is let go.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(20);
const PIECE_BYTES: usize = 16 << 10;

/// What the link leads to.
#[derive(Debug, Clone)]
pub enum To {
    /// A socket in the file system.
    Socket(PathBuf),
    /// One of these in turn, as a balancer does; the next one where nobody listens.
    OneOf(Vec<SocketAddr>),
}

/// What becomes of what is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Weather {
    /// It passes.
    #[default]
    Clear,
    /// Every connection is closed.
    Cut,
    /// Each piece comes so late, in both directions.
    Late(Duration),
    /// It is taken and never arrives, and nobody is told: a half-open connection. What was swallowed once stays so,
    /// until [`Link::reset_half_open`].
    Swallowed,
    /// A connection whose client sends this is held from there on, and arrives when the weather changes, whether its client is
    /// still there or not. All others pass.
    Held(String),
}

/// A running link. Dropping it ends it.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    cancel: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    to: To,
    weather: watch::Sender<Weather>,
    /// Changes when half-open connections are to be reset.
    resets: watch::Sender<u64>,
    next: AtomicUsize,
    disturbed: AtomicU64,
    held: Mutex<Vec<Held>>,
}

/// A connection that was held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The piece for which it was held: what its client sent last by then.
    pub asked: String,
    /// What it has been answered since.
    pub answer: String,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disturb(&self) {
        self.disturbed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Link {
    /// A link on a free port of loopback.
    ///
    /// # Errors
    /// When there is none, or no thread.
    pub fn start(to: To) -> io::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), to)
    }

    /// A link on a free port of this address.
    ///
    /// # Errors
    /// When this machine does not have it, or no port is free, or no thread.
    pub fn start_at(address: IpAddr, to: To) -> io::Result<Self> {
        let listener = StdListener::bind((address, 0))?;
        listener.set_nonblocking(true)?;
        let link = Self {
            address: listener.local_addr()?,
            shared: Arc::new(Shared {
                to,
                weather: watch::Sender::default(),
                resets: watch::Sender::default(),
                next: AtomicUsize::new(0),
                disturbed: AtomicU64::new(0),
                held: Mutex::default(),
            }),
            cancel: CancellationToken::new(),
        };
        let (shared, cancel) = (Arc::clone(&link.shared), link.cancel.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || {
                runtime.block_on(cancel.run_until_cancelled(accept(listener, &shared)));
            })?;
        Ok(link)
    }

    /// Where it listens, `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What becomes of what is sent from now on, on connections that are there too.
    pub fn weather(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Ends the connections of which something was swallowed: a machine that was away says that it knows nothing of them.
    pub fn reset_half_open(&self) {
        self.shared.resets.send_modify(|resets| *resets += 1);
    }

    /// How many pieces or connections met with something other than clear weather.
    pub fn disturbed(&self) -> u64 {
        self.shared.disturbed.load(Ordering::Relaxed)
    }

    /// Each connection that was held, in the order in which they were.
    pub fn held(&self) -> Vec<Held> {
        self.shared.held().clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn accept(listener: StdListener, shared: &Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        // A connection that breaks is what both ends are to see; nobody here waits for it.
        connections.spawn(pass(client, Arc::clone(shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(client: TcpStream, shared: Arc<Shared>) {
    if *shared.weather.borrow() == Weather::Cut {
        shared.disturb();
        return;
    }
    let _ = client.set_nodelay(true);
    match &shared.to {
        To::Socket(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                let (reads, writes) = server.into_split();
                both(client, reads, writes, &shared).await;
            }
        }
        To::OneOf(places) => {
            let first = shared.next.fetch_add(1, Ordering::Relaxed);
            for place in places
                .iter()
                .cycle()
                .skip(first % places.len())
                .take(places.len())
            {
                if let Ok(server) = TcpStream::connect(place).await {
                    let _ = server.set_nodelay(true);
                    let (reads, writes) = server.into_split();
                    return both(client, reads, writes, &shared).await;
                }
            }
        }
    }
}

/// What both directions of a connection know of each other.
struct Wire<'a> {
    shared: &'a Shared,
    half_open: watch::Sender<bool>,
    /// Which of those that were held it is.
    held: watch::Sender<Option<usize>>,
}

async fn both(
    client: TcpStream,
    reads: impl AsyncRead + Unpin,
    writes: impl AsyncWrite + Unpin,
    shared: &Shared,
) {
    let (client_reads, client_writes) = client.into_split();
    let wire = Wire {
        shared,
        half_open: watch::Sender::default(),
        held: watch::Sender::default(),
    };
    let passing = async {
        tokio::join!(
            up(client_reads, writes, &wire),
            down(reads, client_writes, &wire)
        )
    };
    let (mut weather, mut resets) = (shared.weather.subscribe(), shared.resets.subscribe());
    resets.mark_unchanged();
    let cut = async {
        let is_held = || wire.held.borrow().is_some();
        loop {
            if *weather.borrow_and_update() == Weather::Cut && !is_held() {
                shared.disturb();
                return;
            }
            if weather.changed().await.is_err() {
                return;
            }
        }
    };
    let reset = async {
        while resets.changed().await.is_ok() {
            if *wire.half_open.borrow() {
                return;
            }
        }
    };
    tokio::select! {
        _ = passing => {}
        () = cut => {}
        () = reset => {}
    }
}

/// From the client to the server.
async fn up(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, wire: &Wire<'_>) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        // Of a client that is gone, its server hears nothing while it is held.
        let read = match from.read(&mut piece).await {
            Ok(read) if read > 0 => read,
            _ if *wire.half_open.borrow() => return std::future::pending().await,
            _ if wire.held.borrow().is_some() => {
                // Its server hears of its end with the answer at the earliest.
                tokio::time::sleep(LAST_ANSWER_WITHIN).await;
                return;
            }
            _ => {
                let _ = to.shutdown().await;
                return;
            }
        };
        if let Weather::Held(pattern) = &*wire.shared.weather.borrow()
            && contains(&piece[..read], pattern.as_bytes())
        {
            let place = {
                let mut held = wire.shared.held();
                held.push(Held {
                    asked: String::from_utf8_lossy(&piece[..read]).into_owned(),
                    answer: String::new(),
                });
                held.len() - 1
            };
            wire.held.send_replace(Some(place));
            wire.shared.disturb();
        }
        if wire.held.borrow().is_some() {
            let mut weather = wire.shared.weather.subscribe();
            let changes = weather.wait_for(|now| !matches!(now, Weather::Held(_)));
            if changes.await.is_err() {
                return;
            }
        }
        if !arrives(wire).await {
            continue;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

/// From the server to the client.
async fn down(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, wire: &Wire<'_>) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = match from.read(&mut piece).await {
            Ok(read) if read > 0 => read,
            _ if *wire.half_open.borrow() => return std::future::pending().await,
            _ => {
                let _ = to.shutdown().await;
                return;
            }
        };
        let held = *wire.held.borrow();
        if let Some(place) = held {
            let text = String::from_utf8_lossy(&piece[..read]);
            wire.shared.held()[place].answer.push_str(&text);
            // Its client may be gone.
            let _ = to.write_all(&piece[..read]).await;
            continue;
        }
        if !arrives(wire).await {
            continue;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

/// Whether a piece that was read goes on, when it is its time.
async fn arrives(wire: &Wire<'_>) -> bool {
    let weather = wire.shared.weather.borrow().clone();
    if weather == Weather::Swallowed {
        wire.half_open.send_replace(true);
    }
    if let Weather::Late(late) = weather {
        wire.shared.disturb();
        tokio::time::sleep(late).await;
    }
    let is_swallowed = *wire.half_open.borrow();
    if is_swallowed {
        wire.shared.disturb();
    }
    !is_swallowed
}

fn contains(bytes: &[u8], pattern: &[u8]) -> bool {
    bytes
        .windows(pattern.len().max(1))
        .any(|part| part == pattern)
}
