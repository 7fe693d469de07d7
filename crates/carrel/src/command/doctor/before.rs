//! `carrel doctor --pre`: whether the chart can be installed in a cluster, as far as its API server and this machine can tell.

use k8s_openapi::api::core::v1::{Namespace, Node, Secret};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::{Report, bad, definitions, load, names_database, processes, rights};
use crate::cli;
use crate::cluster::{Cluster, Right, failure, instance_of};
use crate::paths;
use crate::up::{Found, survey_stores};

/// The oldest API server that the chart is for.
const OLDEST: (u32, u32) = (1, 30);
/// The Secret of keys that the chart looks for where nothing else is said.
const KEYS: &str = "carrel-keys";

pub(super) async fn look(
    cluster: &Cluster,
    flags: &cli::Doctor,
    report: &mut Report<'_>,
) -> anyhow::Result<()> {
    let version = version(cluster).await;
    let is_away = matches!(version, Found::Bad { .. });
    report.say("API server", version)?;
    if is_away {
        return Ok(());
    }
    let learners = learner_namespaces(flags);
    report.say("rights", rights::of_installer(cluster, &learners).await)?;
    report.say("namespace", own_namespace(cluster, &flags.release).await)?;
    for name in &learners {
        let found = namespace_of_learners(cluster, &flags.release, name).await;
        report.say("learners' namespace", found)?;
    }
    report.say("definitions", definitions::before(cluster).await)?;
    report.say("Pod Security", pod_security(cluster).await)?;
    report.say("user namespaces", user_namespaces(cluster).await)?;
    report.say("processes", processes::look(cluster).await)?;
    report.say("metrics", metrics(cluster).await)?;
    report.say("keys", keys(cluster).await)?;
    stores(flags, report).await
}

/// The chart's own names for them.
fn learner_namespaces(flags: &cli::Doctor) -> Vec<String> {
    if !flags.learner_namespaces.is_empty() {
        return flags.learner_namespaces.clone();
    }
    let release = &flags.release;
    if release.contains("carrel") {
        vec![format!("{release}-learners")]
    } else {
        vec![format!("{release}-carrel-learners")]
    }
}

/// The API server's version.
pub(super) async fn version(cluster: &Cluster) -> Found {
    let right = Right {
        verb: "get",
        resource: "/version",
    };
    let next = cluster.kubectl("version");
    let found = match cluster.client.apiserver_version().await {
        Ok(found) => found,
        Err(error) => return bad(failure(cluster, right, &error), next),
    };
    let number = |text: &str| {
        text.trim_end_matches('+')
            .parse::<u32>()
            .unwrap_or_default()
    };
    let version = &found.git_version;
    if (number(&found.major), number(&found.minor)) < OLDEST {
        let (major, minor) = OLDEST;
        let what = format!("{version} is too old: Carrel needs {major}.{minor} or later");
        return bad(what, next);
    }
    Found::Good(format!(
        "{version} at {} (context '{}')",
        cluster.url, cluster.context
    ))
}

