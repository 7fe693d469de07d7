//! How the egress proxy gets to a host: by itself, or through the router's egress port.

use carrel_protocol::Endpoint;
use carrel_wire::egress::{self, Policy, Refusal};
use carrel_wire::{Stream, Trust, connect};
use http::{HeaderValue, Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

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
        match self {
            Self::Direct => {
                let stream = egress::connect(policy, host, port).await?;
                Ok(Box::new(stream))
            }
            Self::Through {
                endpoint,
                token,
                trust,
                tasks,
            } => {
                // Nobody is asked what is refused anyway.
                if !policy.allows_host(host) {
                    return Err(Refusal::NotAllowed(host.to_owned()));
                }
                let unreachable = || Refusal::Unreachable(host.to_owned());
                let stream = connect(endpoint, trust).await.map_err(|_| unreachable())?;
                let answered = through(stream, token, host, port, tasks).await;
                answered.map_err(|refusal| refusal.unwrap_or_else(unreachable))
            }
        }
    }
}

/// Through the router's port; why not, if it says so.
async fn through(
    stream: Stream,
    token: &HeaderValue,
    host: &str,
    port: u16,
    tasks: &TaskTracker,
) -> Result<Stream, Option<Refusal>> {
    let broken = |_| None;
    let handshake = http1::handshake::<_, upstream::Whole>(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(broken)?;
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
        .map_err(|_| None)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    match answer.status() {
        // The host is allowed here: it is its addresses that are not.
        StatusCode::FORBIDDEN => Err(Some(Refusal::NotPublic(host.to_owned()))),
        status if !status.is_success() => {
            tracing::warn!(%status, host, "the router opened no way out");
            Err(None)
        }
        _ => {
            let upgraded = hyper::upgrade::on(answer).await.map_err(broken)?;
            Ok(Box::new(TokioIo::new(upgraded)))
        }
    }
}
