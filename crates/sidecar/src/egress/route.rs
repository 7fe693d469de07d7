//! How the egress proxy gets to a host: by itself, or through the router's egress port.

use carrel_protocol::Endpoint;
use carrel_wire::{Stream, Trust, connect};
use http::{HeaderValue, Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio_util::task::TaskTracker;

use super::{Policy, Refusal};
use crate::upstream;

/// How one gets to a host.
pub(crate) enum Route {
    /// From here.
    Direct,
    /// Through the router, which checks again.
    Through {
        /// Its egress port.
        endpoint: Endpoint,
        /// The learner's token.
        token: HeaderValue,
        /// Whose word is taken for who it is.
        trust: Trust,
        /// Whose work the connections are.
        tasks: TaskTracker,
    },
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Direct => "Direct",
            Self::Through { .. } => "Through(…)",
        })
    }
}

impl Route {
    /// The route of an assignment.
    pub(crate) fn new(
        endpoint: Option<&Endpoint>,
        token: &str,
        trust: &Trust,
        tasks: &TaskTracker,
    ) -> Result<Self, upstream::Error> {
        let Some(endpoint) = endpoint else {
            return Ok(Self::Direct);
        };
        let mut token = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| upstream::Error::Unusable)?;
        token.set_sensitive(true);
        Ok(Self::Through {
            endpoint: endpoint.clone(),
            token,
            trust: trust.clone(),
            tasks: tasks.clone(),
        })
    }

    /// Connects to an allowed host.
    pub(crate) async fn connect(
        &self,
        policy: &Policy,
        host: &str,
        port: u16,
    ) -> Result<Stream, Refusal> {
        if !policy.allows_host(host) {
            return Err(Refusal::NotAllowed(host.to_owned()));
        }
        let unreachable = || Refusal::Unreachable(host.to_owned());
        match self {
            Self::Direct => {
                let stream = direct(policy, host, port).await?;
                Ok(Box::new(stream))
            }
            Self::Through {
                endpoint,
                token,
                trust,
                tasks,
            } => {
                let stream = connect(endpoint, trust).await.map_err(|_| unreachable())?;
                through(stream, token, host, port, tasks)
                    .await
                    .ok_or_else(unreachable)
            }
        }
    }
}

async fn direct(policy: &Policy, host: &str, port: u16) -> Result<TcpStream, Refusal> {
    let unreachable = || Refusal::Unreachable(host.to_owned());
    let mut found = false;
    for address in lookup_host((host, port)).await.map_err(|_| unreachable())? {
        if !policy.allows_address(address.ip()) {
            continue;
        }
        found = true;
        // To what was checked: the name is not resolved again.
        if let Ok(stream) = TcpStream::connect(address).await {
            return Ok(stream);
        }
    }
    Err(if found {
        unreachable()
    } else {
        Refusal::NotPublic(host.to_owned())
    })
}

async fn through(
    stream: Stream,
    token: &HeaderValue,
    host: &str,
    port: u16,
    tasks: &TaskTracker,
) -> Option<Stream> {
    let (mut sender, connection) = http1::handshake::<_, upstream::Whole>(TokioIo::new(stream))
        .await
        .ok()?;
    tasks.spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let target = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let request = Request::connect(&target)
        .header(header::HOST, &target)
        .header(header::PROXY_AUTHORIZATION, token)
        .body(upstream::Whole::default())
        .ok()?;
    let answer = sender.send_request(request).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let upgraded = hyper::upgrade::on(answer).await.ok()?;
    Some(Box::new(TokioIo::new(upgraded)))
}
