//! The order of one learner's stream, in memory while somebody watches or a turn runs. No I/O.

use std::collections::VecDeque;

use carrel_core::event::{Event, EventBody};
use carrel_core::{EventVersion, LeaseGeneration, TurnId};
use carrel_protocol::gateway::StreamEvent;

use super::Place;
use super::expand::{Said, WHOLE_TEXT, expand};

/// The most events kept for readers that come back.
const ENTRIES_KEPT: usize = 4096;
/// The most bytes of text kept for readers that come back.
const BYTES_KEPT: usize = 512 * 1024;
/// Of so many readers who came back it is known whether they had got as far as the text.
const VOIDS_KEPT: usize = 256;
/// Each lease of a turn counts its live steps from its own base: a later owner never uses a former one's ids.
const STEPS_OF_A_LEASE: u32 = 32;

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// All that came after its place.
    Events(Vec<(Place, StreamEvent)>),
    /// Not all that came after its place is kept: only what came after this.
    Behind(Place),
}

#[derive(Debug)]
pub(super) struct Log {
    /// The place of the newest event.
    last: Place,
    base: u64,
    entries: VecDeque<(Place, StreamEvent)>,
    bytes: usize,
    /// Every event after this place is in `entries`.
    floor: Place,
    /// What clients were told of the running attempt; `None` when that was not here.
    said: Option<String>,
    /// The turn of which that is.
    running: Option<TurnId>,
    /// Whether the running attempt is published here: a reader may come with the text that another gateway published.
    is_ours: bool,
    /// The turn whose live text is published here: its outcome waits for the last of it.
    relaying: Option<TurnId>,
    ended: Option<TurnId>,
    /// The newest places of a `restart` that is followed by the text so far.
    voids: VecDeque<Place>,
}

impl Log {
    pub(super) fn new(version: EventVersion) -> Self {
        let last = Place::durable(version);
        Self {
            last,
            base: 0,
            entries: VecDeque::new(),
            bytes: 0,
            floor: last,
            said: None,
            running: None,
            is_ours: false,
            relaying: None,
            ended: None,
            voids: VecDeque::new(),
        }
    }

    /// Whether a reader who stopped here was told that what it has is void, and not yet what takes its place.
    pub(super) fn is_void(&self, place: Place) -> bool {
        place.step == WHOLE_TEXT || self.voids.contains(&place)
    }

    pub(super) fn version(&self) -> EventVersion {
        self.last.version
    }

    pub(super) fn has_ended(&self, turn: TurnId) -> bool {
        self.ended == Some(turn)
    }

    pub(super) fn said(&self) -> &str {
        self.said.as_deref().unwrap_or_default()
    }

    /// From now on live events are those of this lease.
    pub(super) fn lease(&mut self, lease: LeaseGeneration) {
        self.base = lease.0.saturating_sub(1) << STEPS_OF_A_LEASE;
    }

    /// The outcome of `turn` waits until its live text is published whole; `None` lets it pass.
    pub(super) fn relay(&mut self, turn: Option<TurnId>) {
        self.is_ours |= turn.is_some();
        self.relaying = turn;
    }

    /// The turn that ran here is another's from now on, if it has not ended.
    pub(super) fn let_go(&mut self) {
        self.is_ours = false;
    }

    /// Appends what follows the newest version; `false` when an outcome has to wait or a version is missing.
    pub(super) fn append(&mut self, events: &[Event]) -> bool {
        for event in events {
            if event.version <= self.last.version {
                continue;
            }
            if event.version != self.last.version.next() || self.must_wait(&event.body) {
                return false;
            }
            let said = self.said.as_deref().filter(|_| self.is_ours);
            let said = said.map_or(Said::Unknown, Said::Text);
            let expanded = expand(event, said);
            self.follow(&event.body);
            self.last = Place::durable(event.version);
            for (place, event) in expanded {
                self.push(place, event);
            }
        }
        true
    }

    fn must_wait(&self, body: &EventBody) -> bool {
        let ends = matches!(
            body,
            EventBody::Done { .. } | EventBody::Failed { .. } | EventBody::Restarted { .. }
        );
        ends && self.relaying.is_some() && self.relaying == body.turn_id()
    }

    fn follow(&mut self, body: &EventBody) {
        match body {
            EventBody::Started { turn_id, .. } | EventBody::Restarted { turn_id, .. } => {
                self.said = Some(String::new());
                self.running = Some(*turn_id);
                self.is_ours = false;
            }
            EventBody::Done { turn_id, .. } | EventBody::Failed { turn_id, .. } => {
                self.ended = Some(*turn_id);
                // One that was stopped while it waited says nothing of the one that runs.
                if self.relaying.is_none() {
                    (self.said, self.running) = (None, None);
                }
            }
            _ => {}
        }
    }

