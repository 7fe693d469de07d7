//! One attempt of a turn: what was ordered, what is said, how it ended. Any number of listeners hear all of it from the
//! start; a slow one gets text in larger pieces and holds nobody up.

use std::sync::{Arc, Mutex, PoisonError};

use carrel_core::TurnId;
use carrel_protocol::sidecar::{Frame, TurnOrder};
use futures::Stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The most bytes of text in a reply.
pub(crate) const TEXT_BYTES: usize = 4 << 20;
/// The most tool and status lines in a turn.
const MARKS: usize = 4096;
/// The most bytes of a tool's or status' line.
const LINE_BYTES: usize = 1024;

/// An agent said more than a turn may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuch;

/// One attempt of a turn.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Its turn.
    pub(crate) turn: TurnId,
    /// Cancelled when the learner wants it stopped.
    pub(crate) stop: CancellationToken,
    /// How long it waited for the workspace to be restored.
    pub(crate) restore_ms: u64,
    order: Mutex<Option<TurnOrder>>,
    log: Mutex<Log>,
    length: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Log {
    text: String,
    /// Other frames, each with the length of the text before it.
    marks: Vec<(usize, Frame)>,
    last: Option<Frame>,
}

/// How much of a log was heard.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    text: usize,
    marks: usize,
    ended: bool,
}

impl Attempt {
    /// An attempt about to run.
    pub(crate) fn new(order: TurnOrder) -> Self {
        Self {
            turn: order.turn_id,
            stop: CancellationToken::new(),
            restore_ms: order.restore_ms,
            order: Mutex::new(Some(order)),
            log: Mutex::default(),
            length: watch::Sender::new(0),
        }
    }

    /// What is to be done. Given once: it may be large.
    pub(crate) fn take_order(&self) -> Option<TurnOrder> {
        self.order
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Adds to the reply.
    pub(crate) fn say(&self, text: &str) -> Result<(), TooMuch> {
        self.write(|log| {
            if log.text.len() + text.len() > TEXT_BYTES {
                return Err(TooMuch);
            }
            log.text.push_str(text);
            Ok(())
        })
    }

    /// Adds what is not text; over-long lines are cut.
    pub(crate) fn mark(&self, mut frame: Frame) -> Result<(), TooMuch> {
        match &mut frame {
            Frame::Tool {
                id, name, summary, ..
            } => {
                [id, name, summary].into_iter().for_each(shorten);
            }
            Frame::Status { text } => shorten(text),
            Frame::Text { .. }
            | Frame::Snapshotting
            | Frame::Committed { .. }
            | Frame::Failed { .. }
            | Frame::Died { .. } => {}
        }
        self.write(|log| {
            if log.marks.len() >= MARKS {
                return Err(TooMuch);
            }
            log.marks.push((log.text.len(), frame));
            Ok(())
        })
    }

    /// Says how it ended; only the first time counts.
    pub(crate) fn end(&self, frame: Frame) {
        self.write(|log| {
            log.last.get_or_insert(frame);
        });
    }

    /// Whether it ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.read(|log| log.last.is_some())
    }

    /// The reply so far.
    pub(crate) fn text(&self) -> String {
        self.read(|log| log.text.clone())
    }

    /// Everything from the start, until it ends.
    pub(crate) fn frames(self: Arc<Self>) -> impl Stream<Item = Frame> + Send {
        let (place, changed) = (Place::default(), self.length.subscribe());
        futures::stream::unfold(
            (self, place, changed),
            |(log, mut place, mut changed)| async move {
                loop {
                    if place.ended {
                        return None;
                    }
                    changed.mark_unchanged();
                    if let Some(frame) = log.read(|log| log.after(&mut place)) {
                        return Some((frame, (log, place, changed)));
                    }
                    changed.changed().await.ok()?;
                }
            },
        )
    }

    fn write<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let result = change(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner));
        self.length.send_modify(|changes| *changes += 1);
        result
    }

    fn read<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Log {
    fn after(&self, place: &mut Place) -> Option<Frame> {
        let mark = self.marks.get(place.marks);
        let until = mark.map_or(self.text.len(), |(at, _)| *at);
        if place.text < until {
            let text = self.text[place.text..until].to_owned();
            place.text = until;
            return Some(Frame::Text { text });
        }
        if let Some((_, frame)) = mark {
            place.marks += 1;
            return Some(frame.clone());
        }
        place.ended = self.last.is_some();
        self.last.clone()
    }
}

fn shorten(line: &mut String) {
    if line.len() > LINE_BYTES {
        let end = (0..=LINE_BYTES)
            .rev()
            .find(|at| line.is_char_boundary(*at))
            .unwrap_or(0);
        line.truncate(end);
    }
}

#[cfg(test)]
mod tests;
