//! One server that answers for the sidecars of all fake pods: they have addresses of this machine, so it knows by the address that
//! was called which pod was meant. What it answers is the script of the learner whose pod becomes.

mod answers;
mod pods;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use carrel_protocol::sidecar::Phase;
use carrel_protocol::{Code, Problem};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub(super) use answers::claims;
use pods::Pods;
pub use pods::{End, PodName};

/// What a pod does once it is told whose it is.
#[derive(Debug, Clone)]
pub struct Script {
    /// What comes of the assignment.
    pub assignment: Answer,
    /// How far it then is, until [`StandIn::report`] says otherwise.
    pub phase: Phase,
    /// How it ends as soon as it is asked to sleep; `None`: not by itself.
    pub asleep: Option<End>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            assignment: Answer::Takes,
            phase: Phase::Ready,
            asleep: None,
        }
    }
}

/// What comes of an assignment.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It is taken.
    Takes,
    /// It is taken after a while.
    TakesAfter(Duration),
    /// It is taken, and no answer comes.
    TakesSilently,
    /// It is not taken, and no answer comes.
    Silence,
    /// It is refused.
    Refuses(Box<Problem>),
}

/// An assignment that came.
#[derive(Debug, Clone)]
pub struct Assigned {
    /// The pod that was called.
    pub pod: PodName,
    /// Its uid.
    pub uid: String,
    /// The learner.
    pub learner: String,
    /// The incarnation.
    pub epoch: u64,
    /// All that it said.
    pub payload: Value,
    /// When it came.
    pub at: Instant,
    /// Why it was not taken.
    pub refused: Option<Code>,
}

/// The server. Dropping it ends it.
pub struct StandIn {
    port: u16,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    pods: Pods,
    state: Mutex<State>,
    /// Wakes whoever waits for news.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// By the pod's uid.
    sidecars: HashMap<String, Sidecar>,
    scripts: HashMap<String, Script>,
    otherwise: Script,
    assignments: Vec<Assigned>,
    sleeps: Vec<PodName>,
    /// The uid of the pod and the text of each turn that came.
    turns: Vec<(String, String)>,
    /// With what turns end that the test has ended and that have not said so yet, by the pod's uid.
    ends: HashMap<String, Value>,
    /// The uid of the pod that was called, and for whom the token was.
    misdirected: Vec<(String, String)>,
    /// The uids of pods of which nothing is heard any more.
    silent: HashSet<String>,
}

/// What the sidecar of a pod that was assigned knows.
#[derive(Debug, Clone)]
struct Sidecar {
    learner: String,
    epoch: u64,
    phase: Phase,
    detail: String,
    revision: u64,
}

impl State {
    /// The sidecar of a pod that was assigned is in another phase.
    fn enters(&mut self, uid: &str, phase: Phase) {
        if let Some(sidecar) = self.sidecars.get_mut(uid) {
            sidecar.phase = phase;
            sidecar.revision += 1;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StandIn {
    /// Starts it for the pods that this client sees.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(client: kube::Client) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").await?;
        let port = listener.local_addr()?.port();
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            pods: Pods::watch(client, &stop).await?,
            state: Mutex::default(),
            news: watch::Sender::new(()),
        });
        let served = answers::serve(listener, Arc::clone(&shared));
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(served));
        Ok(Self {
            port,
            shared,
            _stop: stop.drop_guard(),
        })
    }

    /// The port of all sidecars.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What pods do that become this learner's from now on.
    pub fn play(&self, learner: &str, script: Script) {
        self.shared
            .state()
            .scripts
            .insert(learner.to_owned(), script);
    }

    /// What pods do that become a learner's of whom nothing else was said.
    pub fn otherwise(&self, script: Script) {
        self.shared.state().otherwise = script;
    }

    /// All assignments that came, in their order.
    pub fn assignments(&self) -> Vec<Assigned> {
        self.shared.state().assignments.clone()
    }

    /// The pods that were asked to sleep, in the order in which they were.
    pub fn sleeps(&self) -> Vec<PodName> {
        self.shared.state().sleeps.clone()
    }

    /// The turns that came, in their order: the pod's uid and the message's text.
    pub fn turns(&self) -> Vec<(String, String)> {
        self.shared.state().turns.clone()
    }

    /// Ends the turn that runs in the pod of this uid, with a last frame as `carrel_protocol::sidecar::Frame` has it. Its sidecar rests
    /// then.
    pub fn ends_turn(&self, uid: &str, last: Value) {
        let mut state = self.shared.state();
        state.ends.insert(uid.to_owned(), last);
        state.enters(uid, Phase::Ready);
        drop(state);
        self.shared.news.send_replace(());
    }

    /// Calls that were meant for another's pod, in their order: the uid of the one that was called, and the learner who was meant.
    pub fn misdirected(&self) -> Vec<(String, String)> {
        self.shared.state().misdirected.clone()
    }

    /// How far the sidecar of a pod is from now on, and why. Whoever waits for news of it hears it.
    ///
    /// # Errors
    /// When there is no such pod, or nobody's.
    pub async fn report(&self, pod: &PodName, phase: Phase, detail: &str) -> anyhow::Result<()> {
        let uid = self.shared.pods.uid(pod).await?;
        if let Some(sidecar) = self.shared.state().sidecars.get_mut(&uid) {
            sidecar.phase = phase;
            detail.clone_into(&mut sidecar.detail);
            sidecar.revision += 1;
        } else {
            anyhow::bail!("pod {pod} was not assigned");
        }
        self.shared.news.send_replace(());
        Ok(())
    }

    /// Nothing is heard any more of the pods that are this learner's now.
    pub fn silence(&self, learner: &str) {
        let mut state = self.shared.state();
        let theirs = state
            .sidecars
            .iter()
            .filter(|(_, sidecar)| sidecar.learner == learner);
        let uids: Vec<String> = theirs.map(|(uid, _)| uid.clone()).collect();
        state.silent.extend(uids);
    }

    /// Ends the containers of a pod, as a kubelet would tell it.
    ///
    /// # Errors
    /// When there is no such pod.
    pub async fn end(&self, pod: &PodName, end: &End) -> anyhow::Result<()> {
        self.shared.pods.end(pod, end).await
    }
}
