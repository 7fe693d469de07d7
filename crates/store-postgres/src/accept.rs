//! Taking a message: inbox row, turn and event `queued` in one statement.

use carrel_core::event::EventBody;
use carrel_core::{MessageId, TurnId};
use carrel_store::adapter::column::{nanos, to_json};
use carrel_store::turns::{Accepted, Attachment, NewMessage};
use jiff::Timestamp;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::PostgresStore;
use crate::fault::Inner;
use crate::write::unchanged;

/// The unique keys are the arbiters of repeats; that none is seen first spares their error where nobody races.
pub(crate) const TAKE: &str = concat!(
    "WITH locked AS (SELECT lock_learner($1)), \
     l AS (UPDATE learner l SET event_version = event_version + 1, last_activity_time = $8 \
        FROM locked WHERE l.id = $1 AND NOT l.closing AND ",
    unchanged!(),
    "   AND NOT EXISTS (SELECT FROM message m WHERE m.learner = $1 AND m.idempotency_key = $4) \
        AND (SELECT count(*) FROM turn t WHERE t.learner = $1 AND t.state = 'queued' \
            AND t.state IN ('queued', 'running')) < $10 \
        RETURNING l.id, l.event_version), \
     m AS (INSERT INTO message \
        (message_id, learner, idempotency_key, body_hash, channel, text, sent_time) \
        SELECT $2, id, $4, $5, $6, $7, $8 FROM l RETURNING place), \
     t AS (INSERT INTO turn (place, turn_id, learner, version) \
        SELECT place, $3, id, event_version FROM l, m), \
     f AS (INSERT INTO file (place, side, number, about, data) \
        SELECT place, 'message', number - 1, about::json, data \
        FROM m, unnest($11::text[], $12::bytea[]) WITH ORDINALITY AS f (about, data, number)) \
     INSERT INTO event (learner, version, time, type, body) \
     SELECT id, event_version, $8, 'queued', $9::json FROM l RETURNING version"
);
pub(crate) const TAKEN: &str = "SELECT m.message_id, t.turn_id, m.body_hash FROM learner l \
    LEFT JOIN message m ON m.learner = l.id AND m.idempotency_key = $2 \
    LEFT JOIN turn t ON t.place = m.place WHERE l.id = $1 AND NOT l.closing";

impl PostgresStore {
    pub(crate) async fn accept_message(
        &self,
        message: &NewMessage,
        now: Timestamp,
    ) -> Inner<Accepted> {
        let stored = Accepted::Stored {
            message_id: message.message_id,
            turn_id: message.turn_id,
            repeated: false,
        };
        if take(&self.admission, message, now).await? {
            self.hints.give(&message.learner);
            return Ok(stored);
        }
        // Refused, or somebody wrote for this learner meanwhile: decided under the lock.
        let mut write = self.write(&message.learner).await?;
        if take(write.connection(), message, now).await? {
            write.hint(&message.learner);
            write.commit().await?;
            return Ok(stored);
        }
        refused(write.connection(), message).await
    }
}

async fn take(executor: impl PgExecutor<'_>, message: &NewMessage, now: Timestamp) -> Inner<bool> {
    let queued = EventBody::Queued {
        turn_id: message.turn_id,
        message_id: message.message_id,
    };
    let (about, data) = columns(&message.attachments)?;
    let version: Option<i64> = sqlx::query_scalar(TAKE)
        .bind(message.learner.as_str())
        .bind(message.message_id.0)
        .bind(message.turn_id.0)
        .bind(&message.idempotency_key)
        .bind(message.body_hash.as_slice())
        .bind(&message.channel)
        .bind(&message.text)
        .bind(nanos(now))
        .bind(to_json(&queued)?)
        .bind(i64::from(message.max_queued))
        .bind(about)
        .bind(data)
        .fetch_optional(executor)
        .await?;
    Ok(version.is_some())
}

/// Why nothing was taken: no such learner, the key was used before, or too many wait.
async fn refused(executor: impl PgExecutor<'_>, message: &NewMessage) -> Inner<Accepted> {
    type Before = (Option<Uuid>, Option<Uuid>, Option<Vec<u8>>);
    let before: Option<Before> = sqlx::query_as(TAKEN)
        .bind(message.learner.as_str())
        .bind(&message.idempotency_key)
        .fetch_optional(executor)
        .await?;
    Ok(match before {
        None => Accepted::NoLearner,
        Some((Some(message_id), Some(turn_id), hash)) => {
            if hash.as_deref() == Some(&message.body_hash) {
                Accepted::Stored {
                    message_id: MessageId(message_id),
                    turn_id: TurnId(turn_id),
                    repeated: true,
                }
            } else {
                Accepted::KeyReused
            }
        }
        Some(_) => Accepted::QueueFull,
    })
}

/// Files as two columns: what each is, and its content.
pub(crate) fn columns(files: &[Attachment]) -> Inner<(Vec<String>, Vec<&[u8]>)> {
    let about = files
        .iter()
        .map(|file| Ok(to_json(&(&file.name, &file.media_type))?))
        .collect::<Inner<_>>()?;
    let data = files.iter().map(|file| file.data.as_slice()).collect();
    Ok((about, data))
}
