//! `POST …/wake`: wakes a learner on intent, before a message comes.

use axum::Json;
use axum::extract::State;
use carrel_core::LearnerId;
use carrel_core::learner::{LearnerState, Status};
use http::StatusCode;
use serde_json::{Value, json};

use crate::auth::Own;
use crate::gateway::{Gateway, Shared};
use crate::refusal::{Refusal, Result};

pub(super) async fn wake(
    State(shared): State<Shared>,
    Own(learner, _): Own,
) -> Result<(StatusCode, Json<Value>)> {
    let state = nudge(&shared, &learner).await?.state;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "learner_state": state })),
    ))
}

/// Asks the fleet for an incarnation if none is there or coming; gives what was seen.
pub(crate) async fn nudge(gateway: &Gateway, learner: &LearnerId) -> Result<Status> {
    let fleet = &gateway.options.fleet;
    let status = fleet.status(learner).await?;
    match status.state {
        LearnerState::Deleting => return Err(Refusal::no_learner()),
        LearnerState::Asleep
        | LearnerState::Draining
        | LearnerState::Snapshotting
        | LearnerState::Failed => fleet.wake(learner, status.epoch).await?,
        LearnerState::Waking
        | LearnerState::Restoring
        | LearnerState::Ready
        | LearnerState::Busy => {}
    }
    Ok(status)
}