    fn next(&mut self) -> Place {
        self.last.step = self.last.step.max(self.base) + 1;
        self.last
    }

    /// Publishes a live event.
    pub(super) fn live(&mut self, event: StreamEvent) {
        self.is_ours = true;
        match (&event, &mut self.said) {
            (StreamEvent::Delta { text, .. }, Some(said)) => said.push_str(text),
            (StreamEvent::Restart { .. }, said) => *said = Some(String::new()),
            _ => {}
        }
        let place = self.next();
        self.push(place, event);
    }

    fn push(&mut self, place: Place, event: StreamEvent) {
        self.bytes += size(&event);
        self.entries.push_back((place, event));
        while self.entries.len() > ENTRIES_KEPT || self.bytes > BYTES_KEPT {
            let Some((place, event)) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= size(&event);
            self.floor = place;
        }
    }

    pub(super) fn after(&self, place: Place) -> Read {
        if place < self.floor {
            return Read::Behind(self.floor);
        }
        let from = self.entries.partition_point(|(at, _)| *at <= place);
        Read::Events(self.entries.range(from..).cloned().collect())
    }

    /// The running attempt's text so far for a reader who has all durable events up to the newest: at places of its own,
    /// preceded by `restart` unless the reader is known to have no text of it.
    pub(super) fn text_so_far(&mut self, fresh: bool) -> Vec<(Place, StreamEvent)> {
        // Between the last of the text and its outcome nothing is relayed any more, and the outcome brings no text.
        let published = self.running.filter(|_| self.is_ours);
        let Some(turn_id) = self.relaying.or(published) else {
            return Vec::new();
        };
        let text = self.said().to_owned();
        let mut events = Vec::with_capacity(2);
        if !fresh {
            let reason = "the text so far follows whole".to_owned();
            let place = self.next();
            if self.voids.len() == VOIDS_KEPT {
                self.voids.pop_front();
            }
            self.voids.push_back(place);
            events.push((place, StreamEvent::Restart { turn_id, reason }));
        }
        if !text.is_empty() {
            events.push((self.next(), StreamEvent::Delta { turn_id, text }));
        }
        events
    }

    /// The place of the newest event.
    pub(super) fn last(&self) -> Place {
        self.last
    }
}

