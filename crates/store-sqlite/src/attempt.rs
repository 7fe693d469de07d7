//! The attempts of a turn: begun, at work, died.

use carrel_core::event::{EventBody, Reply};
use carrel_core::learner::StartKind;
use carrel_core::turn::{AfterDeath, Deaths, TurnState};
use carrel_core::{Epoch, EventVersion, TurnId};
use carrel_store::adapter::column::{count, from_json, int, nanos, to_json};
use carrel_store::adapter::outcome::{Died, Outcome};
use carrel_store::adapter::standing::{Standing, milliseconds};
use carrel_store::turns::{Begun, Lease, OwnerWrite, ToolUse};
use jiff::Timestamp;

use crate::SqliteStore;
use crate::fault::Inner;
use crate::write::Write;

pub(crate) const BEGIN: &str = "UPDATE turn SET state = 'running', epoch = ?, attempts = ?, \
    infrastructure_deaths = ?, start_kind = ?, timing = ?, version = ?, started_version = ? \
    WHERE place = ?";

pub(crate) const LOST: &str = "UPDATE lost_turn SET told_place = ? \
    WHERE learner = ? AND told_generation IS NULL RETURNING place";

impl SqliteStore {
    pub(crate) async fn begin(
        &self,
        turn: TurnId,
        lease: Lease,
        epoch: Epoch,
        start_kind: StartKind,
        now: Timestamp,
    ) -> Inner<OwnerWrite<Begun>> {
        let mut write = self.write().await?;
        let Some(mut standing) = write.standing(turn).await? else {
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
        let mut timing = standing.turn.timing;
        timing.wake = milliseconds(standing.claimed_time.unwrap_or(now), now);
        sqlx::query(BEGIN)
            .bind(int(epoch.0))
            .bind(attempt)
            .bind(standing.turn.deaths.infrastructure)
            .bind(<&str>::from(start_kind))
            .bind(to_json(&timing)?)
            .bind(int(version.0))
            .bind(int(version.0))
            .bind(standing.place)
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(OwnerWrite::Written(Begun {
            version,
            attempt,
            context,
        }))
    }

    pub(crate) async fn append_tool(
        &self,
        turn: TurnId,
        lease: Lease,
        tool: &ToolUse,
        now: Timestamp,
    ) -> Inner<OwnerWrite> {
        let mut write = self.write().await?;
        let Some(standing) = write.standing(turn).await? else {
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
        write.put_version(standing.place, version).await?;
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
        let mut write = self.write().await?;
        let Some(standing) = write.standing(turn).await? else {
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
            put_back(&mut write, &standing, deaths, now).await?;
            let failure = died.parked();
            let timing = standing.turn.timing;
            let outcome = Outcome::Failed(&failure);
            let version = write.end_turn(&standing, outcome, timing, now).await?;
            write.commit().await?;
            return Ok(OwnerWrite::Written((version, AfterDeath::Park)));
        }
        let version = restart(&mut write, &standing, &died, now).await?;
        put_back(&mut write, &standing, deaths, now).await?;
        write.put_version(standing.place, version).await?;
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
        let mut write = self.write().await?;
        let Some(standing) = write.standing(turn).await? else {
            return Ok(OwnerWrite::Ended);
        };
        if let Some(refusal) = standing.refusal(lease) {
            return Ok(refusal);
        }
        if !standing.runs_in(epoch) {
            return Ok(OwnerWrite::Written(()));
        }
        put_back(&mut write, &standing, standing.turn.deaths, now).await?;
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
    let fence: i64 = sqlx::query_scalar("SELECT fence FROM learner WHERE id = ?")
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
    now: Timestamp,
) -> Inner<()> {
    sqlx::query(
        "UPDATE turn SET state = 'queued', infrastructure_deaths = ?, agent_deaths = ?, \
         claimed_time = ? WHERE place = ?",
    )
    .bind(deaths.infrastructure)
    .bind(deaths.agent)
    .bind(nanos(now))
    .bind(standing.place)
    .execute(write.connection())
    .await?;
    Ok(())
}

/// The message and reply of each lost turn that the agent was not told of, noted as told with the turn that begins.
async fn tell_lost_turns(write: &mut Write, standing: &Standing) -> Inner<Vec<(String, String)>> {
    let mut lost: Vec<i64> = sqlx::query_scalar(LOST)
        .bind(standing.place)
        .bind(standing.learner().as_str())
        .fetch_all(write.connection())
        .await?;
    lost.sort_unstable();
    let mut context = Vec::with_capacity(lost.len());
    for place in lost {
        let (text, reply): (String, Option<String>) = sqlx::query_as(
            "SELECT m.text, t.reply FROM message m JOIN turn t ON t.place = m.place \
             WHERE m.place = ?",
        )
        .bind(place)
        .fetch_one(write.connection())
        .await?;
        let reply: Option<Reply> = reply.as_deref().map(from_json).transpose()?;
        context.push((text, reply.unwrap_or_default().text));
    }
    Ok(context)
}
