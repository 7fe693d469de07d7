//! What lets people in: learners' tokens, single-use sign-in codes, browser sessions. The store keeps SHA-256 hashes only.

use carrel_core::LearnerId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Result;

/// SHA-256 of a secret.
pub type SecretHash = [u8; 32];

/// What a secret is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SecretKind {
    /// A bearer token.
    Token,
    /// A sign-in code: worth one use.
    Code,
    /// A browser's session cookie.
    Session,
}

/// Whom a secret lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// This learner, to its own paths.
    Learner(LearnerId),
    /// The operator.
    Operator,
}

/// What lets people in.
#[async_trait::async_trait]
pub trait Access: Send + Sync {
    /// Keeps a secret's hash until it expires. `false`: no such learner, or it is being erased.
    async fn grant(
        &self,
        hash: SecretHash,
        kind: SecretKind,
        subject: &Subject,
        now: Timestamp,
        expires_time: Timestamp,
    ) -> Result<bool>;

    /// Whom a token or session lets in now.
    async fn subject(
        &self,
        hash: SecretHash,
        kind: SecretKind,
        now: Timestamp,
    ) -> Result<Option<Subject>>;

    /// Uses a code up: `Some` exactly once, even when many try at once.
    async fn redeem(&self, hash: SecretHash, now: Timestamp) -> Result<Option<Subject>>;

    /// Revokes one token or session.
    async fn revoke(&self, hash: SecretHash, kind: SecretKind) -> Result<()>;

    /// Revokes all tokens, codes and sessions of a learner.
    async fn revoke_all(&self, learner: &LearnerId) -> Result<()>;

    /// Removes what has expired; how many.
    async fn sweep_access(&self, now: Timestamp) -> Result<u64>;
}
