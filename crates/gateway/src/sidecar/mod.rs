//! A learner's sidecar, called: HTTP/1.1 over its Unix socket or TCP, each call with a token of its own.

mod asking;
mod connect;
mod frames;

pub use asking::Sidecars;
pub(crate) use connect::Connection;
pub(crate) use frames::Frames;

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use carrel_core::{Epoch, LearnerId, TurnId};
use carrel_protocol::sidecar::{Frame, Hello, TurnOrder};
use carrel_protocol::token::{Caller, Signer};
use carrel_protocol::{Code, Endpoint, Problem};
use carrel_wire::Trust;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::options::Clock;

/// The most bytes of an answer that is read whole.
const ANSWER_BYTES: usize = 64 * 1024;
/// For an answer to begin once everything was sent, and to be whole: longer than a sidecar waits for something itself.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// Why a sidecar gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be connected to, or the connection broke.
    #[error("the sidecar cannot be reached: {0}")]
    Lost(String),
    /// It refused.
    #[error("the sidecar refused: {0}")]
    Refused(Problem),
    /// It is no sidecar, or of another version.
    #[error("the sidecar's answer makes no sense: {0}")]
    Nonsense(String),
}

/// A learner's sidecar in one incarnation.
#[derive(Debug, Clone)]
pub(crate) struct Sidecar {
    pub(crate) learner: LearnerId,
    pub(crate) epoch: Epoch,
    pub(crate) endpoint: Endpoint,
    pub(crate) trust: Trust,
    pub(crate) signer: Signer,
    pub(crate) clock: Clock,
    pub(crate) tracker: TaskTracker,
}

impl Sidecar {
    /// How far it is; waits until it is ready or past that, at most 25 s.
    pub(crate) async fn ready(&self) -> Result<Hello, Error> {
        let response = self.call(Method::GET, "/v1/ready", Body::empty()).await?;
        let bytes = whole(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Nonsense(error.to_string()))
    }

    /// Runs a turn, or attaches to it when it runs there.
    pub(crate) async fn turn(&self, order: &TurnOrder) -> Result<Frames<Frame>, Error> {
        let body = serde_json::to_vec(order).map_err(|error| Error::Nonsense(error.to_string()))?;
        let response = self.call(Method::POST, "/v1/turns", body.into()).await?;
        Ok(Frames::new(response.into_body()))
    }

    /// Stops a turn.
    pub(crate) async fn stop(&self, turn: TurnId) -> Result<(), Error> {
        let path = format!("/v1/turns/{turn}/stop");
        self.call(Method::POST, &path, Body::empty()).await?;
        Ok(())
    }

    /// Asks it to sleep after its running turn.
    pub(crate) async fn sleep(&self) -> Result<(), Error> {
        self.call(Method::POST, "/v1/sleep", Body::empty()).await?;
        Ok(())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| Error::Nonsense(error.to_string()))?;
        let response = in_time(self.send(request)).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = whole(response).await.unwrap_or_default();
        Err(serde_json::from_slice(&bytes)
            .map_or_else(|_| Error::Refused(unexplained(status)), Error::Refused))
    }

    /// Sends any request, with our token in it.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let bearer = self.bearer()?;
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, bearer.clone());
        headers.insert(header::HOST, HeaderValue::from_static("carrel"));
        let (endpoint, trust) = (&self.endpoint, &self.trust);
        let mut connection = Connection::to_pod(endpoint, bearer, trust, &self.tracker).await?;
        connection.send(request).await
    }

    fn bearer(&self) -> Result<HeaderValue, Error> {
        let token = self
            .signer
            .caller_token(Caller::Gateway, &self.learner, self.epoch, self.clock.now())
            .map_err(|error| Error::Nonsense(error.to_string()))?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|error| Error::Nonsense(error.to_string()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Error::Lost("no answer in time".to_owned());
    timeout(ANSWERS_WITHIN, answer).await.map_err(late)?
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Error> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES);
    let collected = async {
        let collected = body.collect().await;
        collected.map_err(|error| Error::Lost(error.to_string()))
    };
    Ok(in_time(collected).await?.to_bytes())
}

fn unexplained(status: StatusCode) -> Problem {
    let code = match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::MISDIRECTED_REQUEST => Code::Misdirected,
        StatusCode::CONFLICT => Code::Conflict,
        StatusCode::NOT_FOUND => Code::NotFound,
        status if status.is_client_error() => Code::InvalidRequest,
        _ => Code::Unavailable,
    };
    Problem::new(code, format!("status {status}"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_takes_a_call_and_never_answers_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("sidecar.sock");
        let _listens = UnixListener::bind(&socket).expect("a socket");
        let pem = Signer::generate_pem().expect("randomness");
        let sidecar = Sidecar {
            learner: "ada".parse().expect("a label"),
            epoch: Epoch(7),
            endpoint: Endpoint::Unix(socket),
            trust: Trust::default(),
            signer: Signer::from_pem(&pem).expect("a key"),
            clock: Clock::new(|| Timestamp::UNIX_EPOCH),
            tracker: TaskTracker::new(),
        };
        let patience = 2 * ANSWERS_WITHIN;
        let ready = timeout(patience, async { sidecar.ready().await.map(drop) });
        let sleep = timeout(patience, sidecar.sleep());
        for lost in [ready.await, sleep.await] {
            let error = lost.expect("it is given up").expect_err("nobody answered");
            assert!(matches!(error, Error::Lost(_)), "{error}");
        }
    }
}
