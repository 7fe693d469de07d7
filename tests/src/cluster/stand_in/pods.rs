//! The pods of the cluster: whose an address is, and how one ends.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::wait::eventually;

/// The container whose last words are the pod's.
const SIDECAR: &str = "sidecar";
/// Before a watch that broke goes on.
const AGAIN: Duration = Duration::from_millis(500);
/// What somebody else has seen of a pod is seen here by then.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// A pod's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl PodName {
    pub(super) fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How a pod ends.
#[derive(Debug, Clone)]
pub enum End {
    /// Its sidecar ends, and with it the pod.
    Exits {
        /// Its exit code: with 0 the pod has succeeded.
        code: i32,
        /// Its last words; `None` if it was killed without any.
        farewell: Option<Value>,
    },
    /// The kubelet ends it for want of room on the node, and says of no container how it ended.
    Evicted,
}

impl End {
    /// It ended by itself, with these words.
    ///
    /// # Panics
    /// When they are no JSON.
    pub fn with(farewell: &impl Serialize) -> Self {
        Self::Exits {
            code: 0,
            farewell: Some(serde_json::to_value(farewell).expect("last words are JSON")),
        }
    }

    /// It was killed.
    pub fn killed() -> Self {
        Self::Exits {
            code: 137,
            farewell: None,
        }
    }

    /// The pod's phase, and why it is in it.
    fn phase(&self) -> Value {
        match self {
            Self::Exits { code: 0, .. } => json!({"phase": "Succeeded"}),
            Self::Exits { .. } => json!({"phase": "Failed"}),
            Self::Evicted => json!({
                "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
            }),
        }
    }

    /// What is said of a container; `None`: nothing.
    fn said_of(&self, container: &Container) -> Option<Value> {
        let Self::Exits { code, farewell } = self else {
            return None;
        };
        let reason = if *code == 0 { "Completed" } else { "Error" };
        let mut ended = json!({"exitCode": code, "reason": reason});
        if let Some(farewell) = farewell.as_ref().filter(|_| container.name == SIDECAR) {
            ended["message"] = farewell.to_string().into();
        }
        Some(json!({
            "name": container.name,
            "image": container.image,
            "imageID": "",
            "ready": false,
            "restartCount": 0,
            "state": {"terminated": ended},
        }))
    }
}

/// The cluster's pods, watched.
pub(super) struct Pods {
    client: kube::Client,
    store: Store<Pod>,
}

impl Pods {
    pub(super) async fn watch(
        client: kube::Client,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let (store, writer) = reflector::store();
        let pods = watcher(Api::all(client.clone()), watcher::Config::default());
        // A sidecar knows its pod: no pause grows while there is no API server.
        let watching = pods.reflect(writer).for_each(|seen| async move {
            if seen.is_err() {
                tokio::time::sleep(AGAIN).await;
            }
        });
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(watching));
        store.wait_until_ready().await.context("watching pods")?;
        Ok(Self { client, store })
    }

    /// The pod that runs at this address now.
    pub(super) async fn at(&self, address: IpAddr) -> Option<(PodName, String)> {
        let address = address.to_string();
        let runs = |pod: &Pod| {
            let status = pod.status.as_ref();
            status.is_some_and(|status| {
                status.pod_ip.as_deref() == Some(&address)
                    && status.phase.as_deref() == Some("Running")
            })
        };
        let seen = eventually("the pod of this address is seen", SEEN_WITHIN, || async {
            let pod = self.store.find(runs);
            Ok(pod.map(|pod| (PodName::of(&pod), pod.uid().unwrap_or_default())))
        });
        seen.await.ok()
    }

    pub(super) async fn uid(&self, name: &PodName) -> anyhow::Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &name.namespace);
        pods.get(&name.name).await?.uid().context("a pod has a uid")
    }

    /// Writes into a pod's status that it has ended.
    pub(super) async fn end(&self, name: &PodName, end: &End) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &name.namespace);
        let pod = pods.get(&name.name).await?;
        let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
        let statuses = containers.iter().map(|container| end.said_of(container));
        let statuses: Option<Vec<Value>> = statuses.collect();
        let not_ready =
            ["Ready", "ContainersReady"].map(|kind| json!({"type": kind, "status": "False"}));
        let mut status = end.phase();
        // They are merged by their type, as a kubelet's are.
        status["conditions"] = not_ready.to_vec().into();
        status["containerStatuses"] = statuses.into();
        let patch = Patch::Strategic(json!({"status": status}));
        pods.patch_status(&name.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
}
