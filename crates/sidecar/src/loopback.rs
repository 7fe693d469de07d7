//! HTTP servers on the agent's loopback: bounded in connections, of which more are refused, and closed with the pod.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::pod::Pod;

/// The most connections of an agent at once.
const CONNECTIONS: usize = 64;
/// The most that are refused at once; more wait to be accepted.
const REFUSALS: usize = 8;
/// By then an agent that is refused has asked and read the answer.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);
/// How long an agent may be silent between two requests on one connection, or both ends of a tunnel.
pub(crate) const SILENT_WITHIN: Duration = Duration::from_mins(10);

/// What agents are answered.
pub(crate) type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A connection's place among them, in each of its requests: whoever keeps the connection for other ends keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Serves on a listener until the pod ends.
pub(crate) fn serve<F>(
    listener: TcpListener,
    pod: &Arc<Pod>,
    respond: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> std::io::Result<()>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    serve_among(free, listener, pod, respond)
}

/// The same, for as many connections at once as there are places free.
pub(crate) fn serve_among<F>(
    free: Arc<Semaphore>,
    listener: TcpListener,
    pod: &Arc<Pod>,
    respond: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> std::io::Result<()>
where
    F: Future<Output = Answer> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (tasks, end) = (pod.tasks.clone(), pod.end.clone());
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let accept = async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, say: some come free.
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
                if let Ok(permit) = Arc::clone(&refusals).acquire_owned().await {
                    tasks.spawn(refuse(stream, permit));
                }
                continue;
            };
            let respond = respond.clone();
            let place = Place {
                _permit: Arc::new(permit),
            };
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(place.clone());
                let answer = respond(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            tasks.spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(SILENT_WITHIN)
                    .max_buf_size(64 * 1024)
                    .serve_connection(TokioIo::new(stream), service);
                // An agent that goes away in the middle harms itself only.
                let _ = connection.with_upgrades().await;
            });
        }
    };
    pod.tasks
        .spawn(async move { end.run_until_cancelled(accept).await });
    Ok(())
}

/// Answers a connection for which no place is free.
async fn refuse(stream: TcpStream, _permit: OwnedSemaphorePermit) {
    tracing::warn!("a connection of the agent was refused: it has the most that it may have");
    let service = service_fn(|_: Request<Incoming>| async {
        let text = "carrel: too many connections are open at once: close some, or use them again\n";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let answer = answer(status, "text/plain; charset=utf-8", text.to_owned());
        Ok::<_, Infallible>(answer)
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // One that does not ask, or does not listen, harms itself only.
    let _ = timeout(REFUSED_WITHIN, connection).await;
}

/// A small answer.
pub(crate) fn answer(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let body = Full::from(text).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
