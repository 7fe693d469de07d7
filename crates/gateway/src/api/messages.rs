//! `POST /v1/learners/{id}/messages`: takes a message.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carrel_core::learner::LearnerState;
use carrel_core::{MessageId, TurnId};
use carrel_protocol::Code;
use carrel_protocol::gateway::{AttachmentData, MessageAccepted, PostMessage};
use carrel_store::learners::Learner;
use carrel_store::turns::{Accepted, Attachment, NewMessage, WEB_CHANNEL};
use http::{HeaderMap, StatusCode, header};
use uuid::Uuid;

use super::events;
use crate::auth::Own;
use crate::body;
use crate::gateway::{Gateway, Shared};
use crate::refusal::{Refusal, Result};
use crate::{dispatch, secret};

const KEY: &str = "idempotency-key";
const KEY_LENGTH: usize = 255;
const MOST_ATTACHMENTS: usize = 32;
const NAME_BYTES: usize = 255;
/// What JSON adds around text and base64.
const JSON_BYTES: usize = 64 * 1024;

pub(super) async fn post(
    State(shared): State<Shared>,
    Own(learner, pass): Own,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    if shared.draining.is_cancelled() {
        let detail = "the server is stopping; send the same message again shortly";
        return Err(Refusal::new(Code::Unavailable, detail));
    }
    let key = idempotency_key(&headers)?;
    let limits = shared.options.limits;
    let most = limits.message_bytes * 2 + limits.attachment_bytes * 4 / 3 + JSON_BYTES;
    let message: PostMessage = body::json(&headers, body, most).await?;
    let attachments = checked(&shared, &message)?;
    let row = shared.options.store.learner(&learner, shared.now()).await?;
    let row = row
        .filter(|row| !row.desired.deleting)
        .ok_or_else(Refusal::no_learner)?;
    shared.options.fleet.admits(&learner).await?;
    let new = NewMessage {
        learner: learner.clone(),
        message_id: MessageId(Uuid::now_v7()),
        turn_id: TurnId(Uuid::now_v7()),
        idempotency_key: key,
        body_hash: body_hash(&message)?,
        channel: WEB_CHANNEL.to_owned(),
        text: message.text,
        attachments,
        max_queued: max_queued(&shared, &row).await?,
    };
    let (message_id, turn_id) = accept(&shared, new).await?;
    dispatch::kick(&shared, &learner);
    if wants_stream(&headers) {
        return events::of_turn(&shared, &learner, pass, turn_id).await;
    }
    let accepted = MessageAccepted {
        message_id,
        turn_id,
        learner_state: first_seen(&shared, message_id, row.status.state).await,
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
}

/// Takes the message unless its learner sends too many; a repeat always gets its answer.
async fn accept(shared: &Gateway, mut new: NewMessage) -> Result<(MessageId, TurnId)> {
    let (learner, now) = (new.learner.clone(), shared.now());
    let limited = shared.rate.take(&learner, now).err();
    if limited.is_some() {
        // Nothing new fits then, and what is a repeat is known by its key.
        new.max_queued = 0;
    }
    let accepted = shared.options.store.accept(&new, now).await;
    let is_new = matches!(
        accepted,
        Ok(Accepted::Stored {
            repeated: false,
            ..
        })
    );
    if limited.is_none() && !is_new {
        shared.rate.give_back(&learner);
    }
    match (accepted?, limited) {
        (
            Accepted::Stored {
                message_id,
                turn_id,
                ..
            },
            _,
        ) => Ok((message_id, turn_id)),
        (Accepted::KeyReused, _) => Err(Refusal::new(
            Code::IdempotencyKeyReused,
            "use a new key for a new message",
        )),
        (Accepted::QueueFull, Some(wait)) => {
            let seconds = u32::try_from(wait.as_secs()).unwrap_or_default() + 1;
            let most = shared.options.limits.messages_per_minute;
            let detail = format!("at most {most} new messages in a minute");
            Err(Refusal::new(Code::RateLimited, detail).retry_after(seconds))
        }
        (Accepted::QueueFull, None) => {
            let detail = "wait for answers to earlier messages, or stop one";
            Err(Refusal::new(Code::QueueFull, detail).retry_after(5))
        }
        (Accepted::NoLearner, _) => Err(Refusal::no_learner()),
    }
}

/// The same message gets the same answer, whatever the learner does meanwhile.
async fn first_seen(shared: &Gateway, message: MessageId, state: LearnerState) -> LearnerState {
    shared.answered.get_with(message, async { state }).await
}

async fn max_queued(shared: &Gateway, row: &Learner) -> Result<u32> {
    if let Some(most) = shared.queued.get(&row.class).await {
        return Ok(most);
    }
    let class = shared.options.store.class(&row.class).await?;
    let most = class.unwrap_or_default().turn.max_queued;
    shared.queued.insert(row.class.clone(), most).await;
    Ok(most)
}

fn idempotency_key(headers: &HeaderMap) -> Result<String> {
    let key = headers.get(KEY).and_then(|key| key.to_str().ok());
    let key = key.filter(|key| (1..=KEY_LENGTH).contains(&key.len()));
    key.map(str::to_owned).ok_or_else(|| {
        Refusal::invalid(
            "send an 'Idempotency-Key' of 1 to 255 visible characters, a new one for each message",
        )
    })
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// SHA-256 of the message as it was understood: spelling of the JSON does not matter.
fn body_hash(message: &PostMessage) -> Result<[u8; 32]> {
    let bytes = serde_json::to_vec(message)
        .map_err(|error| Refusal::new(Code::InvalidBody, error.to_string()))?;
    Ok(secret::sha256(&bytes))
}

fn checked(shared: &Gateway, message: &PostMessage) -> Result<Vec<Attachment>> {
    let limits = shared.options.limits;
    let invalid = |detail: &str| Refusal::new(Code::InvalidBody, detail);
    if message.text.len() > limits.message_bytes {
        let detail = format!("the text may have {} bytes at most", limits.message_bytes);
        return Err(Refusal::new(Code::BodyTooLarge, detail));
    }
    if message.text.contains('\0') {
        return Err(invalid("the text may not contain NUL"));
    }
    if message.text.trim().is_empty() && message.attachments.is_empty() {
        return Err(invalid("the message is empty: give it a text or a file"));
    }
    if message.attachments.len() > MOST_ATTACHMENTS {
        return Err(invalid("a message may have 32 files at most"));
    }
    let files: Result<Vec<Attachment>> = message.attachments.iter().map(attachment).collect();
    let files = files?;
    let total: usize = files.iter().map(|file| file.data.len()).sum();
    if total > limits.attachment_bytes {
        let detail = format!(
            "all files may have {} bytes at most",
            limits.attachment_bytes
        );
        return Err(Refusal::new(Code::BodyTooLarge, detail));
    }
    Ok(files)
}

fn attachment(file: &AttachmentData) -> Result<Attachment> {
    let invalid = |detail: &str| Refusal::new(Code::InvalidBody, detail);
    let name = &file.name;
    let plain = (1..=NAME_BYTES).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control());
    if !plain {
        return Err(invalid("a file's name must be a plain name without a path"));
    }
    if !is_media_type(&file.media_type) {
        return Err(invalid(
            "a file's media_type must be one, as in 'image/png'",
        ));
    }
    let data = STANDARD
        .decode(&file.data)
        .map_err(|_| invalid("a file's data must be base64 (RFC 4648, with padding)"))?;
    Ok(Attachment {
        name: name.clone(),
        media_type: file.media_type.clone(),
        data,
    })
}

/// `type/subtype` with parameters (RFC 9110, section 8.3.1), in characters that a header holds.
fn is_media_type(text: &str) -> bool {
    let token = |t: &str| {
        let word = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !t.is_empty() && t.bytes().all(word)
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    text.len() <= NAME_BYTES
        && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        && essence
            .split_once('/')
            .is_some_and(|(kind, sub)| token(kind) && token(sub))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, media_type: &str, data: &str) -> AttachmentData {
        AttachmentData {
            name: name.to_owned(),
            media_type: media_type.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn a_file_has_a_plain_name_a_media_type_and_base64() {
        let good = attachment(&file("a b.txt", "text/plain; charset=utf-8", "aGk="));
        assert_eq!(good.map(|file| file.data).ok(), Some(b"hi".to_vec()));
        for bad in [
            file("../x", "text/plain", "aGk="),
            file("..", "text/plain", "aGk="),
            file("a\nb", "text/plain", "aGk="),
            file("", "text/plain", "aGk="),
            file("x", "text", "aGk="),
            file("x", "text/pl\r\nain", "aGk="),
            file("x", "text/plain", "aGk"),
        ] {
            assert!(attachment(&bad).is_err(), "{bad:?} was taken");
        }
    }
}
