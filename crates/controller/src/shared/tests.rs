//! A controller's parts without a cluster: whoever asks the API server is told that it is away, unless the test answers.

use carrel_core::class::ClassSpec;
use carrel_core::learner::{Desired, PodRef, Status};
use carrel_core::{Epoch, LearnerId};
use carrel_crd::Beside;
use carrel_protocol::token::Signer;
use carrel_telemetry::Registry;
use carrel_wire::Trust;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use prometheus_client::encoding::text::encode;

use super::*;
use crate::events::Waiting;
use crate::gate::Budget;
use crate::world::Known;
use crate::world::pods::tests::pod;

/// An API server that a test plays.
pub(crate) type Server = tower_test::mock::Handle<Request<Body>, Response<Body>>;

/// A controller's parts.
pub(crate) struct Parts {
    pub(crate) shared: Handle,
    pub(crate) events: Waiting,
    registry: Registry,
}

impl Parts {
    /// Of a leader that lets in so many.
    pub(crate) fn new(live: u32, starting: u32) -> Self {
        Self::of(options(Budget {
            live,
            starting,
            per_second: 1000,
        }))
    }

    fn of(options: Options) -> Self {
        let (client, _) = server();
        let mut registry = carrel_telemetry::registry("0");
        let metrics = Metrics::register(&mut registry);
        let (events, waiting) = Events::new("carrel");
        let term = Arc::new(Term::default());
        term.lasts(Instant::now() + Duration::from_hours(1));
        let writes = metrics.writes.clone();
        let writer = Writer::new(client, "carrel".to_owned(), writes, Arc::clone(&term));
        let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
        let shared = Shared::new(options, writer, events, metrics, cancel, tracker, term);
        Self {
            shared,
            events: waiting,
            registry,
        }
    }

    /// What a line of the metrics says that begins so; `0` when there is none.
    pub(crate) fn metric(&self, begins: &str) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(begins));
        line.unwrap_or("0").trim().to_owned()
    }
}

/// A client, and who answers it.
pub(crate) fn server() -> (Client, Server) {
    let (service, server) = tower_test::mock::pair();
    (Client::new(service, "carrel"), server)
}

pub(crate) fn id(name: &str) -> LearnerId {
    name.parse().unwrap()
}

/// So many seconds after the time at which everything begins.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_783_591_200 + second).unwrap()
}

fn options(budget: Budget) -> Options {
    let signer = Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap();
    let nowhere = || "http://127.0.0.1:9".parse().unwrap();
    Options {
        namespace: "carrel".to_owned(),
        identity: "this".to_owned(),
        budget,
        refills_per_second: 100,
        pods: crate::template::tests::options(),
        signer,
        callers: Vec::new(),
        trust: Trust::default(),
        router: nowhere(),
        vault: nowhere(),
        egress: None,
        time_zone: "UTC".to_owned(),
        locale: "C.UTF-8".to_owned(),
        now: || at(0),
    }
}

/// A learner of the class `free` who is asked for after this epoch, and sleeps after it.
pub(crate) fn asked(epoch: u64) -> Known {
    Known {
        uid: "u".to_owned(),
        version: 1,
        generation: None,
        class: "free".to_owned(),
        desired: Desired {
            wake_after_epoch: Some(Epoch(epoch)),
            ..Desired::default()
        },
        restore: None,
        status: Status {
            epoch: Epoch(epoch),
            ..Status::default()
        },
        beside: Beside::default(),
        is_visited: true,
    }
}

/// The same, whom a pod serves, ready.
pub(crate) fn ready(epoch: u64, pod: &SeenPod) -> Known {
    let mut known = asked(epoch);
    known.status.state = LearnerState::Ready;
    known.status.since = Some(at(0));
    known.status.pod = Some(PodRef {
        name: format!("{}/{}", pod.namespace, pod.name),
        uid: pod.uid,
        address: "http://127.0.0.1:9".to_owned(),
    });
    known
}

/// The class `free` with a pool of so many pods; its pods are those of [`crate::world::pods::tests::pod`].
pub(crate) fn class(pool: u32) -> Arc<Class> {
    let mut spec = ClassSpec::default();
    spec.warm_pool.size = pool;
    Arc::new(Class {
        name: "free".to_owned(),
        uid: "class".to_owned(),
        generation: Some(1),
        spec,
        hash: "abc".to_owned(),
    })
}

/// Three learner namespaces that take so many pods each, with so many in them.
fn with_pods(most: usize, counts: [u128; 3]) -> Parts {
    let mut options = options(Budget {
        live: 1,
        starting: 1,
        per_second: 1,
    });
    options.pods.most_in_namespace = most;
    options.pods.namespaces = (0..3).map(|number| format!("learners-{number}")).collect();
    let parts = Parts::of(options);
    for (place, count) in (0..).zip(counts) {
        for number in 0..count {
            let mut one = pod(100 * place + number, 1, Life::Running);
            one.namespace = format!("learners-{place}");
            parts.shared.world().pods.put(one);
        }
    }
    parts
}

#[tokio::test]
async fn a_pod_is_made_where_the_fewest_are_also_of_those_that_are_being_made() {
    let parts = with_pods(3, [2, 0, 1]);
    let next = || parts.shared.roomiest().map_err(|(_, why)| why).unwrap();
    assert_eq!(next().namespace, "learners-1");
    let places = [next(), next(), next(), next()];
    let chosen = places.each_ref().map(|place| place.namespace.as_str());
    let fewest = ["learners-1", "learners-1", "learners-2", "learners-0"];
    assert_eq!(chosen, fewest);
    drop(places);
    assert_eq!(next().namespace, "learners-1", "none was made after all");
}

#[tokio::test]
async fn where_each_namespace_has_as_many_pods_as_it_may_none_is_made_and_it_is_said() {
    let parts = with_pods(2, [2, 1, 2]);
    let last = parts.shared.roomiest().map_err(|(_, why)| why).unwrap();
    assert_eq!(last.namespace, "learners-1");
    let (until, why) = parts.shared.roomiest().map(drop).unwrap_err();
    assert_eq!((until, why.as_str()), (at(5), "each has 2 pods"));
}
