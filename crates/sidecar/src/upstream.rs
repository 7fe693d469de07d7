//! HTTP to router and vault, with the learner's token. One connection a request: nothing is kept while it is quiet.

use std::io;

use carrel_protocol::Endpoint;
use http::header::{AUTHORIZATION, HOST};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
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
    pub(crate) fn new(endpoint: Endpoint, token: &str, tasks: TaskTracker) -> Result<Self, Error> {
        let mut bearer =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Error::Unusable)?;
        bearer.set_sensitive(true);
        Ok(Self {
            endpoint,
            bearer,
            tasks,
        })
    }

    /// Sends a request whose URI is a path; host and token are put in here.
    pub(crate) async fn send<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>, Error>
    where
        B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send> + Send + 'static,
    {
        request
            .headers_mut()
            .insert(AUTHORIZATION, self.bearer.clone());
        match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(Error::Connect)?;
                request
                    .headers_mut()
                    .insert(HOST, HeaderValue::from_static("carrel"));
                exchange(stream, request, &self.tasks).await
            }
            Endpoint::Url(url) => {
                let base: Uri = url.parse().map_err(|_| Error::Unusable)?;
                let stream = connect(&base).await?;
                let authority = base.authority().map_or("", |authority| authority.as_str());
                let host = HeaderValue::try_from(authority).map_err(|_| Error::Unusable)?;
                request.headers_mut().insert(HOST, host);
                *request.uri_mut() = below(&base, request.uri())?;
                exchange(stream, request, &self.tasks).await
            }
        }
    }
}

async fn connect(base: &Uri) -> Result<TcpStream, Error> {
    // Inside a cluster router and vault are reached through its own network; TLS between them is its mesh's.
    if base.scheme_str() != Some("http") {
        return Err(Error::Unusable);
    }
    let host = base.host().ok_or(Error::Unusable)?.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, base.port_u16().unwrap_or(80)))
        .await
        .map_err(Error::Connect)?;
    stream.set_nodelay(true).map_err(Error::Connect)?;
    Ok(stream)
}

/// The path below a base URL's own.
fn below(base: &Uri, uri: &Uri) -> Result<Uri, Error> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    format!("{}{path}", base.path().trim_end_matches('/'))
        .parse()
        .map_err(|_| Error::Unusable)
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
