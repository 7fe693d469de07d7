//! What the sidecars answer.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrel_protocol::sidecar::{AssignRequest, Phase};
use carrel_protocol::token::LEEWAY_SECONDS;
use carrel_protocol::{Code, Problem};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Answer, Assigned, PodName, Shared, Sidecar};

/// A question that waits for news is answered by then.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);
/// Between the signs of life of a turn that runs.
const SIGN_EVERY: Duration = Duration::from_secs(1);

/// The address that was called.
#[derive(Debug, Clone, Copy)]
struct Called(Option<IpAddr>);

impl Connected<IncomingStream<'_, TcpListener>> for Called {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(stream.io().local_addr().ok().map(|address| address.ip()))
    }
}

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = Router::new()
        .route("/healthz", get(|| async {}))
        .route("/readyz", get(|| async {}))
        .route("/v1/assign", post(assign))
        .route("/v1/hello", get(hello))
        .route("/v1/ready", get(ready))
        .route("/v1/sleep", post(sleep))
        .route("/v1/turns", post(turn))
        .with_state(shared);
    // It ends with the test.
    let _ = axum::serve(
        listener,
        router.into_make_service_with_connect_info::<Called>(),
    )
    .await;
}

fn refusal(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(problem)).into_response()
}

/// Since when whoever is ready is quiet: all of them for as long.
const QUIET_SINCE: &str = "2026-01-01T00:00:00Z";

/// The pod that was called, or the answer that there is none.
async fn called(shared: &Shared, Called(address): Called) -> Result<(PodName, String), Response> {
    let pod = match address {
        Some(address) => shared.pods.at(address).await,
        None => None,
    };
    let pod =
        pod.ok_or_else(|| refusal(Problem::new(Code::NotFound, "no pod runs at this address")))?;
    if shared.state().silent.contains(&pod.1) {
        return std::future::pending().await;
    }
    Ok(pod)
}

/// The pod that was called, if it is that of the incarnation for which the caller's token is.
async fn meant(
    shared: &Shared,
    called_at: Called,
    headers: &HeaderMap,
) -> Result<(PodName, String), Response> {
    let (pod, uid) = called(shared, called_at).await?;
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(claims) = bearer.and_then(claims) else {
        return Err(refusal(Problem::new(Code::Unauthenticated, "")));
    };
    let mut state = shared.state();
    let is_ours = state
        .sidecars
        .get(&uid)
        .is_none_or(|ours| claims["sub"] == *ours.learner && claims["ep"] == ours.epoch);
    if is_ours {
        return Ok((pod, uid));
    }
    let learner = claims["sub"].as_str().unwrap_or_default().to_owned();
    state.misdirected.push((uid, learner));
    Err(refusal(Problem::new(Code::Misdirected, "it is another's")))
}

async fn assign(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(at): ConnectInfo<Called>,
    Json(request): Json<AssignRequest>,
) -> Result<Json<Value>, Response> {
    let (pod, uid) = called(&shared, at).await?;
    let Some(payload) = payload(&request.assignment) else {
        return Err(refusal(Problem::new(
            Code::InvalidBody,
            "this is no assignment",
        )));
    };
    let learner = payload["learner"].as_str().unwrap_or_default().to_owned();
    let epoch = payload["epoch"].as_u64().unwrap_or_default();
    let answer = {
        let mut state = shared.state();
        let script = state
            .scripts
            .get(&learner)
            .unwrap_or(&state.otherwise)
            .clone();
        let ours = state
            .sidecars
            .get(&uid)
            .map(|ours| (ours.learner.clone(), ours.epoch));
        let is_again = ours.as_ref() == Some(&(learner.clone(), epoch));
        let answer = match script.assignment {
            _ if ours.is_some() && !is_again => {
                let detail = "the pod is another learner's or another incarnation's";
                Answer::Refuses(Box::new(Problem::new(Code::Conflict, detail)))
            }
            _ if payload["pod"] != *uid => {
                let detail = "the assignment is another pod's";
                Answer::Refuses(Box::new(Problem::new(Code::Misdirected, detail)))
            }
            scripted => scripted,
        };
        let refused = match &answer {
            Answer::Refuses(problem) => Some(problem.code),
            Answer::Takes | Answer::TakesAfter(_) | Answer::TakesSilently | Answer::Silence => None,
        };
        let is_taken = refused.is_none() && !matches!(answer, Answer::Silence);
        if is_taken && !is_again {
            let sidecar = Sidecar {
                learner: learner.clone(),
                epoch,
                phase: script.phase,
                detail: String::new(),
                revision: 1,
            };
            state.sidecars.insert(uid.clone(), sidecar);
        }
        state.assignments.push(Assigned {
            pod,
            uid: uid.clone(),
            learner,
            epoch,
            payload,
            at: Instant::now(),
            refused,
        });
        answer
    };
    shared.news.send_replace(());
    match answer {
        Answer::Takes => Ok(Json(said(&shared, &uid))),
        Answer::TakesAfter(delay) => {
            tokio::time::sleep(delay).await;
            Ok(Json(said(&shared, &uid)))
        }
        Answer::TakesSilently | Answer::Silence => std::future::pending().await,
        Answer::Refuses(problem) => Err(refusal(*problem)),
    }
}

