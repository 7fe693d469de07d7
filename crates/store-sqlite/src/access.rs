//! What lets people in: hashes of tokens, sign-in codes and browser sessions.

use carrel_core::LearnerId;
use carrel_store::access::{SecretHash, SecretKind, Subject};
use carrel_store::adapter::column::{nanos, parsed};
use carrel_store::{Access, Result};
use jiff::Timestamp;

use crate::SqliteStore;
use crate::fault::{Inner, during};

pub(crate) const SUBJECT: &str =
    "SELECT learner FROM secret WHERE hash = ? AND kind = ? AND expires_time > ?";
pub(crate) const REDEEM: &str = "DELETE FROM secret \
    WHERE hash = ? AND kind = 'code' AND expires_time > ? RETURNING learner";
pub(crate) const REVOKE_ONE: &str =
    "DELETE FROM secret WHERE hash = ? AND kind = ? RETURNING learner";
pub(crate) const REVOKE: &str = "DELETE FROM secret WHERE learner = ?";
pub(crate) const SWEEP: &str = "DELETE FROM secret WHERE expires_time <= ?";

impl SqliteStore {
    async fn keep_secret(
        &self,
        hash: SecretHash,
        kind: SecretKind,
        subject: &Subject,
        expires_time: Timestamp,
    ) -> Inner<bool> {
        let learner = match subject {
            Subject::Learner(id) => Some(id.as_str()),
            Subject::Operator => None,
        };
        let mut write = self.write().await?;
        let kept = sqlx::query(
            "INSERT INTO secret (hash, kind, learner, expires_time) SELECT ?1, ?2, ?3, ?4 \
             WHERE ?3 IS NULL OR EXISTS (SELECT 1 FROM learner WHERE id = ?3 AND closing = 0) \
             ON CONFLICT (hash, kind) DO UPDATE \
             SET learner = excluded.learner, expires_time = excluded.expires_time",
        )
        .bind(hash.as_slice())
        .bind(<&str>::from(kind))
        .bind(learner)
        .bind(nanos(expires_time))
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(kept.rows_affected() > 0)
    }

    async fn forget_secret(&self, hash: SecretHash, kind: SecretKind) -> Inner<()> {
        let mut write = self.write().await?;
        let learner: Option<Option<String>> = sqlx::query_scalar(REVOKE_ONE)
            .bind(hash.as_slice())
            .bind(<&str>::from(kind))
            .fetch_optional(write.connection())
            .await?;
        if let Some(Subject::Learner(learner)) = learner.map(subject).transpose()? {
            write.hint(&learner);
        }
        write.commit().await
    }

    async fn use_code(&self, hash: SecretHash, now: Timestamp) -> Inner<Option<Subject>> {
        let mut write = self.write().await?;
        let learner: Option<Option<String>> = sqlx::query_scalar(REDEEM)
            .bind(hash.as_slice())
            .bind(nanos(now))
            .fetch_optional(write.connection())
            .await?;
        write.commit().await?;
        learner.map(subject).transpose()
    }
}

fn subject(learner: Option<String>) -> Inner<Subject> {
    learner.map_or(Ok(Subject::Operator), |id| {
        Ok(Subject::Learner(parsed(&id)?))
    })
}

#[async_trait::async_trait]
impl Access for SqliteStore {
    async fn grant(
        &self,
        hash: SecretHash,
        kind: SecretKind,
        subject: &Subject,
        _now: Timestamp,
        expires_time: Timestamp,
    ) -> Result<bool> {
        self.keep_secret(hash, kind, subject, expires_time)
            .await
            .map_err(during("letting someone in"))
    }

    async fn subject(
        &self,
        hash: SecretHash,
        kind: SecretKind,
        now: Timestamp,
    ) -> Result<Option<Subject>> {
        let read = async {
            let learner: Option<Option<String>> = sqlx::query_scalar(SUBJECT)
                .bind(hash.as_slice())
                .bind(<&str>::from(kind))
                .bind(nanos(now))
                .fetch_optional(&self.readers)
                .await?;
            learner.map(subject).transpose()
        };
        read.await.map_err(during("looking a secret up"))
    }

    async fn redeem(&self, hash: SecretHash, now: Timestamp) -> Result<Option<Subject>> {
        self.use_code(hash, now)
            .await
            .map_err(during("using a sign-in code"))
    }

    async fn revoke(&self, hash: SecretHash, kind: SecretKind) -> Result<()> {
        self.forget_secret(hash, kind)
            .await
            .map_err(during("revoking a secret"))
    }

    async fn revoke_all(&self, learner: &LearnerId) -> Result<()> {
        let write = async {
            let mut write = self.write().await?;
            sqlx::query(REVOKE)
                .bind(learner.as_str())
                .execute(write.connection())
                .await?;
            write.hint(learner);
            write.commit().await
        };
        write.await.map_err(during("revoking a learner's secrets"))
    }

    async fn sweep_access(&self, now: Timestamp) -> Result<u64> {
        let write = async {
            let mut write = self.write().await?;
            let swept = sqlx::query(SWEEP)
                .bind(nanos(now))
                .execute(write.connection())
                .await?;
            write.commit().await?;
            Ok(swept.rows_affected())
        };
        write.await.map_err(during("removing expired secrets"))
    }
}
