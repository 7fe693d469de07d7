//! One connection to a sidecar, for one request.

use axum::body::Body;
use carrel_protocol::Endpoint;
use carrel_wire::{Trust, connect};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use super::Error;

/// One connection to a sidecar, for one request.
#[derive(Debug)]
pub(crate) struct Connection(SendRequest<Body>);

impl Connection {
    pub(crate) async fn open(
        endpoint: &Endpoint,
        trust: &Trust,
        tracker: &TaskTracker,
    ) -> Result<Self, Error> {
        let stream = connect(endpoint, trust).await;
        let stream = stream.map_err(|error| Error::Lost(error.to_string()))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::Lost(error.to_string()))?;
        tracker.spawn(async move {
            // Its end reaches the caller through the answer's body.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a sidecar ended");
            }
        });
        Ok(Self(sender))
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let sent = self.0.send_request(request).await;
        sent.map_err(|error| Error::Lost(error.to_string()))
    }
}
