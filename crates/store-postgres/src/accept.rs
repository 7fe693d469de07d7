//! Taking messages: inbox row, turn and event `queued` of each, of as many as wait, in one statement.

use std::collections::HashSet;

use carrel_core::event::EventBody;
use carrel_core::{LearnerId, MessageId, TurnId};
use carrel_store::adapter::column::{nanos, to_json};
use carrel_store::turns::{Accepted, Attachment, NewMessage};
use jiff::Timestamp;
use sqlx::PgExecutor;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::PostgresStore;
use crate::fault::{Fault, Inner, is_passing};
use crate::gather::{Gather, place_of};
use crate::hints::Hints;
use crate::pool::Pool;

/// Statements at a time.
const LANES: usize = 4;
/// Places at which messages wait until one at a time of each learner waits for its lock.
pub(crate) const SLOW: usize = 64;
/// One that holds more goes alone, so that what waits together is small.
const SMALL_BYTES: usize = 16 * 1024;

/// Messages of different learners. No lock is waited for, so that one learner's writer holds up nobody else's message and no two
/// of these can wait for each other: whose lock is not free, and who changed since the statement's snapshot, is left out. The lock
/// is `lock_learner`'s. The unique keys are the arbiters of repeats; that none is seen first spares their error where nobody races.
pub(crate) const TAKE: &str = "WITH seen AS MATERIALIZED (SELECT n.*, l.event_version \
        FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::bytea[], $6::text[], $7::text[], \
            $8::bigint[], $9::text[], $10::bigint[]) WITH ORDINALITY \
            AS n (learner, message_id, turn_id, key, hash, channel, text, time, queued, most, number) \
        JOIN learner l ON l.id = n.learner \
        WHERE NOT EXISTS (SELECT FROM message m WHERE m.learner = n.learner AND m.idempotency_key = n.key) \
        AND (SELECT count(*) FROM turn t WHERE t.learner = n.learner AND t.state = 'queued' \
            AND t.state IN ('queued', 'running')) < n.most \
        AND pg_try_advisory_xact_lock(hashtextextended(n.learner, 0))), \
     l AS (UPDATE learner l SET event_version = l.event_version + 1, last_activity_time = s.time \
        FROM seen s WHERE l.id = s.learner AND l.event_version = s.event_version AND NOT l.closing \
        RETURNING s.*, l.event_version AS version), \
     m AS (INSERT INTO message \
        (message_id, learner, idempotency_key, body_hash, channel, text, sent_time) \
        SELECT message_id, learner, key, hash, channel, text, time FROM l ORDER BY number \
        RETURNING place, message_id), \
     t AS (INSERT INTO turn (place, turn_id, learner, version) \
        SELECT m.place, l.turn_id, l.learner, l.version FROM m JOIN l ON l.message_id = m.message_id), \
     f AS (INSERT INTO file (place, side, number, about, data) \
        SELECT m.place, 'message', f.number, f.about::json, f.data \
        FROM unnest($11::bigint[], $12::integer[], $13::text[], $14::bytea[]) AS f (message, number, about, data) \
        JOIN l ON l.number = f.message JOIN m ON m.message_id = l.message_id), \
     e AS (INSERT INTO event (learner, version, time, type, body) \
        SELECT learner, version, time, 'queued', queued::json FROM l) \
     SELECT message_id FROM m";
pub(crate) const TAKEN: &str = "SELECT m.message_id, t.turn_id, m.body_hash, \
        (SELECT count(*) FROM turn q WHERE q.learner = $1 AND q.state = 'queued' \
            AND q.state IN ('queued', 'running')) >= $3 \
    FROM learner l \
    LEFT JOIN message m ON m.learner = l.id AND m.idempotency_key = $2 \
    LEFT JOIN turn t ON t.place = m.place WHERE l.id = $1 AND NOT l.closing";

type Asked = (NewMessage, Timestamp);
/// Messages that are taken together: whether each was.
pub(crate) type Gathered = Gather<LearnerId, Asked, bool>;

