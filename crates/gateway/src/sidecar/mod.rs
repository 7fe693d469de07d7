//! A learner's sidecar, called: HTTP/1.1 over its Unix socket or TCP, each call with a token of its own.

mod connect;
mod frames;

pub(crate) use connect::Connection;
pub(crate) use frames::Frames;

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
use tokio_util::task::TaskTracker;

use crate::options::Clock;

/// The most bytes of an answer that is read whole.
const ANSWER_BYTES: usize = 64 * 1024;

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
        let response = self.send(request).await?;
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
        self.authorise(request.headers_mut())?;
        let mut connection = self.connect().await?;
        connection.send(request).await
    }

    pub(crate) async fn connect(&self) -> Result<Connection, Error> {
        Connection::open(&self.endpoint, &self.trust, &self.tracker).await
    }

    pub(crate) fn authorise(&self, headers: &mut http::HeaderMap) -> Result<(), Error> {
        let token = self
            .signer
            .caller_token(Caller::Gateway, &self.learner, self.epoch, self.clock.now())
            .map_err(|error| Error::Nonsense(error.to_string()))?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|error| Error::Nonsense(error.to_string()))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
        headers.insert(header::HOST, HeaderValue::from_static("carrel"));
        Ok(())
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Error> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES);
    let collected = body.collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| Error::Lost(error.to_string()))
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
