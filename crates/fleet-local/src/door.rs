//! The way to this machine's pods for gateways elsewhere: whoever shows a gateway's token is let through to one pod's sidecar,
//! which asks on the connection for a token of its own learner, as on its socket.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use carrel_protocol::fleet::POD_PROTOCOL;
use carrel_protocol::problem::{Code, Problem};
use carrel_protocol::token::{Caller, Verifier};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, copy, split};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::container::ContainerId;
use crate::pod::SharedGround;

/// The most connections to one pod at a time: a turn has one, and each request to its agent.
const CONNECTIONS: usize = 128;

struct Door {
    ground: SharedGround,
    gateways: Verifier,
    /// Room for connections to each pod that has one.
    rooms: Mutex<HashMap<String, Weak<Semaphore>>>,
}

pub(crate) fn router(ground: SharedGround, gateways: Verifier) -> Router {
    let door = Door {
        ground,
        gateways,
        rooms: Mutex::default(),
    };
    Router::new()
        .route("/pods/{pod}", get(enter))
        .with_state(Arc::new(door))
}

impl Door {
    fn is_a_gateway(&self, headers: &HeaderMap) -> bool {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let claims = bearer.and_then(|token| {
            let claims = self.gateways.caller(token, self.ground.now());
            claims.ok()
        });
        claims.is_some_and(|claims| claims.iss == Caller::Gateway)
    }

    /// Room for one connection more to this pod, for as long as it is held.
    fn room(&self, pod: &str) -> Option<OwnedSemaphorePermit> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.retain(|_, room| room.strong_count() > 0);
        let room = rooms.get(pod).and_then(Weak::upgrade).unwrap_or_else(|| {
            let room = Arc::new(Semaphore::new(CONNECTIONS));
            rooms.insert(pod.to_owned(), Arc::downgrade(&room));
            room
        });
        room.try_acquire_owned().ok()
    }
}

/// 101, and from then on the bytes of both sides go through as they are.
async fn enter(
    State(door): State<Arc<Door>>,
    Path(pod): Path<String>,
    mut request: Request,
) -> Response {
    if !door.is_a_gateway(request.headers()) {
        let detail = "this way is for gateways: show a caller's token";
        return refusal(&Problem::new(Code::Unauthenticated, detail));
    }
    let asked = request.headers().get(header::UPGRADE);
    if asked.is_none_or(|protocol| protocol != POD_PROTOCOL) {
        let detail = format!("this way is for gateways: ask for 'upgrade: {POD_PROTOCOL}'");
        return refusal(&Problem::new(Code::InvalidRequest, detail));
    }
    let nobody = || refusal(&Problem::new(Code::NotFound, "no such pod is here"));
    let Ok(pod) = ContainerId::try_from(pod) else {
        return nobody();
    };
    let Some(room) = door.room(pod.as_str()) else {
        let detail = format!("{CONNECTIONS} connections to this pod are open");
        return refusal(&Problem::new(Code::Unavailable, detail));
    };
    let socket = door.ground.socket_of(pod.as_str());
    let Ok(sidecar) = UnixStream::connect(socket).await else {
        return nobody();
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return refusal(&Problem::new(
            Code::InvalidRequest,
            "this connection cannot be upgraded",
        ));
    };
    door.ground.tracker.spawn(async move {
        let _room = room;
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

#[cfg(test)]
mod tests;
