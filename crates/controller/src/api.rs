//! What the controller writes to the API server, each write counted, and the one thing that it reads but for its watches. Nothing else in
//! this crate writes.

use std::sync::Arc;

use carrel_crd::{Learner, LearnerSpec, LearnerStatus, names};
use carrel_telemetry::ApiWrites;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ObjectMeta, Status};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::lease::Term;

/// Why a write did not happen, as far as it is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody wrote first: look again.
    #[error("the object was changed meanwhile")]
    Conflict,
    /// It is not there.
    #[error("the object is not there")]
    NotFound,
    /// The server refuses it, and will again: a bound, a policy, a quota, a right.
    #[error("the API server refuses: {0}")]
    Refused(String),
    /// The namespace takes no more pods.
    #[error("{0}")]
    Full(String),
    /// This process does not lead (any more).
    #[error("another controller leads")]
    NotLeading,
    /// It may have happened or not.
    #[error("the API server cannot be reached")]
    Unavailable(#[source] kube::Error),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else {
            return Self::Unavailable(error);
        };
        if let Some(why) = full(status) {
            return Self::Full(why.to_owned());
        }
        match status.code {
            404 => Self::NotFound,
            409 => Self::Conflict,
            400 | 401 | 403 | 405 | 413 | 422 => Self::Refused(status.message.clone()),
            _ => Self::Unavailable(error),
        }
    }
}

/// Why a namespace has no room, or is going: another may take what this one does not. Of the message the part that is the same each time.
fn full(status: &Status) -> Option<&str> {
    let words = ["exceeded quota", "it is being terminated"];
    let at = words.iter().find_map(|words| status.message.find(words))?;
    (status.code == 403).then(|| &status.message[at..])
}

/// One pod, so that a name that is used again is not taken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodPlace {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The version that it must still have; absent: whatever became of it.
    pub(crate) version: Option<u64>,
}

/// Writes to the API server.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    namespace: String,
    writes: ApiWrites,
    term: Arc<Term>,
}

impl Writer {
    pub(crate) fn new(
        client: Client,
        namespace: String,
        writes: ApiWrites,
        term: Arc<Term>,
    ) -> Self {
        Self {
            client,
            namespace,
            writes,
            term,
        }
    }

    /// Only who leads writes.
    fn begins(&self, resource: &'static str, verb: &'static str) -> Result<(), Error> {
        if !self.term.runs() {
            return Err(Error::NotLeading);
        }
        self.writes.count(resource, verb);
        Ok(())
    }

    /// A learner's object as it is now, whatever the watch has shown; `None`: there is none.
    pub(crate) async fn learner(&self, name: &str) -> Result<Option<Learner>, Error> {
        Ok(self.learners().get_opt(name).await?)
    }

    /// Replaces a learner's status if the object is still of this version.
    pub(crate) async fn put_status(
        &self,
        name: &str,
        version: &str,
        status: LearnerStatus,
    ) -> Result<Learner, Error> {
        self.begins("learners/status", "update")?;
        let learner = Learner {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            // The server keeps the spec as it is.
            spec: LearnerSpec::default(),
            status: Some(status),
        };
        let api = self.learners();
        Ok(api.replace_status(name, &by_us(), &learner).await?)
    }

    /// Makes a pod.
    pub(crate) async fn create_pod(&self, namespace: &str, pod: &Pod) -> Result<Pod, Error> {
        self.begins("pods", "create")?;
        let pods = self.pods(namespace);
        match pods.create(&by_us(), pod).await {
            Ok(pod) => Ok(pod),
            // Only our own earlier call can have drawn the same name.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                Ok(pods.get(&pod.name_any()).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says on a pod whose it is.
    pub(crate) async fn label_pod(
        &self,
        pod: &PodPlace,
        learner: &str,
        epoch: u64,
    ) -> Result<Pod, Error> {
        self.begins("pods", "patch")?;
        let labels = json!({names::LEARNER: learner, names::EPOCH: epoch.to_string()});
        let patch = json!({"metadata": {"uid": pod.uid, "labels": labels}});
        let params = PatchParams {
            field_manager: Some(names::CONTROLLER.to_owned()),
            ..PatchParams::default()
        };
        let pods = self.pods(&pod.namespace);
        let patched = pods.patch(&pod.name, &params, &Patch::Merge(patch)).await;
        Ok(patched?)
    }

    /// Ends a pod, within its own grace period or within so many seconds. One that is gone is as good as ended.
    pub(crate) async fn delete_pod(
        &self,
        pod: &PodPlace,
        grace_seconds: Option<u32>,
    ) -> Result<(), Error> {
        self.begins("pods", "delete")?;
        let params = DeleteParams {
            grace_period_seconds: grace_seconds,
            preconditions: Some(Preconditions {
                uid: Some(pod.uid.clone()),
                resource_version: pod.version.map(|version| version.to_string()),
            }),
            ..DeleteParams::default()
        };
        match self.pods(&pod.namespace).delete(&pod.name, &params).await {
            Ok(_) => Ok(()),
            Err(error) => match error.into() {
                Error::NotFound => Ok(()),
                // Another pod has the name: ours is gone.
                Error::Conflict if pod.version.is_none() => Ok(()),
                error => Err(error),
            },
        }
    }

    fn learners(&self) -> Api<Learner> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn by_us() -> PostParams {
    PostParams {
        dry_run: false,
        field_manager: Some(names::CONTROLLER.to_owned()),
    }
}
