//! `carrel controller`: the role that makes learners' pods in a cluster. It has no store.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use carrel_controller::{Budget, Clients, Ended, Options, PodOptions};
use carrel_protocol::Endpoint;
use carrel_telemetry::{Health, Readiness};
use carrel_wire::Incoming;
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::base::now;
use super::certificates::Certificates;
use super::{Signals, blocking, keys, serve, single};
use crate::cli;
use crate::config::{self, Loaded};
use crate::exit::{Failure, Kind};
use crate::paths;

/// A watch says something at least every minute; a connection that is silent for longer is dead.
const WATCH_SAYS_WITHIN: Duration = Duration::from_secs(75);
/// For everything to end once it was asked to.
const STOP: Duration = Duration::from_secs(20);

/// Runs a controller until a signal, or until another has taken its lease; the exit status.
pub(crate) fn run_controller(flags: &cli::Role) -> anyhow::Result<ExitCode> {
    let dir = paths::data_dir(flags.at.folder.data_dir.as_deref())?;
    let file = paths::config_file(flags.at.config.clone(), &dir);
    let loaded = config::load(file.as_deref(), std::env::vars())?;
    blocking(&loaded, run(flags, &dir, loaded.clone()))
}

async fn run(flags: &cli::Role, dir: &Path, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let certificates = Certificates::read(dir, &loaded.config.tls)?;
    let (data_dir, tls) = (dir.to_path_buf(), loaded.config.tls.clone());
    tracker.spawn(certificates.clone().follow(data_dir, tls, cancel.clone()));
    let cluster = Cluster::infer("carrel controller", &loaded.config.kubernetes).await?;
    let options = options(dir, &loaded, &certificates, &cluster)?;

    let mut registry = carrel_telemetry::registry(env!("CARGO_PKG_VERSION"));
    let metrics = carrel_controller::Metrics::register(&mut registry);
    let readiness = Readiness::default();
    let listen = flags
        .health_listen
        .as_ref()
        .unwrap_or(&loaded.config.health.listen);
    let (listener, bound) = serve::bind(listen, "--health-listen").await?;
    let health = Health::new(readiness.clone(), Arc::new(registry));
    tracker.spawn(carrel_gateway::serve(
        Incoming::new(listener, None),
        health.router(),
        tracker.clone(),
        cancel.clone(),
    ));
    single::say("controller", flags.output, "", &format!("http://{bound}"))?;

    let controller = carrel_controller::run(
        options,
        cluster.clients()?,
        metrics,
        readiness,
        cancel.clone(),
    );
    let mut controller = std::pin::pin!(controller);
    let deposed = tokio::select! {
        ended = &mut controller => ended == Ended::Deposed,
        _ = signals.any() => false,
    };
    cancel.cancel();
    tracker.close();
    let rest = async {
        if !deposed {
            controller.await;
        }
        tracker.wait().await;
    };
    let stopped = tokio::select! {
        ended = tokio::time::timeout(STOP, rest) => ended.is_ok(),
        _ = signals.any() => false,
    };
    if deposed {
        anyhow::bail!(
            "another controller has taken the lease: this one ends, and may be started again"
        );
    }
    super::status(None, stopped)
}

fn options(
    dir: &Path,
    loaded: &Loaded,
    certificates: &Certificates,
    cluster: &Cluster,
) -> anyhow::Result<Options> {
    let (config, files) = (&loaded.config, &loaded.config.keys);
    let ours = &config.kubernetes;
    let missing = |key: &str, what: &str| {
        let message = format!("kubernetes.{key} must be set: {what}");
        Failure::new(Kind::Usage, message)
    };
    if ours.learner_namespaces.is_empty() {
        return Err(missing("learnerNamespaces", "the namespaces in which pods are made").into());
    }
    if ours.image.is_empty() {
        return Err(missing("image", "Carrel's own image, of which pods are made").into());
    }
    let signer = keys::published(
        &dir.join(&files.signing_key_file),
        &dir.join(&files.verifying_keys_file),
    )?;
    let gateways = keys::public(
        &dir.join(&files.gateway_verifying_keys_file),
        "keys.gatewayVerifyingKeysFile",
        "carrel gateway",
    )?;
    let mut callers = vec![signer.public_key().clone()];
    callers.extend(gateways);
    Ok(Options {
        namespace: cluster.namespace.clone(),
        identity: identity(),
        budget: Budget {
            live: config.fleet.max_live,
            starting: ours.starting_at_once,
            per_second: config.fleet.starts_per_second,
        },
        refills_per_second: ours.refills_per_second,
        pods: PodOptions {
            namespaces: ours.learner_namespaces.clone(),
            most_in_namespace: ours.pods_per_namespace as usize,
            image: ours.image.clone(),
            image_pull_policy: ours.image_pull_policy.clone(),
            image_pull_secrets: ours.image_pull_secrets.clone(),
            port: ours.sidecar_port,
            must_not_reach: ours.must_not_reach.clone(),
            grace_seconds: ours.grace_seconds,
            priority_class: ours.priority_class.clone(),
            node_selector: ours.node_selector.clone(),
            tolerations: ours.tolerations.clone(),
            topology_spread_constraints: ours.topology_spread_constraints.clone(),
        },
        signer,
        callers,
        trust: certificates.trust.clone(),
        router: endpoint("routerUrl", &config.gateway.router_url)?,
        vault: endpoint("vaultUrl", &config.gateway.vault_url)?,
        egress: None,
        time_zone: "UTC".to_owned(),
        locale: "C.UTF-8".to_owned(),
        now,
    })
}

fn endpoint(key: &str, url: &str) -> anyhow::Result<Endpoint> {
    let parsed = url.parse();
    parsed.map_err(|error| Failure::new(Kind::Usage, format!("gateway.{key}: {error}")).into())
}

/// This process among others: its host's name, which in a cluster is its pod's, and what no other run has.
fn identity() -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    format!("{host}_{}", uuid::Uuid::new_v4().simple())
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

    /// For calls.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Client::try_from(self.config.clone()).context("preparing the way to the API server")
    }

    /// For watches, on connections of their own.
    pub(super) fn watching(&self) -> anyhow::Result<Client> {
        let mut config = self.config.clone();
        config.read_timeout = Some(WATCH_SAYS_WITHIN);
        Client::try_from(config).context("preparing the way to the API server")
    }

    fn clients(&self) -> anyhow::Result<Clients> {
        Ok(Clients {
            calls: self.client()?,
            watches: self.watching()?,
            lease: self.client()?,
        })
    }
}
