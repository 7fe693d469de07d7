//! A stand-in model provider on loopback: plays one scene a request, byte by byte as told, and records what it was
//! sent. It waits only for a test's word, never for time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// What a provider was sent.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; null where it is no JSON.
    pub body: Value,
}

impl Recorded {
    /// Everything as one text, to look for secrets in.
    pub fn everything(&self) -> String {
        format!("{} {:?} {}", self.path, self.headers, self.body)
    }
}

/// A gate at which a scene waits until the test opens it, once for each.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    /// Lets one scene pass.
    pub fn open(&self) {
        self.0.add_permits(1);
    }

    async fn pass(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

/// One thing that a scene does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Waits at a gate.
    Wait(Gate),
    /// Breaks the connection.
    Cut,
    /// Says nothing for ever.
    Stall,
}

/// The answer to one request.
#[derive(Debug, Clone)]
pub struct Scene {
    status: u16,
    headers: Vec<(String, String)>,
    gate: Option<Gate>,
    steps: Vec<Step>,
}

impl Scene {
    /// A JSON answer.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(
            status,
            "application/json",
            vec![Step::Send(body.to_string().into_bytes())],
        )
    }

    /// A stream of events, sent in one piece.
    pub fn events(events: impl Into<String>) -> Self {
        Self::new(
            200,
            "text/event-stream",
            vec![Step::Send(events.into().into_bytes())],
        )
    }

    /// Any answer.
    pub fn new(status: u16, content_type: &str, steps: Vec<Step>) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            gate: None,
            steps,
        }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Answers nothing at all before the gate opens.
    #[must_use]
    pub fn after(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// With one more step at the end.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// With what is sent cut into pieces of `bytes`.
    #[must_use]
    pub fn in_pieces_of(mut self, bytes: usize) -> Self {
        let steps = std::mem::take(&mut self.steps).into_iter();
        self.steps = steps
            .flat_map(|step| match step {
                Step::Send(all) => all
                    .chunks(bytes.max(1))
                    .map(|piece| Step::Send(piece.to_vec()))
                    .collect(),
                other => vec![other],
            })
            .collect();
        self
    }
}

type Script = Box<dyn FnMut(&Recorded) -> Option<Scene> + Send>;

struct Stage {
    script: Mutex<Script>,
    recorded: Mutex<Vec<Recorded>>,
    abandoned: AtomicUsize,
}

/// A running stand-in; ends when dropped.
pub struct Provider {
    url: String,
    stage: Arc<Stage>,
    _end: DropGuard,
}

impl Provider {
    /// Plays these scenes in order; a request after the last gets status 599.
    pub async fn playing(scenes: impl IntoIterator<Item = Scene>) -> std::io::Result<Self> {
        let mut scenes: VecDeque<_> = scenes.into_iter().collect();
        Self::answering(move |_| scenes.pop_front()).await
    }

    /// Answers each request by a function; `None` is status 599.
    pub async fn answering(
        script: impl FnMut(&Recorded) -> Option<Scene> + Send + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let stage = Arc::new(Stage {
            script: Mutex::new(Box::new(script)),
            recorded: Mutex::default(),
            abandoned: AtomicUsize::new(0),
        });
        let app = Router::new().fallback(play).with_state(stage.clone());
        let end = CancellationToken::new();
        let ended = end.clone().cancelled_owned();
        TaskTracker::new().spawn(async move {
            tokio::select! {
                _ = async { axum::serve(listener, app).await } => {}
                () = ended => {}
            }
        });
        Ok(Self {
            url,
            stage,
            _end: end.drop_guard(),
        })
    }

    /// Its base URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it was sent so far.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.stage
            .recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many of its answers the other side left before their end.
    pub fn abandoned(&self) -> usize {
        self.stage.abandoned.load(Ordering::SeqCst)
    }
}

async fn play(State(stage): State<Arc<Stage>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX)
        .await
        .unwrap_or_default();
    let recorded = Recorded {
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let scene = {
        let mut script = stage.script.lock().unwrap_or_else(PoisonError::into_inner);
        script(&recorded)
    };
    stage
        .recorded
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(recorded);
    let scene =
        scene.unwrap_or_else(|| Scene::json(599, &json!({"error": "the script is at its end"})));
    if let Some(gate) = &scene.gate {
        gate.pass().await;
    }
    let mut response = Response::builder().status(scene.status);
    for (name, value) in &scene.headers {
        response = response.header(name, value);
    }
    let body = Body::from_stream(steps(scene.steps, stage));
    response.body(body).unwrap_or_default()
}

