//! Wrapped data keys, one a learner.

use carrel_core::{LearnerId, RepositoryId};
use carrel_store::heads::WrappedKey;
use sqlx::{FromRow, SqliteExecutor};

use crate::SqliteStore;
use crate::fault::Inner;

pub(crate) const KEY: &str = "SELECT algorithm, key_id, wrapped FROM data_key WHERE learner = ?";

#[derive(FromRow)]
struct KeyRow {
    algorithm: String,
    key_id: String,
    wrapped: Vec<u8>,
}

impl SqliteStore {
    pub(crate) async fn read_key(&self, learner: &LearnerId) -> Inner<Option<WrappedKey>> {
        key(&self.readers, learner).await
    }

    pub(crate) async fn keep_key(
        &self,
        learner: &LearnerId,
        new: &WrappedKey,
    ) -> Inner<Option<WrappedKey>> {
        let mut write = self.write().await?;
        sqlx::query(
            "INSERT INTO data_key (learner, algorithm, key_id, wrapped) \
             SELECT id, ?, ?, ? FROM learner WHERE id = ? AND closing = 0 \
             ON CONFLICT (learner) DO NOTHING",
        )
        .bind(&new.algorithm)
        .bind(&new.key_id)
        .bind(new.wrapped.as_slice())
        .bind(learner.as_str())
        .execute(write.connection())
        .await?;
        let there = key(write.connection(), learner).await?;
        write.commit().await?;
        Ok(there)
    }

    pub(crate) async fn replace_key(
        &self,
        learner: &LearnerId,
        old: &WrappedKey,
        new: &WrappedKey,
    ) -> Inner<bool> {
        let mut write = self.write().await?;
        let replaced = sqlx::query(
            "UPDATE data_key SET algorithm = ?, key_id = ?, wrapped = ? \
             WHERE learner = ? AND algorithm = ? AND key_id = ? AND wrapped = ?",
        )
        .bind(&new.algorithm)
        .bind(&new.key_id)
        .bind(new.wrapped.as_slice())
        .bind(learner.as_str())
        .bind(&old.algorithm)
        .bind(&old.key_id)
        .bind(old.wrapped.as_slice())
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(replaced.rows_affected() > 0)
    }

    pub(crate) async fn delete_key(
        &self,
        learner: &LearnerId,
        repository: RepositoryId,
    ) -> Inner<()> {
        const DELETE: &str = "DELETE FROM data_key \
            WHERE learner = (SELECT id FROM learner WHERE id = ? AND repository = ?)";
        let mut write = self.write().await?;
        sqlx::query(DELETE)
            .bind(learner.as_str())
            .bind(repository.0.as_bytes().as_slice())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        self.forget_log().await
    }
}

async fn key(executor: impl SqliteExecutor<'_>, learner: &LearnerId) -> Inner<Option<WrappedKey>> {
    let row: Option<KeyRow> = sqlx::query_as(KEY)
        .bind(learner.as_str())
        .fetch_optional(executor)
        .await?;
    Ok(row.map(|row| WrappedKey {
        algorithm: row.algorithm,
        key_id: row.key_id,
        wrapped: row.wrapped,
    }))
}
