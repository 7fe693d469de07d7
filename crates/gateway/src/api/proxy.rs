//! `ANY /l/{id}/{path}`: HTTP and WebSocket to the learner's agent, which is woken for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{Redirect, Response};
use carrel_protocol::Code;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _, Shared as Common};
use http::header::{CONNECTION, HOST, ORIGIN, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::{Body as HttpBody, Bytes, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::proxy_headers::{agent_path, to_agent, to_browser};
use crate::auth::{Itself, unauthenticated};
use crate::dispatch::{Incarnation, NotAwake, Waker};
use crate::envelope::PassedOn;
use crate::gateway::{Gateway, Shared};
use crate::pass;
use crate::refusal::{Refusal, Result};
use crate::stream::Hub;

/// A request waits this long for its learner to wake.
const WAKE_WITHIN: Duration = Duration::from_mins(1);
/// An agent that has not begun to answer so long after it had the whole request never will. Until then its learner is kept
/// awake for it.
const ANSWER_WITHIN: Duration = Duration::from_mins(5);
const WEBSOCKET: &str = "websocket";

/// An agent's pages are a folder: their relative links need the slash.
pub(super) async fn to_folder(Itself(learner, _): Itself) -> Redirect {
    Redirect::permanent(&format!("/l/{learner}/"))
}

pub(super) async fn proxy(
    State(shared): State<Shared>,
    Itself(learner, pass): Itself,
    request: Request,
) -> Result<Response> {
    let upgrade = is_websocket(request.headers());
    if upgrade {
        check_origin(request.headers())?;
    }
    let uri = agent_uri(request.uri())?;
    let hub = shared.hubs.open(&learner, &shared.options.store).await?;
    let over = pass::over(Arc::clone(&shared), pass, Arc::clone(&hub));
    let over: Over = over.boxed().shared();
    // What is still being sent when the answer has begun ends with the pass, too.
    let request = request.map(|body| until(over.clone(), body));
    let answered = async {
        let incarnation = awake(&shared, hub).await?;
        send(&incarnation, request, uri, upgrade).await
    };
    let (response, joined) = tokio::select! {
        biased;
        () = over.clone() => return Err(unauthenticated()),
        answered = answered => answered?,
    };
    let (mut parts, body) = response.into_parts();
    to_browser(&mut parts.headers);
    parts.extensions.clear();
    parts.extensions.insert(PassedOn);
    let body = match joined {
        None => until(over, body),
        Some(both) => {
            ask_for_websocket(&mut parts.headers);
            shared.tracker.spawn(splice(both, over));
            Body::empty()
        }
    };
    Ok(Response::from_parts(parts, body))
}

/// Returns when a connection must end: for each part of it.
type Over = Common<BoxFuture<'static, ()>>;

/// The two sides of a WebSocket.
type Both = (OnUpgrade, OnUpgrade);

async fn awake(shared: &Gateway, hub: Arc<Hub>) -> Result<Incarnation> {
    let mut waker = Waker::new(hub);
    let waking = tokio::time::timeout(WAKE_WITHIN, waker.wake(shared, &|_, _| {}));
    let incarnation = waking
        .await
        .map_err(|_| asleep("it did not wake in time"))?;
    incarnation.map_err(|why| match why {
        NotAwake::NoLearner => Refusal::no_learner(),
        NotAwake::Died { .. } | NotAwake::GivenUp { .. } => {
            asleep("it could not be woken; try again shortly")
        }
    })
}

fn asleep(detail: &str) -> Refusal {
    Refusal::new(Code::AgentUnavailable, detail).retry_after(5)
}

fn agent_uri(uri: &Uri) -> Result<Uri> {
    let path = agent_path(uri.path());
    let path = path.ok_or_else(|| Refusal::invalid("the path may not step out of its folder"))?;
    let query = uri
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    format!("/agent{path}{query}")
        .parse()
        .map_err(|_| Refusal::invalid("the path makes no sense"))
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case(WEBSOCKET))
}

/// A WebSocket is not bound to its page's origin by browsers: a page elsewhere must not open one here.
fn check_origin(headers: &HeaderMap) -> Result<()> {
    let Some(origin) = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()) else {
        return Ok(());
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let from = origin.split_once("://").map(|(_, authority)| authority);
    if from.is_some() && from == host {
        return Ok(());
    }
    let detail = "a WebSocket may be opened by pages of this server only";
    Err(Refusal::new(Code::Forbidden, detail))
}

/// Sends the request to the agent. Its answer, and both sides when they become a WebSocket.
async fn send(
    incarnation: &Incarnation,
    mut request: Request,
    uri: Uri,
    upgrade: bool,
) -> Result<(http::Response<Incoming>, Option<Both>)> {
    let browser = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let (body, sent) = noticed(body);
    parts.uri = uri;
    parts.extensions.clear();
    to_agent(&mut parts.headers);
    if upgrade {
        ask_for_websocket(&mut parts.headers);
    }
    let request = http::Request::from_parts(parts, body);
    let silent = || asleep("it did not answer; try again shortly");
    let late = async {
        sent.await;
        tokio::time::sleep(ANSWER_WITHIN).await;
    };
    let answered = tokio::select! {
        answered = incarnation.sidecar.send(request) => answered,
        () = late => return Err(silent()),
    };
    let mut response = answered.map_err(|error| {
        tracing::info!(learner.id = %incarnation.sidecar.learner, %error, "a proxied request failed");
        silent()
    })?;
    let switched = upgrade && response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let joined = switched.then(|| (browser, hyper::upgrade::on(&mut response)));
    Ok((response, joined))
}

/// A body, and what returns when it was sent or given up.
fn noticed(body: Body) -> (Body, impl Future<Output = ()>) {
    let (here, gone) = oneshot::channel::<Infallible>();
    let body = body.map_frame(move |frame| {
        let _ = &here;
        frame
    });
    (Body::new(body), async {
        // Nothing is ever said but that the other side is gone.
        let _ = gone.await;
    })
}

fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

async fn splice((browser, agent): Both, over: Over) {
    let both = async {
        let (browser, agent) = tokio::try_join!(browser, agent)?;
        let (mut browser, mut agent) = (TokioIo::new(browser), TokioIo::new(agent));
        tokio::io::copy_bidirectional(&mut browser, &mut agent).await?;
        Ok::<_, BoxError>(())
    };
    tokio::select! {
        () = over => {}
        ended = both => if let Err(error) = ended {
            tracing::debug!(%error, "a WebSocket ended");
        }
    }
}

/// What is sent, either way. When it must end before that, it breaks off: nobody shall take it for whole.
fn until<B>(over: Over, body: B) -> Body
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    if body.is_end_stream() {
        return Body::new(body);
    }
    let open = Some((BodyStream::new(body), over));
    let frames = futures::stream::unfold(open, async |open| {
        let (mut frames, mut over) = open?;
        tokio::select! {
            biased;
            () = &mut over => Some((Err(BoxError::from("access was revoked")), None)),
            frame = frames.next() => {
                let frame = frame?.map_err(Into::into);
                Some((frame, Some((frames, over))))
            }
        }
    });
    Body::new(StreamBody::new(frames))
}
