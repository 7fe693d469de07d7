//! The way to a cluster, for the roles whose objects and pods are there.

use std::time::Duration;

use anyhow::Context as _;
use carrel_gateway::{KubeFleet, KubeParts, Sidecars};
use carrel_telemetry::{ApiWrites, Readiness, Registry};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;

use super::base::Base;
use crate::config::{self, Loaded};
use crate::exit::{Failure, Kind};

/// A call is answered by then, or it is given up.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
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
    let ours = &base.config.kubernetes;
    let cluster = Cluster::infer("gateway.fleet", ours).await?;
    let parts = KubeParts {
        client: cluster.client()?,
        watching: cluster.watching()?,
        namespace: cluster.namespace,
        store: base.shared(),
        sidecars,
        writes: ApiWrites::register(registry),
        readiness,
        self_test: !ours.must_not_reach.is_empty(),
    };
    Ok(KubeFleet::start(parts, &base.cancel))
}

/// The way to a cluster.
pub(super) struct Cluster {
    config: Config,
    /// Of our objects.
    pub(super) namespace: String,
}

impl Cluster {
    /// The cluster that this process is in, or that the kubeconfig names.
    pub(super) async fn infer(role: &str, ours: &config::Kubernetes) -> anyhow::Result<Self> {
        let config = Config::infer().await.map_err(|error| {
            let message = format!(
                "{role}: no way to a cluster is known ({error}): run in a pod that has a service account, or name a file by KUBECONFIG"
            );
            Failure::new(Kind::Usage, message)
        })?;
        let namespace = match ours.namespace.as_str() {
            "" => config.default_namespace.clone(),
            namespace => namespace.to_owned(),
        };
        Ok(Self { config, namespace })
    }

    /// For calls: each is answered or given up in time, and whoever makes it decides whether to make it again.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let mut config = self.config.clone();
        config.default_retry = false;
        let client =
            ClientBuilder::try_from(config).context("preparing the way to the API server")?;
        Ok(client
            .with_layer(&TimeoutLayer::new(ANSWERS_WITHIN))
            .build())
    }

    /// For watches, on connections of their own.
    pub(super) fn watching(&self) -> anyhow::Result<Client> {
        let mut config = self.config.clone();
        config.read_timeout = Some(WATCH_SAYS_WITHIN);
        Client::try_from(config).context("preparing the way to the API server")
    }
}
