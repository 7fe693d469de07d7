//! Kubernetes Events about what went wrong, for `kubectl describe`. What goes as it should has none. Events of one reason about one
//! object are counted together; those that come faster than they can be written are dropped: the log has them all.

use carrel_core::LearnerId;
use carrel_crd::{Learner, LearnerClass, names};
use carrel_telemetry::ApiWrites;
use http::{Method, Request};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::client::Body;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;

use crate::names::Reason;

/// So many may wait.
const WAITING: usize = 256;
/// The most characters of a note.
const NOTE: usize = 1000;

/// Takes events and writes them when there is time.
pub(crate) struct Events {
    namespace: String,
    waiting: mpsc::Sender<(Event, ObjectReference)>,
}

/// Those that wait to be written.
pub(crate) type Waiting = mpsc::Receiver<(Event, ObjectReference)>;

/// Writes them; never returns while anybody may have one.
pub(crate) async fn write(mut next: Waiting, client: Client, identity: String, writes: ApiWrites) {
    let reporter = Reporter {
        controller: names::CONTROLLER.to_owned(),
        instance: Some(identity),
    };
    let recorder = Recorder::new(counting(client, writes), reporter);
    while let Some((event, about)) = next.recv().await {
        if let Err(error) = recorder.publish(&event, &about).await {
            tracing::debug!(
                error = crate::chain(&error),
                "an event could not be written"
            );
        }
    }
}

/// Whether an event is made or counted once more, the recorder alone knows: what it sends is counted.
fn counting(client: Client, writes: ApiWrites) -> Client {
    let send = move |request: Request<Body>| {
        let is_new = request.method() == Method::POST;
        writes.count("events", if is_new { "create" } else { "patch" });
        let client = client.clone();
        async move { client.send(request).await }
    };
    Client::new(tower::service_fn(send), "")
}

impl Events {
    pub(crate) fn new(namespace: &str) -> (Self, Waiting) {
        let (waiting, next) = mpsc::channel(WAITING);
        let namespace = namespace.to_owned();
        (Self { namespace, waiting }, next)
    }

    pub(crate) fn learner(&self, id: &LearnerId, uid: &str, reason: Reason, note: &str) {
        self.about::<Learner>(id.as_str(), uid, reason, note);
    }

    pub(crate) fn class(&self, name: &str, uid: &str, reason: Reason, note: &str) {
        self.about::<LearnerClass>(name, uid, reason, note);
    }

    fn about<K: Resource<DynamicType = ()>>(
        &self,
        name: &str,
        uid: &str,
        reason: Reason,
        note: &str,
    ) {
        let about = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: <&str>::from(reason).to_owned(),
            note: Some(note.chars().take(NOTE).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if self.waiting.try_send((event, about)).is_err() {
            tracing::debug!(name, ?reason, "an event was dropped: too many wait");
        }
    }
}
