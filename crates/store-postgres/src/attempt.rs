//! The attempts of a turn: begun, at work, died.

use carrel_core::event::{EventBody, Reply};
use carrel_core::learner::StartKind;
use carrel_core::turn::{AfterDeath, Deaths, TurnState};
use carrel_core::{Epoch, EventVersion, TurnId};
use carrel_store::adapter::column::{count, from_json, int, nanos, parsed, small, to_json};
use carrel_store::adapter::outcome::{Died, Outcome};
use carrel_store::adapter::standing::{Standing, milliseconds};
use carrel_store::turns::{Begun, Lease, OwnerWrite, ToolUse};
use jiff::Timestamp;

use crate::PostgresStore;
use crate::fault::Inner;
use crate::write::Write;

/// The usual beginning: the turn waits, its owner begins it at or above the fence, and no lost turns are to be told. What does
/// not fit, or changes while this waits for the lock, is not begun, and decided in a transaction. The number of the attempt in
/// the event is the row's.
pub(crate) const BEGIN_WAITING: &str = "WITH w AS (SELECT learner FROM turn WHERE turn_id = $1 AND state = 'queued'), \
    locked AS (SELECT learner, lock_learner(learner) FROM w), \
    l AS (SELECT l.id, l.event_version + 1 AS version \
        FROM locked JOIN learner l ON l.id = locked.learner WHERE l.fence <= $4 \
        AND l.event_version = (SELECT s.event_version FROM w JOIN learner s ON s.id = w.learner) \
        AND NOT EXISTS (SELECT FROM w JOIN lost_turn o ON o.learner = w.learner \
            WHERE o.told_generation IS NULL) FOR NO KEY UPDATE OF l), \
    t AS (UPDATE turn t SET state = 'running', epoch = $4, attempts = t.attempts + 1, \
            start_kind = $5, version = l.version, started_version = l.version, \
            wake_ms = greatest($6 / 1000000 - coalesce(t.claimed_time, $6) / 1000000, 0) \
        FROM l WHERE t.turn_id = $1 AND t.state = 'queued' \
        AND t.lease_owner = $2 AND t.lease_generation = $3 \
        RETURNING t.learner, t.version, t.attempts), \
    n AS (UPDATE learner l SET event_version = t.version FROM t WHERE l.id = t.learner), \
    e AS (INSERT INTO event (learner, version, time, type, body) \
        SELECT learner, version, $6, 'started', \
            ($7::jsonb || jsonb_build_object('attempt', attempts))::json FROM t) \
    SELECT learner, version, attempts FROM t";
pub(crate) const BEGIN: &str = "UPDATE turn SET state = 'running', epoch = $2, attempts = $3, \
    infrastructure_deaths = $4, start_kind = $5, wake_ms = $6, version = $7, started_version = $7 \
    WHERE place = $1";
pub(crate) const PUT_BACK: &str = "UPDATE turn SET state = 'queued', infrastructure_deaths = $2, \
    agent_deaths = $3, claimed_time = $4, version = coalesce($5, version) WHERE place = $1";
pub(crate) const PUT_VERSION: &str = "UPDATE turn SET version = $2 WHERE place = $1";
/// The message and reply of each lost turn that the agent was not told of, noted as told with the turn that begins.
pub(crate) const LOST: &str = "WITH o AS (UPDATE lost_turn SET told_place = $1 \
        WHERE learner = $2 AND told_generation IS NULL RETURNING place) \
    SELECT m.text, t.reply::text FROM o JOIN message m ON m.place = o.place \
    JOIN turn t ON t.place = o.place ORDER BY o.place";

