//! Wrapped data keys, one a learner.

use carrel_core::{LearnerId, RepositoryId};
use carrel_store::heads::WrappedKey;
use sqlx::{FromRow, PgExecutor};

use crate::PostgresStore;
use crate::fault::Inner;

pub(crate) const KEY: &str = "SELECT algorithm, key_id, wrapped FROM data_key WHERE learner = $1";
pub(crate) const REWRAP: &str = "UPDATE data_key SET algorithm = $2, key_id = $3, wrapped = $4 \
    WHERE learner = $1 AND algorithm = $5 AND key_id = $6 AND wrapped = $7";

#[derive(FromRow)]
struct KeyRow {
    algorithm: String,
    key_id: String,
    wrapped: Vec<u8>,
}

impl PostgresStore {
    pub(crate) async fn read_key(&self, learner: &LearnerId) -> Inner<Option<WrappedKey>> {
        key(&self.turns, learner).await
    }

    pub(crate) async fn keep_key(
        &self,
        learner: &LearnerId,
        new: &WrappedKey,
    ) -> Inner<Option<WrappedKey>> {
        if let Some(there) = self.read_key(learner).await? {
            return Ok(Some(there));
        }
        let mut write = self.write(learner).await?;
        sqlx::query(
            "INSERT INTO data_key (learner, algorithm, key_id, wrapped) \
             SELECT id, $2, $3, $4 FROM learner WHERE id = $1 AND NOT closing \
             ON CONFLICT (learner) DO NOTHING",
        )
        .bind(learner.as_str())
        .bind(&new.algorithm)
        .bind(&new.key_id)
        .bind(new.wrapped.as_slice())
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
        let replaced = sqlx::query(REWRAP)
            .bind(learner.as_str())
            .bind(&new.algorithm)
            .bind(&new.key_id)
            .bind(new.wrapped.as_slice())
            .bind(&old.algorithm)
            .bind(&old.key_id)
            .bind(old.wrapped.as_slice())
            .execute(&self.turns)
            .await?;
        Ok(replaced.rows_affected() > 0)
    }

    pub(crate) async fn delete_key(
        &self,
        learner: &LearnerId,
        repository: RepositoryId,
    ) -> Inner<()> {
        const DELETE: &str = "DELETE FROM data_key k USING learner l \
            WHERE k.learner = $1 AND l.id = $1 AND l.repository = $2";
        sqlx::query(DELETE)
            .bind(learner.as_str())
            .bind(repository.0)
            .execute(&self.turns)
            .await?;
        Ok(())
    }
}

async fn key(executor: impl PgExecutor<'_>, learner: &LearnerId) -> Inner<Option<WrappedKey>> {
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
