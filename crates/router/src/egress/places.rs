//! How many ways out each learner has open, so that none takes those of all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use carrel_core::LearnerId;

/// Places, as many for each learner.
pub(super) struct Places {
    each: usize,
    taken: Arc<Mutex<HashMap<LearnerId, usize>>>,
}

/// One of them; dropping it gives it back.
pub(super) struct Place {
    learner: LearnerId,
    taken: Arc<Mutex<HashMap<LearnerId, usize>>>,
}

impl Places {
    /// So many for each.
    pub(super) fn of(each: usize) -> Self {
        Self {
            each,
            taken: Arc::default(),
        }
    }

    /// One for this learner; `None` when it has all of its own.
    pub(super) fn take(&self, learner: &LearnerId) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(learner).copied().unwrap_or(0);
        if count >= self.each {
            return None;
        }
        taken.insert(learner.clone(), count + 1);
        Some(Place {
            learner: learner.clone(),
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.learner) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.learner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_learner_has_places_of_its_own_and_leaves_no_trace() {
        let (places, ada, bob) = (
            Places::of(2),
            "ada".parse().unwrap(),
            "bob".parse().unwrap(),
        );
        let first = places.take(&ada);
        let second = places.take(&ada);
        assert!(first.is_some() && second.is_some());
        assert!(places.take(&ada).is_none(), "she has two");
        assert!(places.take(&bob).is_some(), "they are hers");
        drop(first);
        assert!(places.take(&ada).is_some(), "one is free again");
        drop(second);
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
