//! `carrel controller`: the role that makes learners' pods in a cluster. It has no store.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use carrel_controller::{Budget, Clients, Ended, Options, PodOptions};
use carrel_protocol::Endpoint;
use carrel_telemetry::{Health, Readiness};
use carrel_wire::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::base::now;
use super::certificates::Certificates;
use super::kubernetes::Cluster;
use super::{Signals, blocking, keys, serve, single};
use crate::cli;
use crate::config::{self, Loaded};
use crate::exit::{Failure, Kind};
use crate::paths;

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
    let mut options = options(dir, &loaded, &certificates, &cluster)?;
    options.pods.host_aliases = aliases(&options).await?;
    options.pods.must_not_reach = addresses(&loaded.config.kubernetes.must_not_reach).await?;

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
        clients(&cluster)?,
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
    let router = endpoint("routerUrl", &config.gateway.router_url)?;
    let vault = endpoint("vaultUrl", &config.gateway.vault_url)?;
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
            host_aliases: Vec::new(),
            port: ours.sidecar_port,
            must_not_reach: Vec::new(),
            must_reach: [&router, &vault]
                .into_iter()
                .filter_map(place)
                .map(|(host, port)| format!("{host}:{port}"))
                .collect(),
            grace_seconds: ours.grace_seconds,
            priority_class: ours.priority_class.clone(),
            node_selector: ours.node_selector.clone(),
            tolerations: ours.tolerations.clone(),
            topology_spread_constraints: ours.topology_spread_constraints.clone(),
        },
        signer,
        callers,
        trust: certificates.trust.clone(),
        router,
        vault,
        egress: match config.gateway.egress_url.as_str() {
            "" => None,
            url => Some(endpoint("egressUrl", url)?),
        },
        time_zone: "UTC".to_owned(),
        locale: "C.UTF-8".to_owned(),
        now,
    })
}

/// The addresses behind the names by which pods call other roles: pods have nobody to ask. A Service keeps its address.
async fn aliases(options: &Options) -> anyhow::Result<Vec<(IpAddr, String)>> {
    let mut aliases = Vec::new();
    for (host, port) in [
        Some(&options.router),
        Some(&options.vault),
        options.egress.as_ref(),
    ]
    .into_iter()
    .flatten()
    .filter_map(place)
    {
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if is_address || host == "localhost" || aliases.iter().any(|(_, known)| *known == host) {
            continue;
        }
        let key = "gateway.routerUrl, vaultUrl and egressUrl";
        let found = look_up(&format!("{host}:{port}"), key).await?;
        aliases.push((found[0].ip(), host));
    }
    Ok(aliases)
}

/// What pods try, by address: a name that they cannot ask for would not be reached, whatever the network does.
async fn addresses(places: &[String]) -> anyhow::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for place in places {
        addresses.extend(look_up(place, "kubernetes.mustNotReach").await?);
    }
    Ok(addresses)
}

/// All its addresses, at least one, in one order whoever answers: pods that are told others are others.
async fn look_up(place: &str, key: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host(place).await;
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    found.sort_unstable();
    found.dedup();
    anyhow::ensure!(
        !found.is_empty(),
        "{key}: the address of '{place}' cannot be found; pods are told it, for they ask no DNS"
    );
    Ok(found)
}

/// Where a role is called in the network: host and port.
fn place(endpoint: &Endpoint) -> Option<(String, u16)> {
    let Endpoint::Url(url) = endpoint else {
        return None;
    };
    let url: http::Uri = url.parse().ok()?;
    let usual = if url.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    Some((url.host()?.to_owned(), url.port_u16().unwrap_or(usual)))
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

/// Watches and the lease have connections of their own.
fn clients(cluster: &Cluster) -> anyhow::Result<Clients> {
    Ok(Clients {
        calls: cluster.client()?,
        watches: cluster.watching()?,
        lease: cluster.client()?,
    })
}
