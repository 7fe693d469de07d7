//! A durable event as clients see it. Pure.

use carrel_core::event::{Event, EventBody};
use carrel_core::{EventVersion, TurnId};
use carrel_protocol::gateway::{StreamEvent, TurnStep};

use super::Place;

/// Before an outcome, clients that missed text get it whole at this step of the version before. The step is above every
/// live one (and below 2^53, which JavaScript can hold), and means the same in every process.
pub(super) const WHOLE_TEXT: u64 = 1 << 52;

/// What a learner is told whose newest state was destroyed.
const FELL_BACK: &str = "Some of your latest work was damaged and could not be restored. What was said then is being told to your tutor.";

/// What a reader has been told of the running attempt's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Perhaps some of it.
    Unknown,
    /// Exactly this.
    Text(&'a str),
}

/// The stream events that a durable event stands for, in order. An outcome is preceded by the text that the reader lacks,
/// so that the deltas after the last `restart` are always the reply.
pub(super) fn expand(event: &Event, said: Said<'_>) -> Vec<(Place, StreamEvent)> {
    let at = Place::durable(event.version);
    let mut events = Vec::with_capacity(1);
    match &event.body {
        EventBody::Done { turn_id, reply, .. } => {
            events.extend(missing(event.version, *turn_id, &reply.text, said));
        }
        EventBody::Failed {
            turn_id,
            partial_text,
            ..
        } if !partial_text.is_empty() => {
            events.extend(missing(event.version, *turn_id, partial_text, said));
        }
        _ => {}
    }
    events.extend(plain(&event.body).map(|event| (at, event)));
    events
}

fn missing(
    version: EventVersion,
    turn_id: TurnId,
    text: &str,
    said: Said<'_>,
) -> Vec<(Place, StreamEvent)> {
    let place = |step| Place {
        version: EventVersion(version.0.saturating_sub(1)),
        step,
    };
    let restart = StreamEvent::Restart {
        turn_id,
        reason: "the text follows whole".to_owned(),
    };
    let delta = StreamEvent::Delta {
        turn_id,
        text: text.to_owned(),
    };
    match said {
        Said::Text(said) if said == text => Vec::new(),
        Said::Text("") => vec![(place(WHOLE_TEXT + 1), delta)],
        Said::Text(_) if text.is_empty() => vec![(place(WHOLE_TEXT), restart)],
        Said::Unknown if text.is_empty() => Vec::new(),
        Said::Text(_) | Said::Unknown => {
            vec![(place(WHOLE_TEXT), restart), (place(WHOLE_TEXT + 1), delta)]
        }
    }
}

fn plain(body: &EventBody) -> Option<StreamEvent> {
    match body {
        EventBody::Queued { turn_id, .. } => Some(StreamEvent::State {
            turn_id: *turn_id,
            state: TurnStep::Queued,
            detail: String::new(),
        }),
        EventBody::Started {
            turn_id,
            lost_turns_told,
            ..
        } => Some(StreamEvent::State {
            turn_id: *turn_id,
            state: TurnStep::Running,
            detail: if *lost_turns_told > 0 {
                FELL_BACK.to_owned()
            } else {
                String::new()
            },
        }),
        EventBody::Restarted {
            turn_id, reason, ..
        } => Some(StreamEvent::Restart {
            turn_id: *turn_id,
            reason: reason.clone(),
        }),
        EventBody::Tool {
            turn_id,
            tool_id,
            name,
            status,
            summary,
        } => Some(StreamEvent::Tool {
            turn_id: *turn_id,
            tool_id: tool_id.clone(),
            name: name.clone(),
            status: *status,
            summary: summary.clone(),
        }),
        EventBody::Done {
            turn_id,
            stopped,
            reply,
            usage,
            snapshot_id,
            ..
        } => Some(StreamEvent::Done {
            turn_id: *turn_id,
            reply: reply.clone(),
            stopped: *stopped,
            usage: *usage,
            snapshot_id: snapshot_id.clone(),
        }),
        EventBody::Failed {
            turn_id,
            code,
            detail,
            retryable,
            ..
        } => Some(StreamEvent::Error {
            turn_id: *turn_id,
            code: code.to_string(),
            detail: detail.clone(),
            retryable: *retryable,
        }),
        EventBody::LearnerCreated { .. }
        | EventBody::Snapshotted { .. }
        | EventBody::FellBack { .. }
        | EventBody::Restored { .. }
        | EventBody::StateChanged { .. }
        | EventBody::Charged { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrel_core::event::{Reply, Usage};
    use carrel_core::{Epoch, Generation};
    use uuid::Uuid;

    fn done(text: &str) -> Event {
        Event {
            learner: "ada".parse().expect("a label"),
            version: EventVersion(6),
            time: jiff::Timestamp::from_second(9).expect("in range"),
            body: EventBody::Done {
                turn_id: TurnId(Uuid::from_u128(3)),
                stopped: false,
                reply: Reply {
                    text: text.to_owned(),
                    files: Vec::new(),
                },
                usage: Usage::default(),
                snapshot_id: None,
                generation: Generation(4),
                operator_note: String::new(),
            },
        }
    }

    fn names(events: &[(Place, StreamEvent)]) -> Vec<&'static str> {
        events.iter().map(|(_, event)| event.into()).collect()
    }

    #[test]
    fn an_outcome_comes_with_the_text_that_its_reader_lacks() {
        let names = |text, said| names(&expand(&done(text), said));
        assert_eq!(names("four", Said::Text("four")), ["done"]);
        assert_eq!(names("four", Said::Text("")), ["delta", "done"]);
        assert_eq!(
            names("four", Said::Text("fo")),
            ["restart", "delta", "done"]
        );
        assert_eq!(names("four", Said::Unknown), ["restart", "delta", "done"]);
        assert_eq!(names("", Said::Text("fo")), ["restart", "done"]);
    }

    #[test]
    fn an_attempt_that_begins_after_a_fall_back_says_so_at_a_place_that_stays() {
        let started = |lost_turns_told| Event {
            body: EventBody::Started {
                turn_id: TurnId(Uuid::from_u128(3)),
                epoch: Epoch(5),
                attempt: 1,
                lost_turns_told,
            },
            ..done("")
        };
        let said = |event: &Event| match &expand(event, Said::Text(""))[..] {
            [(place, StreamEvent::State { detail, .. })] => (place.to_string(), detail.clone()),
            events => unreachable!("{events:?}"),
        };
        assert_eq!(said(&started(0)), ("6.0".to_owned(), String::new()));
        assert_eq!(said(&started(2)), ("6.0".to_owned(), FELL_BACK.to_owned()));
    }

    #[test]
    fn the_places_of_what_is_added_lie_between_live_text_and_outcome() {
        let events = expand(&done("four"), Said::Unknown);
        let live: Place = "5.1234567".parse().expect("a place");
        assert!(live < events[0].0);
        assert!(events.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(events[2].0.to_string(), "6.0");
    }
}