impl PostgresStore {
    pub(crate) async fn begin(
        &self,
        turn: TurnId,
        lease: Lease,
        epoch: Epoch,
        start_kind: StartKind,
        now: Timestamp,
    ) -> Inner<OwnerWrite<Begun>> {
        if let Some(begun) = self
            .begin_waiting(turn, lease, epoch, start_kind, now)
            .await?
        {
            return Ok(OwnerWrite::Written(begun));
        }
        let Some((mut write, mut standing)) = self.write_turn(turn).await? else {
            return Ok(OwnerWrite::Ended);
        };
        if let Some(refusal) = standing.refusal(lease) {
            return Ok(refusal);
        }
        let runs_in = standing
            .turn
            .epoch
            .filter(|_| standing.turn.state == TurnState::Running);
        let fence = fence(&mut write, &standing)
            .await?
            .max(runs_in.unwrap_or_default());
        if epoch < fence {
            return Ok(OwnerWrite::StaleEpoch { fence });
        }
        if runs_in == Some(epoch) {
            let same = Begun {
                version: standing.started_version,
                attempt: standing.turn.attempts,
                context: tell_lost_turns(&mut write, &standing).await?,
            };
            write.commit().await?;
            return Ok(OwnerWrite::Written(same));
        }
        if let Some(older) = runs_in {
            let died = Died::replaced(older);
            restart(&mut write, &standing, &died, now).await?;
            standing.turn.deaths = standing.turn.deaths.with(died.death);
        }
        let attempt = standing.turn.attempts + 1;
        let context = tell_lost_turns(&mut write, &standing).await?;
        let started = EventBody::Started {
            turn_id: turn,
            epoch,
            attempt,
            lost_turns_told: u32::try_from(context.len()).unwrap_or(u32::MAX),
        };
        let version = write.append(standing.learner(), &started, now).await?;
        let woke = milliseconds(standing.claimed_time.unwrap_or(now), now);
        sqlx::query(BEGIN)
            .bind(standing.place)
            .bind(int(epoch.0))
            .bind(i64::from(attempt))
            .bind(i64::from(standing.turn.deaths.infrastructure))
            .bind(<&str>::from(start_kind))
            .bind(int(woke))
            .bind(int(version.0))
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(OwnerWrite::Written(Begun {
            version,
            attempt,
            context,
        }))
    }

    async fn begin_waiting(
        &self,
        turn: TurnId,
        lease: Lease,
        epoch: Epoch,
        start_kind: StartKind,
        now: Timestamp,
    ) -> Inner<Option<Begun>> {
        let started = EventBody::Started {
            turn_id: turn,
            epoch,
            attempt: 0,
            lost_turns_told: 0,
        };
        let begun: Option<(String, i64, i32)> = sqlx::query_as(BEGIN_WAITING)
            .bind(turn.0)
            .bind(lease.owner.0)
            .bind(int(lease.generation.0))
            .bind(int(epoch.0))
            .bind(<&str>::from(start_kind))
            .bind(nanos(now))
            .bind(to_json(&started)?)
            .fetch_optional(&self.turns)
            .await?;
        let Some((learner, version, attempt)) = begun else {
            return Ok(None);
        };
        self.hints.give(&parsed(&learner)?);
        Ok(Some(Begun {
            version: EventVersion(count(version)),
            attempt: small(attempt.into()),
            context: Vec::new(),
        }))
    }

    pub(crate) async fn append_tool(
        &self,
        turn: TurnId,
        lease: Lease,
        tool: &ToolUse,
        now: Timestamp,
    ) -> Inner<OwnerWrite> {
        let Some((mut write, standing)) = self.write_turn(turn).await? else {
            return Ok(OwnerWrite::Ended);
        };
        if let Some(refusal) = standing.refusal(lease) {
            return Ok(refusal);
        }
        let event = EventBody::Tool {
            turn_id: turn,
            tool_id: tool.tool_id.clone(),
            name: tool.name.clone(),
            status: tool.status,
            summary: tool.summary.clone(),
        };
        let version = write.append(standing.learner(), &event, now).await?;
        sqlx::query(PUT_VERSION)
            .bind(standing.place)
            .bind(int(version.0))
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(OwnerWrite::Written(version))
    }

