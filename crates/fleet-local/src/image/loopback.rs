//! Registries on this machine's loopback, which may do without TLS: nobody listens on the way.

use std::error::Error as StdError;
use std::io;
use std::iter::successors;
use std::net::IpAddr;

use oci_client::errors::OciDistributionError;

/// Whether a registry, `host[:port]`, is on this machine's loopback.
pub(super) fn is_on_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => registry,
    };
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Whether it came to no TLS with a registry. One that shows a certificate speaks it, also when that does not serve.
pub(super) fn speaks_no_tls(error: &OciDistributionError) -> bool {
    let OciDistributionError::RequestError(error) = error else {
        return false;
    };
    let mut sources = successors(Some(error as &dyn StdError), |error| inner(*error));
    let shows_certificate = sources.any(|error| {
        matches!(
            error.downcast_ref(),
            Some(rustls::Error::InvalidCertificate(_))
        )
    });
    error.is_connect() && !shows_certificate
}

/// What an error is about. What an [`io::Error`] wraps is not its source, but takes its place.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
    wrapped
        .map(|wrapped| wrapped as &(dyn StdError + 'static))
        .or_else(|| error.source())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, mpsc};
    use std::thread;

    use carrel_testkit::certificates::{Authority, Certified};
    use oci_client::Client;
    use oci_client::client::{Certificate, CertificateEncoding, ClientConfig};
    use rustls::{ServerConnection, StreamOwned};
    use tempfile::TempDir;

    use super::*;
    use crate::image::{Error, Images};

    /// Answers one request that the image is not here; what was asked, if it was HTTP.
    fn answer(mut stream: impl Read + Write) -> Option<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return None;
            }
            head.push(byte[0]);
            if !head.is_ascii() || head[0] < b' ' {
                // A handshake.
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
                return None;
            }
        }
        let none = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(none).ok()?;
        let head = String::from_utf8(head).ok()?;
        head.split_whitespace().nth(1).map(str::to_owned)
    }

    /// A registry that has no image: its address, and what it is asked.
    fn serve(
        respond: impl Fn(TcpStream) -> Option<String> + Send + 'static,
    ) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (asked, all) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if let Some(path) = respond(stream.unwrap()) {
                    asked.send(path).unwrap();
                }
            }
        });
        (address, all)
    }

    /// One that speaks TLS by this certificate.
    fn serve_tls(certificate: &Certified) -> (String, mpsc::Receiver<String>) {
        let config = certificate.server();
        serve(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            answer(StreamOwned::new(connection, stream))
        })
    }

    async fn refusal(images: &Images, address: &str) -> String {
        let pulled = images.pull(&format!("{address}/school:one")).await;
        let Err(Error::Pull { source, .. }) = pulled else {
            unreachable!("{pulled:?}");
        };
        let sources = successors(Some(&*source as &dyn StdError), |error| inner(*error));
        let said: Vec<_> = sources.map(ToString::to_string).collect();
        said.join(": ")
    }

    const ASKED: [&str; 2] = ["/v2/", "/v2/school/manifests/one"];

    #[tokio::test]
    async fn a_registry_on_loopback_is_asked_by_tls_first_and_without_where_it_speaks_none() {
        let folder = TempDir::new().unwrap();
        let mut images = Images::new(folder.path().join("images"));

        let (address, asked) = serve(answer);
        let said = refusal(&images, &address).await;
        assert!(said.contains("404"), "{said}");
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), ASKED);

        let authority = Authority::new("registry");
        let (address, asked) = serve_tls(&authority.certify(&["127.0.0.1"]));
        let said = refusal(&images, &address).await;
        assert!(said.contains("certificate"), "it is not trusted: {said}");
        images.client = Client::new(ClientConfig {
            extra_root_certificates: vec![Certificate {
                encoding: CertificateEncoding::Pem,
                data: authority.pem.into_bytes(),
            }],
            ..ClientConfig::default()
        });
        let said = refusal(&images, &address).await;
        assert!(said.contains("404"), "{said}");
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), ASKED);
    }

    #[test]
    fn registries_on_loopback_are_known_by_name_and_address() {
        for registry in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:9",
            "127.8.0.1",
            "[::1]:5000",
        ] {
            assert!(is_on_loopback(registry), "{registry}");
        }
        for registry in [
            "ghcr.io",
            "10.0.0.1:5000",
            "localhost.example:80",
            "[2001:db8::1]:443",
        ] {
            assert!(!is_on_loopback(registry), "{registry}");
        }
    }
}
