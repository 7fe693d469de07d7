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

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::{Arc, Weak};

    use carrel_core::EventVersion;
    use carrel_store_sqlite::SqliteStore;
    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::super::{Hub, Place};
    use super::*;

    #[tokio::test]
    async fn a_stream_on_which_nothing_comes_says_every_15_seconds_that_it_lives() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("store.db")).await;
        let hub = Hub::new(
            "ada".parse().expect("a label"),
            EventVersion(0),
            Weak::new(),
        );
        let store = Arc::new(store.expect("a store"));
        let subscriber = Subscriber::at(Arc::new(hub), store, Place::default(), true);
        // Nothing of this reads the store: it has no part in the time that passes.
        tokio::time::pause();
        let began = Instant::now();
        let mut body = respond(subscriber, pending()).into_body();
        for said in 1..=3 {
            let frame = body.frame().await.expect("it goes on").expect("whole");
            assert_eq!(frame.into_data().expect("data"), ":\n\n");
            assert_eq!(began.elapsed().as_secs(), 15 * said);
        }
    }
}
