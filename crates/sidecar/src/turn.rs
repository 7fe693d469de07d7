//! One turn: the message to the agent, what it says to whoever listens, then the commit.

mod command;
mod commit;
mod http;
mod inbox;
mod outcome;
mod pace;
mod reply;

use std::time::Duration;

use carrel_core::class::Adapter;
use carrel_core::event::Reply;
use carrel_core::turn::FailureCode;
use carrel_protocol::sidecar::{Frame, PodTiming};
use carrel_protocol::vault::TurnResult;
use tokio::time::{Instant, timeout};

use crate::attempt::Attempt;
use crate::awake::Awake;
use crate::exit::Exit;
use crate::link;
use crate::room;

pub(crate) use commit::{Uncommitted, commit, fingerprint_of, take_fingerprint};
use outcome::{Outcome, ReplyPath};

/// How a turn went; all but the first end the incarnation.
pub(crate) enum Verdict {
    /// Committed: the incarnation goes on.
    Committed(Frame),
    /// Nothing is committed.
    Over(Frame, Exit),
}

/// Runs a turn. Its last frame is in the verdict: the caller says it when it is ready for what follows.
pub(crate) async fn run(awake: &mut Awake, attempt: &Attempt) -> Verdict {
    let began = Instant::now();
    awake.note_message(began);
    let kills = room::memory_kills(awake).await;
    let outcome = talk(awake, attempt).await;
    let kills = room::memory_kills(awake).await.saturating_sub(kills);
    let with_kills = |told: String| match kills {
        0 => told,
        _ if told.is_empty() => starved(kills),
        _ => format!("{told}; {}", starved(kills)),
    };
    let mut timing = PodTiming {
        restore: attempt.restore_ms,
        agent: milliseconds(began),
        snapshot: 0,
    };
    let (stopped, paths) = match outcome {
        Outcome::Ended(ended) => (ended.stopped, ended.files),
        Outcome::Failed {
            code,
            detail,
            retryable,
            reason,
        } => {
            let reason = with_kills(reason);
            return failed(awake, code, detail, retryable, reason, timing).await;
        }
        Outcome::Died { by_agent, reason } => {
            let _ = awake.link.kill_all().await;
            let reason = with_kills(reason);
            return Verdict::Over(Frame::Died { by_agent, reason }, died(by_agent));
        }
    };
    let ended = Instant::now();
    // Nobody has to hear it.
    let _ = attempt.mark(Frame::Snapshotting);
    let result = TurnResult {
        stopped,
        reply: Reply::default(),
        files: Vec::new(),
        timing,
        operator_note: with_kills(String::new()),
    };
    let result = conclude(awake, attempt, &paths, result).await;
    timing.snapshot = milliseconds(ended);
    match result {
        Ok((answer, reply)) => Verdict::Committed(Frame::Committed {
            version: answer.version,
            generation: answer.generation,
            snapshot_id: answer.snapshot_id,
            stopped,
            reply,
            usage: answer.usage,
            timing,
        }),
        Err(Uncommitted::Refused {
            code,
            detail,
            retryable,
            reason,
        }) => failed(awake, code, detail, retryable, reason, timing).await,
        Err(Uncommitted::Over(reason)) => Verdict::Over(
            Frame::Died {
                by_agent: false,
                reason,
            },
            Exit::Fenced,
        ),
        Err(Uncommitted::Away(reason)) => Verdict::Over(
            Frame::Died {
                by_agent: false,
                reason,
            },
            Exit::VaultAway,
        ),
        Err(Uncommitted::Lost(reason)) => {
            let by_agent = awake.pod.is_loss_by_agent();
            Verdict::Over(Frame::Died { by_agent, reason }, died(by_agent))
        }
    }
}

async fn talk(awake: &mut Awake, attempt: &Attempt) -> Outcome {
    let Some(order) = attempt.take_order() else {
        return Outcome::Died {
            by_agent: false,
            reason: "the turn was lost".to_owned(),
        };
    };
    let request = match inbox::deliver(&awake.pod.options.workspace, order) {
        Ok(request) => request,
        Err(error) => return Outcome::fault("the attachments cannot be written", &error),
    };
    let within = Duration::from_secs(awake.assignment.class.turn.timeout_seconds.into());
    let awake = &*awake;
    let answer = async {
        match awake.assignment.class.agent.adapter {
            Adapter::Http => http::run(awake, attempt, &request).await,
            Adapter::Command => command::run(awake, attempt, &request).await,
        }
    };
    tokio::select! {
        answered = timeout(within, answer) => answered.unwrap_or_else(|_| Outcome::Failed {
            code: FailureCode::Timeout,
            detail: "The answer took too long.".to_owned(),
            retryable: true,
            reason: format!("the agent had not ended after {} s", within.as_secs()),
        }),
        excess = room::outgrown(awake, room::AT_WORK) => Outcome::Failed {
            code: FailureCode::WorkspaceLimit,
            detail: excess.detail().to_owned(),
            retryable: excess.is_passing(),
            reason: excess.to_string(),
        },
        () = awake.link.lost() => Outcome::lost(awake, &link::Error::Lost),
    }
}

/// Stops everything; refuses a workspace of which too much is held without a name, or unseen.
pub(crate) async fn freeze(awake: &Awake) -> Result<(), Uncommitted> {
    match room::freeze(awake).await? {
        None => Ok(()),
        Some(excess) => Err(Uncommitted::Refused {
            code: FailureCode::WorkspaceLimit,
            detail: excess.detail().to_owned(),
            retryable: excess.is_passing(),
            reason: excess.to_string(),
        }),
    }
}

/// Freezes, reads the reply's files, snapshots, commits, thaws.
async fn conclude(
    awake: &mut Awake,
    attempt: &Attempt,
    paths: &[ReplyPath],
    mut result: TurnResult,
) -> Result<(carrel_protocol::vault::CommitAnswer, Reply), Uncommitted> {
    freeze(awake).await?;
    let (files, data) = reply::read(&awake.pod.options, paths)?;
    let reply = Reply {
        text: attempt.text(),
        files,
    };
    (result.reply, result.files) = (reply.clone(), data);
    let answer = commit(awake, Some((attempt.turn, result))).await?;
    awake.link.thaw().await?;
    Ok((answer, reply))
}

async fn failed(
    awake: &Awake,
    code: FailureCode,
    detail: String,
    retryable: bool,
    operator_reason: String,
    timing: PodTiming,
) -> Verdict {
    // The reason may hold words of the agent: it goes to the operator, not into logs.
    tracing::info!(%code, "the turn failed");
    // Nothing more may be done or spent in its name.
    let _ = awake.link.kill_all().await;
    let frame = Frame::Failed {
        code,
        detail,
        retryable,
        operator_reason,
        timing,
    };
    Verdict::Over(frame, Exit::TurnFailed)
}

fn died(by_agent: bool) -> Exit {
    if by_agent {
        Exit::AgentDied
    } else {
        Exit::ShimLost
    }
}

/// What the operator is told of processes that the kernel killed.
fn starved(kills: u64) -> String {
    format!("{kills} of the agent's processes ran out of memory")
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
