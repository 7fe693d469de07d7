//! A proxy on loopback before the server, in a thread of its own: undisturbed connections are passed on as they are; while it
//! disturbs, each connection carries one request.

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and code of S3's, and goes no further.
    Answer(u16, &'static str),
    /// It is answered so late.
    Slow(Duration),
    /// It is done, and its answer breaks off in the middle of the body.
    Truncated,
    /// It is done, and nothing of its answer arrives.
    Cut,
    /// Writes under a condition are unknown words; everything else passes.
    NoConditions,
    /// There is no room for what is written; everything else passes.
    Full,
}

#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) port: u16,
    shared: Arc<Mutex<Shared>>,
    cancel: CancellationToken,
}

#[derive(Debug, Default)]
struct Shared {
    fault: Option<Fault>,
    every: u64,
    requests: u64,
    disturbed: u64,
    /// Cancelled when the fault changes: connections that live on would not notice.
    old: CancellationToken,
}

impl Shared {
    /// What the next request meets.
    fn next(&mut self) -> Option<Fault> {
        self.requests += 1;
        let meets = self.requests.is_multiple_of(self.every.max(1));
        self.fault.filter(|_| meets)
    }
}

impl Proxy {
    pub(super) fn start(server: PathBuf) -> io::Result<Self> {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let proxy = Self {
            port: listener.local_addr()?.port(),
            shared: Arc::default(),
            cancel: CancellationToken::new(),
        };
        let (shared, cancel) = (Arc::clone(&proxy.shared), proxy.cancel.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::spawn(move || {
            runtime.block_on(cancel.run_until_cancelled(accept(listener, &server, &shared)));
        });
        Ok(proxy)
    }

    pub(super) fn disturb(&self, fault: Option<Fault>, every: u64) {
        let mut shared = lock(&self.shared);
        (shared.fault, shared.every, shared.requests) = (fault, every, 0);
        std::mem::take(&mut shared.old).cancel();
    }

    pub(super) fn disturbed(&self) -> u64 {
        lock(&self.shared).disturbed
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: StdListener, server: &Path, shared: &Arc<Mutex<Shared>>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (server, shared) = (server.to_owned(), Arc::clone(shared));
        // A connection that breaks is what the client is to see; nobody here waits for it.
        connections.spawn(async move { pass(client, server, shared).await.ok() });
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(
    mut client: TcpStream,
    server: PathBuf,
    shared: Arc<Mutex<Shared>>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (old, quiet) = {
        let shared = lock(&shared);
        (shared.old.clone(), shared.fault.is_none())
    };
    let mut upstream = UnixStream::connect(server).await?;
    let passing = async {
        if quiet {
            copy_bidirectional(&mut client, &mut upstream).await?;
            return Ok(());
        }
        one_request(&mut client, &mut upstream, &shared).await
    };
    old.run_until_cancelled(passing).await.unwrap_or(Ok(()))
}

async fn one_request(
    client: &mut TcpStream,
    upstream: &mut UnixStream,
    shared: &Mutex<Shared>,
) -> io::Result<()> {
    let (head, mut body) = head(client).await?;
    let length = header(&head, "content-length").and_then(|text| text.parse().ok());
    body.reserve(length.unwrap_or(0));
    while body.len() < length.unwrap_or(0) {
        if client.read_buf(&mut body).await? == 0 {
            return Ok(());
        }
    }
    let fault = lock(shared).next();
    let fault = fault.filter(|fault| match fault {
        Fault::NoConditions => header(&head, "if-none-match").is_some(),
        Fault::Full => head.starts_with("PUT ") || head.starts_with("POST "),
        Fault::Answer(..) | Fault::Slow(_) | Fault::Truncated | Fault::Cut => true,
    });
    lock(shared).disturbed += u64::from(fault.is_some());
    let refusal = match fault {
        Some(Fault::Answer(status, code)) => Some((status, code)),
        Some(Fault::NoConditions) => Some((501, "NotImplemented")),
        Some(Fault::Full) => Some((507, "InsufficientStorage")),
        _ => None,
    };
    if let Some((status, code)) = refusal {
        let text = format!("<Error><Code>{code}</Code><Message>a test</Message></Error>");
        let text = if head.starts_with("HEAD ") { "" } else { &text };
        let head = format!(
            "HTTP/1.1 {status} Fault\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        client.write_all(head.as_bytes()).await?;
        return client.shutdown().await;
    }
    // The server closes after its answer, and so its end is seen.
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    upstream.write_all(head.as_bytes()).await?;
    upstream.write_all(&body).await?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    match fault {
        Some(Fault::Cut) => return Ok(()),
        Some(Fault::Truncated) => {
            let body = answer.windows(4).position(|four| four == b"\r\n\r\n");
            let body = body.map_or(0, |end| end + 4);
            answer.truncate(body + (answer.len() - body) / 2);
        }
        Some(Fault::Slow(late)) => tokio::time::sleep(late).await,
        _ => {}
    }
    client.write_all(&answer).await?;
    client.shutdown().await
}

/// A request's head, and what of its body came with it.
async fn head(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}
