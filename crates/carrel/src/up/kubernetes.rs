//! The way to a cluster: a gateway whose learners' pods are there.

use std::time::Duration;

use anyhow::Context as _;
use carrel_gateway::{KubeFleet, KubeParts, Sidecars};
use carrel_telemetry::{ApiWrites, Readiness, Registry};
use kube::{Client, Config};

use super::base::Base;
use crate::config::Loaded;
use crate::exit::{Failure, Kind};

/// A watch says something at least every minute; a connection that is silent for longer is dead.
const WATCH_SAYS_WITHIN: Duration = Duration::from_secs(75);

/// Documents are objects there, and what is read here would say otherwise.
pub(super) fn refuse_documents(loaded: &Loaded) -> anyhow::Result<()> {
    if loaded.classes.is_empty() && loaded.learners.is_empty() {
        return Ok(());
    }
    let message = "gateway.fleet: on Kubernetes LearnerClass and Learner documents are objects: give them to 'kubectl apply', and leave them out of the configuration";
    Err(Failure::new(Kind::Usage, message).into())
}

/// A fleet of the cluster that this process is in, or that the kubeconfig names.
pub(super) async fn fleet(
    base: &Base,
    sidecars: Sidecars,
    readiness: Readiness,
    registry: &mut Registry,
) -> anyhow::Result<KubeFleet> {
    let inferred = Config::infer().await.map_err(|error| {
        let message = format!(
            "gateway.fleet: no way to a cluster is known ({error}): run in a pod that has a service account, or name a file by KUBECONFIG"
        );
        Failure::new(Kind::Usage, message)
    })?;
    let ours = &base.config.kubernetes;
    let namespace = match ours.namespace.as_str() {
        "" => inferred.default_namespace.clone(),
        namespace => namespace.to_owned(),
    };
    let mut watching = inferred.clone();
    watching.read_timeout = Some(WATCH_SAYS_WITHIN);
    let client = |config| Client::try_from(config).context("preparing the way to the API server");
    let parts = KubeParts {
        client: client(inferred)?,
        watching: client(watching)?,
        namespace,
        store: base.shared(),
        sidecars,
        writes: ApiWrites::register(registry),
        readiness,
        self_test: !ours.must_not_reach.is_empty(),
    };
    Ok(KubeFleet::start(parts, &base.cancel))
}
