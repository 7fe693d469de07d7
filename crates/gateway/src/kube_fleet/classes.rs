//! Classes as the watch has shown them last; those that cannot be used are known by name alone, and said once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use carrel_core::ClassName;
use carrel_core::class::ClassSpec;
use carrel_crd::LearnerClass;
use tokio::sync::watch;

/// By name; `None`: it cannot be used.
type Known = BTreeMap<ClassName, Option<ClassSpec>>;

/// Classes as they were seen last.
#[derive(Debug)]
pub(super) struct Classes {
    known: Mutex<Known>,
    listed: Mutex<Known>,
    /// How often they changed; 0: no list was complete yet.
    changed: watch::Sender<u64>,
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            listed: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Classes {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn being_listed(&self) -> MutexGuard<'_, Known> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_complete(&self) -> bool {
        *self.changed.borrow() > 0
    }

    /// Says when they change, and when they are complete.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Those that can be used.
    pub(super) fn usable(&self) -> Vec<(ClassName, ClassSpec)> {
        let known = self.known();
        let usable = known
            .iter()
            .filter_map(|(name, spec)| Some((name.clone(), spec.clone()?)));
        usable.collect()
    }

    pub(super) fn list_begins(&self) {
        self.being_listed().clear();
    }

    pub(super) fn listed(&self, object: LearnerClass) {
        if let Some((name, spec)) = read(object) {
            self.being_listed().insert(name, spec);
        }
    }

    pub(super) fn list_ends(&self) {
        *self.known() = std::mem::take(&mut *self.being_listed());
        self.changed.send_modify(|times| *times += 1);
    }

    pub(super) fn shown(&self, object: LearnerClass) {
        if let Some((name, spec)) = read(object) {
            self.known().insert(name, spec);
            self.changed.send_modify(|times| *times += 1);
        }
    }

    pub(super) fn gone(&self, object: &LearnerClass) {
        let name = object.metadata.name.as_deref();
        if let Some(name) = name.and_then(|name| name.parse().ok()) {
            self.known().remove(&name);
        }
    }
}

fn read(object: LearnerClass) -> Option<(ClassName, Option<ClassSpec>)> {
    let name: ClassName = object.metadata.name?.parse().ok()?;
    let spec = object.spec.to_class();
    if let Err(error) = &spec {
        tracing::warn!(class = %name, %error, "the class cannot be used; what it was before stays in force");
    }
    Some((name, spec.ok()))
}
