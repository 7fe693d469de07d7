//! The parts of a release: their pods, the controllers' lease, the Secrets that they have mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, ResourceExt as _};

use super::bad;
use crate::client::{Client, reason_of};
use crate::cluster::{
    COMPONENTS, Cluster, Component, Right, component_of, failure, is_ready, keys_of,
};
use crate::exit::Kind;
use crate::output::{age, now};
use crate::up::Found;

/// The name of the controllers' lease.
const LEASE: &str = "carrel-controller";
/// What clocks may differ by before a lease is called old.
const CLOCKS: Duration = Duration::from_secs(30);

/// A finding for each part.
pub(super) async fn look(cluster: &Cluster, pods: &[Pod]) -> Vec<(&'static str, Found)> {
    let mut found = Vec::new();
    for component in COMPONENTS {
        let of_it: Vec<_> = pods
            .iter()
            .filter(|pod| component_of(pod) == Some(component))
            .collect();
        found.push((component.name, part(cluster, component, &of_it).await));
    }
    found
}

async fn part(cluster: &Cluster, component: Component, pods: &[&Pod]) -> Found {
    let Component { name, .. } = component;
    let label = format!("app.kubernetes.io/component={name}");
    if pods.is_empty() {
        let next = cluster.kubectl(&format!("describe deployment,replicaset -l {label}"));
        return bad("none of its pods is there", next);
    }
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let Some(first) = pods.iter().find(|pod| !is_ready(pod)) else {
        return Found::Good(format!("{ready} of {} pods ready", pods.len()));
    };
    let pod = first.name_any();
    let why = match said_by_kubelet(first) {
        Some(why) => why,
        None => said_by_itself(cluster, &pod).await,
    };
    let what = format!("{ready} of {} pods ready; {pod}: {why}", pods.len());
    let next = cluster.kubectl(&format!("describe pod {pod}"));
    if ready > 0 && first.metadata.deletion_timestamp.is_some() {
        return Found::Notice(what);
    }
    bad(what, next)
}

/// Why its container does not run.
fn said_by_kubelet(pod: &Pod) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("it is going away".to_owned());
    }
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let waiting = containers
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .find_map(|waiting| waiting.reason.clone());
    let conditions = status.conditions.iter().flatten();
    let unplaced = conditions
        .filter(|one| one.type_ == "PodScheduled" && one.status == "False")
        .find_map(|one| one.message.clone());
    waiting.or(unplaced)
}

/// What it says is missing: `/readyz` names the database and the bucket, too.
async fn said_by_itself(cluster: &Cluster, pod: &str) -> String {
    match Client::behind_health(cluster, pod).await {
        Ok(health) => match health.said("/readyz").await {
            Ok(text) => text.trim().replace('\n', "; "),
            Err(error) => reason_of(&error),
        },
        Err(error) => format!("why is not known: {error}"),
    }
}

/// Who leads, and since when nothing was heard.
pub(super) async fn lease(cluster: &Cluster) -> Found {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let logs = cluster.kubectl("logs -l app.kubernetes.io/component=controller --tail 50");
    let lease = match leases.get_opt(LEASE).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return bad("no controller has ever led", logs),
        Err(error) => {
            let right = Right {
                verb: "get",
                resource: "leases.coordination.k8s.io",
            };
            let failure = failure(cluster, right, &error);
            return match failure.kind {
                Kind::NotAllowed => Found::Notice(format!("is not looked at: {failure}")),
                _ => bad(failure, logs),
            };
        }
    };
    let spec = lease.spec.unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    let (Some(renewed), false) = (spec.renew_time, holder.is_empty()) else {
        return bad("no controller leads now: learners are not woken", logs);
    };
    // A run's identity is its pod's name and what no other run has.
    let pod = holder.rsplit_once('_').map_or(&*holder, |(pod, _)| pod);
    let now = now();
    let old = age(renewed.0, now);
    let seconds =
        u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
    let most = Duration::from_secs(seconds) + CLOCKS;
    let silent = now.duration_since(renewed.0).unsigned_abs();
    if renewed.0 < now && silent > most {
        let what = format!("{pod} held it, and has not renewed it for {old}: no controller leads");
        return bad(what, logs);
    }
    Found::Good(format!("{pod} leads, heard of {old} ago"))
}

/// Whether the Secrets have all that the pods have mounted; by name alone.
pub(super) async fn keys(cluster: &Cluster, pods: &[Pod]) -> Found {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for mounted in pods.iter().flat_map(keys_of) {
        wanted
            .entry(mounted.secret)
            .or_default()
            .insert(mounted.key);
    }
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    for (name, keys) in &wanted {
        let secret = match secrets.get_opt(name).await {
            Ok(secret) => secret,
            Err(error) => {
                let right = Right {
                    verb: "get",
                    resource: "secrets",
                };
                let why = failure(cluster, right, &error);
                return Found::Notice(format!("are not looked at: {why}"));
            }
        };
        let Some(secret) = secret else {
            let next = format!(
                "carrel keys create --secret {name} | {}",
                cluster.kubectl("create -f -")
            );
            return bad(format!("Secret '{name}' is not there"), next);
        };
        let data = secret.data.unwrap_or_default();
        let missing: Vec<_> = keys
            .iter()
            .filter(|key| !data.contains_key(*key))
            .cloned()
            .collect();
        if !missing.is_empty() {
            let what = format!("Secret '{name}' lacks {}", missing.join(", "));
            return bad(what, cluster.kubectl(&format!("describe secret {name}")));
        }
    }
    let names: Vec<_> = wanted.into_keys().collect();
    match names.as_slice() {
        [] => Found::Notice("no pod has a Secret mounted".to_owned()),
        names => Found::Good(format!(
            "{} hold all that the pods have mounted",
            names.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests;
