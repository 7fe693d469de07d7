//! A call of a fleet: one request, one connection, no pool to keep.

use std::time::Duration;

use carrel_protocol::{Endpoint, Problem};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use crate::{Trust, connect};

/// Why there is no answer that counts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("it does not answer")]
    Silent(#[source] std::io::Error),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// It answered with a problem.
    #[error("it refused: {0}")]
    Refused(Box<Problem>),
    /// It took too long.
    #[error("it took too long to answer")]
    Late,
    /// The answer makes no sense.
    #[error("it answered with status {0} and nothing that can be read")]
    Unreadable(u16),
}

/// What is asked.
pub(crate) struct Call<'a> {
    pub(crate) host: &'static str,
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) body: Vec<u8>,
}

impl Call<'_> {
    /// Asks whoever is there.
    pub(crate) async fn to(
        self,
        endpoint: &Endpoint,
        trust: &Trust,
        within: Duration,
    ) -> Result<(StatusCode, Bytes), Error> {
        tokio::time::timeout(within, self.exchange(endpoint, trust))
            .await
            .unwrap_or(Err(Error::Late))
    }

    async fn exchange(
        self,
        endpoint: &Endpoint,
        trust: &Trust,
    ) -> Result<(StatusCode, Bytes), Error> {
        let stream = connect(endpoint, trust).await.map_err(Error::Silent)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Broken)?;
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header("host", self.host)
            .header("content-type", "application/json");
        if let Some(token) = self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::from(self.body)))
            .map_err(|_| Error::Unreadable(0))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(Error::Broken)?;
            let status = response.status();
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(Error::Broken)?
                .to_bytes();
            Ok::<_, Error>((status, body))
        };
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        let (status, body) = tokio::select! {
            biased;
            answer = &mut answer => answer?,
            // The answer may still lie in the channel when the connection ends.
            _ = &mut connection => answer.await?,
        };
        if status.is_success() {
            return Ok((status, body));
        }
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(Error::Refused(Box::new(problem))),
            Err(_) => Err(Error::Unreadable(status.as_u16())),
        }
    }
}

pub(crate) fn parse<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| Error::Unreadable(status.as_u16()))
}
