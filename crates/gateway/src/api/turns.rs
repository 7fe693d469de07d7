//! Turns and history: `GET …/turns/{turn_id}`, `…/files/{n}`, `POST …/stop`, `GET …/messages`.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use carrel_core::{MessageId, TurnId};
use carrel_protocol::gateway::{History, Turn};
use carrel_store::turns;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::tools::Tools;
use super::view;
use crate::auth::Own;
use crate::gateway::{Gateway, Shared};
use crate::refusal::{Refusal, Result};

const HISTORY_DEFAULT: u32 = 50;
const HISTORY_MOST: u32 = 200;

fn turn_in_path(text: &str) -> Result<TurnId> {
    text.parse().map_err(|_| no_turn())
}

fn no_turn() -> Refusal {
    Refusal::not_found("there is no such turn")
}

/// A turn's document.
async fn document(shared: &Gateway, turn: turns::Turn) -> Result<Turn> {
    let (store, learner) = (&shared.options.store, &turn.learner);
    let message = turn.message.message_id;
    let before = store.history(learner, Some(message), 1).await?;
    let turns = std::slice::from_ref(&turn);
    let mut tools = Tools::read(store, learner, before.last(), turns).await?;
    let tools = tools.of(turn.turn_id);
    Ok(view::turn(turn, tools))
}

pub(super) async fn turn(
    State(shared): State<Shared>,
    Own(learner, _): Own,
    Path((_, turn)): Path<(String, String)>,
) -> Result<Json<Turn>> {
    let store = &shared.options.store;
    let turn = store.turn(&learner, turn_in_path(&turn)?).await?;
    document(&shared, turn.ok_or_else(no_turn)?).await.map(Json)
}

/// A file of a reply. What an agent made is never shown by a browser as a page of ours.
pub(super) async fn file(
    State(shared): State<Shared>,
    Own(learner, _): Own,
    Path((_, turn, place)): Path<(String, String, String)>,
) -> Result<Response> {
    let no_file = || Refusal::not_found("there is no such file");
    let place: u32 = place.parse().map_err(|_| no_file())?;
    let store = &shared.options.store;
    let file = store
        .reply_file(&learner, turn_in_path(&turn)?, place)
        .await?;
    let file = file.ok_or_else(no_file)?;
    let kind = HeaderValue::try_from(&file.media_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let sandbox = HeaderValue::from_static("default-src 'none'; sandbox");
    let mut response = file.data.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_SECURITY_POLICY, sandbox);
    headers.insert(header::CONTENT_DISPOSITION, disposition(&file.name));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-store"),
    );
    Ok(response)
}

/// `attachment` with the name in RFC 8187's encoding, which no name can break out of.
fn disposition(name: &str) -> HeaderValue {
    let mut text = "attachment; filename*=UTF-8''".to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing into a text never fails.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("attachment"))
}

/// Wants a turn stopped; one that has ended stays as it is.
pub(super) async fn stop(
    State(shared): State<Shared>,
    Own(learner, _): Own,
    Path((_, turn)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Turn>)> {
    let store = &shared.options.store;
    let turn = turn_in_path(&turn)?;
    let turn = store.request_stop(&learner, turn, shared.now()).await?;
    if let Some(hub) = shared.hubs.find(&learner) {
        hub.hint();
    }
    let turn = document(&shared, turn.ok_or_else(no_turn)?).await?;
    Ok((StatusCode::ACCEPTED, Json(turn)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    before: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn history(
    State(shared): State<Shared>,
    Own(learner, _): Own,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<History>> {
    let Query(page) = page.map_err(|error| Refusal::invalid(error.body_text()))?;
    let before: Option<MessageId> = match page.before {
        None => None,
        Some(id) => Some(
            id.parse()
                .map_err(|_| Refusal::invalid("'before' must be the id of a message"))?,
        ),
    };
    let limit = page.limit.unwrap_or(HISTORY_DEFAULT).clamp(1, HISTORY_MOST);
    let store = &shared.options.store;
    // One more than is shown: it says where to begin to read what those after it did.
    let mut turns = store.history(&learner, before, limit + 1).await?;
    let earlier = (turns.len() > limit as usize).then(|| turns.remove(0));
    let mut tools = Tools::read(store, &learner, earlier.as_ref(), &turns).await?;
    let entry = |turn: turns::Turn| {
        let tools = tools.of(turn.turn_id);
        view::history_entry(turn, tools)
    };
    let messages = turns.into_iter().map(entry).collect();
    Ok(Json(History { messages }))
}
