//! The way out for hosts that a class allows by name: an HTTP proxy on the agent's loopback. It resolves names itself,
//! and connects to what it has resolved and checked and to nothing else. It logs hosts and sizes, never content.

mod policy;
mod route;

use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio_util::task::TaskTracker;

use crate::loopback::{Answer, answer};
use crate::upstream;
pub(crate) use policy::Policy;
pub(crate) use route::Route;

/// The proxy: what is allowed, and how one gets there.
#[derive(Debug)]
pub(crate) struct Egress {
    pub(crate) policy: Policy,
    pub(crate) route: Route,
    pub(crate) tasks: TaskTracker,
}

/// Why a connection was not made, in words for the agent's author.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The request names no host.
    #[error("name a host and a port")]
    NoHost,
    /// The class does not allow it.
    #[error("'{0}' is not among the hosts that this class allows (spec.egress.allow)")]
    NotAllowed(String),
    /// The name stands for an address that agents may not reach.
    #[error("'{0}' has no public address")]
    NotPublic(String),
    /// It could not be reached.
    #[error("'{0}' cannot be reached")]
    Unreachable(String),
}

impl Refusal {
    fn answer(&self) -> Answer {
        tracing::info!(reason = %self, "a way out was refused");
        let status = match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::NotAllowed(_) | Self::NotPublic(_) => StatusCode::FORBIDDEN,
            Self::Unreachable(_) => StatusCode::BAD_GATEWAY,
        };
        answer(
            status,
            "text/plain; charset=utf-8",
            format!("carrel: {self}\n"),
        )
    }
}

/// Answers one request to the proxy.
pub(crate) async fn forward(egress: Arc<Egress>, request: Request<Incoming>) -> Answer {
    let tunnelled = request.method() == Method::CONNECT;
    let done = if tunnelled {
        tunnel(&egress, request).await
    } else {
        plain(&egress, request).await
    };
    done.unwrap_or_else(|refusal| refusal.answer())
}

/// `CONNECT host:port`.
async fn tunnel(egress: &Egress, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (host, port) = target(request.uri(), 443)?;
    let mut there = egress.route.connect(&egress.policy, &host, port).await?;
    egress.tasks.spawn(async move {
        let Ok(here) = hyper::upgrade::on(request).await else {
            return;
        };
        let mut here = TokioIo::new(here);
        let (sent, received) = copy_bidirectional(&mut here, &mut there)
            .await
            .unwrap_or_default();
        tracing::info!(host, port, sent, received, "a way out was used");
    });
    Ok(Response::new(
        Empty::new().map_err(|never| match never {}).boxed(),
    ))
}

/// `GET http://host/path`: for programs that do not speak TLS.
async fn plain(egress: &Egress, mut request: Request<Incoming>) -> Result<Answer, Refusal> {
    let uri = std::mem::take(request.uri_mut());
    if uri.scheme_str() != Some("http") {
        return Err(Refusal::NoHost);
    }
    let (host, port) = target(&uri, 80)?;
    let there = egress.route.connect(&egress.policy, &host, port).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Refusal::NoHost)?;
    upstream::strip_hop(request.headers_mut());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let authority = HeaderValue::try_from(authority).map_err(|_| Refusal::NoHost)?;
    request.headers_mut().insert(HOST, authority);
    let answer = upstream::exchange(there, request, &egress.tasks).await;
    let mut answer = answer.map_err(|_| Refusal::Unreachable(host.clone()))?;
    tracing::info!(host, port, "a way out was used");
    upstream::strip_hop(answer.headers_mut());
    Ok(answer.map(BodyExt::boxed))
}

fn target(uri: &Uri, port: u16) -> Result<(String, u16), Refusal> {
    let host = uri.host().ok_or(Refusal::NoHost)?;
    let host = host
        .trim_matches(['[', ']'])
        .trim_end_matches('.')
        .to_ascii_lowercase();
    Ok((host, uri.port_u16().unwrap_or(port)))
}
