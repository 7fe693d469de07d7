//! Older states taken anew: a fall-back from a damaged head, and an operator's restore.

use carrel_core::event::EventBody;
use carrel_core::{Epoch, Generation, LearnerId, TurnId};
use carrel_store::adapter::column::int;
use carrel_store::adapter::lineage::{History, Link};
use carrel_store::heads::{Head, Restored};
use jiff::Timestamp;
use sqlx::FromRow;
use uuid::Uuid;

use crate::PostgresStore;
use crate::commit::NewHead;
use crate::fault::{Fault, Inner};
use crate::write::{AtFence, Write};

pub(crate) const HISTORY: &str = "SELECT generation, snapshot, parent, copy_of, turn, \
    damaged OR expired AS gone FROM generation WHERE learner = $1";

/// A turn that an operator's restore brought back may be lost once more.
const LOSE: &str = "INSERT INTO lost_turn (learner, place) SELECT $1, unnest($2::bigint[]) \
    ON CONFLICT (learner, place) DO UPDATE SET told_place = NULL, told_generation = NULL";
const REGAIN: &str = "DELETE FROM lost_turn WHERE learner = $1 AND place = ANY ($2)";
const TELL_AGAIN: &str = "UPDATE lost_turn SET told_place = NULL, told_generation = NULL \
    WHERE learner = $1 AND place = ANY ($2)";

#[derive(FromRow)]
struct Row {
    generation: i64,
    snapshot: Option<String>,
    parent: i64,
    copy_of: Option<i64>,
    turn: Option<i64>,
    gone: bool,
}

impl PostgresStore {
    pub(crate) async fn fall_back_to(
        &self,
        learner: &LearnerId,
        from: Generation,
        to: Generation,
        now: Timestamp,
    ) -> Inner<Option<Head>> {
        let mut write = self.write(learner).await?;
        let AtFence::Current(fenced) = write.pass_fence(learner, None).await? else {
            return Ok(None);
        };
        if fenced.head.generation != from {
            return Ok(None);
        }
        let history = read_history(&mut write, learner).await?;
        let Some(head) = history.head(from, to)? else {
            let what = format!("generation {to} of {learner} is absent, damaged or expired");
            return Err(Fault::Impossible(what));
        };
        sqlx::query("UPDATE generation SET damaged = true WHERE learner = $1 AND generation = $2")
            .bind(learner.as_str())
            .bind(int(from.0))
            .execute(write.connection())
            .await?;
        let lost_turns = lose_turns(&mut write, learner, &history, from, to).await?;
        let event = EventBody::FellBack {
            from,
            to,
            generation: from.next(),
            lost_turns,
        };
        take(&mut write, learner, from, to, &head, &event, now).await?;
        write.commit().await?;
        Ok(Some(head))
    }

    pub(crate) async fn restore_to(
        &self,
        learner: &LearnerId,
        to: Generation,
        asleep: Option<Epoch>,
        now: Timestamp,
    ) -> Inner<Restored> {
        let mut write = self.write(learner).await?;
        let fenced = match write.pass_fence(learner, asleep).await? {
            AtFence::Current(fenced) => fenced,
            AtFence::Stale(fence) => return Ok(Restored::StaleEpoch { fence }),
            AtFence::NoLearner => return Ok(Restored::Nothing),
        };
        let history = read_history(&mut write, learner).await?;
        let from = fenced.head.generation;
        let head = history.head(from, to)?;
        let Some(head) = head.filter(|_| to != Generation(0)) else {
            return Ok(Restored::Nothing);
        };
        let event = EventBody::Restored {
            to,
            generation: from.next(),
        };
        take(&mut write, learner, from, to, &head, &event, now).await?;
        write.commit().await?;
        Ok(Restored::Head(head))
    }
}

async fn read_history(write: &mut Write, learner: &LearnerId) -> Inner<History> {
    let rows: Vec<Row> = sqlx::query_as(HISTORY)
        .bind(learner.as_str())
        .fetch_all(write.connection())
        .await?;
    let mut history = History::default();
    for row in rows {
        let link = Link {
            parent: row.parent,
            copy_of: row.copy_of,
            turn: row.turn,
        };
        history.add(row.generation, link, row.snapshot, row.gone);
    }
    Ok(history)
}

/// Makes a head with the state of `to`.
async fn take(
    write: &mut Write,
    learner: &LearnerId,
    from: Generation,
    to: Generation,
    head: &Head,
    event: &EventBody,
    now: Timestamp,
) -> Inner<()> {
    let version = write.append(learner, event, now).await?;
    let new = NewHead {
        generation: head.generation,
        snapshot: head.snapshot.as_ref(),
        parent: from,
        copy_of: Some(to),
        turn: None,
        version,
        digest: None,
        files: (Vec::new(), Vec::new()),
    };
    write.move_head(learner, new, now).await
}

/// Notes the turns that are in `from` and not in `to`: the agent is told of them with its next turn. The newly lost ones, in
/// order.
async fn lose_turns(
    write: &mut Write,
    learner: &LearnerId,
    history: &History,
    from: Generation,
    to: Generation,
) -> Inner<Vec<TurnId>> {
    let before: Vec<(i64, Option<i64>)> =
        sqlx::query_as("SELECT place, told_generation FROM lost_turn WHERE learner = $1")
            .bind(learner.as_str())
            .fetch_all(write.connection())
            .await?;
    let loss = history.loss(from, to, &before);
    for (statement, places) in [
        (REGAIN, &loss.regained),
        (TELL_AGAIN, &loss.told_in_vain),
        (LOSE, &loss.lost),
    ] {
        sqlx::query(statement)
            .bind(learner.as_str())
            .bind(places)
            .execute(write.connection())
            .await?;
    }
    let turns: Vec<Uuid> =
        sqlx::query_scalar("SELECT turn_id FROM turn WHERE place = ANY ($1) ORDER BY place")
            .bind(&loss.lost)
            .fetch_all(write.connection())
            .await?;
    Ok(turns.into_iter().map(TurnId).collect())
}