async fn own_namespace(cluster: &Cluster, release: &str) -> Found {
    let name = &cluster.namespace;
    let pods = match cluster.pods().await {
        Ok(pods) => pods,
        Err(error) => return bad(error, cluster.kubectl("get pods")),
    };
    let mut there: Vec<_> = pods.iter().map(instance_of).collect();
    there.sort_unstable();
    there.dedup();
    if there.contains(&release) {
        return Found::Notice(format!(
            "'{name}' holds release '{release}' already: 'helm upgrade' changes it, and 'carrel doctor' looks at it"
        ));
    }
    if let Some(other) = there.first() {
        return Found::Notice(format!(
            "'{name}' holds another release of Carrel, '{other}': give each a namespace of its own"
        ));
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    match namespaces.get_opt(name).await {
        Ok(Some(_)) => Found::Good(format!("'{name}' is there")),
        Ok(None) => Found::Good(format!(
            "'{name}' is free: 'helm install --create-namespace' makes it"
        )),
        Err(error) => unseen(cluster, name, &error),
    }
}

fn unseen(cluster: &Cluster, name: &str, error: &kube::Error) -> Found {
    let right = Right {
        verb: "get",
        resource: "namespaces",
    };
    let why = failure(cluster, right, error);
    Found::Notice(format!("'{name}' is not looked at: {why}"))
}

/// Free, or the release's own: helm takes nothing over that is another's.
async fn namespace_of_learners(cluster: &Cluster, release: &str, name: &str) -> Found {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let found = match namespaces.get_opt(name).await {
        Ok(Some(found)) => found,
        Ok(None) => return Found::Good(format!("'{name}' is free: the chart makes it")),
        Err(error) => return unseen(cluster, name, &error),
    };
    let said = |key: &str| found.annotations().get(key).map(String::as_str);
    let owner = (
        said("meta.helm.sh/release-namespace"),
        said("meta.helm.sh/release-name"),
    );
    if owner == (Some(&cluster.namespace), Some(release)) {
        return Found::Good(format!("'{name}' is there, and the release's own"));
    }
    let (what, next) = if let (Some(namespace), Some(other)) = owner {
        (
            format!("'{name}' is of release '{other}' in namespace '{namespace}'"),
            format!("helm install {release} … --set 'learnerNamespaces.names={{ANOTHER}}'"),
        )
    } else {
        (
            format!("'{name}' is there, and helm has not made it"),
            format!(
                "helm install {release} … --set learnerNamespaces.create=false  # when it is labelled as the chart labels its own"
            ),
        )
    };
    bad(what, next)
}

/// Asks, without making it, for a namespace whose level is none: who looks at levels refuses it.
async fn pod_security(cluster: &Cluster) -> Found {
    let may_try = rights::may(cluster, None, "", "namespaces").await;
    if !matches!(may_try, Ok(true)) {
        let told = "is not tried: that needs the right to create namespaces";
        return Found::Notice(told.to_owned());
    }
    let probe = json!({
        "metadata": {
            "name": "carrel-doctor-tries-pod-security",
            "labels": {"pod-security.kubernetes.io/enforce": "no-such-level"},
        },
    });
    let Ok(probe) = serde_json::from_value::<Namespace>(probe) else {
        unreachable!("it is a namespace");
    };
    let params = PostParams {
        dry_run: true,
        field_manager: None,
    };
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    match namespaces.create(&params, &probe).await {
        Err(kube::Error::Api(status)) if status.code == 422 => {
            Found::Good("is there: namespaces' levels are enforced".to_owned())
        }
        Ok(_) => bad(
            "the API server enforces no levels: nothing but the admission policy of the chart keeps pods from being privileged",
            "kubectl explain namespace.metadata.labels  # and enable the admission plugin PodSecurity of the API server",
        ),
        Err(error) => {
            let right = Right {
                verb: "create",
                resource: "namespaces",
            };
            Found::Notice(format!("is not known: {}", failure(cluster, right, &error)))
        }
    }
}

/// Only a pod can tell; what nodes say of themselves is a hint.
async fn user_namespaces(cluster: &Cluster) -> Found {
    let unknown = "whether pods may have their own is not known before the first one starts; a class whose pods cannot takes isolation: {userNamespace: false}";
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let Ok(nodes) = nodes.list(&ListParams::default()).await else {
        return Found::Notice(unknown.to_owned());
    };
    let infos = nodes
        .iter()
        .filter_map(|node| node.status.as_ref()?.node_info.as_ref());
    let mut kinds: Vec<_> = infos
        .map(|info| {
            format!(
                "Linux {} with {}",
                info.kernel_version, info.container_runtime_version
            )
        })
        .collect();
    kinds.sort();
    kinds.dedup();
    kinds.truncate(3);
    if kinds.is_empty() {
        return Found::Notice(unknown.to_owned());
    }
    Found::Notice(format!("{unknown} (nodes: {})", kinds.join("; ")))
}

/// Groups of others that the chart can use.
async fn metrics(cluster: &Cluster) -> Found {
    let groups = match cluster.client.list_api_groups().await {
        Ok(groups) => groups.groups,
        Err(error) => {
            let right = Right {
                verb: "get",
                resource: "/apis",
            };
            return bad(
                failure(cluster, right, &error),
                cluster.kubectl("api-versions"),
            );
        }
    };
    let has = |name: &str| groups.iter().any(|group| group.name == name);
    let known = [
        ("monitoring.coreos.com", "serviceMonitor and prometheusRule"),
        ("metrics.k8s.io", "autoscaling"),
        ("gateway.networking.k8s.io", "httpRoute"),
    ];
    let (there, missing): (Vec<_>, Vec<_>) = known.into_iter().partition(|(name, _)| has(name));
    let names = |of: &[(&str, &str)]| -> String {
        let named: Vec<_> = of
            .iter()
            .map(|(name, value)| format!("{name} (for {value})"))
            .collect();
        named.join(", ")
    };
    match (there.as_slice(), missing.as_slice()) {
        (there, []) => Found::Good(format!("{} are there", names(there))),
        ([], missing) => Found::Notice(format!(
            "the cluster lacks {}: leave them off",
            names(missing)
        )),
        (there, missing) => Found::Notice(format!(
            "there are {}; the cluster lacks {}: leave them off",
            names(there),
            names(missing)
        )),
    }
}

async fn keys(cluster: &Cluster) -> Found {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match secrets.get_metadata_opt(KEYS).await {
        Ok(Some(_)) => Found::Good(format!("Secret '{KEYS}' is there")),
        Ok(None) => Found::Notice(format!(
            "no Secret '{KEYS}' yet, which the chart looks for: carrel keys create --secret {KEYS} | {}",
            cluster.kubectl("create -f -")
        )),
        Err(error) => {
            let right = Right {
                verb: "get",
                resource: "secrets",
            };
            Found::Notice(format!(
                "are not looked for: {}",
                failure(cluster, right, &error)
            ))
        }
    }
}

/// Database and bucket, from here, where they are named.
async fn stores(flags: &cli::Doctor, report: &mut Report<'_>) -> anyhow::Result<()> {
    let dir = paths::data_dir(flags.client.place.data_dir.as_deref())?;
    let config = match load(&dir) {
        Ok(loaded) if names_database(&loaded.config) => loaded.config,
        Ok(_) => {
            let told = "not tried: CARREL_STORE_URL, CARREL_OBJECTS_URL and the like, or carrel.yaml in --data-dir, name them";
            return report.say("database, bucket", Found::Notice(told.to_owned()));
        }
        Err(error) => return report.say("configuration", bad(error, "carrel config show")),
    };
    for (name, found) in survey_stores(&dir, &config).await {
        report.say(name, found)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
