//! One connection to a sidecar, for one request.

use std::time::Duration;

use axum::body::Body;
use carrel_protocol::Endpoint;
use carrel_protocol::fleet::POD_PROTOCOL;
use carrel_wire::{Trust, connect};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::Error;

/// How long it may take until a sidecar can be sent a request.
const OPENS_WITHIN: Duration = Duration::from_secs(10);

/// One connection to a sidecar, or to another gateway, for one request.
#[derive(Debug)]
pub(crate) struct Connection(SendRequest<Body>);

impl Connection {
    /// To whoever listens there.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        trust: &Trust,
        tracker: &TaskTracker,
    ) -> Result<Self, Error> {
        let stream = connect(endpoint, trust).await;
        let stream = stream.map_err(|error| Error::Lost(error.to_string()))?;
        Self::over(stream, tracker).await
    }

    /// To a sidecar, where it listens or through the door of its fleet, which is shown the token.
    pub(crate) async fn to_pod(
        endpoint: &Endpoint,
        bearer: HeaderValue,
        trust: &Trust,
        tracker: &TaskTracker,
    ) -> Result<Self, Error> {
        let opens = async {
            let connection = Self::open(endpoint, trust, tracker).await?;
            match door(endpoint) {
                Some(path) => connection.through(&path, bearer, tracker).await,
                None => Ok(connection),
            }
        };
        let late = |_| Error::Lost("no answer in time".to_owned());
        timeout(OPENS_WITHIN, opens).await.map_err(late)?
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
    async fn through(
        mut self,
        path: &str,
        bearer: HeaderValue,
        tracker: &TaskTracker,
    ) -> Result<Self, Error> {
        let request = Request::get(path)
            .header(header::HOST, "fleet")
            .header(header::AUTHORIZATION, bearer)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, POD_PROTOCOL)
            .body(Body::empty())
            .map_err(|error| Error::Nonsense(error.to_string()))?;
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let said = format!("the fleet's door answers {}", answer.status());
            return Err(if answer.status() == StatusCode::NOT_FOUND {
                Error::Lost(said)
            } else {
                Error::Nonsense(said)
            });
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_door_at_which_nobody_answers_is_not_waited_at_for_ever() {
        let door = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let place = door.local_addr().expect("an address");
        let endpoint = format!("http://{place}/pods/w-1").parse().expect("a URL");
        let (bearer, began) = (HeaderValue::from_static("Bearer x"), Instant::now());
        let (trust, tracker) = (Trust::default(), TaskTracker::new());
        let opens = Connection::to_pod(&endpoint, bearer, &trust, &tracker);
        let opened = timeout(6 * OPENS_WITHIN, opens).await;
        let error = opened
            .expect("it is given up")
            .expect_err("nobody is there");
        assert!(matches!(error, Error::Lost(_)), "{error}");
        assert!(began.elapsed() <= OPENS_WITHIN, "{:?}", began.elapsed());
    }
}
