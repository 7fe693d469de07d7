//! Whom to look at, and when: each once however often it is wanted, by one worker at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use carrel_core::LearnerId;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Whom to look at, and when.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    due: BTreeSet<(Instant, LearnerId)>,
    times: HashMap<LearnerId, Instant>,
    /// Who is being looked at, and whether and when again.
    running: HashMap<LearnerId, Option<Instant>>,
}

impl Queue {
    /// Wants a look at that time, or before if that is wanted already.
    pub(crate) fn add(&self, learner: &LearnerId, at: Instant) {
        self.inner().add(learner, at);
        self.changed.notify_one();
    }

    /// Wants a look now.
    pub(crate) fn now(&self, learner: &LearnerId) {
        self.add(learner, Instant::now());
    }

    /// The next who is due; whoever gets it says when it is done.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn next(&self) -> LearnerId {
        loop {
            let changed = self.changed.notified();
            let first = self.inner().first();
            match first {
                Some((at, learner)) if at <= Instant::now() => {
                    if self.inner().begin(at, &learner) {
                        return learner;
                    }
                }
                Some((at, _)) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// A look is over, and the next is wanted then.
    pub(crate) fn done(&self, learner: &LearnerId, again: Option<Instant>) {
        let mut inner = self.inner();
        let wanted = inner.running.remove(learner).flatten();
        if let Some(at) = wanted.into_iter().chain(again).min() {
            inner.add(learner, at);
        }
        drop(inner);
        self.changed.notify_one();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, learner: &LearnerId, at: Instant) {
        if let Some(again) = self.running.get_mut(learner) {
            *again = Some(again.map_or(at, |before| before.min(at)));
            return;
        }
        match self.times.get(learner) {
            Some(before) if *before <= at => return,
            Some(before) => {
                self.due.remove(&(*before, learner.clone()));
            }
            None => {}
        }
        self.due.insert((at, learner.clone()));
        self.times.insert(learner.clone(), at);
    }

    fn first(&self) -> Option<(Instant, LearnerId)> {
        self.due.first().cloned()
    }

    fn begin(&mut self, at: Instant, learner: &LearnerId) -> bool {
        let is_due = self.due.remove(&(at, learner.clone()));
        if is_due {
            self.times.remove(learner);
            self.running.insert(learner.clone(), None);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(name: &str) -> LearnerId {
        name.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_comes_first_and_each_once() {
        let (queue, begin) = (Queue::default(), Instant::now());
        queue.add(&id("ada"), begin + Duration::from_secs(9));
        queue.add(&id("bob"), begin + Duration::from_secs(5));
        queue.add(&id("ada"), begin + Duration::from_secs(3));
        queue.add(&id("ada"), begin + Duration::from_secs(7));
        assert_eq!(queue.next().await, id("ada"));
        assert_eq!(begin.elapsed(), Duration::from_secs(3));
        queue.done(&id("ada"), None);
        assert_eq!(queue.next().await, id("bob"));
        let more = tokio::time::timeout(Duration::from_hours(1), queue.next()).await;
        assert!(more.is_err(), "nobody is due");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_wanted_while_looked_at_is_looked_at_again_and_not_twice_at_once() {
        let queue = Queue::default();
        queue.now(&id("ada"));
        assert_eq!(queue.next().await, id("ada"));
        queue.now(&id("ada"));
        let second = tokio::time::timeout(Duration::from_secs(5), queue.next()).await;
        assert!(second.is_err(), "two at once");
        queue.done(&id("ada"), Some(Instant::now() + Duration::from_hours(1)));
        assert_eq!(queue.next().await, id("ada"));
    }
}
