//! The pods that are seen, and the indices by which one is found without looking at all.

use std::collections::{BTreeSet, HashMap, HashSet};

use carrel_core::{Epoch, LearnerId, PodUid};
use jiff::Timestamp;

use super::pod::{Life, SeenPod};

/// Blank pods of one template that are nobody's, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Blanks {
    /// Those that may be assigned at once.
    pub(crate) ready: BTreeSet<(Timestamp, PodUid)>,
    /// Those that start.
    pub(crate) starting: BTreeSet<(Timestamp, PodUid)>,
}

/// The pods that are seen.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    all: HashMap<PodUid, SeenPod>,
    blanks: HashMap<String, Blanks>,
    labelled: HashMap<LearnerId, HashSet<PodUid>>,
    counts: HashMap<String, usize>,
    /// Named in a learner's status, or chosen for one.
    claims: HashMap<PodUid, LearnerId>,
    /// Nobody's, and nobody's to be: ended, or labelled with a learner whose status names another.
    odd: HashSet<PodUid>,
}

/// Whose looks a change calls for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) learners: HashSet<LearnerId>,
    /// A pool may have more or fewer than before.
    pub(crate) pool: bool,
}

impl Pods {
    pub(crate) fn get(&self, uid: PodUid) -> Option<&SeenPod> {
        self.all.get(&uid)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SeenPod> {
        self.all.values()
    }

    pub(crate) fn blanks(&self, hash: &str) -> Option<&Blanks> {
        self.blanks.get(hash)
    }

    /// All blank pods that are nobody's, by template.
    pub(crate) fn all_blanks(&self) -> impl Iterator<Item = (&str, &Blanks)> {
        self.blanks
            .iter()
            .map(|(hash, blanks)| (hash.as_str(), blanks))
    }

    /// Those that are nobody's and will be nobody's.
    pub(crate) fn odd(&self) -> impl Iterator<Item = &SeenPod> {
        self.odd.iter().filter_map(|uid| self.all.get(uid))
    }

    /// Those that say that they are a learner's.
    pub(crate) fn labelled(&self, learner: &LearnerId) -> impl Iterator<Item = &SeenPod> {
        let uids = self.labelled.get(learner).into_iter().flatten();
        uids.filter_map(|uid| self.all.get(uid))
    }

    /// The fence that a pod's last word names; 0 when it names none.
    pub(crate) fn fence_of(&self, uid: Option<PodUid>) -> Epoch {
        let life = uid.and_then(|uid| self.all.get(&uid)).map(|pod| &pod.life);
        match life {
            Some(Life::Ended {
                farewell: Some(farewell),
                ..
            }) => farewell.fence.unwrap_or_default(),
            _ => Epoch::default(),
        }
    }

    /// How many pods of ours a namespace has, those that are being made included.
    pub(crate) fn count(&self, namespace: &str) -> usize {
        self.counts.get(namespace).copied().unwrap_or_default()
    }

    /// One more is being made in a namespace.
    pub(crate) fn expect(&mut self, namespace: &str) {
        *self.counts.entry(namespace.to_owned()).or_default() += 1;
    }

    /// It is made, or will not be.
    pub(crate) fn expect_no_more(&mut self, namespace: &str) {
        if let Some(count) = self.counts.get_mut(namespace) {
            *count -= 1;
        }
    }

    pub(crate) fn claimant(&self, uid: PodUid) -> Option<&LearnerId> {
        self.claims.get(&uid)
    }

    /// Takes in what is seen of a pod, unless something newer is known.
    pub(crate) fn put(&mut self, pod: SeenPod) -> Touched {
        if let Some(known) = self.all.get(&pod.uid)
            && (known.version > pod.version || known.gone || *known == pod)
        {
            return Touched::default();
        }
        let touched = self.touched(&pod);
        self.remove_record(pod.uid);
        self.insert_record(pod);
        touched
    }

    /// A pod is gone from the API server. One that is somebody's is kept until they have heard how it ended.
    pub(crate) fn delete(&mut self, last: &SeenPod) -> Touched {
        let touched = self.touched(last);
        let known = self.remove_record(last.uid);
        if self.claims.contains_key(&last.uid) && known.is_some() {
            self.insert_record(SeenPod {
                gone: true,
                ..last.clone()
            });
        }
        touched
    }

    /// The pods that are known in a namespace.
    pub(crate) fn within(&self, namespace: &str) -> HashSet<PodUid> {
        let here = self.all.values().filter(|pod| pod.namespace == namespace);
        here.map(|pod| pod.uid).collect()
    }

    /// These are gone, without a word.
    pub(crate) fn lose(&mut self, missing: &HashSet<PodUid>) -> Touched {
        let mut touched = Touched::default();
        for uid in missing.iter().copied() {
            if let Some(pod) = self.remove_record(uid) {
                let more = self.touched(&pod);
                touched.learners.extend(more.learners);
                touched.pool |= more.pool;
            }
        }
        touched
    }

    /// Makes a pod somebody's.
    pub(crate) fn claim(&mut self, uid: PodUid, learner: &LearnerId) {
        self.reindexed(uid, |pods| {
            pods.claims.insert(uid, learner.clone());
        });
    }

    /// It is not this learner's any more.
    pub(crate) fn release(&mut self, uid: PodUid, learner: &LearnerId) {
        if self.claims.get(&uid) != Some(learner) {
            return;
        }
        self.reindexed(uid, |pods| {
            pods.claims.remove(&uid);
        });
        if self.all.get(&uid).is_some_and(|pod| pod.gone) {
            self.remove_record(uid);
        }
    }

    /// How far a pod is, known before it is seen; how far it was.
    pub(crate) fn set_life(&mut self, uid: PodUid, life: Life) -> Option<Life> {
        let mut pod = self.remove_record(uid)?;
        let before = std::mem::replace(&mut pod.life, life);
        self.insert_record(pod);
        Some(before)
    }

    /// Nothing more is to be known of a pod that has ended.
    pub(crate) fn forget(&mut self, uid: PodUid) {
        self.claims.remove(&uid);
        self.remove_record(uid);
    }

    /// Whose pods are whose is what this says, and nothing else.
    pub(crate) fn reclaim(&mut self, claims: HashMap<PodUid, LearnerId>) {
        let before = std::mem::replace(&mut self.claims, claims);
        let changed: HashSet<PodUid> = before
            .into_keys()
            .chain(self.claims.keys().copied())
            .collect();
        for uid in changed {
            if let Some(pod) = self.remove_record(uid) {
                self.insert_record(pod);
            }
        }
    }

    fn reindexed(&mut self, uid: PodUid, change: impl FnOnce(&mut Self)) {
        let pod = self.remove_record(uid);
        change(self);
        if let Some(pod) = pod {
            self.insert_record(pod);
        }
    }

    fn touched(&self, pod: &SeenPod) -> Touched {
        let claimant = self.claims.get(&pod.uid);
        Touched {
            learners: claimant
                .or(pod.learner.as_ref())
                .into_iter()
                .cloned()
                .collect(),
            pool: claimant.is_none(),
        }
    }

    fn insert_record(&mut self, pod: SeenPod) {
        if !pod.gone {
            *self.counts.entry(pod.namespace.clone()).or_default() += 1;
        }
        if let Some(learner) = &pod.learner {
            self.labelled
                .entry(learner.clone())
                .or_default()
                .insert(pod.uid);
        }
        let is_claimed = self.claims.contains_key(&pod.uid);
        if !is_claimed && !pod.gone && (pod.learner.is_some() || pod.has_ended()) {
            self.odd.insert(pod.uid);
        }
        if pod.is_blank() && !is_claimed {
            let blanks = self.blanks.entry(pod.hash.clone()).or_default();
            let place = (pod.created, pod.uid);
            if pod.life == Life::Running {
                blanks.ready.insert(place);
            } else {
                blanks.starting.insert(place);
            }
        }
        self.all.insert(pod.uid, pod);
    }

    fn remove_record(&mut self, uid: PodUid) -> Option<SeenPod> {
        let pod = self.all.remove(&uid)?;
        self.odd.remove(&uid);
        if let Some(count) = self.counts.get_mut(&pod.namespace)
            && !pod.gone
        {
            *count -= 1;
        }
        if let Some(learner) = &pod.learner
            && let Some(labelled) = self.labelled.get_mut(learner)
        {
            labelled.remove(&uid);
            if labelled.is_empty() {
                self.labelled.remove(learner);
            }
        }
        if let Some(blanks) = self.blanks.get_mut(&pod.hash) {
            let place = (pod.created, uid);
            blanks.ready.remove(&place);
            blanks.starting.remove(&place);
            if blanks.ready.is_empty() && blanks.starting.is_empty() {
                self.blanks.remove(&pod.hash);
            }
        }
        Some(pod)
    }
}

#[cfg(test)]
pub(crate) mod tests;
