//! A pod as far as the controller cares: one flat record, read from what the API server shows.

use carrel_core::{Epoch, LearnerId, PodUid};
use carrel_crd::names;
use carrel_protocol::sidecar::Farewell;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod, PodCondition, PodStatus};

use crate::api::PodPlace;

/// How far a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    /// Not ready yet.
    Starting,
    /// Its sidecar answers, and has not ended.
    Running,
    /// It is being deleted and has until then.
    Leaving {
        /// When its grace period ends.
        until: Timestamp,
    },
    /// Its sidecar has ended.
    Ended {
        /// Its last word, if it had one.
        farewell: Option<Farewell>,
        /// What the kubelet says.
        reason: String,
    },
}

/// A pod as far as the controller cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenPod {
    pub(crate) uid: PodUid,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) hash: String,
    pub(crate) learner: Option<LearnerId>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) address: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) created: Timestamp,
    /// Whether its node says that it is ready; false, too, when the node is silent.
    pub(crate) ready: bool,
    /// What it waits for before it can start, for people; may be empty.
    pub(crate) waits: String,
    pub(crate) life: Life,
    /// It was told to go, before it ended or after.
    pub(crate) deleted: bool,
    /// It is gone from the API server; how it ended is still to be heard.
    pub(crate) gone: bool,
}

impl SeenPod {
    /// Reads a pod of ours; `None` for one that cannot be, a stranger with our labels say.
    pub(crate) fn read(pod: &Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let labels = metadata.labels.as_ref()?;
        let status = pod.status.as_ref();
        let ready = is_ready(status);
        Some(Self {
            uid: metadata.uid.as_deref()?.parse().ok()?,
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            version: version(metadata.resource_version.as_deref()),
            hash: labels.get(names::CLASS_HASH)?.clone(),
            learner: labels.get(names::LEARNER).and_then(|id| id.parse().ok()),
            epoch: labels
                .get(names::EPOCH)
                .and_then(|n| n.parse().ok())
                .map(Epoch),
            address: status.and_then(|status| status.pod_ip.clone()),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            created: metadata.creation_timestamp.as_ref()?.0,
            ready,
            waits: status.map(unschedulable).unwrap_or_default(),
            life: life(pod, ready),
            deleted: metadata.deletion_timestamp.is_some(),
            gone: false,
        })
    }

    /// Where its sidecar listens.
    pub(crate) fn url(&self, port: u16) -> Option<String> {
        let address = self.address.as_deref()?;
        Some(if address.contains(':') {
            format!("http://[{address}]:{port}")
        } else {
            format!("http://{address}:{port}")
        })
    }

    /// Which it is, for writes.
    pub(crate) fn place(&self) -> PodPlace {
        PodPlace {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.to_string(),
            version: None,
        }
    }

    /// Whether it may become somebody's.
    pub(crate) fn is_blank(&self) -> bool {
        let lives = matches!(self.life, Life::Starting | Life::Running);
        self.learner.is_none() && lives && !self.gone
    }

    /// Whether it has ended, or is not there any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.gone || matches!(self.life, Life::Ended { .. })
    }

    /// Why it ended, in its own words or the kubelet's; `None`: it has not.
    pub(crate) fn end(&self) -> Option<&str> {
        let Life::Ended { farewell, reason } = &self.life else {
            return None;
        };
        let own = farewell.as_ref().map(|last| last.reason.as_str());
        Some(own.filter(|own| !own.is_empty()).unwrap_or(reason))
    }
}

/// A version as a number, by which the newer of two is known. (They are to be compared for equality alone by contract before
/// Kubernetes 1.35, and were numbers of etcd always.) Anything else is older than all.
pub(crate) fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn is_ready(status: Option<&PodStatus>) -> bool {
    let mut conditions = status.into_iter().flat_map(conditions);
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Why no node takes it, as the scheduler says; empty when one does.
fn unschedulable(status: &PodStatus) -> String {
    let mut conditions = conditions(status);
    let refused = conditions
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let why = refused.map(|condition| condition.message.clone().unwrap_or_default());
    why.map_or_else(String::new, |why| format!("no node takes it: {why}"))
}

fn conditions(status: &PodStatus) -> impl Iterator<Item = &PodCondition> {
    status.conditions.iter().flatten()
}

fn life(pod: &Pod, ready: bool) -> Life {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let ended = status.and_then(sidecar_end);
    if ended.is_some() || matches!(phase, Some("Succeeded" | "Failed")) {
        let message = ended.and_then(|ended| ended.message.as_deref());
        return Life::Ended {
            farewell: message.and_then(Farewell::read),
            reason: status
                .map(|status| reason(status, ended))
                .unwrap_or_default(),
        };
    }
    if let Some(reason) = status.and_then(stuck)
        && pod.metadata.deletion_timestamp.is_none()
    {
        return Life::Ended {
            farewell: None,
            reason,
        };
    }
    match (&pod.metadata.deletion_timestamp, ready) {
        (Some(until), _) => Life::Leaving { until: until.0 },
        (None, true) => Life::Running,
        (None, false) => Life::Starting,
    }
}

/// What the kubelet says of a container that will not start by waiting: it tries again for ever, and the pod is nobody's meanwhile.
const STUCK: [&str; 5] = [
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
];

/// Why a pod will never start, for people.
fn stuck(status: &PodStatus) -> Option<String> {
    let of = [&status.init_container_statuses, &status.container_statuses];
    of.into_iter().flatten().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting
            .reason
            .as_deref()
            .filter(|reason| STUCK.contains(reason))?;
        let message = waiting.message.as_deref().unwrap_or_default();
        Some(format!(
            "the container '{}' cannot be started: {reason}: {message}",
            container.name
        ))
    })
}

fn sidecar_end(status: &PodStatus) -> Option<&ContainerStateTerminated> {
    let containers = status.container_statuses.as_ref()?;
    let sidecar = containers
        .iter()
        .find(|container| container.name == names::SIDECAR)?;
    sidecar.state.as_ref()?.terminated.as_ref()
}

/// What the kubelet says of an end, for people.
fn reason(status: &PodStatus, ended: Option<&ContainerStateTerminated>) -> String {
    let of_pod = [&status.reason, &status.message];
    let said: Vec<&str> = of_pod.into_iter().flatten().map(String::as_str).collect();
    if !said.is_empty() {
        return said.join(": ");
    }
    let killed = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            let why = ended.reason.as_deref().filter(|why| *why == "OOMKilled")?;
            Some(format!(
                "the container '{}' was ended: {why}",
                container.name
            ))
        });
    let unmade = || {
        let mut begun = status.init_container_statuses.iter().flatten();
        begun.find_map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            let why = ended.message.as_ref().or(ended.reason.as_ref())?;
            (ended.exit_code != 0).then(|| {
                format!(
                    "the container '{}' did not do its work: {why}",
                    container.name
                )
            })
        })
    };
    killed.or_else(unmade).unwrap_or_else(|| match ended {
        Some(ended) => format!("its sidecar ended with status {}", ended.exit_code),
        None => "its pod failed".to_owned(),
    })
}

#[cfg(test)]
mod tests;
