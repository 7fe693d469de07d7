//! Serves the router on a listener: HTTP/1.1 with bounded headers and patience.

use std::time::Duration;

use axum::Router;
use carrel_wire::{Incoming, Stream};
use http::Request;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::outside::Peer;

/// A client must have sent its headers by then.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// The most bytes of a request's line and headers.
const HEADER_BYTES: usize = 64 * 1024;
/// The most headers of a request.
const HEADERS: usize = 100;

/// Accepts connections until `cancel`; requests under way may finish then. `tracker` waits for the connections.
pub async fn serve(
    mut incoming: Incoming,
    router: Router,
    tracker: TaskTracker,
    cancel: CancellationToken,
) {
    let is_tls = incoming.is_tls();
    while let Some(arrived) = cancel.run_until_cancelled(incoming.next()).await {
        let peer = Peer {
            address: arrived.peer.ip(),
            is_tls,
        };
        let (router, cancel) = (router.clone(), cancel.clone());
        tracker.spawn(connection(arrived.stream, peer, router, cancel));
    }
}

async fn connection(stream: Stream, peer: Peer, router: Router, cancel: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let connection = http
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
