//! `GET /admin/v1/events`: the log of all learners, by global cursor.

use axum::Json;
use axum::extract::State;
use carrel_core::event::{Cursor, Event, FeedEvent};
use carrel_core::{EventVersion, LearnerId};
use serde::{Deserialize, Serialize};

use super::query::Asked;
use crate::auth::Operator;
use crate::gateway::Shared;
use crate::refusal::{Refusal, Result};

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MOST: u32 = 1000;

/// The answer of `GET /admin/v1/events`, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// The events.
    pub events: Vec<Placed>,
    /// Ask for what follows with `?after=`; the same as asked when nothing followed.
    pub next: String,
}

/// An event with its opaque place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The place.
    pub cursor: String,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// A learner's own log instead; places are then its event versions.
    learner: Option<LearnerId>,
    after: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn events(
    State(shared): State<Shared>,
    _: Operator,
    Asked(page): Asked<Page>,
) -> Result<Json<EventPage>> {
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MOST);
    let after = match &page.after {
        None => Cursor::default(),
        Some(text) => read(text)
            .ok_or_else(|| Refusal::invalid("'after' must be a cursor from an earlier page"))?,
    };
    if let Some(learner) = &page.learner {
        let after = EventVersion(after.sequence);
        let events = shared.options.store.events(learner, after, limit).await?;
        let place = |version: EventVersion| {
            write(Cursor {
                transaction: 0,
                sequence: version.0,
            })
        };
        let next = place(events.last().map_or(after, |event| event.version));
        let events = events.into_iter();
        let events = events
            .map(|event| Placed {
                cursor: place(event.version),
                event,
            })
            .collect();
        return Ok(Json(EventPage { events, next }));
    }
    let events = shared.options.store.feed(after, limit).await?;
    let next = write(events.last().map_or(after, |event| event.cursor));
    let events = events.into_iter().map(placed).collect();
    Ok(Json(EventPage { events, next }))
}

fn placed(FeedEvent { cursor, event }: FeedEvent) -> Placed {
    Placed {
        cursor: write(cursor),
        event,
    }
}

fn write(cursor: Cursor) -> String {
    format!("{}-{}", cursor.transaction, cursor.sequence)
}

fn read(text: &str) -> Option<Cursor> {
    let (transaction, sequence) = text.split_once('-')?;
    Some(Cursor {
        transaction: transaction.parse().ok()?,
        sequence: sequence.parse().ok()?,
    })
}
