//! `GET /v1/learners/{id}/events`, and the stream of one turn.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use carrel_core::event::EventBody;
use carrel_core::{LearnerId, TurnId};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::Deserialize;

use crate::auth::Own;
use crate::gateway::Shared;
use crate::pass::{self, Pass};
use crate::refusal::{Refusal, Result};
use crate::stream::{From, Place, Subscriber, is_a_gateways, respond, respond_lines, turn_log};

const LAST_EVENT_ID: &str = "last-event-id";

/// Everything for this learner, from the beginning or after `Last-Event-ID`.
pub(super) async fn events(
    State(shared): State<Shared>,
    Own(learner, pass): Own,
    headers: HeaderMap,
) -> Result<Response> {
    let place = match headers.get(LAST_EVENT_ID) {
        None => Place::default(),
        Some(id) => {
            let place = id.to_str().ok().and_then(|id| id.parse().ok());
            let detail = "'Last-Event-ID' must be the id of an event, as in '12.3'";
            place.ok_or_else(|| Refusal::invalid(detail))?
        }
    };
    let store = &shared.options.store;
    if !store.is_open(&learner).await? {
        return Err(Refusal::no_learner());
    }
    let hub = shared.hubs.open(&learner, store).await?;
    let place = hub.known(store, place).await?;
    let over = pass::over(Arc::clone(&shared), pass, Arc::clone(&hub));
    let subscriber = Subscriber::new(Arc::clone(&shared), hub, From::After(place));
    Ok(respond(subscriber, over))
}

/// What another gateway asks for one of its clients.
#[derive(Debug, Deserialize)]
pub(super) struct Relayed {
    after: String,
    fresh: bool,
}

/// This gateway's events for another gateway, whose client listens there. Without its token there is nothing here.
pub(super) async fn relayed(
    State(shared): State<Shared>,
    Path(learner): Path<LearnerId>,
    Query(relayed): Query<Relayed>,
    headers: HeaderMap,
) -> Result<Response> {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|token| token.to_str().ok());
    let token = token.and_then(|token| token.strip_prefix("Bearer "));
    if !token.is_some_and(|token| is_a_gateways(&shared, &learner, token)) {
        return Err(Refusal::no_learner());
    }
    let invalid = |_| Refusal::invalid("'after' must be the id of an event, as in '12.3'");
    let place = relayed.after.parse().map_err(invalid)?;
    let store = &shared.options.store;
    let hub = shared.hubs.open(&learner, store).await?;
    let subscriber = Subscriber::for_another(hub, Arc::clone(store), place, relayed.fresh);
    Ok(respond_lines(
        subscriber,
        shared.cancel.clone().cancelled_owned(),
    ))
}

/// One turn's events from its beginning to its outcome.
pub(super) async fn of_turn(
    shared: &Shared,
    learner: &LearnerId,
    pass: Pass,
    turn_id: TurnId,
) -> Result<Response> {
    let store = &shared.options.store;
    let hub = shared.hubs.open(learner, store).await?;
    let turn = store.turn(learner, turn_id).await?;
    let turn = turn.ok_or_else(Refusal::no_learner)?;
    let log = turn_log(store, learner, turn_id, turn.version).await?;
    let queued = log
        .iter()
        .find(|event| matches!(event.body, EventBody::Queued { turn_id: id, .. } if id == turn_id));
    let queued = queued.map_or(turn.version, |event| event.version);
    let over = pass::over(Arc::clone(shared), pass, Arc::clone(&hub));
    let subscriber = Subscriber::new(Arc::clone(shared), hub, From::Turn(turn_id, queued));
    Ok(respond(subscriber, over))
}