    /// Counts a death; the turn waits again, is parked, or ends as stopped when that was wished.
    pub(crate) async fn count_death(
        &self,
        turn: TurnId,
        lease: Lease,
        died: Died<'_>,
        now: Timestamp,
    ) -> Inner<OwnerWrite<(EventVersion, AfterDeath)>> {
        let Some((mut write, standing)) = self.write_turn(turn).await? else {
            return Ok(OwnerWrite::Ended);
        };
        if let Some(refusal) = standing.refusal(lease) {
            return Ok(refusal);
        }
        if !standing.runs_in(died.epoch) {
            let before = (standing.turn.version, AfterDeath::RunAgain);
            return Ok(OwnerWrite::Written(before));
        }
        let deaths = standing.turn.deaths.with(died.death);
        if deaths.verdict() == AfterDeath::Park {
            put_back(&mut write, &standing, deaths, None, now).await?;
            let failure = died.parked();
            let timing = standing.turn.timing;
            let outcome = Outcome::Failed(&failure);
            let version = write.end_turn(&standing, outcome, timing, now).await?;
            write.commit().await?;
            return Ok(OwnerWrite::Written((version, AfterDeath::Park)));
        }
        let version = restart(&mut write, &standing, &died, now).await?;
        put_back(&mut write, &standing, deaths, Some(version), now).await?;
        if standing.turn.stop_requested {
            write.stop_waiting(&standing, now).await?;
            write.commit().await?;
            return Ok(OwnerWrite::Ended);
        }
        write.commit().await?;
        Ok(OwnerWrite::Written((version, AfterDeath::RunAgain)))
    }

    /// Takes an attempt back of which nothing was done; the turn waits again, or ends as stopped when that was wished.
    pub(crate) async fn take_back(
        &self,
        turn: TurnId,
        lease: Lease,
        epoch: Epoch,
        now: Timestamp,
    ) -> Inner<OwnerWrite<()>> {
        let Some((mut write, standing)) = self.write_turn(turn).await? else {
            return Ok(OwnerWrite::Ended);
        };
        if let Some(refusal) = standing.refusal(lease) {
            return Ok(refusal);
        }
        if !standing.runs_in(epoch) {
            return Ok(OwnerWrite::Written(()));
        }
        put_back(&mut write, &standing, standing.turn.deaths, None, now).await?;
        if standing.turn.stop_requested {
            write.stop_waiting(&standing, now).await?;
            write.commit().await?;
            return Ok(OwnerWrite::Ended);
        }
        write.commit().await?;
        Ok(OwnerWrite::Written(()))
    }
}

async fn fence(write: &mut Write, standing: &Standing) -> Inner<Epoch> {
    let fence: i64 = sqlx::query_scalar("SELECT fence FROM learner WHERE id = $1")
        .bind(standing.learner().as_str())
        .fetch_one(write.connection())
        .await?;
    Ok(Epoch(count(fence)))
}

async fn restart(
    write: &mut Write,
    standing: &Standing,
    died: &Died<'_>,
    now: Timestamp,
) -> Inner<EventVersion> {
    let restarted = died.restarted(standing);
    write.append(standing.learner(), &restarted, now).await
}

async fn put_back(
    write: &mut Write,
    standing: &Standing,
    deaths: Deaths,
    version: Option<EventVersion>,
    now: Timestamp,
) -> Inner<()> {
    sqlx::query(PUT_BACK)
        .bind(standing.place)
        .bind(i64::from(deaths.infrastructure))
        .bind(i64::from(deaths.agent))
        .bind(nanos(now))
        .bind(version.map(|version| int(version.0)))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// The message and reply of each lost turn that the agent was not told of, noted as told with the turn that begins.
async fn tell_lost_turns(write: &mut Write, standing: &Standing) -> Inner<Vec<(String, String)>> {
    let lost: Vec<(String, Option<String>)> = sqlx::query_as(LOST)
        .bind(standing.place)
        .bind(standing.learner().as_str())
        .fetch_all(write.connection())
        .await?;
    let told = |(text, reply): (String, Option<String>)| {
        let reply: Option<Reply> = reply.as_deref().map(from_json).transpose()?;
        Ok((text, reply.unwrap_or_default().text))
    };
    lost.into_iter().map(told).collect()
}
