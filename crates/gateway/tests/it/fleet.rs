//! A fleet in this process: each incarnation is a scripted pod.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use carrel_core::learner::{Condition, ConditionStatus, LearnerState, PodRef, StartKind, Status};
use carrel_core::lifecycle::{MOST_UNASKED, names};
use carrel_core::{ClassName, Epoch, LearnerId, PodUid};
use carrel_protocol::fleet::{Error, Fleet, IsolationReport};
use carrel_protocol::sidecar::Phase;
use carrel_protocol::token::Verifier;
use carrel_store::SharedStore;
use tokio::sync::{broadcast, watch};
use tokio_util::task::TaskTracker;

use crate::pod::{Act, Making, Pod};
use crate::world::now;

/// A learner's status, and its pod while it lives.
type Seen = (Status, Option<Arc<Pod>>);

/// A fleet of scripted pods.
pub(crate) struct Scripted {
    me: Weak<Self>,
    store: SharedStore,
    folder: PathBuf,
    verifier: Verifier,
    tracker: TaskTracker,
    seen: Mutex<HashMap<LearnerId, Seen>>,
    acts: Mutex<HashMap<LearnerId, VecDeque<Act>>>,
    /// Phases in which the next pods begin and stay.
    births: Mutex<VecDeque<Phase>>,
    changes: broadcast::Sender<LearnerId>,
    /// How often it has said that a learner has no pod.
    pub(crate) said_ended: watch::Sender<u64>,
    pub(crate) made: AtomicU64,
    /// While it is set, a wish to wake is noted and nothing comes.
    pub(crate) lazy: Mutex<bool>,
    /// The newest wish to wake.
    pub(crate) wished: watch::Sender<Option<Epoch>>,
    /// Whose document is gone, though there is a row.
    undocumented: Mutex<HashSet<LearnerId>>,
    /// Why no pod can be made: while it is set, what is asked for is given up.
    pub(crate) impossible: Mutex<Option<&'static str>>,
}

impl Scripted {
    pub(crate) fn new(
        store: SharedStore,
        folder: PathBuf,
        verifier: Verifier,
        tracker: TaskTracker,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            store,
            folder,
            verifier,
            tracker,
            seen: Mutex::default(),
            acts: Mutex::default(),
            births: Mutex::default(),
            changes: broadcast::Sender::new(1024),
            said_ended: watch::Sender::default(),
            made: AtomicU64::new(0),
            lazy: Mutex::new(false),
            wished: watch::Sender::default(),
            undocumented: Mutex::default(),
            impossible: Mutex::new(None),
        })
    }

    /// What the learner's agent does in its next attempts; after them it repeats what it is told.
    pub(crate) fn script(&self, learner: &str, acts: impl IntoIterator<Item = Act>) {
        let learner = learner.parse().expect("a label");
        let mut all = self.acts.lock().expect("whole");
        all.entry(learner).or_default().extend(acts);
    }

    /// Pods born next stay in these phases.
    pub(crate) fn births(&self, phases: impl IntoIterator<Item = Phase>) {
        self.births.lock().expect("whole").extend(phases);
    }

    /// The learner's pod.
    pub(crate) fn pod(&self, learner: &str) -> Arc<Pod> {
        let learner: LearnerId = learner.parse().expect("a label");
        let seen = self.seen.lock().expect("whole");
        seen[&learner].1.clone().expect("a pod")
    }

    /// Kills the learner's pod.
    pub(crate) fn kill(&self, learner: &str) {
        let pod = self.pod(learner);
        pod.dead.cancel();
        self.over(&pod);
    }

    /// The learner's pod counts as ended, and lives.
    pub(crate) fn forget(&self, learner: &str) {
        self.over(&self.pod(learner));
    }

    fn over(&self, pod: &Pod) {
        let mut seen = self.seen.lock().expect("whole");
        if let Some((status, there)) = seen.get_mut(&pod.learner)
            && status.epoch == pod.epoch
        {
            status.pod = None;
            status.state = LearnerState::Asleep;
            *there = None;
        }
        drop(seen);
        let _ = self.changes.send(pod.learner.clone());
    }

    fn begin(&self, learner: &LearnerId, epoch: Epoch) -> Seen {
        let me = self.me.clone();
        let acts = self.me.clone();
        let whose = learner.clone();
        let phase = self.births.lock().expect("whole").pop_front();
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        let socket = self.folder.join(format!("{number}.sock"));
        let making = Making {
            learner: learner.clone(),
            epoch,
            store: Arc::clone(&self.store),
            script: Arc::new(move || {
                let fleet = acts.upgrade()?;
                let mut acts = fleet.acts.lock().expect("whole");
                acts.get_mut(&whose)?.pop_front()
            }),
            verifier: self.verifier.clone(),
            tracker: self.tracker.clone(),
            ended: Arc::new(move |pod| {
                if let Some(fleet) = me.upgrade() {
                    fleet.over(pod);
                }
            }),
            phase: phase.unwrap_or(Phase::Ready),
        };
        let pod = Pod::start(making, &socket);
        let status = Status {
            epoch,
            state: LearnerState::Waking,
            pod: Some(PodRef {
                name: format!("w-{number}"),
                uid: pod.uid,
                address: format!("unix:{}", socket.display()),
            }),
            start_kind: Some(StartKind::Cold),
            ..Status::default()
        };
        (status, Some(pod))
    }

    /// No pod could be made for the learner so often that the next failure is the last.
    pub(crate) async fn fails_almost_for_good(&self, learner: &str) {
        let learner = learner.parse().expect("a label");
        let status = Status {
            state: LearnerState::Failed,
            young_deaths: MOST_UNASKED - 1,
            ..Status::default()
        };
        self.turns_to(&learner, status, None).await;
    }

    /// What is wanted of the learner is given up.
    pub(crate) async fn gives_up(&self, learner: &str) {
        let learner = learner.parse().expect("a label");
        let old = self.status(&learner).await.expect("there");
        let status = given_up(old.epoch.next(), "as scripted");
        self.turns_to(&learner, status, None).await;
    }

    /// The learner's document is deleted; the row stays.
    pub(crate) fn loses_document(&self, learner: &str) {
        let learner: LearnerId = learner.parse().expect("a label");
        let mut undocumented = self.undocumented.lock().expect("whole");
        undocumented.insert(learner.clone());
        drop(undocumented);
        let _ = self.changes.send(learner);
    }

    /// The learner's pod is said to be there, which it is not.
    pub(crate) async fn is_misled(&self, learner: &str, address: String) {
        let status = Status {
            epoch: Epoch(1),
            state: LearnerState::Waking,
            pod: Some(PodRef {
                name: "w-stale".to_owned(),
                uid: PodUid(uuid::Uuid::now_v7()),
                address,
            }),
            ..Status::default()
        };
        let learner = learner.parse().expect("a label");
        self.turns_to(&learner, status, None).await;
    }

    /// The learner has a pod.
    pub(crate) async fn comes_up(&self, learner: &str) {
        let learner = learner.parse().expect("a label");
        let old = self.status(&learner).await.expect("there");
        let (status, pod) = self.begin(&learner, old.epoch.next());
        self.turns_to(&learner, status, pod).await;
    }

    async fn turns_to(&self, learner: &LearnerId, status: Status, pod: Option<Arc<Pod>>) {
        let row = self.store.learner(learner, now()).await.expect("a store");
        let old = row.expect("there").status;
        let put = self.store.put_status(learner, &old, &status, now()).await;
        assert!(put.expect("a store"), "somebody else wrote the status");
        let mut seen = self.seen.lock().expect("whole");
        seen.insert(learner.clone(), (status, pod));
        drop(seen);
        let _ = self.changes.send(learner.clone());
    }

    async fn is_there(&self, learner: &LearnerId) -> bool {
        let row = self.store.learner(learner, now()).await.expect("a store");
        row.is_some_and(|row| !row.desired.deleting) && self.lists(learner)
    }
}

