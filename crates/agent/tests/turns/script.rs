//! A model that plays a script: one scene a call, in order, and keeps what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Json, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What the model does with one call.
pub(crate) enum Scene {
    /// Says this, in pieces, and ends.
    Says(Vec<&'static str>),
    /// Says this and asks for a tool.
    Uses(&'static str, &'static str, Value),
    /// Refuses with a status, headers and an error type.
    Refuses(
        u16,
        Vec<(&'static str, &'static str)>,
        &'static str,
        &'static str,
    ),
    /// Says this, and its stream ends before its time.
    BreaksAfter(&'static str),
    /// Says this, then nothing more until the caller goes away, which it reports.
    SaysThenWaits(&'static str, mpsc::Sender<()>),
}

#[derive(Default)]
struct Play {
    scenes: VecDeque<Scene>,
    asked: Vec<Value>,
    tokens: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Model {
    play: Arc<Mutex<Play>>,
    pub(crate) url: String,
}

impl Model {
    pub(crate) async fn playing(scenes: Vec<Scene>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let play = Play {
            scenes: scenes.into(),
            ..Play::default()
        };
        let model = Self {
            play: Arc::new(Mutex::new(play)),
            url,
        };
        let router = Router::new()
            .route("/v1/messages", post(messages))
            .with_state(model.clone());
        drop(tokio::task::spawn(
            axum::serve(listener, router).into_future(),
        ));
        model
    }

    /// The bodies of all calls so far.
    pub(crate) fn asked(&self) -> Vec<Value> {
        self.play.lock().unwrap().asked.clone()
    }

    /// The `authorization` headers of all calls so far.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.play.lock().unwrap().tokens.clone()
    }

    /// What is left of the script.
    pub(crate) fn scenes_left(&self) -> usize {
        self.play.lock().unwrap().scenes.len()
    }
}

async fn messages(
    State(model): State<Model>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let scene = {
        let mut play = model.play.lock().unwrap();
        play.asked.push(body);
        let token = headers["authorization"].to_str().unwrap().to_owned();
        play.tokens.push(token);
        play.scenes
            .pop_front()
            .expect("the script has a scene for this call")
    };
    match scene {
        Scene::Says(pieces) => stream(said(&pieces, "end_turn"), None),
        Scene::Uses(words, tool, input) => stream(used(words, tool, &input), None),
        Scene::Refuses(status, headers, kind, message) => {
            let error = json!({"type": "error", "error": {"type": kind, "message": message}});
            let mut response = (StatusCode::from_u16(status).unwrap(), Json(error)).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        Scene::BreaksAfter(words) => {
            let mut events = said(&[words], "end_turn");
            events.truncate(3);
            stream(events, None)
        }
        Scene::SaysThenWaits(words, gone) => {
            let mut events = said(&[words], "end_turn");
            events.truncate(3);
            stream(events, Some(Gone(gone)))
        }
    }
}

/// Reports that the stream was dropped.
struct Gone(mpsc::Sender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.try_send(()).unwrap();
    }
}

fn stream(events: Vec<Value>, open: Option<Gone>) -> Response {
    let frames = events.into_iter().map(|event| {
        let name = event["type"].as_str().unwrap();
        Ok::<_, std::io::Error>(Bytes::from(format!("event: {name}\ndata: {event}\n\n")))
    });
    let tail = futures::stream::unfold(open, |open| async {
        let _gone = open?;
        std::future::pending().await
    });
    let body = Body::from_stream(futures::stream::iter(frames).chain(tail));
    ([("content-type", "text/event-stream")], body).into_response()
}

fn said(pieces: &[&str], reason: &str) -> Vec<Value> {
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "content": []}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ];
    events.extend(pieces.iter().map(|text| {
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
    }));
    events.push(json!({"type": "content_block_stop", "index": 0}));
    events.extend(ended(reason));
    events
}

fn used(words: &str, tool: &str, input: &Value) -> Vec<Value> {
    let mut events = said(&[words], "tool_use");
    events.truncate(4);
    events.extend([
        json!({"type": "content_block_start", "index": 1,
            "content_block": {"type": "tool_use", "id": "toolu_7", "name": tool, "input": {}}}),
        json!({"type": "content_block_delta", "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": input.to_string()}}),
        json!({"type": "content_block_stop", "index": 1}),
    ]);
    events.extend(ended("tool_use"));
    events
}

fn ended(reason: &str) -> [Value; 2] {
    [
        json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 3}}),
        json!({"type": "message_stop"}),
    ]
}
