//! The model proxy on the agent's loopback: takes the agent's worthless key, puts the learner's token in its place, and
//! passes everything else to the router as it is, as it comes.

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::loopback::{Answer, answer};
use crate::upstream::{self, Upstream};

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
    let own = request
        .uri()
        .path_and_query()
        .map(|path| path.as_str().parse());
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
            tracing::warn!(
                error = upstream::chain(&error),
                "the router does not answer"
            );
            let text = "the model router cannot be reached";
            refuse(StatusCode::BAD_GATEWAY, "api_error", text)
        }
    }
}

/// A refusal that clients of either dialect can read.
fn refuse(status: StatusCode, kind: &str, message: &str) -> Answer {
    let body = serde_json::json!({"type": "error", "error": {"type": kind, "message": message}});
    answer(status, "application/json", body.to_string())
}
