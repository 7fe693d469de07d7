//! A way to a server on which connections can be made half open: they stay, and nothing comes through any more.

use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The way. Dropping it closes all connections.
pub(crate) struct Swallower {
    port: u16,
    target: Arc<OnceLock<String>>,
    /// How often connections were swallowed: those of before bring nothing.
    swallowed: watch::Sender<u32>,
    _accepts: JoinSet<()>,
}

impl Swallower {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let target: Arc<OnceLock<String>> = Arc::default();
        let swallowed = watch::Sender::new(0);
        let (leads_to, heard) = (Arc::clone(&target), swallowed.subscribe());
        let mut accepts = JoinSet::new();
        accepts.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if let Some(target) = leads_to.get() {
                    connections.spawn(pass(client, target.clone(), heard.clone()));
                }
            }
        });
        Ok(Self {
            port,
            target,
            swallowed,
            _accepts: accepts,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where it leads, as an `http://` URL; said once.
    pub(crate) fn leads_to(&self, url: &str) {
        let address = url.trim_start_matches("http://").to_owned();
        self.target.get_or_init(|| address);
    }

    /// What is open now brings nothing from now on, and stays open.
    pub(crate) fn swallow(&self) {
        self.swallowed.send_modify(|times| *times += 1);
    }
}

async fn pass(mut client: TcpStream, target: String, mut swallowed: watch::Receiver<u32>) {
    swallowed.mark_unchanged();
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut bytes = vec![0; 65_536];
    let both = async {
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        }
    };
    tokio::select! {
        () = both => return,
        _ = swallowed.changed() => {}
    }
    // The server is not to notice.
    while from_server
        .read(&mut bytes)
        .await
        .is_ok_and(|read| read > 0)
    {}
    let _ = to_server.shutdown().await;
}
