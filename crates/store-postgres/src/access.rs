//! What lets people in: hashes of tokens, sign-in codes and browser sessions.

use std::collections::HashMap;

use carrel_core::LearnerId;
use carrel_store::access::{SecretHash, SecretKind, Subject};
use carrel_store::adapter::column::{nanos, parsed};
use carrel_store::{Access, Result};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::PostgresStore;
use crate::fault::{Inner, during};
use crate::gather::Gather;
use crate::pool::Pool;

/// Statements at a time.
const LANES: usize = 2;

/// The learner's row is held, so that it is not closed before its secret is there to be revoked.
pub(crate) const GRANT: &str = "WITH of AS (SELECT id FROM learner \
        WHERE id = $3 AND NOT closing FOR SHARE) \
    INSERT INTO secret (hash, kind, learner, expires_time) SELECT $1, $2, $3, $4 \
    WHERE $3 IS NULL OR EXISTS (SELECT FROM of) \
    ON CONFLICT (hash, kind) DO UPDATE \
    SET learner = excluded.learner, expires_time = excluded.expires_time";
pub(crate) const SUBJECTS: &str = "SELECT q.number, s.learner \
    FROM unnest($1::bytea[], $2::text[], $3::bigint[]) WITH ORDINALITY AS q (hash, kind, now, number) \
    JOIN secret s ON s.hash = q.hash AND s.kind = q.kind AND s.expires_time > q.now";
pub(crate) const REDEEM: &str = "DELETE FROM secret \
    WHERE hash = $1 AND kind = 'code' AND expires_time > $2 RETURNING learner";
pub(crate) const REVOKE_ONE: &str =
    "DELETE FROM secret WHERE hash = $1 AND kind = $2 RETURNING learner";
pub(crate) const REVOKE: &str = "DELETE FROM secret WHERE learner = $1";
pub(crate) const SWEEP: &str = "DELETE FROM secret WHERE expires_time <= $1";

/// A secret's hash and kind, and the time.
type Shown = (SecretHash, SecretKind, Timestamp);
/// Secrets that are looked up together: each one's row, with its learner if it is one's.
pub(crate) type Subjects = Gather<SecretHash, Shown, Option<Option<String>>>;

/// Starts what looks secrets up that are shown at the same time.
pub(crate) fn start(pool: &Pool, tracker: &TaskTracker, cancel: &CancellationToken) -> Subjects {
    let pool = pool.clone();
    let work = move |shown: Vec<Shown>| {
        let pool = pool.clone();
        async move {
            let hashes: Vec<&[u8]> = shown.iter().map(|(hash, ..)| hash.as_slice()).collect();
            let kinds: Vec<&str> = shown.iter().map(|(_, kind, _)| (*kind).into()).collect();
            let times: Vec<i64> = shown.iter().map(|(.., now)| nanos(*now)).collect();
            let rows: Vec<(i64, Option<String>)> = sqlx::query_as(SUBJECTS)
                .bind(hashes)
                .bind(kinds)
                .bind(times)
                .fetch_all(&pool)
                .await?;
            let mut found: HashMap<i64, Option<String>> = rows.into_iter().collect();
            let numbers = (1..).take(shown.len());
            Ok(numbers.map(|number| found.remove(&number)).collect())
        }
    };
    Gather::start(LANES, work, tracker, cancel)
}

impl PostgresStore {
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
        let kept = sqlx::query(GRANT)
            .bind(hash.as_slice())
            .bind(<&str>::from(kind))
            .bind(learner)
            .bind(nanos(expires_time))
            .execute(&self.admission)
            .await?;
        Ok(kept.rows_affected() > 0)
    }

    async fn forget_secret(&self, hash: SecretHash, kind: SecretKind) -> Inner<()> {
        let learner: Option<Option<String>> = sqlx::query_scalar(REVOKE_ONE)
            .bind(hash.as_slice())
            .bind(<&str>::from(kind))
            .fetch_optional(&self.admission)
            .await?;
        if let Some(Subject::Learner(learner)) = learner.map(subject).transpose()? {
            self.hints.give(&learner);
        }
        Ok(())
    }
}

fn subject(learner: Option<String>) -> Inner<Subject> {
    learner.map_or(Ok(Subject::Operator), |id| {
        Ok(Subject::Learner(parsed(&id)?))
    })
}

#[async_trait::async_trait]
impl Access for PostgresStore {
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
            let learner = self.subjects.ask(hash, (hash, kind, now)).await?;
            learner.map(subject).transpose()
        };
        read.await.map_err(during("looking a secret up"))
    }

    async fn redeem(&self, hash: SecretHash, now: Timestamp) -> Result<Option<Subject>> {
        let write = async {
            let learner: Option<Option<String>> = sqlx::query_scalar(REDEEM)
                .bind(hash.as_slice())
                .bind(nanos(now))
                .fetch_optional(&self.admission)
                .await?;
            learner.map(subject).transpose()
        };
        write.await.map_err(during("using a sign-in code"))
    }

    async fn revoke(&self, hash: SecretHash, kind: SecretKind) -> Result<()> {
        self.forget_secret(hash, kind)
            .await
            .map_err(during("revoking a secret"))
    }

    async fn revoke_all(&self, learner: &LearnerId) -> Result<()> {
        let write = async {
            sqlx::query(REVOKE)
                .bind(learner.as_str())
                .execute(&self.admission)
                .await?;
            self.hints.give(learner);
            Inner::Ok(())
        };
        write.await.map_err(during("revoking a learner's secrets"))
    }

    async fn sweep_access(&self, now: Timestamp) -> Result<u64> {
        let write = async {
            let swept = sqlx::query(SWEEP)
                .bind(nanos(now))
                .execute(&self.reports)
                .await?;
            Inner::Ok(swept.rows_affected())
        };
        write.await.map_err(during("removing expired secrets"))
    }
}
