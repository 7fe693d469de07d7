//! The built-in stand-in provider: `demo/tutor`, which speaks both dialects without a network and without a key. The
//! same conversation always gets the same reply. It shows the product; it is no teacher.

mod arithmetic;
mod conversation;
mod facts;
mod render;
mod tutor;

use bytes::Bytes;
use carrel_llm::{Request, estimate};
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::upstream::Answer;
use conversation::Conversation;
use render::Rendered;

/// Answers as a provider would.
pub(crate) fn answer(request: &Request) -> Answer {
    let conversation = Conversation::of(request);
    let reply = tutor::reply(&conversation);
    let rendered = Rendered {
        dialect: request.dialect(),
        model: request.model(),
        place: conversation.said.len(),
        // The estimate without its margin.
        input_tokens: estimate::bound(request).input_tokens * 2 / 3,
        max_tokens: request.output_limit().unwrap_or(u64::MAX),
        reply,
    };
    let is_stream = request.streams();
    let (kind, pieces) = if is_stream {
        ("text/event-stream", rendered.events())
    } else {
        ("application/json", vec![rendered.whole()])
    };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
    Answer {
        status: StatusCode::OK,
        headers,
        is_stream,
        secret: None,
        body: futures::stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from(piece)))).boxed(),
    }
}

#[cfg(test)]
mod tests;