fn given_up(epoch: Epoch, reason: &str) -> Status {
    Status {
        epoch,
        detail: reason.to_owned(),
        conditions: vec![Condition {
            name: names::ASSIGNED.to_owned(),
            status: ConditionStatus::False,
            reason: names::GIVEN_UP.to_owned(),
            message: reason.to_owned(),
            last_transition_time: now(),
        }],
        ..Status::default()
    }
}

#[async_trait::async_trait]
impl Fleet for Scripted {
    async fn wake(&self, learner: &LearnerId, after: Epoch) -> Result<(), Error> {
        if !self.is_there(learner).await {
            return Err(Error::NoLearner(learner.clone()));
        }
        self.wished.send_replace(Some(after));
        if *self.lazy.lock().expect("whole") {
            return Ok(());
        }
        let old = self.status(learner).await?;
        if old.epoch > after {
            return Ok(());
        }
        let impossible = *self.impossible.lock().expect("whole");
        let (status, pod) = match impossible {
            Some(reason) => (given_up(old.epoch.next(), reason), None),
            None => self.begin(learner, old.epoch.next()),
        };
        self.turns_to(learner, status, pod).await;
        Ok(())
    }

    async fn sleep(&self, learner: &LearnerId) -> Result<(), Error> {
        let pod = self
            .seen
            .lock()
            .expect("whole")
            .get(learner)
            .and_then(|(_, pod)| pod.clone());
        if let Some(pod) = pod {
            pod.dead.cancel();
            self.over(&pod);
        }
        Ok(())
    }

    async fn status(&self, learner: &LearnerId) -> Result<Status, Error> {
        if !self.is_there(learner).await {
            return Err(Error::NoLearner(learner.clone()));
        }
        let seen = self.seen.lock().expect("whole");
        let status = seen.get(learner).map(|(status, _)| status.clone());
        let status = status.unwrap_or_default();
        if status.pod.is_none() {
            self.said_ended.send_modify(|times| *times += 1);
        }
        Ok(status)
    }

    fn changes(&self) -> broadcast::Receiver<LearnerId> {
        self.changes.subscribe()
    }

    async fn discard(&self, learner: &LearnerId) -> Result<(), Error> {
        let gone = self.seen.lock().expect("whole").remove(learner);
        if let Some((_, Some(pod))) = gone {
            pod.dead.cancel();
        }
        Ok(())
    }

    async fn admits(&self, learner: &LearnerId) -> Result<(), Error> {
        if self.lists(learner) {
            return Ok(());
        }
        Err(Error::NoLearner(learner.clone()))
    }

    fn lists(&self, learner: &LearnerId) -> bool {
        !self.undocumented.lock().expect("whole").contains(learner)
    }

    async fn declare(&self, learner: &LearnerId, class: &ClassName) -> Result<(), Error> {
        if class.as_str() == "managed" {
            return Err(Error::Conflict("argocd has it in hand".to_owned()));
        }
        self.undocumented.lock().expect("whole").remove(learner);
        let _ = self.changes.send(learner.clone());
        Ok(())
    }

    async fn isolation(&self) -> Result<IsolationReport, Error> {
        Ok(IsolationReport {
            isolation: "process".to_owned(),
            limits_missing: vec!["memory".to_owned()],
            warning: "nothing isolates".to_owned(),
        })
    }
}
