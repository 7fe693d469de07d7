//! The model proxy on the agent's loopback: takes the agent's worthless key, puts the learner's token in its place, and
//! passes everything else to the router as it is, as it comes.
//!
//! A router that is away is waited for, as long as one takes to be started anew: until there is a connection nothing of the call
//! has been sent, so it is made once. A call that breaks later is the agent's to make again: it may have been billed.

use std::time::Duration;

use carrel_wire::Stream;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use crate::loopback::{Answer, answer};
use crate::upstream::{self, Error, Upstream};

/// How long a router may be away: one that ends has 20 s for its last calls. Less than the 30 s in which a turn without a model
/// fails.
const PATIENCE: Duration = Duration::from_secs(25);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// When an agent may try again after that.
const AGAIN_AFTER_SECONDS: u32 = 2;

/// Forwards one request to the router.
pub(crate) async fn forward(router: Upstream, mut request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    if path != "/v1" && !path.starts_with("/v1/") {
        return refuse(
            StatusCode::NOT_FOUND,
            "not_found_error",
            "models are below /v1",
        );
    }
    upstream::strip(request.headers_mut());
    let connection = match connected(&router).await {
        Ok(connection) => connection,
        Err(error) => return away(&error),
    };
    match router.send_over(connection, request).await {
        Ok(mut answer) => {
            upstream::strip(answer.headers_mut());
            answer.map(BodyExt::boxed)
        }
        Err(error) => {
            let error = upstream::chain(&error);
            tracing::warn!(error, "the router does not answer");
            let text = "the connection to the model router broke";
            refuse(StatusCode::BAD_GATEWAY, "api_error", text)
        }
    }
}

/// A connection to the router, as soon as there is one.
async fn connected(router: &Upstream) -> Result<Stream, Error> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        let error = match router.connect().await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        if began.elapsed() + pause >= PATIENCE {
            return Err(error);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Nobody was there all the time.
fn away(error: &Error) -> Answer {
    let error = upstream::chain(error);
    tracing::warn!(error, "the router cannot be reached");
    let text = "the model router cannot be reached";
    let mut answer = refuse(StatusCode::SERVICE_UNAVAILABLE, "api_error", text);
    let again = HeaderValue::from(AGAIN_AFTER_SECONDS);
    answer.headers_mut().insert(header::RETRY_AFTER, again);
    answer
}

/// A refusal that clients of either dialect can read.
fn refuse(status: StatusCode, kind: &str, message: &str) -> Answer {
    let body = serde_json::json!({"type": "error", "error": {"type": kind, "message": message}});
    answer(status, "application/json", body.to_string())
}

#[cfg(test)]
mod tests {
    use carrel_protocol::Endpoint;
    use carrel_wire::Trust;
    use tokio::net::UnixListener;
    use tokio_util::task::TaskTracker;

    use super::*;

    fn router(socket: &std::path::Path) -> Upstream {
        let endpoint = Endpoint::Unix(socket.to_owned());
        Upstream::new(endpoint, "eyJ", Trust::default(), TaskTracker::new()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_that_stays_away_is_an_error_that_models_clients_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let Err(error) = connected(&router(&folder.path().join("nobody"))).await else {
            panic!("nobody is there");
        };
        let waited = began.elapsed();
        assert!(waited > PATIENCE / 2 && waited < PATIENCE, "{waited:?}");
        let answer = away(&error);
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "2");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["type"], "api_error");
        assert!(!body.to_string().contains("eyJ"), "a token leaked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_that_comes_back_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("router");
        let comes_back = async {
            sleep(PATIENCE / 2).await;
            UnixListener::bind(&socket).unwrap()
        };
        let upstream = router(&socket);
        let (connection, _listener) = tokio::join!(connected(&upstream), comes_back);
        assert!(connection.is_ok());
    }
}
