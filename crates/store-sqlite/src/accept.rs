//! Taking a message: inbox row, turn and event `queued` in one transaction.

use carrel_core::event::EventBody;
use carrel_core::{MessageId, TurnId};
use carrel_store::adapter::column::{int, nanos, uuid};
use carrel_store::turns::{Accepted, Attachment, NewMessage};
use jiff::Timestamp;

use crate::SqliteStore;
use crate::fault::Inner;
use crate::write::Write;

pub(crate) const TAKE: &str = "INSERT INTO message \
    (message_id, learner, idempotency_key, body_hash, channel, text, sent_time) \
    SELECT ?1, id, ?3, ?4, ?5, ?6, ?7 FROM learner WHERE id = ?2 AND closing = 0 \
    ON CONFLICT (learner, idempotency_key) DO NOTHING RETURNING place";
pub(crate) const TAKEN: &str = "SELECT m.message_id, t.turn_id, m.body_hash FROM learner l \
    JOIN message m ON m.learner = l.id JOIN turn t ON t.place = m.place \
    WHERE l.id = ? AND l.closing = 0 AND m.idempotency_key = ?";
pub(crate) const QUEUE: &str = "SELECT count(*) FROM turn \
    WHERE learner = ? AND state = 'queued' AND state IN ('queued', 'running')";

impl SqliteStore {
    pub(crate) async fn accept_message(
        &self,
        message: &NewMessage,
        now: Timestamp,
    ) -> Inner<Accepted> {
        let mut write = self.write().await?;
        let place: Option<i64> = sqlx::query_scalar(TAKE)
            .bind(message.message_id.0.as_bytes().as_slice())
            .bind(message.learner.as_str())
            .bind(&message.idempotency_key)
            .bind(message.body_hash.as_slice())
            .bind(&message.channel)
            .bind(&message.text)
            .bind(nanos(now))
            .fetch_optional(write.connection())
            .await?;
        let Some(place) = place else {
            return taken_before(&mut write, message).await;
        };
        let waiting: i64 = sqlx::query_scalar(QUEUE)
            .bind(message.learner.as_str())
            .fetch_one(write.connection())
            .await?;
        if waiting >= i64::from(message.max_queued) {
            return Ok(Accepted::QueueFull);
        }
        let queued = EventBody::Queued {
            turn_id: message.turn_id,
            message_id: message.message_id,
        };
        let version = write.append(&message.learner, &queued, now).await?;
        sqlx::query("INSERT INTO turn (place, turn_id, learner, version) VALUES (?, ?, ?, ?)")
            .bind(place)
            .bind(message.turn_id.0.as_bytes().as_slice())
            .bind(message.learner.as_str())
            .bind(int(version.0))
            .execute(write.connection())
            .await?;
        write
            .put_files(place, "message", &message.attachments)
            .await?;
        write.commit().await?;
        Ok(Accepted::Stored {
            message_id: message.message_id,
            turn_id: message.turn_id,
            repeated: false,
        })
    }
}

/// Nothing was taken: the key was used before, or there is no such learner.
async fn taken_before(write: &mut Write, message: &NewMessage) -> Inner<Accepted> {
    let before: Option<(Vec<u8>, Vec<u8>, Vec<u8>)> = sqlx::query_as(TAKEN)
        .bind(message.learner.as_str())
        .bind(&message.idempotency_key)
        .fetch_optional(write.connection())
        .await?;
    Ok(match before {
        None => Accepted::NoLearner,
        Some((_, _, hash)) if hash != message.body_hash => Accepted::KeyReused,
        Some((message_id, turn_id, _)) => Accepted::Stored {
            message_id: MessageId(uuid(&message_id)?),
            turn_id: TurnId(uuid(&turn_id)?),
            repeated: true,
        },
    })
}

impl Write {
    /// Keeps the files of a message or reply, in order.
    pub(crate) async fn put_files(
        &mut self,
        place: i64,
        side: &'static str,
        files: &[Attachment],
    ) -> Inner<()> {
        for (number, file) in (0_i64..).zip(files) {
            sqlx::query(
                "INSERT INTO file (place, side, number, name, media_type, data) \
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(place)
            .bind(side)
            .bind(number)
            .bind(&file.name)
            .bind(&file.media_type)
            .bind(file.data.as_slice())
            .execute(self.connection())
            .await?;
        }
        Ok(())
    }
}
