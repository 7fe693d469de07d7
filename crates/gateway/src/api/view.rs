//! Rows of the store as clients see them. Pure.

use carrel_core::turn::TurnState;
use carrel_protocol::gateway::{
    AttachmentName, HistoryEntry, HistoryTurn, Message, TimingMs, ToolUse, Turn, TurnError,
};
use carrel_store::turns;

pub(super) fn turn(row: turns::Turn, tools: Vec<ToolUse>) -> Turn {
    let timing = row.timing;
    Turn {
        turn_id: row.turn_id,
        state: row.state,
        message: message(row.message),
        stopped: row.stopped || row.state == TurnState::Stopped,
        reply: row.reply,
        tools,
        usage: row.usage,
        error: row.failure.map(error),
        snapshot_id: row.snapshot_id,
        attempts: row.attempts,
        start_kind: row.start_kind,
        timing_ms: TimingMs {
            queue: timing.queue,
            wake: timing.wake,
            restore: timing.restore,
            agent: timing.agent,
            snapshot: timing.snapshot,
        },
    }
}

pub(super) fn history_entry(row: turns::Turn, tools: Vec<ToolUse>) -> HistoryEntry {
    HistoryEntry {
        turn_id: row.turn_id,
        turn: HistoryTurn {
            state: row.state,
            stopped: row.stopped || row.state == TurnState::Stopped,
            tools,
            reply: row.reply,
            error: row.failure.map(error),
        },
        message: message(row.message),
    }
}

fn message(row: turns::Message) -> Message {
    let attachments = row.attachments.into_iter();
    Message {
        message_id: row.message_id,
        text: row.text,
        attachments: attachments
            .map(|(name, media_type)| AttachmentName { name, media_type })
            .collect(),
        sent_time: row.sent_time,
    }
}

/// What the operator should know stays behind.
fn error(failure: turns::Failure) -> TurnError {
    TurnError {
        code: failure.code.to_string(),
        detail: failure.detail,
        retryable: failure.retryable,
        partial_text: failure.partial_text,
    }
}
