//! What sidecars say to the vault: `GET /v1/learners/{id}/head`, `GET …/key`, `PUT …/head`, `POST …/damage`; and what gateways ask
//! of it for operators: `POST /v1/admin/restore`, `verify`, `remove`, `restic`, `rewrap`, `erase`; and the controller: `POST
//! /v1/learners/{id}/restore`.

use carrel_core::event::{Reply, Usage};
use carrel_core::{Epoch, EventVersion, Generation, LearnerId, RepositoryId, SnapshotId, TurnId};
use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

use crate::sidecar::{AttachmentData, PodTiming};

/// The answer of `GET /v1/learners/{id}/head`: the newest committed state, and what only who has the store knows of the learner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number; 0 when nothing was committed yet.
    pub generation: Generation,
    /// Its snapshot; absent for an empty workspace.
    pub snapshot_id: Option<SnapshotId>,
    /// The repository, for logs.
    pub repository: RepositoryId,
    /// Seconds between the learner's last messages, newest last, at most four.
    #[serde(default)]
    pub recent_gaps_seconds: Vec<u32>,
    /// An opaque name of the learner for the agent.
    #[serde(default)]
    pub opaque_learner: String,
}

/// The answer of `GET /v1/learners/{id}/key`: a restic master key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ZeroizeOnDrop)]
pub struct DataKey {
    /// AES-256 key, base64.
    pub encrypt: String,
    /// Poly1305-AES key `k`, base64.
    pub mac_k: String,
    /// Poly1305-AES key `r`, base64.
    pub mac_r: String,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(…)")
    }
}

/// The body of `PUT /v1/learners/{id}/head`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRequest {
    /// The incarnation.
    pub epoch: Epoch,
    /// The head's number afterwards.
    pub generation: Generation,
    /// The head's snapshot before.
    pub parent_snapshot_id: Option<SnapshotId>,
    /// The head's snapshot afterwards.
    pub snapshot_id: SnapshotId,
    /// What taking it took.
    #[serde(default)]
    pub figures: SnapshotFigures,
    /// The turn that ends with it.
    pub turn_id: Option<TurnId>,
    /// What it came to; with `turn_id` and only with it.
    pub result: Option<TurnResult>,
}

/// What a snapshot took, for the vault to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFigures {
    /// Milliseconds from its beginning until it is committed by this call.
    pub took_ms: u64,
    /// Bytes that it added to the repository.
    pub new_bytes: u64,
    /// Bytes of the workspace in it.
    pub total_bytes: u64,
}

/// What a turn came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TurnResult {
    /// Whether it was stopped by a wish.
    pub stopped: bool,
    /// The reply.
    pub reply: Reply,
    /// Content of the reply's files, in order.
    pub files: Vec<AttachmentData>,
    /// Where the time went.
    pub timing: PodTiming,
    /// What the operator should know, if anything; never shown to the learner.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operator_note: String,
}

/// The answer of `PUT /v1/learners/{id}/head`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAnswer {
    /// The head now.
    pub generation: Generation,
    /// Its snapshot.
    pub snapshot_id: SnapshotId,
    /// The learner's event version of the commit.
    pub version: EventVersion,
    /// What the turn used.
    pub usage: Usage,
}

/// The body of `POST /v1/learners/{id}/damage`: restoring the head failed in a way that may be damage. The vault reads
/// for itself; the answer is the head to restore now ([`Head`]), or 503 when nothing is proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DamageReport {
    /// The generation that could not be restored.
    pub generation: Generation,
    /// What was seen.
    pub detail: String,
}

/// The body of `POST /v1/admin/restore`, `verify` and `remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfSnapshot {
    /// Whose.
    pub learner: LearnerId,
    /// Which.
    pub snapshot_id: SnapshotId,
}

/// The body of `POST /v1/admin/restic` and `erase`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfLearner {
    /// Whose.
    pub learner: LearnerId,
}

/// The body of `POST /v1/learners/{id}/restore`: whose, and after which epoch they sleep, the token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreWish {
    /// Which.
    pub snapshot_id: SnapshotId,
}

/// The answer of `POST /v1/admin/restore` and `POST /v1/learners/{id}/restore`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The new generation.
    pub generation: Generation,
}

/// What a check of a snapshot found; the answer of `POST /v1/admin/verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// What is damaged, a line each; empty when every byte is as it was written.
    pub damage: Vec<String>,
}

/// What stock `restic` needs to open a learner's repository; the answer of `POST /v1/admin/restic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResticAccess {
    /// Where the repository is, as restic names it.
    pub repository: String,
    /// What its flag `-o` must say besides, each apart.
    pub options: Vec<String>,
    /// The file with its password.
    pub password_file: String,
}

/// What became of the learners' data keys; the answer of `POST /v1/admin/rewrap`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rewrapped {
    /// Wrapped anew.
    pub rewrapped: u64,
    /// Wrapped by the first key already, or not there yet.
    pub left: u64,
    /// Whose key does not open.
    pub failed: Vec<LearnerId>,
}
