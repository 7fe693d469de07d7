//! The egress port: the way out of pods that reach router and vault alone. `CONNECT host:port` with the learner's token as
//! `Proxy-Authorization: Bearer …`. The fence decides like about a model call, and the class about hosts; connections are
//! counted and logged, never what goes through them.

mod answer;
mod places;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use carrel_protocol::token::Audience;
use carrel_telemetry::label::{ByKind, ByResult};
use carrel_wire::egress::{self, Moved, Policy, Refusal, tunnel};
use carrel_wire::{Incoming, Stream};
use http::header::PROXY_AUTHORIZATION;
use http::{HeaderMap, Method, Request};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::call::current_policy;
use crate::caller::Caller;
use crate::service::{LAST_CALLS, Service};
use answer::{Answer, No};
use places::{Place, Places};

/// The most connections at once; more wait to be accepted.
const CONNECTIONS: usize = 4096;
/// The most of one learner; more are refused. A sidecar lets its agent have as many.
const EACH: usize = 64;
/// How long a client may take to say where it wants to go.
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// How long nothing may move in a tunnel.
const SILENT_WITHIN: Duration = Duration::from_mins(10);

struct Port {
    service: Service,
    places: Places,
    /// Connections and tunnels.
    tasks: TaskTracker,
    /// Cancelled when they shall end.
    cut: CancellationToken,
}

/// A way out that is open: to where, and for whom.
struct Way {
    caller: Caller,
    host: String,
    port: u16,
    stream: TcpStream,
    place: Place,
}

impl Service {
    /// Serves the egress port until cancelled; what is open then may end for a bounded time.
    pub async fn run_egress(self, mut incoming: Incoming, cancel: CancellationToken) {
        let port = Arc::new(Port {
            service: self,
            places: Places::of(EACH),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
        });
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        let accept = async {
            while let Ok(permit) = Arc::clone(&free).acquire_owned().await {
                let arrived = incoming.next().await;
                let (port, cut) = (Arc::clone(&port), port.cut.clone());
                let serves = serve(Arc::clone(&port), arrived.stream, permit);
                port.tasks
                    .spawn(async move { cut.run_until_cancelled(serves).await });
            }
        };
        cancel.run_until_cancelled(accept).await;
        drop(incoming);
        port.tasks.close();
        // Who is not done by then is cut off.
        let _ = timeout(LAST_CALLS, port.tasks.wait()).await;
        port.cut.cancel();
    }
}

async fn serve(port: Arc<Port>, stream: Stream, permit: OwnedSemaphorePermit) {
    let permit = Arc::new(permit);
    let respond = service_fn(move |request| {
        let (port, permit) = (Arc::clone(&port), Arc::clone(&permit));
        async move { Ok::<_, Infallible>(respond(&port, request, permit).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKED_WITHIN)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), respond);
    // A client that goes away harms itself only.
    let _ = connection.with_upgrades().await;
}

async fn respond(
    port: &Arc<Port>,
    request: Request<hyper::body::Incoming>,
    permit: Arc<OwnedSemaphorePermit>,
) -> Answer {
    let metrics = &port.service.shared.ports.metrics;
    let opened = open(port, &request).await;
    let result = opened.as_ref().map_or_else(No::result, |_| "ok");
    metrics
        .egress_connections
        .get_or_create(&ByResult::of(result))
        .inc();
    match opened {
        Ok(way) => {
            let (port_held, cut) = (Arc::clone(port), port.cut.clone());
            port.tasks.spawn(async move {
                let _permit = permit;
                let carries = carry(&port_held, way, request);
                cut.run_until_cancelled(carries).await
            });
            answer::open()
        }
        Err(no) => no.answer(),
    }
}

/// Finds out who asks, whether they may, and connects.
async fn open(port: &Port, request: &Request<hyper::body::Incoming>) -> Result<Way, No> {
    if request.method() != Method::CONNECT {
        return Err(No::Method);
    }
    let shared = &port.service.shared;
    let token = token(request.headers()).ok_or(No::Unknown)?;
    let claims = shared
        .ports
        .verifier
        .learner(token, Audience::Router, shared.now())
        .map_err(|_| No::Unknown)?;
    let learner = claims.sub.clone();
    let caller = Caller::Learner {
        learner: claims.sub,
        epoch: claims.ep,
    };
    let allowed = current_policy(shared, &caller).await.map_err(No::Failure)?;
    let allowed = Policy::new(&allowed.unwrap_or_default().egress);
    let (host, to) = egress::target(request.uri(), 443)?;
    if !allowed.allows_host(&host) {
        return Err(Refusal::NotAllowed(host).into());
    }
    let place = port.places.take(&learner).ok_or(No::TooMany)?;
    let stream = egress::connect(&allowed, &host, to).await?;
    Ok(Way {
        caller,
        host,
        port: to,
        stream,
        place,
    })
}

/// What goes through an open way, until it ends.
async fn carry(port: &Port, way: Way, request: Request<hyper::body::Incoming>) {
    let Way {
        caller,
        host,
        port: to,
        stream,
        place: _place,
    } = way;
    let Ok(here) = hyper::upgrade::on(request).await else {
        return;
    };
    let Moved { sent, received } = tunnel(TokioIo::new(here), stream, SILENT_WITHIN).await;
    let bytes = &port.service.shared.ports.metrics.egress_bytes;
    for (kind, moved) in [("sent", sent), ("received", received)] {
        bytes.get_or_create(&ByKind::of(kind)).inc_by(moved);
    }
    if let Caller::Learner { learner, epoch } = caller {
        tracing::info!(learner.id = %learner, %epoch, host, port = to, sent, received, "a way out was used");
    }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(PROXY_AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
