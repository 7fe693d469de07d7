//! The epoch fence and the heads: the port's methods, and the plain reads.

use carrel_core::{Epoch, Generation, LearnerId, RepositoryId, TurnId};
use carrel_store::adapter::column::{count, int, parsed_option, time, uuid};
use carrel_store::heads::{
    Commit, Committed, Contact, GenerationRow, Head, KeptAway, Restored, WrappedKey,
};
use carrel_store::{Heads, Result};
use jiff::Timestamp;
use sqlx::FromRow;

use crate::SqliteStore;
use crate::fault::{Inner, during};
use crate::write::AtFence;

pub(crate) const HEAD: &str =
    "SELECT head_generation, head_snapshot, repository FROM learner WHERE id = ?";
pub(crate) const GENERATIONS: &str = "SELECT g.generation, g.snapshot, g.parent, g.time, \
    t.turn_id, g.damaged, g.expired FROM generation g LEFT JOIN turn t ON t.place = g.turn \
    WHERE g.learner = ? ORDER BY g.generation DESC";
pub(crate) const NEWEST: &str = "SELECT g.generation, g.snapshot, g.parent, g.time, \
    t.turn_id, g.damaged, g.expired FROM generation g LEFT JOIN turn t ON t.place = g.turn \
    WHERE g.learner = ? ORDER BY g.generation DESC LIMIT 1";

#[derive(FromRow)]
struct Row {
    generation: i64,
    snapshot: Option<String>,
    parent: i64,
    time: i64,
    turn_id: Option<Vec<u8>>,
    damaged: bool,
    expired: bool,
}

impl Row {
    fn generation(self) -> Inner<GenerationRow> {
        let turn = self.turn_id.as_deref().map(uuid).transpose()?;
        Ok(GenerationRow {
            generation: Generation(count(self.generation)),
            snapshot: parsed_option(self.snapshot.as_deref())?,
            parent: Generation(count(self.parent)),
            time: time(self.time),
            turn: turn.map(TurnId),
            damaged: self.damaged,
            expired: self.expired,
        })
    }
}

impl SqliteStore {
    async fn first_contact(&self, learner: &LearnerId, epoch: Epoch) -> Inner<Contact> {
        let mut write = self.write().await?;
        let contact = match write.pass_fence(learner, Some(epoch)).await? {
            AtFence::NoLearner => Contact::NoLearner,
            AtFence::Stale(fence) => Contact::Stale { fence },
            AtFence::Current(fenced) => Contact::Current {
                head: fenced.head,
                repository: fenced.repository,
            },
        };
        write.commit().await?;
        Ok(contact)
    }

    async fn read_head(&self, learner: &LearnerId) -> Inner<Option<(Head, RepositoryId)>> {
        let row: Option<(i64, Option<String>, Vec<u8>)> = sqlx::query_as(HEAD)
            .bind(learner.as_str())
            .fetch_optional(&self.readers)
            .await?;
        let Some((generation, snapshot, repository)) = row else {
            return Ok(None);
        };
        let head = Head {
            generation: Generation(count(generation)),
            snapshot: parsed_option(snapshot.as_deref())?,
        };
        Ok(Some((head, RepositoryId(uuid(&repository)?))))
    }

    async fn mark(
        &self,
        sql: &'static str,
        learner: &LearnerId,
        generations: &[Generation],
    ) -> Inner<()> {
        let mut write = self.write().await?;
        for generation in generations {
            sqlx::query(sql)
                .bind(learner.as_str())
                .bind(int(generation.0))
                .execute(write.connection())
                .await?;
        }
        write.commit().await
    }
}

#[async_trait::async_trait]
impl Heads for SqliteStore {
    async fn contact(&self, learner: &LearnerId, epoch: Epoch) -> Result<Contact> {
        self.first_contact(learner, epoch)
            .await
            .map_err(during("answering an incarnation's contact"))
    }

    async fn commit(&self, commit: &Commit, now: Timestamp) -> Result<Committed> {
        self.commit_head(commit, now)
            .await
            .map_err(during("committing"))
    }

    async fn keep_away(&self, _learner: &LearnerId) -> Result<Option<KeptAway>> {
        // One process has the file, and in it one vault, which sees to it.
        Ok(Some(KeptAway::default()))
    }

    async fn head(&self, learner: &LearnerId) -> Result<Option<(Head, RepositoryId)>> {
        self.read_head(learner)
            .await
            .map_err(during("reading a head"))
    }

    async fn newest_generation(&self, learner: &LearnerId) -> Result<Option<GenerationRow>> {
        let read = async {
            let row: Option<Row> = sqlx::query_as(NEWEST)
                .bind(learner.as_str())
                .fetch_optional(&self.readers)
                .await?;
            row.map(Row::generation).transpose()
        };
        read.await
            .map_err(during("reading a learner's newest generation"))
    }

    async fn generations(&self, learner: &LearnerId) -> Result<Vec<GenerationRow>> {
        let read = async {
            let rows: Vec<Row> = sqlx::query_as(GENERATIONS)
                .bind(learner.as_str())
                .fetch_all(&self.readers)
                .await?;
            rows.into_iter()
                .map(Row::generation)
                .collect::<Inner<Vec<_>>>()
        };
        read.await
            .map_err(during("reading a learner's generations"))
    }

    async fn mark_damaged(&self, learner: &LearnerId, generation: Generation) -> Result<()> {
        const DAMAGED: &str =
            "UPDATE generation SET damaged = 1 WHERE learner = ? AND generation = ?";
        self.mark(DAMAGED, learner, &[generation])
            .await
            .map_err(during("marking a generation damaged"))
    }

    async fn mark_expired(&self, learner: &LearnerId, generations: &[Generation]) -> Result<()> {
        const EXPIRED: &str =
            "UPDATE generation SET expired = 1 WHERE learner = ? AND generation = ?";
        self.mark(EXPIRED, learner, generations)
            .await
            .map_err(during("marking generations expired"))
    }

    async fn fall_back(
        &self,
        learner: &LearnerId,
        from: Generation,
        to: Generation,
        now: Timestamp,
    ) -> Result<Option<Head>> {
        self.fall_back_to(learner, from, to, now)
            .await
            .map_err(during("falling back"))
    }

    async fn restore(
        &self,
        learner: &LearnerId,
        to: Generation,
        asleep: Option<Epoch>,
        now: Timestamp,
    ) -> Result<Restored> {
        self.restore_to(learner, to, asleep, now)
            .await
            .map_err(during("restoring an older state"))
    }

    async fn wrapped_key(&self, learner: &LearnerId) -> Result<Option<WrappedKey>> {
        self.read_key(learner)
            .await
            .map_err(during("reading a data key"))
    }

    async fn put_key_if_absent(
        &self,
        learner: &LearnerId,
        key: &WrappedKey,
    ) -> Result<Option<WrappedKey>> {
        self.keep_key(learner, key)
            .await
            .map_err(during("keeping a data key"))
    }

    async fn rewrap_key(
        &self,
        learner: &LearnerId,
        old: &WrappedKey,
        new: &WrappedKey,
    ) -> Result<bool> {
        self.replace_key(learner, old, new)
            .await
            .map_err(during("rewrapping a data key"))
    }

    async fn destroy_key(&self, learner: &LearnerId, repository: RepositoryId) -> Result<()> {
        self.delete_key(learner, repository)
            .await
            .map_err(during("destroying a data key"))
    }
}
