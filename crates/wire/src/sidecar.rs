//! What a fleet asks of a sidecar.

use std::time::Duration;

use carrel_protocol::Endpoint;
use carrel_protocol::sidecar::{AssignRequest, Hello};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};

use crate::Trust;
pub use crate::call::Error;
use crate::call::{Call, parse};

/// How long a sidecar may take to answer, its long polls (25 s) included.
const ANSWER: Duration = Duration::from_secs(35);

/// A sidecar's address.
#[derive(Debug, Clone)]
pub struct Sidecar {
    endpoint: Endpoint,
    trust: Trust,
}

impl Sidecar {
    /// The sidecar that listens there.
    pub fn at(endpoint: Endpoint, trust: Trust) -> Self {
        Self { endpoint, trust }
    }

    /// Hands over the signed assignment.
    ///
    /// # Errors
    /// When it gives no answer that counts.
    pub async fn assign(&self, assignment: String) -> Result<(), Error> {
        let body = serde_json::to_vec(&AssignRequest { assignment }).unwrap_or_default();
        self.call(Method::POST, "/v1/assign", None, body)
            .await
            .map(|_| ())
    }

    /// Whether it takes somebody, or could when it was blank: `GET /readyz`, for which nobody needs a token.
    ///
    /// # Errors
    /// When it does not, with the reason.
    pub async fn ready(&self) -> Result<(), Error> {
        self.call(Method::GET, "/readyz", None, Vec::new())
            .await
            .map(|_| ())
    }

    /// How it is, as soon as its report is another than `after` (a revision), or after a while.
    ///
    /// # Errors
    /// When it gives no answer that counts.
    pub async fn hello(&self, token: &str, after: Option<u64>) -> Result<Hello, Error> {
        let path = match after {
            Some(revision) => format!("/v1/hello?after={revision}"),
            None => "/v1/hello".to_owned(),
        };
        let (status, body) = self
            .call(Method::GET, &path, Some(token), Vec::new())
            .await?;
        parse(status, &body)
    }

    /// Asks it to sleep after its running turn.
    ///
    /// # Errors
    /// When it gives no answer that counts.
    pub async fn sleep(&self, token: &str) -> Result<(), Error> {
        self.call(Method::POST, "/v1/sleep", Some(token), Vec::new())
            .await
            .map(|_| ())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Error> {
        let call = Call {
            host: "sidecar",
            method,
            path,
            token,
            body,
        };
        call.to(&self.endpoint, &self.trust, ANSWER).await
    }
}