/// What a signed assignment says.
fn payload(jws: &str) -> Option<Value> {
    Some(claims(jws)?["assignment"].clone()).filter(Value::is_object)
}

/// What a token says that has not run out. Whether its signature is good is the question of whoever it is for.
pub(in crate::cluster) fn claims(jws: &str) -> Option<Value> {
    let payload = URL_SAFE_NO_PAD.decode(jws.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let until = claims["exp"].as_i64()?.checked_add(LEEWAY_SECONDS)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "a sidecar goes by the machine's clock, as who signs does"
    )]
    let now = Timestamp::now().as_second();
    (now <= until).then_some(claims)
}

/// The report that a caller has.
#[derive(Deserialize)]
struct Known {
    after: Option<u64>,
}

async fn hello(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(at): ConnectInfo<Called>,
    Query(known): Query<Known>,
    headers: HeaderMap,
) -> Result<Json<Value>, Response> {
    let (_, uid) = meant(&shared, at, &headers).await?;
    wait(&shared, || {
        let state = shared.state();
        let revision = state
            .sidecars
            .get(&uid)
            .map_or(0, |sidecar| sidecar.revision);
        known.after.is_none_or(|known| known != revision)
    })
    .await;
    Ok(Json(said(&shared, &uid)))
}

async fn ready(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(at): ConnectInfo<Called>,
    headers: HeaderMap,
) -> Result<Json<Value>, Response> {
    let (_, uid) = meant(&shared, at, &headers).await?;
    wait(&shared, || {
        let state = shared.state();
        let sidecar = state.sidecars.get(&uid);
        sidecar.is_some_and(|sidecar| !matches!(sidecar.phase, Phase::Blank | Phase::Restoring))
    })
    .await;
    Ok(Json(said(&shared, &uid)))
}

/// Waits until it holds, or for as long as one may wait.
async fn wait(shared: &Shared, holds: impl Fn() -> bool) {
    let mut news = shared.news.subscribe();
    let held = news.wait_for(|()| holds());
    // Out of time is an answer, too.
    let _ = tokio::time::timeout(ANSWER_WITHIN, held).await;
}

async fn sleep(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(at): ConnectInfo<Called>,
    headers: HeaderMap,
) -> Result<StatusCode, Response> {
    let (pod, uid) = meant(&shared, at, &headers).await?;
    let asleep = {
        let mut state = shared.state();
        state.sleeps.push(pod.clone());
        let sidecar = state.sidecars.get_mut(&uid);
        let learner = sidecar.map(|sidecar| {
            sidecar.phase = Phase::Draining;
            sidecar.revision += 1;
            sidecar.learner.clone()
        });
        let script = learner.and_then(|learner| state.scripts.get(&learner));
        script.unwrap_or(&state.otherwise).asleep.clone()
    };
    shared.news.send_replace(());
    if let Some(end) = asleep {
        // A pod that was deleted meanwhile has ended.
        let _ = shared.pods.end(&pod, &end).await;
    }
    Ok(StatusCode::ACCEPTED)
}

/// A turn runs until the test ends it: nothing comes of it but signs of life, and in the end its last frame.
async fn turn(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(at): ConnectInfo<Called>,
    headers: HeaderMap,
    Json(order): Json<Value>,
) -> Result<Body, Response> {
    let (_, uid) = meant(&shared, at, &headers).await?;
    let text = order["message"]["text"].as_str().unwrap_or_default();
    {
        let mut state = shared.state();
        state.turns.push((uid.clone(), text.to_owned()));
        state.enters(&uid, Phase::Busy);
    }
    shared.news.send_replace(());
    let signs = tokio::time::interval(SIGN_EVERY);
    let lines = futures::stream::unfold(Some((signs, shared, uid)), |turn| async {
        let (mut signs, shared, uid) = turn?;
        let last = tokio::select! {
            last = last_frame(&shared, &uid) => Some(last),
            _ = signs.tick() => None,
        };
        if shared.state().silent.contains(&uid) {
            return std::future::pending().await;
        }
        Some(match last {
            Some(last) => (Ok::<_, Infallible>(format!("{last}\n")), None),
            None => (Ok("\n".to_owned()), Some((signs, shared, uid))),
        })
    });
    Ok(Body::from_stream(lines))
}

/// Waits until the test ends the turn of a pod.
async fn last_frame(shared: &Shared, uid: &str) -> Value {
    let (mut news, mut last) = (shared.news.subscribe(), None);
    let ends = news.wait_for(|()| {
        last = shared.state().ends.remove(uid);
        last.is_some()
    });
    // Whoever brings news lives as long as this.
    let _ = ends.await;
    last.unwrap_or_default()
}

/// A sidecar's report, as `carrel_protocol::sidecar::Hello` has it.
fn said(shared: &Shared, uid: &str) -> Value {
    let state = shared.state();
    match state.sidecars.get(uid) {
        None => {
            json!({"pod": uid, "phase": Phase::Blank, "detail": "", "agent_connected": true, "committed": false})
        }
        Some(sidecar) => json!({
            "pod": uid,
            "learner": sidecar.learner,
            "epoch": sidecar.epoch,
            "quiet_since": (sidecar.phase == Phase::Ready).then_some(QUIET_SINCE),
            "phase": sidecar.phase,
            "detail": sidecar.detail,
            "agent_connected": true,
            "committed": false,
            "revision": sidecar.revision,
        }),
    }
}
