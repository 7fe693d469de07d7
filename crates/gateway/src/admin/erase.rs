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

/// Goes on with what an earlier process began.
pub(crate) async fn resume(shared: Shared) {
    let rows = loop {
        match shared.options.store.stirring().await {
            Ok(rows) => break rows,
            Err(error) => tracing::warn!(%error, "learners that are being erased cannot be listed"),
        }
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    };
    for row in rows.into_iter().filter(|row| row.desired.deleting) {
        begin(&shared, row.id);
    }
}

fn begin(shared: &Shared, learner: LearnerId) {
    let shared = Arc::clone(shared);
    shared.tracker.clone().spawn(async move {
        loop {
            match steps(&shared, &learner).await {
                Ok(()) => return tracing::info!(learner.id = %learner, "erased"),
                Err(error) => {
                    tracing::warn!(learner.id = %learner, error = &*error, "erasing is tried again");
                }
            }
            tokio::select! {
                () = shared.cancel.cancelled() => return,
                () = tokio::time::sleep(TRY_AGAIN) => {}
            }
        }
    });
}

async fn steps(
    gateway: &Gateway,
    learner: &LearnerId,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    gateway.options.fleet.discard(learner).await?;
    gateway.options.vault.erase(learner).await?;
    gateway
        .options
        .store
        .erase_learner(learner, gateway.now())
        .await?;
    gateway.hubs.close(learner);
    Ok(())
}
