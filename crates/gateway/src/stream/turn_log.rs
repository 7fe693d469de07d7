//! A turn's durable events from its beginning.

use carrel_core::event::{Event, EventBody};
use carrel_core::{EventVersion, LearnerId, TurnId};
use carrel_store::{Result, SharedStore};

/// How many events are read at once.
pub(crate) const PAGE: u32 = 256;

/// The learner's events from the turn's `queued` to `newest`; looks backwards, because a turn is near the end.
pub(crate) async fn turn_log(
    store: &SharedStore,
    learner: &LearnerId,
    turn: TurnId,
    newest: EventVersion,
) -> Result<Vec<Event>> {
    let mut found: Vec<Event> = Vec::new();
    let mut until = newest.0;
    loop {
        let after = until.saturating_sub(u64::from(PAGE));
        let mut page = store.events(learner, EventVersion(after), PAGE).await?;
        page.retain(|event| event.version.0 <= until);
        page.append(&mut found);
        found = page;
        let start = found.iter().position(
            |event| matches!(&event.body, EventBody::Queued { turn_id, .. } if *turn_id == turn),
        );
        if let Some(start) = start {
            found.drain(..start);
            return Ok(found);
        }
        if after == 0 {
            return Ok(found);
        }
        until = after;
    }
}
