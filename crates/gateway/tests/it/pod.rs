//! A scripted sidecar on a Unix socket: takes turns, answers with frames, commits to the store itself.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as InPath, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, http::StatusCode};
use carrel_core::event::{Reply, ToolStatus, Usage};
use carrel_core::turn::FailureCode;
use carrel_core::{Epoch, LearnerId, PodUid, TurnId};
use carrel_protocol::sidecar::{Frame, Hello, LINE_EVERY, Phase, PodTiming, TurnOrder};
use carrel_protocol::token::Verifier;
use carrel_protocol::{Code, Problem};
use carrel_store::SharedStore;
use carrel_store::heads::{Commit, Committed, Contact, TurnResult};
use carrel_store::turns::Timing;
use futures::StreamExt as _;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::world::now;

/// What an agent does in one attempt.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Says these pieces and ends.
    Say(Vec<&'static str>),
    /// Says a piece, then waits until it is let go on or stopped, then says the other.
    Hold(&'static str, &'static str),
    /// Says a piece, uses a tool, waits until it is let go on, then says the other.
    UseTool(&'static str, &'static str),
    /// Says this, then fails.
    Fail(&'static str),
    /// Says this, waits until it is let go on, then fails.
    FailLater(&'static str),
    /// Says this, then is killed; the sidecar sees it.
    AgentDies(&'static str),
    /// Says this, then the pod is gone.
    PodDies(&'static str),
    /// Takes no turn any more, and ends: asleep.
    Drain,
    /// Takes no turn any more, and ends: with nothing said of why.
    Refuse,
    /// Takes none yet: another turn runs.
    Busy,
    /// Says this, then the connection breaks, once; goes on when it is let go on.
    Break(&'static str, &'static str),
}

/// A scripted pod.
pub(crate) struct Pod {
    pub(crate) learner: LearnerId,
    pub(crate) epoch: Epoch,
    pub(crate) uid: PodUid,
    pub(crate) dead: CancellationToken,
    pub(crate) phase: Mutex<Phase>,
    pub(crate) go_on: watch::Sender<bool>,
    pub(crate) orders: Mutex<Vec<TurnOrder>>,
    /// The pieces of what was uploaded to `/agent/swallow`, which answers before it has all.
    pub(crate) swallowed: watch::Sender<Vec<String>>,
    /// How many wait at `/agent/silent` for an answer that never comes.
    pub(crate) unanswered: watch::Sender<usize>,
    store: SharedStore,
    script: Arc<dyn Fn() -> Option<Act> + Send + Sync>,
    verifier: Verifier,
    attempts: Mutex<HashMap<TurnId, Arc<Attempt>>>,
    tracker: TaskTracker,
    /// Called when the pod ends by itself.
    ended: Arc<dyn Fn(&Pod) + Send + Sync>,
}

struct Attempt {
    frames: watch::Sender<Vec<Frame>>,
    stop: CancellationToken,
    /// Ends each connection that is open now.
    broken: Mutex<CancellationToken>,
    /// Lets each connection that is open now bring nothing any more.
    muted: Mutex<CancellationToken>,
}

impl Attempt {
    fn say(&self, text: &str) {
        let text = text.to_owned();
        self.push(Frame::Text { text });
    }

    fn push(&self, frame: Frame) {
        self.frames.send_modify(|frames| frames.push(frame));
    }
}

pub(crate) struct Making {
    pub(crate) learner: LearnerId,
    pub(crate) epoch: Epoch,
    pub(crate) store: SharedStore,
    pub(crate) script: Arc<dyn Fn() -> Option<Act> + Send + Sync>,
    pub(crate) verifier: Verifier,
    pub(crate) tracker: TaskTracker,
    pub(crate) ended: Arc<dyn Fn(&Pod) + Send + Sync>,
    pub(crate) phase: Phase,
}

impl Pod {
    /// Starts listening.
    pub(crate) fn start(making: Making, socket: &Path) -> Arc<Self> {
        let pod = Arc::new(Self {
            learner: making.learner,
            epoch: making.epoch,
            uid: PodUid(uuid::Uuid::now_v7()),
            dead: CancellationToken::new(),
            phase: Mutex::new(making.phase),
            go_on: watch::Sender::new(false),
            orders: Mutex::default(),
            swallowed: watch::Sender::default(),
            unanswered: watch::Sender::default(),
            store: making.store,
            script: making.script,
            verifier: making.verifier,
            attempts: Mutex::default(),
            tracker: making.tracker,
            ended: making.ended,
        });
        let listener = UnixListener::bind(socket).expect("a socket");
        let router = Router::new()
            .route("/v1/ready", get(ready))
            .route("/v1/turns", post(turn))
            .route("/v1/turns/{id}/stop", post(stop))
            .route("/v1/sleep", post(sleep))
            .route("/agent/{*path}", any(agent))
            .route("/agent/", any(agent))
            .with_state(Arc::clone(&pod));
        let dead = pod.dead.clone();
        pod.tracker.spawn(async move {
            tokio::select! {
                () = dead.cancelled() => {}
                served = axum::serve(listener, router).into_future() => served.expect("served"),
            }
        });
        pod
    }

    /// The agent says something more in each attempt that was made.
    pub(crate) fn say(&self, text: &str) {
        for attempt in self.attempts.lock().expect("whole").values() {
            attempt.say(text);
        }
    }

    /// What is open now stays open and brings nothing any more.
    pub(crate) fn mute(&self) {
        for attempt in self.attempts.lock().expect("whole").values() {
            std::mem::take(&mut *attempt.muted.lock().expect("whole")).cancel();
        }
    }

    fn check(&self, request: &http::HeaderMap) {
        let value = request
            .get("authorization")
            .expect("a token")
            .to_str()
            .expect("text");
        let token = value.strip_prefix("Bearer ").expect("a bearer token");
        let claims = self.verifier.caller(token, now()).expect("a valid token");
        assert_eq!((&claims.sub, claims.ep), (&self.learner, self.epoch));
    }

    fn hello(&self) -> Hello {
        Hello {
            pod: self.uid,
            learner: Some(self.learner.clone()),
            epoch: Some(self.epoch),
            phase: *self.phase.lock().expect("whole"),
            detail: "as scripted".to_owned(),
            agent_connected: true,
            restore_ms: Some(7),
            agent_ms: Some(9),
            quiet_since: None,
            committed: false,
            fell_back: false,
            fence: None,
            revision: 0,
        }
    }

    async fn run(self: Arc<Self>, attempt: Arc<Attempt>, order: TurnOrder, act: Option<Act>) {
        let echo = format!("You said: {}", order.message.text);
        match act {
            None | Some(Act::Drain | Act::Refuse | Act::Busy) => {
                attempt.say(&echo);
                self.commit(&attempt, &order, false).await;
            }
            Some(Act::Say(pieces)) => {
                for piece in pieces {
                    attempt.say(piece);
                }
                self.commit(&attempt, &order, false).await;
            }
            Some(Act::Hold(before, after)) => {
                attempt.say(before);
                let mut go_on = self.go_on.subscribe();
                let stopped = tokio::select! {
                    () = attempt.stop.cancelled() => true,
                    () = self.dead.cancelled() => return,
                    _ = go_on.wait_for(|go| *go) => false,
                };
                if !stopped {
                    attempt.say(after);
                }
                self.commit(&attempt, &order, stopped).await;
            }
            Some(Act::UseTool(first, then)) => {
                if !first.is_empty() {
                    attempt.say(first);
                }
                for status in [ToolStatus::Started, ToolStatus::Done] {
                    attempt.push(Frame::Tool {
                        id: "t1".to_owned(),
                        name: "notes".to_owned(),
                        status,
                        summary: format!("notes {status}"),
                    });
                }
                let mut go_on = self.go_on.subscribe();
                let _ = go_on.wait_for(|go| *go).await;
                attempt.say(then);
                self.commit(&attempt, &order, false).await;
            }
            Some(Act::Fail(text)) => {
                attempt.say(text);
                self.fail(&attempt);
            }
            Some(Act::FailLater(text)) => {
                attempt.say(text);
                let mut go_on = self.go_on.subscribe();
                let _ = go_on.wait_for(|go| *go).await;
                self.fail(&attempt);
            }
            Some(Act::AgentDies(text)) => {
                attempt.say(text);
                *self.phase.lock().expect("whole") = Phase::Ending;
                attempt.push(Frame::Died {
                    by_agent: true,
                    reason: "signal 11".to_owned(),
                });
                (self.ended)(&self);
            }
            Some(Act::PodDies(text)) => {
                attempt.say(text);
                self.dead.cancel();
                (self.ended)(&self);
            }
            Some(Act::Break(before, after)) => {
                attempt.say(before);
                let mut go_on = self.go_on.subscribe();
                let _ = go_on.wait_for(|go| *go).await;
                std::mem::take(&mut *attempt.broken.lock().expect("whole")).cancel();
                attempt.say(after);
                self.commit(&attempt, &order, false).await;
            }
        }
    }

    fn fail(&self, attempt: &Attempt) {
        *self.phase.lock().expect("whole") = Phase::Ending;
        attempt.push(Frame::Failed {
            code: FailureCode::AgentFailed,
            detail: "It did not work.".to_owned(),
            retryable: true,
            operator_reason: "exit code 3".to_owned(),
            timing: PodTiming::default(),
        });
        (self.ended)(self);
    }

    async fn commit(&self, attempt: &Attempt, order: &TurnOrder, stopped: bool) {
        attempt.push(Frame::Snapshotting);
        let contact = self
            .store
            .contact(&self.learner, self.epoch)
            .await
            .expect("a store");
        let Contact::Current { head, .. } = contact else {
            return attempt.push(Frame::Died {
                by_agent: false,
                reason: "fenced".to_owned(),
            });
        };
        let frames = attempt.frames.borrow().clone();
        let text = frames.iter().filter_map(|frame| match frame {
            Frame::Text { text } => Some(text.as_str()),
            _ => None,
        });
        let reply = Reply {
            text: text.collect(),
            files: Vec::new(),
        };
        let snapshot = format!("{:064x}", uuid::Uuid::now_v7().as_u128());
        let commit = Commit {
            learner: self.learner.clone(),
            epoch: self.epoch,
            generation: head.generation.next(),
            parent: head.snapshot,
            snapshot: snapshot.parse().expect("an id"),
            turn: Some(TurnResult {
                turn_id: order.turn_id,
                stopped,
                reply: reply.clone(),
                files: Vec::new(),
                timing: Timing {
                    restore: order.restore_ms,
                    agent: 11,
                    snapshot: 13,
                    ..Timing::default()
                },
                operator_note: String::new(),
            }),
        };
        match self.store.commit(&commit, now()).await.expect("a store") {
            Committed::Committed { version, usage, .. } => attempt.push(Frame::Committed {
                version,
                generation: commit.generation,
                snapshot_id: commit.snapshot,
                stopped,
                reply,
                usage: Usage { ..usage },
                timing: PodTiming::default(),
            }),
            refused => attempt.push(Frame::Died {
                by_agent: false,
                reason: format!("{refused:?}"),
            }),
        }
    }
}

async fn ready(State(pod): State<Arc<Pod>>, headers: http::HeaderMap) -> Json<Hello> {
    pod.check(&headers);
    Json(pod.hello())
}

async fn turn(
    State(pod): State<Arc<Pod>>,
    headers: http::HeaderMap,
    Json(order): Json<TurnOrder>,
) -> Response {
    pod.check(&headers);
    let (attempt, begins) = {
        let mut attempts = pod.attempts.lock().expect("whole");
        let begins = (!attempts.contains_key(&order.turn_id)).then(|| (pod.script)());
        if let Some(Some(Act::Drain)) = begins {
            *pod.phase.lock().expect("whole") = Phase::Draining;
            (pod.ended)(&pod);
            let problem = Problem::new(Code::Draining, "wake the learner again");
            return (StatusCode::CONFLICT, Json(problem)).into_response();
        }
        if let Some(Some(Act::Busy)) = begins {
            let problem = Problem::new(Code::Conflict, "another turn runs");
            return (StatusCode::CONFLICT, Json(problem)).into_response();
        }
        if let Some(Some(Act::Refuse)) = begins {
            (pod.ended)(&pod);
            return StatusCode::CONFLICT.into_response();
        }
        let attempt = attempts.entry(order.turn_id).or_insert_with(|| {
            Arc::new(Attempt {
                frames: watch::Sender::default(),
                stop: CancellationToken::new(),
                broken: Mutex::default(),
                muted: Mutex::default(),
            })
        });
        (Arc::clone(attempt), begins)
    };
    if let Some(act) = begins {
        pod.orders.lock().expect("whole").push(order.clone());
        let run = Arc::clone(&pod).run(Arc::clone(&attempt), order, act);
        pod.tracker.spawn(run);
    }
    let broken = attempt.broken.lock().expect("whole").clone();
    let muted = attempt.muted.lock().expect("whole").clone();
    let start = (0_usize, attempt.frames.subscribe());
    let dead = pod.dead.clone();
    let frames = futures::stream::unfold(start, move |(at, mut frames)| {
        let (dead, broken) = (dead.clone(), broken.clone());
        async move {
            let line = tokio::select! {
                biased;
                found = frames.wait_for(|frames| frames.len() > at) => {
                    let mut line = serde_json::to_vec(&found.ok()?[at]).expect("JSON");
                    line.push(b'\n');
                    Some((line, at + 1))
                }
                () = dead.cancelled() => None,
                () = broken.cancelled() => None,
                () = tokio::time::sleep(LINE_EVERY) => Some((b"\n".to_vec(), at)),
            };
            let Some((line, next)) = line else {
                let breaks = std::io::Error::other("the connection breaks");
                return Some((Err(breaks), (at, frames)));
            };
            Some((Ok(line), (next, frames)))
        }
    });
    let frames = frames.take_until(muted.cancelled_owned());
    Body::from_stream(frames.chain(futures::stream::pending()).boxed()).into_response()
}

async fn stop(State(pod): State<Arc<Pod>>, InPath(turn): InPath<TurnId>) -> StatusCode {
    if let Some(attempt) = pod.attempts.lock().expect("whole").get(&turn) {
        attempt.stop.cancel();
    }
    StatusCode::ACCEPTED
}

async fn sleep(State(pod): State<Arc<Pod>>) -> StatusCode {
    *pod.phase.lock().expect("whole") = Phase::Draining;
    StatusCode::ACCEPTED
}

/// Notes that a request is answered no more.
struct Left(Arc<Pod>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.unanswered.send_modify(|waiting| *waiting -= 1);
    }
}

/// An agent that shows what it was asked, and tries what it may not.
async fn agent(State(pod): State<Arc<Pod>>, request: Request) -> Response {
    pod.check(request.headers());
    if request.headers().contains_key("upgrade") {
        use axum::extract::FromRequestParts as _;
        let (mut parts, _) = request.into_parts();
        let upgrade = axum::extract::WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
        return upgrade
            .expect("a WebSocket")
            .on_upgrade(async |mut socket| {
                while let Some(Ok(message)) = socket.recv().await {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
    }
    if request.uri().path().ends_with("/forever") {
        let first = futures::stream::once(async { Ok::<_, std::io::Error>("first") });
        return Body::from_stream(first.chain(futures::stream::pending())).into_response();
    }
    if request.uri().path().ends_with("/silent") {
        pod.unanswered.send_modify(|waiting| *waiting += 1);
        let _left = Left(Arc::clone(&pod));
        return std::future::pending().await;
    }
    if request.uri().path().ends_with("/swallow") {
        let (pieces, tracker) = (request.into_body().into_data_stream(), pod.tracker.clone());
        let swallow = pieces.for_each(move |piece| {
            let piece = piece.map_or("(broken off)".into(), |piece| {
                String::from_utf8_lossy(&piece).into_owned()
            });
            pod.swallowed.send_modify(|pieces| pieces.push(piece));
            std::future::ready(())
        });
        tracker.spawn(swallow);
        return "early".into_response();
    }
    let names: Vec<String> = request.headers().keys().map(ToString::to_string).collect();
    let shown = serde_json::json!({
        "method": request.method().as_str(),
        "uri": request.uri().to_string(),
        "headers": names,
    });
    let bytes = axum::body::to_bytes(request.into_body(), 1 << 20)
        .await
        .expect("a body");
    let mut response = Json(serde_json::json!({
        "asked": shown,
        "body": String::from_utf8_lossy(&bytes),
    }))
    .into_response();
    for (name, value) in [
        ("set-cookie", "carrel_session=stolen"),
        ("service-worker-allowed", "/"),
        ("clear-site-data", "\"*\""),
        ("x-of-the-agent", "kept"),
    ] {
        let value = http::HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
