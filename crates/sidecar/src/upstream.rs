//! HTTP to router and vault, with the learner's token. One connection a request: nothing is kept while it is quiet.

use std::io;

use carrel_protocol::Endpoint;
use carrel_wire::{Stream, Trust};
use http::header::{AUTHORIZATION, HOST};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody is there.
    #[error("connecting")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("asking")]
    Exchange(#[from] hyper::Error),
    /// The endpoint or token is of no use.
    #[error("the address or the token cannot be used")]
    Unusable,
}

/// A role that is called with the learner's token.
#[derive(Clone)]
pub(crate) struct Upstream {
    endpoint: Endpoint,
    /// The path of its URL, below which all paths are; its host.
    base: String,
    host: HeaderValue,
    trust: Trust,
    bearer: HeaderValue,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// An upstream; connections are work of `tasks`.
    pub(crate) fn new(
        endpoint: Endpoint,
        token: &str,
        trust: Trust,
        tasks: TaskTracker,
    ) -> Result<Self, Error> {
        let mut bearer =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Error::Unusable)?;
        bearer.set_sensitive(true);
        let url: Uri = endpoint.base_url().parse().map_err(|_| Error::Unusable)?;
        let authority = url.authority().ok_or(Error::Unusable)?.as_str();
        Ok(Self {
            host: HeaderValue::try_from(authority).map_err(|_| Error::Unusable)?,
            base: url.path().trim_end_matches('/').to_owned(),
            endpoint,
            trust,
            bearer,
            tasks,
        })
    }

    /// Sends a request whose URI is a path; host and token are put in here.
    pub(crate) async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, Error>
    where
        B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send> + Send + 'static,
    {
        let stream = self.connect().await?;
        self.send_over(stream, request).await
    }

    /// A connection, for one request.
    pub(crate) async fn connect(&self) -> Result<Stream, Error> {
        let connected = carrel_wire::connect(&self.endpoint, &self.trust).await;
        connected.map_err(Error::Connect)
    }

    /// As [`Self::send`], over a connection.
    pub(crate) async fn send_over<B>(
        &self,
        stream: Stream,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, Error>
    where
        B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send> + Send + 'static,
    {
        let path = request.uri().path_and_query();
        let path = path.map_or("/", PathAndQuery::as_str);
        let path = format!("{}{path}", self.base);
        *request.uri_mut() = path.parse().map_err(|_| Error::Unusable)?;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.bearer.clone());
        headers.insert(HOST, self.host.clone());
        exchange(stream, request, &self.tasks).await
    }
}

/// One request over one connection, which lives until the answer's body has been read or dropped.
pub(crate) async fn exchange<S, B>(
    stream: S,
    request: Request<B>,
    tasks: &TaskTracker,
) -> Result<Response<Incoming>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await?;
    tasks.spawn(async move {
        // A broken connection is seen by whoever waits for the answer.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender.send_request(request).await?)
}

/// Takes out the headers that concern one connection only (RFC 9110, 7.6.1).
pub(crate) fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    for name in named.iter().map(String::as_str).chain(HOP) {
        headers.remove(name);
    }
}

const HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Takes out, beside those, what says who calls and where.
pub(crate) fn strip(headers: &mut HeaderMap) {
    strip_hop(headers);
    for name in ["host", "authorization", "x-api-key"] {
        headers.remove(name);
    }
}

/// A link in a chain of causes, for logs: `connecting: connection refused`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The shared body type of small requests.
pub(crate) type Whole = http_body_util::Full<bytes::Bytes>;
