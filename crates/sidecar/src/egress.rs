//! The way out for hosts that a class allows by name: an HTTP proxy on the agent's loopback. It resolves names itself,
//! and connects to what it has resolved and checked and to nothing else. It logs hosts and sizes, never content.

mod route;

use std::sync::Arc;

use carrel_wire::egress::{Moved, Refusal, target};
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use crate::loopback::{Answer, Place, SILENT_WITHIN, answer};
use crate::upstream;
pub(crate) use carrel_wire::egress::Policy;
pub(crate) use route::Route;

/// The proxy: what is allowed, and how one gets there.
#[derive(Debug)]
pub(crate) struct Egress {
    pub(crate) policy: Policy,
    pub(crate) route: Route,
    pub(crate) tasks: TaskTracker,
}

fn refused(refusal: &Refusal) -> Answer {
    tracing::info!(reason = %refusal, "a way out was refused");
    let kind = "text/plain; charset=utf-8";
    answer(refusal.status(), kind, format!("carrel: {refusal}\n"))
}

/// Answers one request to the proxy.
pub(crate) async fn forward(egress: Arc<Egress>, request: Request<Incoming>) -> Answer {
    let tunnelled = request.method() == Method::CONNECT;
    let done = if tunnelled {
        tunnel(&egress, request).await
    } else {
        plain(&egress, request).await
    };
    done.unwrap_or_else(|refusal| refused(&refusal))
}

/// `CONNECT host:port`.
async fn tunnel(egress: &Egress, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (host, port) = target(request.uri(), 443)?;
    let there = egress.route.connect(&egress.policy, &host, port).await?;
    let place = request.extensions().get::<Place>().cloned();
    egress.tasks.spawn(async move {
        // A tunnel counts among the agent's connections.
        let _place = place;
        let Ok(here) = hyper::upgrade::on(request).await else {
            return;
        };
        let moved = carrel_wire::egress::tunnel(TokioIo::new(here), there, SILENT_WITHIN).await;
        let Moved { sent, received } = moved;
        tracing::info!(host, port, sent, received, "a way out was used");
    });
    Ok(Response::new(
        Empty::new().map_err(|never| match never {}).boxed(),
    ))
}

/// `GET http://host/path`: for programs that do not speak TLS.
async fn plain(egress: &Egress, mut request: Request<Incoming>) -> Result<Answer, Refusal> {
    let uri = std::mem::take(request.uri_mut());
    if uri.scheme_str() != Some("http") {
        return Err(Refusal::NoHost);
    }
    let (host, port) = target(&uri, 80)?;
    let there = egress.route.connect(&egress.policy, &host, port).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Refusal::NoHost)?;
    upstream::strip_hop(request.headers_mut());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let authority = HeaderValue::try_from(authority).map_err(|_| Refusal::NoHost)?;
    request.headers_mut().insert(HOST, authority);
    let answer = upstream::exchange(there, request, &egress.tasks).await;
    let mut answer = answer.map_err(|_| Refusal::Unreachable(host.clone()))?;
    tracing::info!(host, port, "a way out was used");
    upstream::strip_hop(answer.headers_mut());
    Ok(answer.map(BodyExt::boxed))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use carrel_protocol::Endpoint;
    use carrel_testkit::until;
    use carrel_wire::Trust;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;
    use crate::{loopback, pod};

    /// A router that lets everything out, and sends back what comes.
    async fn router() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        TaskTracker::new().spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        Endpoint::Url(format!("http://{address}"))
    }

    /// Reads to the empty line.
    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    async fn connect(address: SocketAddr) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n")
            .await
            .unwrap();
        let answer = head(&mut stream).await;
        (stream, answer)
    }

    #[tokio::test]
    async fn a_tunnel_keeps_its_place_and_who_finds_none_free_is_told() {
        let (pod, free) = (pod::tests::blank(), Arc::new(Semaphore::new(1)));
        let router = router().await;
        let egress = Arc::new(Egress {
            policy: Policy::new(&["example.org".to_owned()]),
            route: Route::new(Some(&router), "token", &Trust::default(), &pod.tasks).unwrap(),
            tasks: pod.tasks.clone(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let respond = move |request| forward(Arc::clone(&egress), request);
        loopback::serve_among(Arc::clone(&free), listener, &pod, respond).unwrap();
        let (mut stream, answer) = connect(address).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        assert_eq!(free.available_permits(), 0);

        let refused = timeout(Duration::from_secs(30), connect(address)).await;
        let (mut refused, answer) = refused.expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let mut text = String::new();
        refused.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("too many connections"), "{text}");

        drop(stream);
        until("its place is free", || async {
            free.available_permits() == 1
        })
        .await;
    }
}
