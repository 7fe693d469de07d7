//! The commit: head, outcome, reply, event and outbox in one transaction, or a refusal.

use carrel_core::event::{EventBody, Usage};
use carrel_core::{EventVersion, Generation, LearnerId, NanoUsd, SnapshotId};
use carrel_store::adapter::column::{count, int, nanos};
use carrel_store::adapter::digest::digest;
use carrel_store::adapter::outcome::Outcome;
use carrel_store::adapter::standing::Standing;
use carrel_store::heads::{Commit, Committed, Head};
use jiff::Timestamp;
use sqlx::FromRow;

use crate::PostgresStore;
use crate::accept::columns;
use crate::fault::Inner;
use crate::write::{AtFence, FenceRow, Write};

/// The fence with the head, and what was committed before as the generation that is to be.
pub(crate) const BEFORE: &str = "SELECT l.fence, l.head_generation, l.head_snapshot, l.repository, \
    g.digest, g.version, coalesce(t.input_tokens, 0) AS input_tokens, \
    coalesce(t.output_tokens, 0) AS output_tokens, coalesce(t.cost, 0) AS cost \
    FROM learner l LEFT JOIN generation g ON g.learner = l.id AND g.generation = $2 \
    LEFT JOIN turn t ON t.place = g.turn WHERE l.id = $1 AND NOT l.closing";
/// Adds a generation with what came of its turn, and makes it the head.
pub(crate) const MOVE_HEAD: &str = "WITH g AS (INSERT INTO generation \
        (learner, generation, snapshot, parent, copy_of, time, turn, version, digest) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)), \
    told AS (UPDATE lost_turn SET told_generation = $2 \
        WHERE learner = $1 AND told_place = $7 AND told_generation IS NULL), \
    f AS (INSERT INTO file (place, side, number, about, data) \
        SELECT $7, 'reply', number - 1, about::json, data \
        FROM unnest($10::text[], $11::bytea[]) WITH ORDINALITY AS f (about, data, number)) \
    UPDATE learner SET head_generation = $2, head_snapshot = $3 WHERE id = $1";

#[derive(FromRow)]
struct Before {
    #[sqlx(flatten)]
    fence: FenceRow,
    digest: Option<Vec<u8>>,
    version: Option<i64>,
    input_tokens: i64,
    output_tokens: i64,
    cost: i64,
}

/// A generation to be added, which becomes the head.
pub(crate) struct NewHead<'a> {
    pub(crate) generation: Generation,
    pub(crate) snapshot: Option<&'a SnapshotId>,
    pub(crate) parent: Generation,
    pub(crate) copy_of: Option<Generation>,
    pub(crate) turn: Option<i64>,
    pub(crate) version: EventVersion,
    pub(crate) digest: Option<&'a [u8]>,
    /// What each file of the reply is, and its content.
    pub(crate) files: (Vec<String>, Vec<&'a [u8]>),
}

impl PostgresStore {
    pub(crate) async fn commit_head(&self, commit: &Commit, now: Timestamp) -> Inner<Committed> {
        let digest = digest(commit)?;
        let mut write = self.write(&commit.learner).await?;
        let before: Option<Before> = sqlx::query_as(BEFORE)
            .bind(commit.learner.as_str())
            .bind(int(commit.generation.0))
            .fetch_optional(write.connection())
            .await?;
        let Some(before) = before else {
            return Ok(Committed::NoLearner);
        };
        let raises = before.fence.is_below(commit.epoch);
        // A repeat tells the truth whatever came after it.
        let answer = if let Some(repeated) = before.repeated(&digest) {
            repeated
        } else {
            match before.fence.at_fence(Some(commit.epoch))? {
                AtFence::NoLearner => return Ok(Committed::NoLearner),
                AtFence::Stale(fence) => return Ok(Committed::StaleEpoch { fence }),
                AtFence::Current(fenced) => {
                    decide(&mut write, commit, fenced.head, &digest, now).await?
                }
            }
        };
        if raises {
            write.raise_fence(&commit.learner, commit.epoch).await?;
        }
        write.commit().await?;
        Ok(answer)
    }
}

impl Before {
    /// The answer of an equal call before this one.
    fn repeated(&self, digest: &[u8]) -> Option<Committed> {
        let version = self.version?;
        (self.digest.as_deref() == Some(digest)).then(|| Committed::Committed {
            version: EventVersion(count(version)),
            usage: Usage {
                input_tokens: count(self.input_tokens),
                output_tokens: count(self.output_tokens),
                cost_nano_usd: NanoUsd(self.cost),
            },
            repeated: true,
        })
    }
}

async fn decide(
    write: &mut Write,
    commit: &Commit,
    head: Head,
    digest: &[u8],
    now: Timestamp,
) -> Inner<Committed> {
    let standing = match &commit.turn {
        None => None,
        Some(result) => match running(write, commit, result.turn_id).await? {
            None => return Ok(Committed::TurnNotRunning),
            standing => standing,
        },
    };
    if head.generation.next() != commit.generation || head.snapshot != commit.parent {
        return Ok(Committed::HeadMoved { head });
    }
    let version = conclude(write, commit, standing.as_ref(), now).await?;
    let files = commit.turn.as_ref().map_or(&[][..], |turn| &turn.files);
    let new = NewHead {
        generation: commit.generation,
        snapshot: Some(&commit.snapshot),
        parent: head.generation,
        copy_of: None,
        turn: standing.as_ref().map(|standing| standing.place),
        version,
        digest: Some(digest),
        files: columns(files)?,
    };
    write.move_head(&commit.learner, new, now).await?;
    Ok(Committed::Committed {
        version,
        usage: standing
            .map(|standing| standing.turn.usage)
            .unwrap_or_default(),
        repeated: false,
    })
}

/// The commit's turn, if it runs in the commit's epoch.
async fn running(
    write: &mut Write,
    commit: &Commit,
    turn: carrel_core::TurnId,
) -> Inner<Option<Standing>> {
    let standing = write.standing(turn).await?;
    Ok(standing
        .filter(|standing| *standing.learner() == commit.learner && standing.runs_in(commit.epoch)))
}

/// Writes what the commit ends: the turn, or nothing but the taking of a snapshot.
async fn conclude(
    write: &mut Write,
    commit: &Commit,
    standing: Option<&Standing>,
    now: Timestamp,
) -> Inner<EventVersion> {
    let Some((standing, result)) = standing.zip(commit.turn.as_ref()) else {
        let snapshotted = EventBody::Snapshotted {
            snapshot_id: commit.snapshot.clone(),
            generation: commit.generation,
        };
        return write.append(&commit.learner, &snapshotted, now).await;
    };
    let outcome = Outcome::Done {
        stopped: result.stopped,
        reply: &result.reply,
        snapshot: Some(&commit.snapshot),
        generation: commit.generation,
        operator_note: &result.operator_note,
    };
    write.end_turn(standing, outcome, result.timing, now).await
}

impl Write {
    /// Adds a generation and makes it the head.
    pub(crate) async fn move_head(
        &mut self,
        learner: &LearnerId,
        new: NewHead<'_>,
        now: Timestamp,
    ) -> Inner<()> {
        let (about, data) = new.files;
        sqlx::query(MOVE_HEAD)
            .bind(learner.as_str())
            .bind(int(new.generation.0))
            .bind(new.snapshot.map(SnapshotId::as_str))
            .bind(int(new.parent.0))
            .bind(new.copy_of.map(|generation| int(generation.0)))
            .bind(nanos(now))
            .bind(new.turn)
            .bind(int(new.version.0))
            .bind(new.digest)
            .bind(about)
            .bind(data)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
