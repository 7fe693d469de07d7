//! Erasing a learner: closed at once, then pod, key, objects and rows; each step repeatable, also by the next process.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use carrel_core::LearnerId;
use http::StatusCode;

use crate::auth::Managed;
use crate::gateway::{Gateway, Shared};
use crate::refusal::{Refusal, Result};

const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How often it is looked for learners whom another gateway was erasing when it died.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// 202: from now on it is gone for everybody; what is kept of it goes in the background.
pub(super) async fn erase(
    State(shared): State<Shared>,
    Managed(learner): Managed,
) -> Result<StatusCode> {
    let store = &shared.options.store;
    let row = store.learner(&learner, shared.now()).await?;
    if row.is_none_or(|row| row.desired.deleting) {
        return Err(Refusal::no_learner());
    }
    if !store.close_learner(&learner, shared.now()).await? {
        return Err(Refusal::no_learner());
    }
    shared.hubs.close(&learner);
    begin(&shared, learner);
    Ok(StatusCode::ACCEPTED)
}

/// Goes on with what a process began that is gone: an earlier one, or another that died.
pub(crate) async fn resume(shared: Shared) {
    loop {
        let pause = match shared.options.store.stirring().await {
            Ok(rows) => {
                for row in rows.into_iter().filter(|row| row.desired.deleting) {
                    begin(&shared, row.id);
                }
                if shared.options.alone {
                    return;
                }
                LOOK_EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "learners that are being erased cannot be listed");
                TRY_AGAIN
            }
        };
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Erases it step by step, unless that is being done here.
fn begin(shared: &Shared, learner: LearnerId) {
    if !shared.erasing().insert(learner.clone()) {
        return;
    }
    let shared = Arc::clone(shared);
    shared.tracker.clone().spawn(async move {
        let done = async {
            while let Err(error) = steps(&shared, &learner).await {
                tracing::warn!(learner.id = %learner, error = &*error, "erasing is tried again");
                tokio::time::sleep(TRY_AGAIN).await;
            }
            tracing::info!(learner.id = %learner, "erased");
        };
        shared.cancel.run_until_cancelled(done).await;
        shared.erasing().remove(&learner);
    });
}

async fn steps(
    gateway: &Gateway,
    learner: &LearnerId,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    gateway.options.fleet.discard(learner).await?;
    gateway.options.vault.erase(learner).await?;
    gateway.hubs.close(learner);
    Ok(())
}
