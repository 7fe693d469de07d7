//! A release of Carrel in a namespace, known by the labels of its chart: which of its pods to speak to, and the Secret with the
//! admin token that they have mounted.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Cluster, Right, Tunnel, failure};
use crate::exit::{Failure, Kind};

const LIST_PODS: Right = Right {
    verb: "list",
    resource: "pods",
};
const GET_SECRETS: Right = Right {
    verb: "get",
    resource: "secrets",
};
const PART_OF: &str = "app.kubernetes.io/part-of=carrel";
const INSTANCE: &str = "app.kubernetes.io/instance";
const COMPONENT: &str = "app.kubernetes.io/component";
/// The file as which pods have the admin token.
const TOKEN_FILE: &str = "admin.token";

/// The port of the health paths of all parts.
const HEALTH: u16 = 7079;

/// A part of a release that has pods of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Component {
    /// As its label has it.
    pub(crate) name: &'static str,
    /// What its port is called, and its number where the pod does not say.
    pub(crate) port: (&'static str, u16),
}

const GATEWAY: Component = Component {
    name: "gateway",
    port: ("http", 7070),
};
const ROUTER: Component = Component {
    name: "router",
    port: ("models", 7071),
};
const VAULT: Component = Component {
    name: "vault",
    port: ("vault", 7072),
};
const CONTROLLER: Component = Component {
    name: "controller",
    port: ("health", HEALTH),
};
/// All of them.
pub(crate) const COMPONENTS: [Component; 4] = [GATEWAY, ROUTER, VAULT, CONTROLLER];

/// A file of a Secret, as a pod has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) secret: String,
    pub(crate) key: String,
    file: String,
}

/// A way to a component, and the right to command it.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) tunnel: Tunnel,
    pub(crate) token: String,
    /// How it is called in messages and in the Host header.
    pub(crate) name: String,
}

impl Cluster {
    /// A way to a gateway of the release that is ready.
    pub(crate) async fn gateway(&self) -> anyhow::Result<Reached> {
        self.reach(GATEWAY).await
    }

    /// A way to its router.
    pub(crate) async fn router(&self) -> anyhow::Result<Reached> {
        self.reach(ROUTER).await
    }

    /// A way to the health paths of a pod.
    pub(crate) async fn health(&self, pod: &str) -> anyhow::Result<Reached> {
        Ok(Reached {
            tunnel: Tunnel::open(self, pod, HEALTH).await?,
            token: String::new(),
            name: pod.to_owned(),
        })
    }

    async fn reach(&self, component: Component) -> anyhow::Result<Reached> {
        let pods = self.pods().await?;
        if pods.is_empty() {
            return Err(self.absent().await.into());
        }
        let pod = choose(self, &pods, component)?;
        let token = self.token(pod).await?;
        let name = pod.name_any();
        let tunnel = Tunnel::open(self, &name, port(pod, component.port)).await?;
        Ok(Reached {
            tunnel,
            token,
            name,
        })
    }

    /// The pods of the namespace that are Carrel's own.
    pub(crate) async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = pods.list(&ListParams::default().labels(PART_OF)).await;
        let mut found = found
            .map_err(|error| failure(self, LIST_PODS, &error))?
            .items;
        found.retain(|pod| component_of(pod).is_some());
        Ok(found)
    }

    /// Nothing of Carrel is in the namespace; where it is instead, as far as the user may see.
    pub(crate) async fn absent(&self) -> Failure {
        let all: Api<Pod> = Api::all(self.client.clone());
        let labels = format!("{PART_OF},{COMPONENT}={}", GATEWAY.name);
        let elsewhere = all.list(&ListParams::default().labels(&labels)).await;
        let mut namespaces: Vec<_> = elsewhere
            .map(|list| {
                list.items
                    .iter()
                    .filter_map(ResourceExt::namespace)
                    .collect()
            })
            .unwrap_or_default();
        namespaces.sort();
        namespaces.dedup();
        let there = match namespaces.as_slice() {
            [] => String::new(),
            some => format!(" (there is one in {})", some.join(", ")),
        };
        let message = format!(
            "no release of Carrel is in namespace '{}' of context '{}': name its namespace by --namespace{there}",
            self.namespace, self.context
        );
        Failure::new(Kind::NotFound, message)
    }

    /// The admin token, from the Secret that the pod has it of.
    async fn token(&self, pod: &Pod) -> anyhow::Result<String> {
        let mounted = keys_of(pod).into_iter().find(|key| key.file == TOKEN_FILE);
        let Mounted { secret, key, .. } = mounted.ok_or_else(|| {
            let message = format!(
                "pod '{}' has no Secret with {TOKEN_FILE}: name the server by --server and --token-file",
                pod.name_any()
            );
            Failure::new(Kind::Failed, message)
        })?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = secrets.get(&secret).await;
        let found = found.map_err(|error| failure(self, GET_SECRETS, &error))?;
        let token = found.data.and_then(|mut data| data.remove(&key));
        let token = token.and_then(|bytes| String::from_utf8(bytes.0).ok());
        let token = token.ok_or_else(|| {
            let message = format!(
                "Secret '{secret}' has no text under '{key}', where the admin token should be"
            );
            Failure::new(Kind::Failed, message)
        })?;
        Ok(token.trim().to_owned())
    }
}

/// A pod of the component that takes calls, of the namespace's only release.
fn choose<'a>(
    cluster: &Cluster,
    pods: &'a [Pod],
    component: Component,
) -> Result<&'a Pod, Failure> {
    let mut releases: Vec<_> = pods.iter().map(instance_of).collect();
    releases.sort_unstable();
    releases.dedup();
    if releases.len() > 1 {
        let message = format!(
            "namespace '{}' holds several releases of Carrel ({}): name one's server by --server and --token-file",
            cluster.namespace,
            releases.join(", ")
        );
        return Err(Failure::new(Kind::Usage, message));
    }
    let mut of_it = pods
        .iter()
        .filter(|pod| component_of(pod) == Some(component));
    of_it.find(|pod| is_ready(pod)).ok_or_else(|| {
        let Component { name, .. } = component;
        let message = format!(
            "no {name} of release '{}' is ready: {}",
            releases.concat(),
            cluster.kubectl(&format!("get pods -l {COMPONENT}={name}"))
        );
        Failure::new(Kind::Away, message)
    })
}

/// Which part of a release a pod is; `None` for learners' pods, jobs and strangers.
pub(crate) fn component_of(pod: &Pod) -> Option<Component> {
    let name = pod.labels().get(COMPONENT)?;
    COMPONENTS.into_iter().find(|known| known.name == name)
}

/// The release that a pod is of.
pub(crate) fn instance_of(pod: &Pod) -> &str {
    pod.labels().get(INSTANCE).map_or("", String::as_str)
}

/// Whether it takes calls, and goes on to.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|one| one.type_ == "Ready" && one.status == "True")
}

fn port(pod: &Pod, (name, number): (&str, u16)) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let said = ports.find(|port| port.name.as_deref() == Some(name));
    said.and_then(|port| u16::try_from(port.container_port).ok())
        .unwrap_or(number)
}

/// The files of Secrets that a pod has in its projected volumes.
pub(crate) fn keys_of(pod: &Pod) -> Vec<Mounted> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten());
    let secrets = sources.filter_map(|source| source.secret.as_ref());
    let keys = secrets.flat_map(|secret| {
        let items = secret.items.iter().flatten();
        items.map(|item| Mounted {
            secret: secret.name.clone(),
            key: item.key.clone(),
            file: item.path.clone(),
        })
    });
    keys.collect()
}

#[cfg(test)]
mod tests;