/// Counts an answer as abandoned unless it came to its end.
struct Watch(Arc<Stage>, bool);

impl Watch {
    fn end(&mut self) {
        self.1 = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.1 {
            self.0.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn steps(
    steps: Vec<Step>,
    stage: Arc<Stage>,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let start = (VecDeque::from(steps), Watch(stage, false));
    futures::stream::unfold(start, |(mut steps, mut watch)| async move {
        loop {
            match steps.pop_front() {
                Some(Step::Send(bytes)) => {
                    // Lets the piece before this one go out as a piece.
                    tokio::task::yield_now().await;
                    return Some((Ok(Bytes::from(bytes)), (steps, watch)));
                }
                Some(Step::Wait(gate)) => gate.pass().await,
                Some(Step::Cut) => {
                    watch.end();
                    return Some((
                        Err(std::io::ErrorKind::ConnectionReset.into()),
                        (steps, watch),
                    ));
                }
                Some(Step::Stall) => std::future::pending().await,
                None => {
                    watch.end();
                    return None;
                }
            }
        }
    })
    .fuse()
}

/// What a scripted answer says it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Tokens of input.
    pub input: u64,
    /// Tokens of output.
    pub output: u64,
}

/// A text as Anthropic streams it.
pub fn anthropic_stream(text: &str, used: Used) -> String {
    let event = |data: Value| {
        format!(
            "event: {}\ndata: {data}\n\n",
            data["type"].as_str().unwrap_or_default()
        )
    };
    let begun = anthropic_usage(Used { output: 1, ..used });
    let mut events = event(json!({"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "stand-in", "content": [], "usage": begun}}));
    events += &event(
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    );
    for word in text.split_inclusive(' ') {
        let delta = json!({"type": "text_delta", "text": word});
        events += &event(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    }
    events += &event(json!({"type": "content_block_stop", "index": 0}));
    let delta = json!({"stop_reason": "end_turn", "stop_sequence": null});
    events +=
        &event(json!({"type": "message_delta", "delta": delta, "usage": anthropic_usage(used)}));
    events + &event(json!({"type": "message_stop"}))
}

/// A text as Anthropic answers it whole.
pub fn anthropic_whole(text: &str, used: Used) -> Value {
    json!({
        "id": "msg_2", "type": "message", "role": "assistant", "model": "stand-in",
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
        "usage": anthropic_usage(used),
    })
}

/// The running count of Anthropic's API, which tells all input again with the last of the output.
fn anthropic_usage(used: Used) -> Value {
    json!({
        "input_tokens": used.input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "output_tokens": used.output,
    })
}

/// A text as OpenAI streams it, with the chunk of usage that was asked for.
pub fn openai_stream(text: &str, used: Used) -> String {
    let chunk = |choices: Value, usage: Value| {
        let data = json!({"id": "c1", "object": "chat.completion.chunk", "model": "stand-in", "choices": choices, "usage": usage});
        format!("data: {data}\n\n")
    };
    let delta = |delta: Value, finish: Value| {
        chunk(
            json!([{"index": 0, "delta": delta, "finish_reason": finish}]),
            Value::Null,
        )
    };
    let mut events = delta(json!({"role": "assistant", "content": ""}), Value::Null);
    for word in text.split_inclusive(' ') {
        events += &delta(json!({"content": word}), Value::Null);
    }
    events += &delta(json!({}), json!("stop"));
    let usage = json!({"prompt_tokens": used.input, "completion_tokens": used.output});
    events += &chunk(json!([]), usage);
    events + "data: [DONE]\n\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_count_of_a_stream_tells_its_input_again() {
        let used = Used {
            input: 21,
            output: 34,
        };
        let stream = anthropic_stream("one two", used);
        let events = stream
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let events = events.map(|data| serde_json::from_str::<Value>(data).unwrap());
        let last = events
            .into_iter()
            .find(|event| event["type"] == "message_delta");
        let expected = json!({"input_tokens": 21, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": 34});
        assert_eq!(last.unwrap()["usage"], expected);
    }
}
