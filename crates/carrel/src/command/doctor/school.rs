//! The objects of a release and what is around learners' pods: classes, learners, pools, policies.

use carrel_core::lifecycle::names;
use carrel_crd::{Learner, LearnerClass, names as labels};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::bad;
use crate::cluster::{Cluster, Right, failure, is_ready};
use crate::config;
use crate::up::Found;

/// Objects that one call asks for.
const PAGE: u32 = 500;
/// How many names are said.
const FIRST: usize = 5;

/// A finding for each.
pub(super) async fn look(cluster: &Cluster) -> Vec<(&'static str, Found)> {
    let namespaces = learner_namespaces(cluster).await;
    let classes =
        all::<LearnerClass>(cluster, &cluster.namespace, "", "learnerclasses.carrel.dev").await;
    let learners = all::<Learner>(cluster, &cluster.namespace, "", "learners.carrel.dev").await;
    let pools = match &classes {
        Ok(classes) => pools(cluster, classes, &namespaces).await,
        Err(_) => Found::Notice("are not looked at without the classes".to_owned()),
    };
    vec![
        (
            "classes",
            classes.map_or_else(|found| found, |all| usable(cluster, &all)),
        ),
        (
            "learners",
            learners.map_or_else(|found| found, |all| well(cluster, &all)),
        ),
        ("pools", pools),
        ("network policies", policies(cluster, &namespaces).await),
    ]
}

/// All objects of a kind, page by page.
async fn all<K>(
    cluster: &Cluster,
    namespace: &str,
    labels: &str,
    resource: &'static str,
) -> Result<Vec<K>, Found>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(cluster.client.clone(), namespace);
    let right = Right {
        verb: "list",
        resource,
    };
    let mut params = ListParams::default().limit(PAGE).labels(labels);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await;
        let page = page.map_err(|error| {
            let next = cluster.kubectl(&format!("get {resource}"));
            bad(failure(cluster, right, &error), next)
        })?;
        let next = page
            .metadata
            .continue_
            .clone()
            .filter(|next| !next.is_empty());
        found.extend(page.items);
        match next {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(found),
        }
    }
}

/// Where pods are made, by the release's configuration; empty when it cannot be read.
async fn learner_namespaces(cluster: &Cluster) -> Vec<String> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let labels = "app.kubernetes.io/part-of=carrel,app.kubernetes.io/component=config";
    let Ok(maps) = maps.list(&ListParams::default().labels(labels)).await else {
        return Vec::new();
    };
    let texts = maps
        .items
        .into_iter()
        .filter_map(|map| map.data?.remove("carrel.yaml"));
    let read = texts.filter_map(|text| {
        config::read(vec![("carrel.yaml".into(), text)], std::iter::empty()).ok()
    });
    read.flat_map(|loaded| loaded.config.kubernetes.learner_namespaces)
        .collect()
}

fn usable(cluster: &Cluster, classes: &[LearnerClass]) -> Found {
    let broken = classes.iter().filter_map(|class| {
        let why = class.spec.to_class().err()?;
        Some((class.name_any(), why))
    });
    match broken.collect::<Vec<_>>().as_slice() {
        [] => Found::Good(format!("{} looked at, all can be used", classes.len())),
        broken @ [(first, _), ..] => {
            let said: Vec<_> = broken
                .iter()
                .map(|(name, why)| format!("'{name}' ({why})"))
                .collect();
            bad(
                format!("cannot be used: {}", said.join(", ")),
                cluster.kubectl(&format!("edit learnerclass {first}")),
            )
        }
    }
}

