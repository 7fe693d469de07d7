//! The commit: head, outcome, reply, event and outbox in one transaction, or a refusal.

use carrel_core::event::{EventBody, Usage};
use carrel_core::turn::TurnState;
use carrel_core::{EventVersion, Generation, NanoUsd, SnapshotId};
use carrel_store::adapter::column::{count, int, nanos};
use carrel_store::adapter::digest::digest;
use carrel_store::adapter::outcome::Outcome;
use carrel_store::adapter::standing::Standing;
use carrel_store::heads::{Commit, Committed, Head};
use jiff::Timestamp;
use sqlx::FromRow;

use crate::SqliteStore;
use crate::fault::Inner;
use crate::write::{AtFence, Write};

pub(crate) const BEFORE: &str = "SELECT g.digest, g.version, coalesce(t.input_tokens, 0) AS input_tokens, \
    coalesce(t.output_tokens, 0) AS output_tokens, coalesce(t.cost, 0) AS cost FROM generation g \
    LEFT JOIN turn t ON t.place = g.turn WHERE g.learner = ? AND g.generation = ?";
pub(crate) const TOLD: &str = "UPDATE lost_turn SET told_generation = ? \
    WHERE learner = ? AND told_place = ? AND told_generation IS NULL";

#[derive(FromRow)]
struct Before {
    digest: Option<Vec<u8>>,
    version: i64,
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
}

impl SqliteStore {
    pub(crate) async fn commit_head(&self, commit: &Commit, now: Timestamp) -> Inner<Committed> {
        let digest = digest(commit)?;
        let mut write = self.write().await?;
        let at_fence = write
            .pass_fence(&commit.learner, Some(commit.epoch))
            .await?;
        if let AtFence::NoLearner = at_fence {
            return Ok(Committed::NoLearner);
        }
        // A repeat tells the truth whatever came after it.
        if let Some(before) = repeated(&mut write, commit, &digest).await? {
            return Ok(before);
        }
        let head = match at_fence {
            AtFence::NoLearner => return Ok(Committed::NoLearner),
            AtFence::Stale(fence) => return Ok(Committed::StaleEpoch { fence }),
            AtFence::Current(fenced) => fenced.head,
        };
        let answer = self.decide(&mut write, commit, head, &digest, now).await?;
        write.commit().await?;
        Ok(answer)
    }

    async fn decide(
        &self,
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
        let place = standing.as_ref().map(|standing| standing.place);
        let new = NewHead {
            generation: commit.generation,
            snapshot: Some(&commit.snapshot),
            parent: head.generation,
            copy_of: None,
            turn: place,
            version,
            digest: Some(digest),
        };
        write.move_head(commit.learner.as_str(), &new, now).await?;
        if let Some(place) = place {
            sqlx::query(TOLD)
                .bind(int(commit.generation.0))
                .bind(commit.learner.as_str())
                .bind(place)
                .execute(write.connection())
                .await?;
        }
        Ok(Committed::Committed {
            version,
            usage: standing
                .map(|standing| standing.turn.usage)
                .unwrap_or_default(),
            repeated: false,
        })
    }
}

/// The answer of an equal call before this one.
async fn repeated(write: &mut Write, commit: &Commit, digest: &[u8]) -> Inner<Option<Committed>> {
    let before: Option<Before> = sqlx::query_as(BEFORE)
        .bind(commit.learner.as_str())
        .bind(int(commit.generation.0))
        .fetch_optional(write.connection())
        .await?;
    let equal = before.filter(|before| before.digest.as_deref() == Some(digest));
    Ok(equal.map(|before| Committed::Committed {
        version: EventVersion(count(before.version)),
        usage: Usage {
            input_tokens: count(before.input_tokens),
            output_tokens: count(before.output_tokens),
            cost_nano_usd: NanoUsd(before.cost),
        },
        repeated: true,
    }))
}

/// The commit's turn, if it runs in the commit's epoch.
async fn running(
    write: &mut Write,
    commit: &Commit,
    turn: carrel_core::TurnId,
) -> Inner<Option<Standing>> {
    let standing = write.standing(turn).await?;
    Ok(standing.filter(|standing| {
        *standing.learner() == commit.learner
            && standing.turn.state == TurnState::Running
            && standing.turn.epoch == Some(commit.epoch)
    }))
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
    let timing = standing.timing(result.timing);
    write
        .put_files(standing.place, "reply", &result.files)
        .await?;
    write.end_turn(standing, outcome, timing, now).await
}

impl Write {
    /// Adds a generation and makes it the head.
    pub(crate) async fn move_head(
        &mut self,
        learner: &str,
        new: &NewHead<'_>,
        now: Timestamp,
    ) -> Inner<()> {
        sqlx::query(
            "INSERT INTO generation \
             (learner, generation, snapshot, parent, copy_of, time, turn, version, digest) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(learner)
        .bind(int(new.generation.0))
        .bind(new.snapshot.map(SnapshotId::as_str))
        .bind(int(new.parent.0))
        .bind(new.copy_of.map(|generation| int(generation.0)))
        .bind(nanos(now))
        .bind(new.turn)
        .bind(int(new.version.0))
        .bind(new.digest)
        .execute(self.connection())
        .await?;
        sqlx::query("UPDATE learner SET head_generation = ?, head_snapshot = ? WHERE id = ?")
            .bind(int(new.generation.0))
            .bind(new.snapshot.map(SnapshotId::as_str))
            .bind(learner)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
