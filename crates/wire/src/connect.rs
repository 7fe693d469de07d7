//! Opens a connection to another role.

use std::io;
use std::time::Duration;

use carrel_protocol::Endpoint;
use http::Uri;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::Trust;
use crate::tcp::prepare;

/// How long whoever is there may take to answer and to prove who it is.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// A connection, whatever it goes over.
pub type Stream = Box<dyn Duplex>;

/// What goes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects. Whoever is behind `https://` has proved then that the URL's name is its own.
///
/// # Errors
/// Nobody is there, or somebody else, or the endpoint makes no sense; nothing was said to them.
pub async fn connect(endpoint: &Endpoint, trust: &Trust) -> io::Result<Stream> {
    let connects = async {
        match endpoint {
            Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?) as Stream),
            Endpoint::Url(url) => over_tcp(url, trust).await,
        }
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let connected = tokio::time::timeout(CONNECTED_WITHIN, connects).await;
    connected.map_err(|_| late())?
}

async fn over_tcp(url: &str, trust: &Trust) -> io::Result<Stream> {
    let nonsense = || io::Error::new(io::ErrorKind::InvalidInput, "its address makes no sense");
    let url: Uri = url.parse().map_err(|_| nonsense())?;
    let is_tls = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(nonsense()),
    };
    let host = url.host().ok_or_else(nonsense)?.trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    prepare(&stream)?;
    if !is_tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| nonsense())?;
    let stream = TlsConnector::from(trust.config()).connect(name, stream);
    Ok(Box::new(stream.await?))
}
