//! Wake and sleep by the operator.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use carrel_core::LearnerId;
use carrel_core::learner::LearnerState;
use http::{HeaderValue, StatusCode, header};

use super::learners::find;
use crate::api::nudge;
use crate::auth::Managed;
use crate::gateway::{Gateway, Shared};
use crate::refusal::Result;

/// An answer is given by then; what is not done goes on.
const WITHIN: Duration = Duration::from_secs(25);
/// Looks again without a hint.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn wake(
    State(shared): State<Shared>,
    Managed(learner): Managed,
) -> Result<Response> {
    find(&shared, &learner).await?;
    nudge(&shared, &learner).await?;
    Ok((StatusCode::ACCEPTED, Json(find(&shared, &learner).await?)).into_response())
}

/// 200 when it sleeps, 202 when that takes longer.
pub(super) async fn sleep(
    State(shared): State<Shared>,
    Managed(learner): Managed,
) -> Result<Response> {
    find(&shared, &learner).await?;
    let asleep = put_to_sleep(&shared, &learner).await?;
    let document = Json(find(&shared, &learner).await?);
    if asleep {
        return Ok(document.into_response());
    }
    Ok(look_later(
        &learner,
        (StatusCode::ACCEPTED, document).into_response(),
    ))
}

/// Adds the place to look.
pub(super) fn look_later(learner: &LearnerId, mut response: Response) -> Response {
    let place = format!("/admin/v1/learners/{learner}");
    if let Ok(place) = HeaderValue::try_from(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// Asks the learner to sleep and waits for it; whether it does.
pub(super) async fn put_to_sleep(gateway: &Gateway, learner: &LearnerId) -> Result<bool> {
    let fleet = &gateway.options.fleet;
    let mut changes = fleet.changes();
    if sleeps(fleet.status(learner).await?.state) {
        return Ok(true);
    }
    fleet.sleep(learner).await?;
    let asleep = async {
        loop {
            let status = fleet.status(learner).await?;
            if sleeps(status.state) {
                return Ok(true);
            }
            // A missed hint is made up for by looking again.
            let _ = tokio::time::timeout(LOOK_EVERY, changes.recv()).await;
        }
    };
    tokio::time::timeout(WITHIN, asleep)
        .await
        .unwrap_or(Ok(false))
}

fn sleeps(state: LearnerState) -> bool {
    match state {
        LearnerState::Asleep | LearnerState::Failed => true,
        LearnerState::Waking
        | LearnerState::Restoring
        | LearnerState::Ready
        | LearnerState::Busy
        | LearnerState::Draining
        | LearnerState::Snapshotting
        | LearnerState::Deleting => false,
    }
}
