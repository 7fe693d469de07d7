//! The stream of a turn that another gateway runs: read from the owner's memory, by one connection a client.
//!
//! The owner alone numbers what happens live, so that each place in a learner's stream means the same everywhere.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use carrel_core::{LearnerId, OwnerId};
use carrel_protocol::Endpoint;
use carrel_protocol::gateway::StreamEvent;
use carrel_protocol::sidecar::LINE_EVERY;
use carrel_store::processes::Role;
use carrel_store::turns::Ownership;
use futures::{Stream, StreamExt as _};
use http::{Request, header};
use serde::{Deserialize, Serialize};

use super::{Place, Subscriber};
use crate::gateway::{Gateway, Shared};
use crate::sidecar::{Connection, Frames};

/// How long the owner may take to begin its answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// An event, as one gateway tells another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    id: String,
    event: StreamEvent,
}

/// A learner's stream as it is at the gateway that runs its turn.
pub(super) struct Upstream {
    pub(super) owner: OwnerId,
    lines: Frames<Line>,
}

/// Where a learner's oldest open turn runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// None is open: the next begins with a durable event.
    Nothing,
    /// Here, by its lease.
    Here,
    /// At another gateway.
    At(OwnerId, Endpoint),
    /// Nobody has it, or nobody who can be asked: that changes without a word.
    Unknown,
}

/// Who runs the learner's oldest open turn.
pub(super) async fn runs(gateway: &Gateway, learner: &LearnerId) -> Runs {
    let (store, now) = (&gateway.options.store, gateway.now());
    let owner = match store.owner(learner, now).await {
        Ok(Ownership::NothingOpen) => return Runs::Nothing,
        Ok(Ownership::Held(owner)) if owner == gateway.owner => return Runs::Here,
        Ok(Ownership::Held(owner)) => owner,
        Ok(Ownership::Free) => return Runs::Unknown,
        Err(error) => {
            tracing::debug!(learner.id = %learner, %error, "who runs a turn is asked again");
            return Runs::Unknown;
        }
    };
    let there = store.processes(Role::Gateway, now).await;
    let there = there.unwrap_or_default().into_iter();
    let address = there
        .filter(|process| process.id == owner)
        .find_map(|process| process.address.parse().ok());
    address.map_or(Runs::Unknown, |address| Runs::At(owner, address))
}

impl Upstream {
    /// Opens it after a place. `None`: the owner does not answer.
    pub(super) async fn open(
        gateway: &Gateway,
        learner: &LearnerId,
        owner: OwnerId,
        endpoint: &Endpoint,
        after: Place,
        fresh: bool,
    ) -> Option<Self> {
        let token = gateway.options.signer.relay_token(learner, gateway.now());
        let host = endpoint.base_url().rsplit('/').next().unwrap_or_default();
        let request = Request::builder()
            .uri(format!(
                "/internal/v1/learners/{learner}/stream?after={after}&fresh={fresh}"
            ))
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, format!("Bearer {}", token.ok()?))
            .body(Body::empty())
            .ok()?;
        let answer = async {
            let trust = &gateway.options.trust;
            let mut connection = Connection::open(endpoint, trust, &gateway.tracker).await?;
            connection.send(request).await
        };
        let answer = tokio::time::timeout(ANSWERS_WITHIN, answer).await;
        match answer {
            Ok(Ok(answer)) if answer.status().is_success() => Some(Self {
                owner,
                lines: Frames::new(answer.into_body()),
            }),
            Ok(Ok(answer)) => {
                tracing::warn!(learner.id = %learner, status = %answer.status(), "a gateway does not relay a stream");
                None
            }
            Ok(Err(error)) => {
                tracing::debug!(learner.id = %learner, %error, "a gateway cannot be reached");
                None
            }
            Err(_) => None,
        }
    }

    /// The next event; `None` when it is over, or the owner is silent.
    ///
    /// # Cancel safety
    /// Safe: what was read stays.
    pub(super) async fn next(&mut self) -> Option<(Place, StreamEvent)> {
        let line = self.lines.next().await.ok()?;
        Some((line.id.parse().ok()?, line.event))
    }
}

/// The answer to another gateway: this one's events, a line each.
pub(crate) fn respond_lines(
    subscriber: Subscriber,
    over: impl Future<Output = ()> + Send + 'static,
) -> Response {
    let events = futures::stream::unfold(subscriber, async |mut subscriber| {
        Some((subscriber.next().await?, subscriber))
    });
    let lines = lines(events).take_until(over).map(|mut line| {
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (headers, Body::from_stream(lines)).into_response()
}

/// A line an event, and an empty one where none comes for a while; what the next waits for goes on meanwhile.
fn lines(
    events: impl Stream<Item = (Place, StreamEvent)> + Send,
) -> impl Stream<Item = Vec<u8>> + Send {
    futures::stream::unfold(Box::pin(events), async |mut events| {
        let line = match tokio::time::timeout(LINE_EVERY, events.next()).await {
            Ok(next) => {
                let (place, event) = next?;
                let id = place.to_string();
                serde_json::to_vec(&Line { id, event }).ok()?
            }
            Err(_) => Vec::new(),
        };
        Some((line, events))
    })
}

/// Whether a request is another gateway's, for this learner.
pub(crate) fn is_a_gateways(shared: &Shared, learner: &LearnerId, token: &str) -> bool {
    let key = std::slice::from_ref(shared.options.signer.public_key());
    carrel_protocol::token::Verifier::new(key)
        .and_then(|verifier| verifier.relay(token, shared.now()))
        .is_ok_and(|of| of == *learner)
}

#[cfg(test)]
mod tests {
    use carrel_core::TurnId;
    use carrel_protocol::gateway::TurnStep;
    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_longer_than_a_line_may_is_not_asked_anew_for_each_line() {
        let reads = futures::stream::once(async {
            tokio::time::sleep(2 * LINE_EVERY + LINE_EVERY / 2).await;
            let event = StreamEvent::State {
                turn_id: TurnId(Uuid::from_u128(7)),
                state: TurnStep::Queued,
                detail: String::new(),
            };
            (Place::default(), event)
        });
        let said: Vec<_> = lines(reads).map(|line| line.len()).collect().await;
        let is_said = matches!(said[..], [0, 0, line] if line > 0);
        assert!(is_said, "{said:?}");
    }
}
