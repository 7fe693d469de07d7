//! A relay between a store and the server, on a Unix socket of its own, that can lose answers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

const SOCKET: &str = ".s.PGSQL.5432";
const EXECUTE: u8 = b'E';
/// The length of a message that comes before the first.
const ASKS_FOR_TLS: usize = 8;
const QUERY: u8 = b'Q';

/// To what the answer is lost, with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loses {
    Nothing,
    /// To what a statement of its own does.
    Execution,
    /// To the end of a transaction.
    Commit,
    /// To everything, and no connection ends: the network is silent.
    Everything,
}

/// What a relay never gives.
enum Never {}

/// Ends with its value.
pub(crate) struct Relay {
    folder: TempDir,
    loses: Arc<Mutex<Loses>>,
    _connections: JoinSet<()>,
}

impl Relay {
    pub(crate) fn start(server: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join(SOCKET)).expect("a socket");
        let loses = Arc::new(Mutex::new(Loses::Nothing));
        let (server, wanted) = (server.join(SOCKET), loses.clone());
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut relayed = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                relayed.spawn(relay(client, server.clone(), wanted.clone()));
            }
        });
        Self {
            folder,
            loses,
            _connections: connections,
        }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn lose(&self, what: Loses) {
        *self.loses.lock().expect("nobody panics with it") = what;
    }
}

/// Passes both ways, message by message of the client's, until an answer is to be lost or somebody closes.
async fn relay(client: UnixStream, server: PathBuf, loses: Arc<Mutex<Loses>>) -> Option<Never> {
    let server = UnixStream::connect(server).await.ok()?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_lost = Arc::new(Mutex::new(false));
    let (lost, is_silent) = (is_lost.clone(), loses.clone());
    let asks = async move {
        // `None` when somebody closed. The first message has no kind.
        let mut message = body(&mut from_client, Vec::new()).await?;
        if message.len() == ASKS_FOR_TLS {
            to_server.write_all(&message).await.ok()?;
            message = body(&mut from_client, Vec::new()).await?;
        }
        loop {
            let what = *loses.lock().expect("nobody panics with it");
            let is_commit = message.windows(6).any(|text| text == b"COMMIT");
            let is_to_be_lost = match what {
                Loses::Nothing | Loses::Everything => false,
                Loses::Execution => message[0] == EXECUTE,
                Loses::Commit => message[0] == QUERY && is_commit,
            };
            if is_to_be_lost {
                *lost.lock().expect("nobody panics with it") = true;
            }
            to_server.write_all(&message).await.ok()?;
            let kind = from_client.read_u8().await.ok()?;
            message = body(&mut from_client, vec![kind]).await?;
        }
    };
    let answers = async move {
        let mut bytes = vec![0; 65_536];
        loop {
            let read = from_server.read(&mut bytes).await.ok()?;
            if read == 0 || *is_lost.lock().expect("nobody panics with it") {
                return None;
            }
            if *is_silent.lock().expect("nobody panics with it") == Loses::Everything {
                continue;
            }
            to_client.write_all(&bytes[..read]).await.ok()?;
        }
    };
    tokio::select! {
        ended = asks => ended,
        ended = answers => ended,
    }
}

/// The rest of a message: its length, which counts itself, and what it says.
async fn body(from: &mut (impl AsyncRead + Unpin), mut message: Vec<u8>) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    message.extend(length.to_be_bytes());
    let start = message.len();
    message.resize(start + usize::try_from(length).ok()?.saturating_sub(4), 0);
    from.read_exact(&mut message[start..]).await.ok()?;
    Some(message)
}
