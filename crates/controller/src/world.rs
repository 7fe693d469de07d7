//! What is seen of the cluster: learners, classes and pods, in records of our own, and what is on its way for each learner.

pub(crate) mod pod;
pub(crate) mod pods;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use carrel_core::class::ClassSpec;
use carrel_core::learner::{Desired, Status};
use carrel_core::{LearnerId, PodUid, SnapshotId};
use carrel_crd::{Beside, Learner};
use jiff::Timestamp;

use crate::gate::Gate;
use crate::learner::Stir;
use crate::rate::Rate;
use pod::SeenPod;
use pods::Pods;

/// So many writes a second are for nothing but to say why somebody waits, and so many seconds' worth at once. They are of use where a few
/// wait; where thousands do, each would cost a wake a write more.
const EXPLANATIONS: u32 = 5;
const EXPLANATIONS_MADE_UP: Duration = Duration::from_secs(20);

/// A learner, as the API server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) generation: Option<i64>,
    pub(crate) class: String,
    pub(crate) desired: Desired,
    /// The older state that is wanted.
    pub(crate) restore: Option<SnapshotId>,
    pub(crate) status: Status,
    pub(crate) beside: Beside,
    /// Its conditions have been written.
    pub(crate) is_visited: bool,
}

impl Known {
    /// Reads an object; `None` for one whose name the schema would not let through.
    pub(crate) fn read(learner: &Learner) -> Option<(LearnerId, Self)> {
        let metadata = &learner.metadata;
        let shown = learner.status.as_ref();
        let wish = learner.spec.restore.as_ref();
        let wish = wish.and_then(|wish| wish.snapshot_id.as_deref());
        let known = Self {
            uid: metadata.uid.clone()?,
            version: pod::version(metadata.resource_version.as_deref()),
            generation: metadata.generation,
            class: learner.spec.class_name.clone(),
            desired: learner.desired(),
            restore: wish.and_then(|snapshot| snapshot.parse().ok()),
            status: shown.map(carrel_crd::from_status).unwrap_or_default(),
            beside: shown.map(Beside::of).unwrap_or_default(),
            is_visited: shown.is_some_and(|shown| !shown.conditions.is_empty()),
        };
        Some((metadata.name.as_deref()?.parse().ok()?, known))
    }

    fn pod(&self) -> Option<PodUid> {
        self.status.pod.as_ref().map(|pod| pod.uid)
    }
}

/// A class that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) generation: Option<i64>,
    pub(crate) spec: ClassSpec,
    /// Of what its pods are made.
    pub(crate) hash: String,
}

/// What is seen of the cluster.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) learners: HashMap<LearnerId, Arc<Known>>,
    pub(crate) classes: HashMap<String, Arc<Class>>,
    pub(crate) pods: Pods,
    /// Who does not rest, and what is on its way for them.
    pub(crate) stirs: HashMap<LearnerId, Stir>,
    pub(crate) gate: Gate,
    /// Learner namespaces that refused a pod for want of room: until when they are not asked again, and what they said.
    pub(crate) full: HashMap<String, (Timestamp, String)>,
    /// When there is time for a write that is for people alone.
    pub(crate) explanations: Rate,
    /// The same for what may never come by itself, which must not wait behind a line of thousands.
    pub(crate) troubles: Rate,
}

impl World {
    pub(crate) fn new(gate: Gate) -> Self {
        Self {
            learners: HashMap::new(),
            classes: HashMap::new(),
            pods: Pods::default(),
            stirs: HashMap::new(),
            gate,
            full: HashMap::new(),
            explanations: Rate::new(EXPLANATIONS, EXPLANATIONS_MADE_UP),
            troubles: Rate::new(EXPLANATIONS, EXPLANATIONS_MADE_UP),
        }
    }

    /// Takes in what is seen of a learner, from a watch or as the answer to our own write; whether it is news.
    pub(crate) fn put_learner(&mut self, id: &LearnerId, known: Known) -> bool {
        let before = self.learners.get(id);
        let is_same_object = before.is_some_and(|before| before.uid == known.uid);
        if is_same_object && before.is_some_and(|before| before.version >= known.version) {
            return false;
        }
        let (had, has) = (before.and_then(|before| before.pod()), known.pod());
        if had != has {
            // One that has ended is its learner's until it is deleted.
            if let Some(uid) = had
                && !self.pods.get(uid).is_some_and(SeenPod::has_ended)
            {
                self.pods.release(uid, id);
            }
            if let Some(uid) = has {
                self.pods.claim(uid, id);
            }
        }
        self.learners.insert(id.clone(), Arc::new(known));
        true
    }

    /// A learner's object is gone. Its pod, if it has one, stays claimed until it has ended.
    pub(crate) fn remove_learner(&mut self, id: &LearnerId) {
        self.learners.remove(id);
        self.gate.gone(id);
    }
}
