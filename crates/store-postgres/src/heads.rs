//! The epoch fence and the heads: the port's methods, and the plain reads.

use std::time::Duration;

use carrel_core::{Epoch, Generation, LearnerId, RepositoryId, TurnId};
use carrel_store::adapter::column::{count, int, parsed_option, time};
use carrel_store::heads::{
    Commit, Committed, Contact, GenerationRow, Head, KeptAway, Restored, WrappedKey,
};
use carrel_store::{Heads, Result};
use jiff::Timestamp;
use sqlx::FromRow;
use uuid::Uuid;

use crate::PostgresStore;
use crate::fault::{Inner, during};
use crate::pool::{self, Bounded};
use crate::write::{AtFence, FenceRow};

/// The fence is raised only under the learner's lock: a commit that has passed it is in the head that is read then.
pub(crate) const CONTACT: &str = "WITH locked AS (SELECT pg_advisory_xact_lock_shared(5399920, hashtext(id)), lock_learner(id) \
        FROM learner WHERE id = $1 AND fence < $2), \
    raised AS (UPDATE learner l SET fence = $2 FROM locked \
        WHERE l.id = $1 AND NOT l.closing AND l.fence < $2 \
        RETURNING l.fence, l.head_generation, l.head_snapshot, l.repository) \
    SELECT * FROM raised UNION ALL SELECT fence, head_generation, head_snapshot, repository \
    FROM learner WHERE id = $1 AND NOT closing AND fence >= $2";
/// What [`CONTACT`] waits for, before it has anything else.
const KEEP_AWAY: &str = "SELECT pg_try_advisory_lock(5399920, hashtext($1))";
pub(crate) const HEAD: &str =
    "SELECT head_generation, head_snapshot, repository FROM learner WHERE id = $1";
pub(crate) const GENERATIONS: &str = "SELECT g.generation, g.snapshot, g.parent, g.time, \
    t.turn_id, g.damaged, g.expired FROM generation g LEFT JOIN turn t ON t.place = g.turn \
    WHERE g.learner = $1 ORDER BY g.generation DESC";
pub(crate) const NEWEST: &str = "SELECT g.generation, g.snapshot, g.parent, g.time, \
    t.turn_id, g.damaged, g.expired FROM generation g LEFT JOIN turn t ON t.place = g.turn \
    WHERE g.learner = $1 ORDER BY g.generation DESC LIMIT 1";

/// How long the server may take for it.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

#[derive(FromRow)]
struct Row {
    generation: i64,
    snapshot: Option<String>,
    parent: i64,
    time: i64,
    turn_id: Option<Uuid>,
    damaged: bool,
    expired: bool,
}

impl Row {
    fn generation(self) -> Inner<GenerationRow> {
        Ok(GenerationRow {
            generation: Generation(count(self.generation)),
            snapshot: parsed_option(self.snapshot.as_deref())?,
            parent: Generation(count(self.parent)),
            time: time(self.time),
            turn: self.turn_id.map(TurnId),
            damaged: self.damaged,
            expired: self.expired,
        })
    }
}

impl PostgresStore {
    /// Raises the fence if the epoch is above it, in one statement. When somebody else raised it while this waited for the
    /// lock, nothing is seen; the next statement sees that.
    pub(crate) async fn stand_at_fence(&self, learner: &LearnerId, epoch: Epoch) -> Inner<AtFence> {
        for _ in 0..2 {
            let row: Option<FenceRow> = sqlx::query_as(CONTACT)
                .bind(learner.as_str())
                .bind(int(epoch.0))
                .fetch_optional(&self.turns)
                .await?;
            if let Some(row) = row {
                return row.at_fence(Some(epoch));
            }
        }
        Ok(AtFence::NoLearner)
    }

    async fn first_contact(&self, learner: &LearnerId, epoch: Epoch) -> Inner<Contact> {
        Ok(match self.stand_at_fence(learner, epoch).await? {
            AtFence::NoLearner => Contact::NoLearner,
            AtFence::Stale(fence) => Contact::Stale { fence },
            AtFence::Current(fenced) => Contact::Current {
                head: fenced.head,
                repository: fenced.repository,
            },
        })
    }

    async fn read_head(&self, learner: &LearnerId) -> Inner<Option<(Head, RepositoryId)>> {
        let row: Option<(i64, Option<String>, Uuid)> = sqlx::query_as(HEAD)
            .bind(learner.as_str())
            .fetch_optional(&self.turns)
            .await?;
        let Some((generation, snapshot, repository)) = row else {
            return Ok(None);
        };
        let head = Head {
            generation: Generation(count(generation)),
            snapshot: parsed_option(snapshot.as_deref())?,
        };
        Ok(Some((head, RepositoryId(repository))))
    }

    async fn mark(
        &self,
        sql: &'static str,
        learner: &LearnerId,
        generations: &[Generation],
    ) -> Inner<()> {
        let generations: Vec<i64> = generations.iter().map(|one| int(one.0)).collect();
        sqlx::query(sql)
            .bind(learner.as_str())
            .bind(generations)
            .execute(&self.turns)
            .await?;
        Ok(())
    }
}

#[async_trait::async_trait]
impl Heads for PostgresStore {
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

    async fn keep_away(&self, learner: &LearnerId) -> Result<Option<KeptAway>> {
        let kept = async {
            // A connection of its own: when it ends, however it does, nobody is kept away any more.
            let mut connection = pool::apart(&self.connect).await?;
            let is_alone: bool = sqlx::query_scalar(KEEP_AWAY)
                .bind(learner.as_str())
                .fetch_one(Bounded::new(&mut connection, ANSWERS_WITHIN))
                .await?;
            Inner::Ok(is_alone.then(|| KeptAway::by(connection)))
        };
        kept.await.map_err(during("keeping first contacts away"))
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
                .fetch_optional(&self.turns)
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
                .fetch_all(&self.turns)
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
            "UPDATE generation SET damaged = true WHERE learner = $1 AND generation = ANY ($2)";
        self.mark(DAMAGED, learner, &[generation])
            .await
            .map_err(during("marking a generation damaged"))
    }

    async fn mark_expired(&self, learner: &LearnerId, generations: &[Generation]) -> Result<()> {
        const EXPIRED: &str =
            "UPDATE generation SET expired = true WHERE learner = $1 AND generation = ANY ($2)";
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