fn size(event: &StreamEvent) -> usize {
    const FIXED: usize = 96;
    FIXED
        + match event {
            StreamEvent::State { detail, .. } | StreamEvent::Error { detail, .. } => detail.len(),
            StreamEvent::Delta { text, .. } => text.len(),
            StreamEvent::Tool { summary, .. } => summary.len(),
            StreamEvent::Restart { reason, .. } => reason.len(),
            StreamEvent::Done { reply, .. } => reply.text.len(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrel_core::event::{Reply, Usage};
    use carrel_core::{Epoch, Generation, MessageId};
    use uuid::Uuid;

    const TURN: TurnId = TurnId(Uuid::from_u128(5));
    const OTHER: TurnId = TurnId(Uuid::from_u128(6));

    fn event(version: u64, body: EventBody) -> Event {
        Event {
            learner: "ada".parse().expect("a label"),
            version: EventVersion(version),
            time: jiff::Timestamp::from_second(9).expect("in range"),
            body,
        }
    }

    fn queued(version: u64, turn_id: TurnId) -> Event {
        let message_id = MessageId(Uuid::from_u128(version.into()));
        event(
            version,
            EventBody::Queued {
                turn_id,
                message_id,
            },
        )
    }

    fn started(version: u64) -> Event {
        let (epoch, attempt) = (Epoch(3), 1);
        event(
            version,
            EventBody::Started {
                turn_id: TURN,
                epoch,
                attempt,
                lost_turns_told: 0,
            },
        )
    }

    fn done(version: u64, text: &str) -> Event {
        event(
            version,
            EventBody::Done {
                turn_id: TURN,
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
        )
    }

    fn delta(text: &str) -> StreamEvent {
        StreamEvent::Delta {
            turn_id: TURN,
            text: text.to_owned(),
        }
    }

    fn running() -> Log {
        let mut log = Log::new(EventVersion(0));
        assert!(log.append(&[queued(1, TURN), started(2)]));
        log.relay(Some(TURN));
        log
    }

    fn ids(log: &Log) -> Vec<String> {
        let Read::Events(events) = log.after(Place::default()) else {
            return Vec::new();
        };
        events.iter().map(|(place, _)| place.to_string()).collect()
    }

    #[test]
    fn an_outcome_waits_for_the_last_live_text() {
        let mut log = running();
        log.live(delta("fo"));
        assert!(!log.append(&[done(3, "four"), queued(4, OTHER)]));
        log.live(delta("ur"));
        log.relay(None);
        assert!(log.append(&[done(3, "four"), queued(4, OTHER)]));
        assert_eq!(ids(&log), ["1.0", "2.0", "2.1", "2.2", "3.0", "4.0"]);
        assert!(log.has_ended(TURN));
    }

    #[test]
    fn a_missing_version_is_waited_for_and_a_known_one_is_passed_over() {
        let mut log = running();
        assert!(!log.append(&[queued(4, OTHER)]));
        assert!(log.append(&[queued(1, TURN), started(2), queued(3, OTHER)]));
        assert_eq!(ids(&log), ["1.0", "2.0", "3.0"]);
    }

    #[test]
    fn a_later_owner_never_uses_an_earlier_ones_ids() {
        let (mut first, mut second) = (running(), running());
        first.lease(LeaseGeneration(1));
        second.lease(LeaseGeneration(2));
        for _ in 0..1000 {
            first.live(delta("x"));
        }
        second.live(delta("y"));
        assert!(first.last() < second.last());
        assert_eq!(first.last().to_string(), "2.1000");
    }

    #[test]
    fn text_that_did_not_fit_is_given_whole_at_a_place_of_its_own() {
        let mut log = running();
        let piece = "x".repeat(BYTES_KEPT / 4);
        for _ in 0..8 {
            log.live(delta(&piece));
        }
        let early = Place::durable(EventVersion(2));
        assert!(matches!(log.after(early), Read::Behind(floor) if floor > early));
        let before = log.last();
        let events = log.text_so_far(false);
        assert_eq!(events.len(), 2);
        assert!(before < events[0].0 && events[0].0 < events[1].0);
        assert_eq!(events[1].1, delta(&piece.repeat(8)));
        let at = log.last();
        log.live(delta("the rest"));
        let Read::Events(rest) = log.after(at) else {
            unreachable!("its place is kept");
        };
        assert_eq!(rest.len(), 1);
    }

    #[test]
    fn an_attempt_that_was_published_elsewhere_is_told_whole_to_whoever_has_some_of_it() {
        let mut followed = Log::new(EventVersion(0));
        assert!(followed.append(&[queued(1, TURN), started(2), done(3, "four")]));
        let mut let_go = running();
        let_go.relay(None);
        let_go.let_go();
        assert!(let_go.append(&[done(3, "four")]));
        for log in [followed, let_go] {
            let elsewhere: Place = "2.7".parse().expect("a place");
            let Read::Events(events) = log.after(elsewhere) else {
                unreachable!("its place is kept");
            };
            let names = events.iter().map(|(_, event)| <&str>::from(event));
            assert_eq!(names.collect::<Vec<_>>(), ["restart", "delta", "done"]);
        }
    }

    #[test]
    fn a_reader_who_comes_between_the_last_text_and_the_outcome_gets_the_text_once() {
        for (fresh, names) in [(true, &["delta"][..]), (false, &["restart", "delta"])] {
            let mut log = running();
            log.live(delta("fo"));
            log.live(delta("ur"));
            log.relay(None);
            let told = log.text_so_far(fresh);
            let kinds = |events: &[(Place, StreamEvent)]| -> Vec<&str> {
                events.iter().map(|(_, event)| event.into()).collect()
            };
            assert_eq!(kinds(&told), names);
            assert_eq!(told[told.len() - 1].1, delta("four"));
            let at = log.last();
            assert!(log.append(&[done(3, "four")]));
            let Read::Events(rest) = log.after(at) else {
                unreachable!("its place is kept");
            };
            assert_eq!(kinds(&rest), ["done"]);
        }
        let mut of_another = running();
        of_another.live(delta("fo"));
        of_another.relay(None);
        of_another.let_go();
        assert_eq!(of_another.text_so_far(true), []);
    }

    #[test]
    fn a_reader_who_stopped_between_a_restart_and_its_text_is_known() {
        let mut log = running();
        log.live(delta("fo"));
        let events = log.text_so_far(false);
        let [(void, _), (text, _)] = &events[..] else {
            unreachable!("a restart and the text");
        };
        assert!(log.is_void(*void) && !log.is_void(*text));
        log.relay(None);
        let mut elsewhere = Log::new(EventVersion(0));
        assert!(elsewhere.append(&[queued(1, TURN), started(2), done(3, "four")]));
        let Read::Events(events) = elsewhere.after(Place::durable(EventVersion(2))) else {
            unreachable!("its place is kept");
        };
        assert!(log.is_void(events[0].0) && !log.is_void(events[1].0));
    }
}
