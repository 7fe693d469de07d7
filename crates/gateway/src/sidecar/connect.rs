//! One connection to a sidecar, for one request.

use axum::body::Body;
use carrel_protocol::Endpoint;
use carrel_protocol::fleet::POD_PROTOCOL;
use carrel_wire::{Trust, connect};
use http::{Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
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
        let connection = Self::over(stream, tracker).await?;
        match door(endpoint) {
            Some(path) => connection.through(&path, tracker).await,
            None => Ok(connection),
        }
    }

    async fn over<S>(stream: S, tracker: &TaskTracker) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
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

    /// Through the door of the fleet of another machine.
    async fn through(mut self, path: &str, tracker: &TaskTracker) -> Result<Self, Error> {
        let request = Request::get(path)
            .header(header::HOST, "fleet")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, POD_PROTOCOL)
            .body(Body::empty())
            .map_err(|error| Error::Nonsense(error.to_string()))?;
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status();
            return Err(Error::Lost(format!("the fleet's answer is {status}")));
        }
        let through = hyper::upgrade::on(answer).await;
        let through = through.map_err(|error| Error::Lost(error.to_string()))?;
        Self::over(TokioIo::new(through), tracker).await
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let sent = self.0.send_request(request).await;
        sent.map_err(|error| Error::Lost(error.to_string()))
    }
}

/// The path at which a fleet lets its callers through to this pod; none where the sidecar itself listens.
fn door(endpoint: &Endpoint) -> Option<String> {
    let Endpoint::Url(url) = endpoint else {
        return None;
    };
    let url: Uri = url.parse().ok()?;
    (url.path() != "/").then(|| url.path().to_owned())
}
