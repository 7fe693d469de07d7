//! Learners as the watch has shown them last, and hints of who changed. Answers of our own writes are taken in, too, so that who
//! asks again at once is not told less than was just written.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use carrel_core::LearnerId;
use tokio::sync::{broadcast, watch};

use super::record::Record;

/// A hint that is missed for want of room counts as one about everybody.
const HINTS_KEPT: usize = 4096;

/// Learners as they were seen last.
#[derive(Debug)]
pub(super) struct Cache {
    inner: Mutex<Inner>,
    is_complete: watch::Sender<bool>,
    changes: broadcast::Sender<LearnerId>,
}

#[derive(Debug, Default)]
struct Inner {
    learners: HashMap<LearnerId, Record>,
    /// The newest version that the watch has shown, of an end, too. What an answer shows that is not newer, and is not
    /// there, was deleted since.
    newest: u64,
    /// A list that is being read.
    listed: HashMap<LearnerId, Record>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            is_complete: watch::Sender::new(false),
            changes: broadcast::Sender::new(HINTS_KEPT),
        }
    }
}

impl Cache {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> broadcast::Receiver<LearnerId> {
        self.changes.subscribe()
    }

    fn hint(&self, learner: LearnerId) {
        // Nobody listening is no loss.
        let _ = self.changes.send(learner);
    }

    /// Whether a list was once complete. From then on what is kept is good, if old while the API server is away.
    pub(super) fn is_complete(&self) -> bool {
        *self.is_complete.borrow()
    }

    /// Waits for the first complete list.
    pub(super) async fn completed(&self) {
        // The sender lives as long as this.
        let _ = self.is_complete.subscribe().wait_for(|is| *is).await;
    }

    pub(super) fn get(&self, learner: &LearnerId) -> Option<Record> {
        self.inner().learners.get(learner).cloned()
    }

    pub(super) fn has(&self, learner: &LearnerId) -> bool {
        self.inner().learners.contains_key(learner)
    }

    pub(super) fn all(&self) -> Vec<LearnerId> {
        self.inner().learners.keys().cloned().collect()
    }

    /// A list begins; what is kept stays until it is complete.
    pub(super) fn list_begins(&self) {
        self.inner().listed = HashMap::new();
    }

    pub(super) fn listed(&self, learner: LearnerId, record: Record) {
        self.inner().listed.insert(learner, record);
    }

    /// The list is complete, and is what there is.
    pub(super) fn list_ends(&self) {
        let mut inner = self.inner();
        let listed = std::mem::take(&mut inner.listed);
        let newest = listed.values().map(|record| record.version).max();
        inner.newest = inner.newest.max(newest.unwrap_or_default());
        let before = std::mem::replace(&mut inner.learners, listed);
        let differs = |(learner, record): &(&LearnerId, &Record)| {
            before
                .get(*learner)
                .is_none_or(|old| !record.says_what(old))
        };
        let changed = inner.learners.iter().filter(differs);
        let gone = before
            .keys()
            .filter(|old| !inner.learners.contains_key(*old));
        let hints: Vec<_> = changed
            .map(|(learner, _)| learner)
            .chain(gone)
            .cloned()
            .collect();
        drop(inner);
        self.is_complete.send_replace(true);
        for learner in hints {
            self.hint(learner);
        }
    }

    /// The watch shows an object as it is now.
    pub(super) fn shown(&self, learner: LearnerId, record: Record) {
        let mut inner = self.inner();
        inner.newest = inner.newest.max(record.version);
        let old = inner.learners.get(&learner);
        // Our own write's answer may have come before.
        if old.is_some_and(|old| old.uid == record.uid && old.version > record.version) {
            return;
        }
        let is_news = old.is_none_or(|old| !record.says_what(old));
        inner.learners.insert(learner.clone(), record);
        drop(inner);
        if is_news {
            self.hint(learner);
        }
    }

    /// The watch shows that an object is gone.
    pub(super) fn gone(&self, learner: LearnerId, version: u64) {
        let mut inner = self.inner();
        inner.newest = inner.newest.max(version);
        inner.learners.remove(&learner);
        drop(inner);
        self.hint(learner);
    }

    /// An answer shows an object as it was a moment ago.
    pub(super) fn answered(&self, learner: LearnerId, record: Record) {
        let mut inner = self.inner();
        let known = inner.learners.get(&learner).map(|known| known.version);
        let is_newer = record.version > known.unwrap_or(inner.newest);
        if is_newer {
            inner.learners.insert(learner.clone(), record);
        }
        drop(inner);
        if is_newer {
            self.hint(learner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str, version: u64) -> Record {
        Record {
            uid: uid.to_owned(),
            version,
            is_going: false,
            class: "free".parse().expect("a label"),
            desired: carrel_core::learner::Desired::default(),
            seen: carrel_core::learner::Status::default(),
        }
    }

    fn id(text: &str) -> LearnerId {
        text.parse().expect("a label")
    }

    #[test]
    fn an_answer_older_than_the_watch_brings_no_deleted_learner_back() {
        let cache = Cache::default();
        cache.listed(id("bob"), record("b", 5));
        cache.list_ends();
        cache.answered(id("ada"), record("a", 7));
        assert!(cache.has(&id("ada")), "it is newer than what was shown");
        cache.shown(id("ada"), record("a", 7));
        cache.gone(id("ada"), 9);
        cache.answered(id("ada"), record("a", 8));
        assert!(!cache.has(&id("ada")));
        cache.answered(id("ada"), record("again", 10));
        assert_eq!(
            cache.get(&id("ada")).map(|ada| ada.uid),
            Some("again".to_owned())
        );
    }

    #[test]
    fn a_late_event_takes_nothing_back_that_an_answer_has_shown() {
        let cache = Cache::default();
        cache.list_ends();
        cache.answered(id("ada"), record("a", 8));
        cache.shown(id("ada"), record("a", 7));
        assert_eq!(cache.get(&id("ada")).map(|ada| ada.version), Some(8));
    }

    #[test]
    fn a_new_list_gives_hints_of_those_who_changed_came_and_went_alone() {
        let cache = Cache::default();
        for (name, version) in [("ada", 1), ("bob", 2), ("eve", 3)] {
            cache.listed(id(name), record(name, version));
        }
        cache.list_ends();
        let mut changes = cache.changes();
        cache.list_begins();
        cache.listed(id("ada"), record("ada", 9));
        cache.listed(id("bob"), record("another", 8));
        cache.listed(id("kim"), record("kim", 7));
        cache.list_ends();
        let mut hinted = Vec::new();
        while let Ok(learner) = changes.try_recv() {
            hinted.push(learner.to_string());
        }
        hinted.sort();
        assert_eq!(hinted, ["bob", "eve", "kim"]);
    }
}
