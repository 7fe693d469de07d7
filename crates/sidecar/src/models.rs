//! The model proxy on the agent's loopback: takes the agent's worthless key, puts the learner's token in its place, and
//! passes everything else to the router as it is, as it comes.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use crate::pod::Pod;
use crate::upstream::{self, Upstream};

/// The most connections of an agent at once.
const CONNECTIONS: usize = 64;

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// Serves on a listener until the pod ends.
pub(crate) fn serve(
    listener: TcpListener,
    router: Upstream,
    pod: &Arc<Pod>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (tasks, end) = (pod.tasks.clone(), pod.end.clone());
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let accept = async move {
        while let Ok(place) = Arc::clone(&free).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let router = router.clone();
            let service = service_fn(move |request| {
                let router = router.clone();
                async move { Ok::<_, Infallible>(forward(&router, request).await) }
            });
            tasks.spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_mins(10))
                    .max_buf_size(64 * 1024)
                    .serve_connection(TokioIo::new(stream), service);
                // An agent that goes away in the middle harms itself only.
                let _ = connection.await;
                drop(place);
            });
        }
    };
    pod.tasks.spawn(async move { end.run_until_cancelled(accept).await });
    Ok(())
}

async fn forward(router: &Upstream, mut request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    if path != "/v1" && !path.starts_with("/v1/") {
        return refuse(StatusCode::NOT_FOUND, "not_found_error", "models are below /v1");
    }
    let own = request.uri().path_and_query().map(|path| path.as_str().parse());
    if let Some(Ok(path)) = own {
        *request.uri_mut() = path;
    }
    upstream::strip(request.headers_mut());
    match router.send(request).await {
        Ok(mut answer) => {
            upstream::strip(answer.headers_mut());
            answer.map(BodyExt::boxed)
        }
        Err(error) => {
            tracing::warn!(error = upstream::chain(&error), "the router does not answer");
            let text = "the model router cannot be reached";
            refuse(StatusCode::BAD_GATEWAY, "api_error", text)
        }
    }
}

/// A refusal that clients of either dialect can read.
fn refuse(status: StatusCode, kind: &str, message: &str) -> Answer {
    let body = serde_json::json!({"type": "error", "error": {"type": kind, "message": message}});
    let body = Full::from(body.to_string()).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}