/// Starts what takes messages that come at the same time, and hints at each: its caller may be gone.
pub(crate) fn start(
    pool: &Pool,
    hints: &Hints,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> Gathered {
    let (pool, hints) = (pool.clone(), hints.clone());
    let work = move |asked: Vec<Asked>| {
        let (pool, hints) = (pool.clone(), hints.clone());
        async move {
            match take(&pool, &asked).await {
                Ok(taken) => {
                    let was_taken = |(new, _): &Asked| {
                        let was_taken = taken.contains(&new.message_id);
                        if was_taken {
                            hints.give(&new.learner);
                        }
                        was_taken
                    };
                    Ok(asked.iter().map(was_taken).collect())
                }
                Err(Fault::Database(error)) if is_passing(&error) => Err(error),
                // Each alone finds out whose fault it is.
                Err(_) => Ok(asked.iter().map(|_| false).collect()),
            }
        }
    };
    Gather::start(LANES, work, tracker, cancel)
}

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
        if message.max_queued > 0 && self.take_at_once(message, now).await? {
            return Ok(stored);
        }
        if let Some(refused) = refused(&self.admission, message).await? {
            return Ok(refused);
        }
        // Somebody wrote for this learner meanwhile: decided under the lock, for which of a learner's messages one waits at a time.
        let waits = async {
            let one_of_a_learner = self.slow[place_of(&message.learner, SLOW)].lock().await;
            (one_of_a_learner, self.slowly.acquire().await)
        };
        let _turn = timeout(self.patience, waits).await.map_err(late)?;
        let mut write = self.write_on(&self.admission, &message.learner).await?;
        if !take(write.connection(), &[(message.clone(), now)])
            .await?
            .is_empty()
        {
            write.hint(&message.learner);
            write.commit().await?;
            return Ok(stored);
        }
        let refused = refused(write.connection(), message).await?;
        refused.ok_or_else(|| Fault::Impossible("a message that fits was not taken".to_owned()))
    }

    async fn take_at_once(&self, message: &NewMessage, now: Timestamp) -> Inner<bool> {
        let asked = (message.clone(), now);
        if size(message) > SMALL_BYTES {
            let was_taken = !take(&self.admission, &[asked]).await?.is_empty();
            if was_taken {
                self.hints.give(&message.learner);
            }
            return Ok(was_taken);
        }
        let answer = self.taken.ask(message.learner.clone(), asked);
        timeout(self.patience, answer).await.map_err(late)?
    }
}

fn late(_elapsed: Elapsed) -> sqlx::Error {
    sqlx::Error::PoolTimedOut
}

fn size(message: &NewMessage) -> usize {
    let files = message.attachments.iter().map(|file| file.data.len());
    message.text.len() + files.sum::<usize>()
}

/// Those that were taken.
async fn take(executor: impl PgExecutor<'_>, asked: &[Asked]) -> Inner<HashSet<MessageId>> {
    fn column<'a, T>(asked: &'a [Asked], of: impl Fn(&'a NewMessage) -> T) -> Vec<T> {
        asked.iter().map(|(new, _)| of(new)).collect()
    }
    let times: Vec<i64> = asked.iter().map(|(_, now)| nanos(*now)).collect();
    let (mut queued, mut files) = (Vec::new(), Files::default());
    for ((new, _), message) in asked.iter().zip(1..) {
        queued.push(to_json(&EventBody::Queued {
            turn_id: new.turn_id,
            message_id: new.message_id,
        })?);
        files.add(message, &new.attachments)?;
    }
    let taken: Vec<Uuid> = sqlx::query_scalar(TAKE)
        .bind(column(asked, |new| new.learner.as_str()))
        .bind(column(asked, |new| new.message_id.0))
        .bind(column(asked, |new| new.turn_id.0))
        .bind(column(asked, |new| new.idempotency_key.as_str()))
        .bind(column(asked, |new| new.body_hash.as_slice()))
        .bind(column(asked, |new| new.channel.as_str()))
        .bind(column(asked, |new| new.text.as_str()))
        .bind(times)
        .bind(queued)
        .bind(column(asked, |new| i64::from(new.max_queued)))
        .bind(files.message)
        .bind(files.number)
        .bind(files.about)
        .bind(files.data)
        .fetch_all(executor)
        .await?;
    Ok(taken.into_iter().map(MessageId).collect())
}

/// Files of several messages as columns.
#[derive(Default)]
struct Files<'a> {
    message: Vec<i64>,
    number: Vec<i32>,
    about: Vec<String>,
    data: Vec<&'a [u8]>,
}

impl<'a> Files<'a> {
    fn add(&mut self, message: i64, files: &'a [Attachment]) -> Inner<()> {
        let (about, data) = columns(files)?;
        self.message.extend(files.iter().map(|_| message));
        self.number
            .extend((0..).zip(files).map(|(number, _)| number));
        self.about.extend(about);
        self.data.extend(data);
        Ok(())
    }
}

/// Why nothing is taken: no such learner, the key was used before, or too many wait. `None`: there is no reason.
async fn refused(executor: impl PgExecutor<'_>, message: &NewMessage) -> Inner<Option<Accepted>> {
    type Before = (Option<Uuid>, Option<Uuid>, Option<Vec<u8>>, bool);
    let before: Option<Before> = sqlx::query_as(TAKEN)
        .bind(message.learner.as_str())
        .bind(&message.idempotency_key)
        .bind(i64::from(message.max_queued))
        .fetch_optional(executor)
        .await?;
    Ok(match before {
        None => Some(Accepted::NoLearner),
        Some((Some(message_id), Some(turn_id), hash, _)) => {
            Some(if hash.as_deref() == Some(&message.body_hash) {
                Accepted::Stored {
                    message_id: MessageId(message_id),
                    turn_id: TurnId(turn_id),
                    repeated: true,
                }
            } else {
                Accepted::KeyReused
            })
        }
        Some((.., is_full)) => is_full.then_some(Accepted::QueueFull),
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
