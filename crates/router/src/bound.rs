//! The bound of a request's input. `spend` and `catalog` ask for it; a thread that serves calls does not unpack documents for it.

use carrel_llm::estimate::{self, Bound};
use carrel_llm::{Failure, Kind, Request};
use tokio_util::task::TaskTracker;

/// The bound of a request, which is given back.
pub(crate) async fn of(
    tracker: &TaskTracker,
    request: Request,
) -> Result<(Request, Bound), Failure> {
    let bound = |request: Request| {
        let bound = estimate::bound(&request);
        (request, bound)
    };
    if !estimate::has_documents(&request) {
        return Ok(bound(request));
    }
    let unpacked = tracker.spawn_blocking(move || bound(request)).await;
    unpacked.map_err(|error| {
        tracing::error!(%error, "a request with documents could not be bounded");
        Failure::new(Kind::Internal, "the documents could not be looked into")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use carrel_llm::Dialect;
    use serde_json::{Value, json};

    use super::*;

    fn asks(content: &Value) -> Request {
        let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}]});
        Request::parse(Dialect::Anthropic, body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn documents_are_unpacked_on_a_thread_that_serves_no_calls() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let tracker = TaskTracker::new();
            let (release, held) = mpsc::channel::<()>();
            // The only such thread is busy.
            tracker.spawn_blocking(move || held.recv());
            let source = json!({"type": "base64", "data": "JVBERg=="});
            let document = asks(&json!([{"type": "document", "source": source}]));
            let mut bounding = Box::pin(of(&tracker, document.clone()));
            assert!(futures::poll!(&mut bounding).is_pending());
            let (_, plain) = of(&tracker, asks(&json!("hi"))).await.unwrap();
            drop(release);
            let (request, bound) = bounding.await.unwrap();
            assert_eq!(request, document);
            assert!(bound.input_tokens > plain.input_tokens);
        });
    }
}
