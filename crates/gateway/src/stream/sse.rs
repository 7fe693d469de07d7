//! A subscriber's events as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;

use super::Subscriber;

const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// The answer that streams until the subscriber is through or it is over.
pub(crate) fn respond(
    subscriber: Subscriber,
    over: impl Future<Output = ()> + Send + 'static,
) -> Response {
    let events = futures::stream::unfold(subscriber, async |mut subscriber| {
        let (place, event) = subscriber.next().await?;
        let sse = Event::default()
            .id(place.to_string())
            .event(<&str>::from(&event));
        let sse = sse.json_data(&event).ok()?;
        Some((Ok::<_, Infallible>(sse), subscriber))
    });
    let events = events.take_until(over);
    let keep_alive = KeepAlive::new().interval(COMMENT_EVERY);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // Some proxies hold streams back unless told not to.
    let headers = response.headers_mut();
    headers.insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    headers.insert(
        http::header::CACHE_CONTROL,
        http::HeaderValue::from_static("no-store"),
    );
    response
}
