//! One connection to a sidecar, for one request.

use axum::body::Body;
use carrel_protocol::Endpoint;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::TaskTracker;

use super::Error;

/// One connection to a sidecar, for one request.
#[derive(Debug)]
pub(crate) struct Connection(SendRequest<Body>);

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint, tracker: &TaskTracker) -> Result<Self, Error> {
        let lost = |error: std::io::Error| Error::Lost(error.to_string());
        match endpoint {
            Endpoint::Unix(path) => {
                Self::over(UnixStream::connect(path).await.map_err(lost)?, tracker).await
            }
            Endpoint::Url(url) => {
                let address = url
                    .strip_prefix("http://")
                    .ok_or_else(|| Error::Nonsense("its address is not http".to_owned()))?;
                let stream = TcpStream::connect(address).await.map_err(lost)?;
                stream.set_nodelay(true).map_err(lost)?;
                Self::over(stream, tracker).await
            }
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

    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let sent = self.0.send_request(request).await;
        sent.map_err(|error| Error::Lost(error.to_string()))
    }
}