fn well(cluster: &Cluster, learners: &[Learner]) -> Found {
    let with = |is_so: fn(&carrel_crd::learner::Condition) -> bool| -> Vec<String> {
        let of = learners.iter().filter(|learner| {
            let status = learner.status.as_ref();
            status.is_some_and(|status| status.conditions.iter().any(is_so))
        });
        of.map(ResourceExt::name_any).collect()
    };
    let failed = with(|one| {
        (one.name == names::READY && one.reason == "Failed") || one.reason == names::GIVEN_UP
    });
    let at_risk = with(|one| one.name == names::DATA_AT_RISK && one.status == "True");
    let unseen = learners
        .iter()
        .filter(|learner| learner.status.is_none())
        .count();
    let mut said = Vec::new();
    if !failed.is_empty() {
        said.push(format!(
            "{} cannot be started: {}",
            failed.len(),
            first(&failed)
        ));
    }
    if !at_risk.is_empty() {
        said.push(format!(
            "of {} something may be lost: {}",
            at_risk.len(),
            first(&at_risk)
        ));
    }
    if unseen > 0 {
        said.push(format!("{unseen} no controller has looked at yet"));
    }
    match failed.first().or(at_risk.first()) {
        Some(name) => bad(
            said.join("; "),
            cluster.kubectl(&format!("describe learner {name}")),
        ),
        None if unseen > 0 => Found::Notice(said.join("; ")),
        None => Found::Good(format!("{} looked at, none has failed", learners.len())),
    }
}

fn first(names: &[String]) -> String {
    let more = if names.len() > FIRST { ", …" } else { "" };
    let first: Vec<_> = names.iter().take(FIRST).map(String::as_str).collect();
    format!("{}{more}", first.join(", "))
}

/// Whether as many blank pods are ready as the classes say.
async fn pools(cluster: &Cluster, classes: &[LearnerClass], namespaces: &[String]) -> Found {
    let with_pools: Vec<_> = classes
        .iter()
        .filter(|class| class.spec.warm_pool.size > 0)
        .collect();
    if with_pools.is_empty() {
        return Found::Good("no class has one".to_owned());
    }
    if namespaces.is_empty() {
        let told = "are not looked at: the release's ConfigMap does not say where pods are made";
        return Found::Notice(told.to_owned());
    }
    let blank = format!(
        "{}={},{}={},!{}",
        labels::PART_OF.0,
        labels::PART_OF.1,
        labels::COMPONENT.0,
        labels::COMPONENT.1,
        labels::LEARNER
    );
    let mut pods = Vec::new();
    for namespace in namespaces {
        match all::<Pod>(cluster, namespace, &blank, "pods").await {
            Ok(found) => pods.extend(found),
            Err(Found::Bad { what, .. }) => {
                return Found::Notice(format!("are not looked at: {what}"));
            }
            Err(found) => return found,
        }
    }
    let mut short = Vec::new();
    for class in with_pools {
        let (name, size) = (class.name_any(), class.spec.warm_pool.size);
        let of_it = pods
            .iter()
            .filter(|pod| pod.labels().get(labels::CLASS) == Some(&name));
        let ready = of_it.filter(|pod| is_ready(pod)).count();
        if i32::try_from(ready).unwrap_or(i32::MAX) < size {
            short.push((format!("'{name}' has {ready} of {size}"), ready));
        }
    }
    let said: Vec<_> = short.iter().map(|(said, _)| said.as_str()).collect();
    if short.iter().any(|(_, ready)| *ready == 0) {
        let place = namespaces.first().map_or("", String::as_str);
        let next = cluster.plain_kubectl(&format!(
            "-n {place} get pods -l '{blank}'  # and: get events"
        ));
        return bad(said.join(", "), next);
    }
    match said.as_slice() {
        [] => Found::Good("are full".to_owned()),
        said => Found::Notice(format!("are being filled: {}", said.join(", "))),
    }
}

/// Whether there are any where pods are; whether the network enforces them a pod's self-test tells.
async fn policies(cluster: &Cluster, namespaces: &[String]) -> Found {
    if namespaces.is_empty() {
        let told = "are not looked at: the release's ConfigMap does not say where pods are made";
        return Found::Notice(told.to_owned());
    }
    let mut open = Vec::new();
    for namespace in namespaces {
        match all::<NetworkPolicy>(cluster, namespace, "", "networkpolicies.networking.k8s.io")
            .await
        {
            Ok(found) if found.is_empty() => open.push(namespace.as_str()),
            Ok(_) => {}
            Err(Found::Bad { what, .. }) => {
                return Found::Notice(format!("are not looked at: {what}"));
            }
            Err(found) => return found,
        }
    }
    if open.is_empty() {
        return Found::Good(format!("are in {}", namespaces.join(", ")));
    }
    bad(
        format!(
            "none in {}: nothing but tokens keeps learners' pods from others",
            open.join(", ")
        ),
        "helm upgrade … --set networkPolicy.enabled=true",
    )
}

#[cfg(test)]
mod tests;
