//! Snapshots: listed, taken, checked, removed, restored.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use carrel_core::{Generation, LearnerId, SnapshotId};
use carrel_protocol::gateway::{Restore, SnapshotList, SnapshotSummary};
use carrel_protocol::vault::Rewrapped;
use carrel_store::heads::GenerationRow;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::learners::find;
use super::operations::{look_later, put_to_sleep};
use crate::auth::{Managed, Operator};
use crate::body::{ORDINARY_BYTES, json};
use crate::gateway::{Gateway, Shared};
use crate::refusal::{Refusal, Result};
use crate::vault_admin;

/// How much later than the fleet a row may say that its learner sleeps.
const ROW_FOLLOWS_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The answer of `POST …/snapshots/{snapshot_id}/verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotCheck {
    /// The snapshot.
    pub snapshot_id: SnapshotId,
    /// Whether every byte is as it was written.
    pub intact: bool,
    /// What is damaged.
    pub damage: Vec<String>,
}

/// The answer of `POST …/restic`: what stock `restic` on the vault's machine is told by its environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResticEnvironment {
    /// `RESTIC_REPOSITORY`.
    pub repository: String,
    /// What restic's flag `-o` must say besides, each apart.
    pub options: Vec<String>,
    /// `RESTIC_PASSWORD_FILE`.
    pub password_file: String,
}

pub(super) async fn restic(
    State(shared): State<Shared>,
    Managed(learner): Managed,
) -> Result<Json<ResticEnvironment>> {
    find(&shared, &learner).await?;
    let access = shared.options.vault.restic(&learner).await?;
    Ok(Json(ResticEnvironment {
        repository: access.repository,
        options: access.options,
        password_file: access.password_file,
    }))
}

/// `POST /admin/v1/vault/rewrap`
pub(super) async fn rewrap(State(shared): State<Shared>, _: Operator) -> Result<Json<Rewrapped>> {
    Ok(Json(shared.options.vault.rewrap().await?))
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Managed(learner): Managed,
) -> Result<Json<SnapshotList>> {
    find(&shared, &learner).await?;
    let snapshots = summaries(&shared, &learner).await?;
    Ok(Json(SnapshotList { snapshots }))
}

async fn summaries(gateway: &Gateway, learner: &LearnerId) -> Result<Vec<SnapshotSummary>> {
    let rows = gateway.options.store.generations(learner).await?;
    let there = rows.into_iter().filter(|row| !row.expired);
    Ok(there.map(summary).collect())
}

fn summary(row: GenerationRow) -> SnapshotSummary {
    SnapshotSummary {
        snapshot_id: row.snapshot,
        generation: Some(row.generation),
        time: row.time,
        turn_id: row.turn,
        damaged: row.damaged,
    }
}

/// Takes one: a learner that is awake takes its snapshot by falling asleep; one that sleeps has it already.
pub(super) async fn create(
    State(shared): State<Shared>,
    Managed(learner): Managed,
) -> Result<Response> {
    let document = find(&shared, &learner).await?;
    if !put_to_sleep(&shared, &learner).await? {
        return Ok(look_later(
            &learner,
            (StatusCode::ACCEPTED, Json(document)).into_response(),
        ));
    }
    let newest = summaries(&shared, &learner).await?.into_iter().next();
    let nothing = || Refusal::not_found("the workspace is empty: there is nothing to keep yet");
    Ok(Json(newest.ok_or_else(nothing)?).into_response())
}

pub(super) async fn restore(
    State(shared): State<Shared>,
    Managed(learner): Managed,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let asked: Restore = json(&headers, body, ORDINARY_BYTES).await?;
    let document = find(&shared, &learner).await?;
    if !put_to_sleep(&shared, &learner).await? {
        let detail = "the learner does not fall asleep: its turn still runs; try again shortly";
        tracing::info!(learner.id = %document.id, "a restore waits for sleep");
        return Err(Refusal::new(carrel_protocol::Code::Conflict, detail).retry_after(5));
    }
    let generation = restored(&shared, &learner, &asked.snapshot_id).await?;
    let rows = summaries(&shared, &learner).await?;
    let restored = rows
        .into_iter()
        .find(|row| row.generation == Some(generation));
    Ok(Json(restored.ok_or_else(no_snapshot)?).into_response())
}

/// The vault goes by the learner's row, which may say a moment later than the fleet that it sleeps.
async fn restored(
    gateway: &Gateway,
    learner: &LearnerId,
    snapshot: &SnapshotId,
) -> Result<Generation> {
    let began = tokio::time::Instant::now();
    loop {
        let restored = gateway.options.vault.restore(learner, snapshot).await;
        let Err(vault_admin::Error::Conflict(_)) = &restored else {
            return Ok(restored?);
        };
        let row = gateway.options.store.learner(learner, gateway.now());
        let is_late = row.await?.is_some_and(|row| row.status.pod.is_some());
        if !is_late || began.elapsed() > ROW_FOLLOWS_WITHIN {
            return Ok(restored?);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn no_snapshot() -> Refusal {
    Refusal::not_found("there is no such snapshot")
}

fn snapshot_in_path(text: &str) -> Result<SnapshotId> {
    text.parse().map_err(|_| no_snapshot())
}

pub(super) async fn verify(
    State(shared): State<Shared>,
    Managed(learner): Managed,
    Path((_, snapshot)): Path<(String, String)>,
) -> Result<Json<SnapshotCheck>> {
    let snapshot_id = snapshot_in_path(&snapshot)?;
    find(&shared, &learner).await?;
    let found = shared.options.vault.verify(&learner, &snapshot_id).await?;
    Ok(Json(SnapshotCheck {
        snapshot_id,
        intact: found.damage.is_empty(),
        damage: found.damage,
    }))
}

pub(super) async fn remove(
    State(shared): State<Shared>,
    Managed(learner): Managed,
    Path((_, snapshot)): Path<(String, String)>,
) -> Result<StatusCode> {
    let snapshot = snapshot_in_path(&snapshot)?;
    find(&shared, &learner).await?;
    shared.options.vault.remove(&learner, &snapshot).await?;
    Ok(StatusCode::NO_CONTENT)
}
