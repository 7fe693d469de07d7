//! The way to this machine's pods for gateways elsewhere: a connection is let through to one pod's sidecar, which asks
//! whoever calls for a token, as on its socket.

use std::io;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use carrel_protocol::fleet::POD_PROTOCOL;
use carrel_protocol::problem::{Code, Problem};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, copy, split};
use tokio::net::UnixStream;

use crate::container::ContainerId;
use crate::pod::SharedGround;

pub(crate) fn router(ground: SharedGround) -> Router {
    Router::new()
        .route("/pods/{pod}", get(enter))
        .with_state(ground)
}

/// 101, and from then on the bytes of both sides go through as they are.
async fn enter(
    State(ground): State<SharedGround>,
    Path(pod): Path<String>,
    mut request: Request,
) -> Response {
    let asked = request.headers().get(header::UPGRADE);
    if asked.is_none_or(|protocol| protocol != POD_PROTOCOL) {
        let detail = format!("this way is for gateways: ask for 'upgrade: {POD_PROTOCOL}'");
        return refusal(&Problem::new(Code::InvalidRequest, detail));
    }
    let sidecar = match ContainerId::try_from(pod) {
        Ok(pod) => {
            let socket = ground.socket_of(pod.as_str());
            UnixStream::connect(socket).await.ok()
        }
        Err(_) => None,
    };
    let Some(sidecar) = sidecar else {
        return refusal(&Problem::new(Code::NotFound, "no such pod is here"));
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return refusal(&Problem::new(
            Code::InvalidRequest,
            "this connection cannot be upgraded",
        ));
    };
    ground.tracker.spawn(async move {
        if let Err(error) = pass(upgrade, sidecar).await {
            // Either side may leave in the middle: the other sees it end.
            tracing::debug!(%error, "a gateway's connection to a pod broke");
        }
    });
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, POD_PROTOCOL),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Until one side ends: nobody half-closes a connection here.
async fn pass(upgrade: OnUpgrade, sidecar: UnixStream) -> io::Result<()> {
    let caller = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
    let ((mut asked, mut answers), (mut answered, mut asks)) =
        (split(caller), sidecar.into_split());
    tokio::select! {
        ended = copy(&mut asked, &mut asks) => ended?,
        ended = copy(&mut answered, &mut answers) => ended?,
    };
    answers.shutdown().await
}

fn refusal(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    let body = serde_json::to_vec(problem).unwrap_or_default();
    (status, kind, body).into_response()
}
