//! A control plane: etcd, API server, controller manager, scheduler and KWOK, on loopback or where real nodes reach them.

mod arguments;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::ensure;
use carrel_cluster_tools::{CLUSTER, KUBERNETES};
use carrel_testkit::certificates::Authority;
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::access::Access;
use super::audit::{Audit, Mark, Write};
use super::crew::{Crew, Program};
use super::network::Network;
use super::{fake, programs};
use crate::require::skip;
use crate::roles::free_address;
use crate::wait::{eventually, output};

/// What was started answers by then, also where the machine is busy.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// How a control plane is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How many nodes that are only objects there are: `fake-0`, `fake-1` …
    pub fake_nodes: u32,
    /// Whether pods without a toleration keep away from them.
    pub tainted: bool,
    /// Whether real nodes may join: then it listens on a bridge, which only root can make.
    pub reachable: bool,
    /// More arguments of the API server.
    pub api_arguments: Vec<String>,
}

/// A control plane. Dropping it kills all of it: nobody needs its data any more.
pub struct ControlPlane {
    // In this order.
    kwok: Option<Program>,
    scheduler: Program,
    controller_manager: Program,
    api_server: Option<Program>,
    etcd: Program,
    crew: Crew,
    pub(super) places: Places,
    client: kube::Client,
    admin: Access,
    audit: Audit,
    nodes: AtomicU8,
}

/// What its programs are told.
#[derive(Debug)]
pub(super) struct Places {
    /// Of certificates, kubeconfigs and logs.
    pub(super) folder: PathBuf,
    pub(super) authority: Authority,
    pub(super) network: Option<Network>,
    /// The API server's address.
    pub(super) address: String,
    etcd: String,
    api_arguments: Vec<String>,
}

impl Places {
    /// The API server's URL.
    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A kubeconfig of one that may do everything.
    fn master(&self, user: &str) -> anyhow::Result<Access> {
        Access::master(&self.folder, &self.url(), &self.authority, user)
    }
}

impl ControlPlane {
    /// Starts one and waits until pods can be made in it. `None` when the machine lacks what it needs, which is said.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(test: &str, options: Options) -> anyhow::Result<Option<Self>> {
        if let Some(reason) = programs::missing(CLUSTER) {
            skip(test, "cluster", &reason)?;
            return Ok(None);
        }
        if options.reachable && !rustix::process::geteuid().is_root() {
            skip(test, "node", "only root can make a bridge")?;
            return Ok(None);
        }
        Self::run(options).await.map(Some)
    }

    async fn run(options: Options) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("carrel-cluster-")?.keep();
        let network = options.reachable.then(Network::claim).transpose()?;
        let mut after = format!("rm -rf '{}'", folder.display());
        if let Some(network) = &network {
            after = format!("{after}; ip link delete {}", network.bridge());
        }
        let mut crew = Crew::new(&folder.join("log"), &after)?;
        let mut address = free_address()?;
        if let Some(network) = &network {
            // What is free on loopback is free on a bridge that was made just now.
            address = address.replace("127.0.0.1", &network.host());
        }
        let places = Places {
            authority: Authority::new("carrel-tests"),
            network,
            address,
            etcd: free_address()?,
            api_arguments: options.api_arguments,
            folder,
        };
        places.write()?;
        let admin = places.master("admin")?;
        let client = admin.client().await?;
        let mut etcd = crew.start("etcd", places.etcd())?;
        let mut api_server = crew.start("kube-apiserver", places.api_server())?;
        answers(&client, &mut [&mut etcd, &mut api_server]).await?;
        let controller_manager =
            crew.start("kube-controller-manager", places.controller_manager()?)?;
        let scheduler = crew.start("kube-scheduler", places.scheduler()?)?;
        let kwok = (options.fake_nodes > 0)
            .then(|| crew.start("kwok", places.kwok(fake::ADDRESSES[0])?))
            .transpose()?;
        let mut plane = Self {
            kwok,
            scheduler,
            controller_manager,
            api_server: Some(api_server),
            etcd,
            crew,
            audit: Audit {
                log: places.folder.join("audit.log"),
            },
            places,
            client,
            admin,
            nodes: AtomicU8::new(0),
        };
        plane.furnish(options.fake_nodes, options.tainted).await?;
        Ok(plane)
    }

    /// Makes the fake nodes, and waits for what every cluster has.
    async fn furnish(&mut self, fake_nodes: u32, tainted: bool) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for number in 0..fake_nodes {
            let node = fake::node(number, fake::CPU, tainted)?;
            nodes.create(&PostParams::default(), &node).await?;
        }
        let accounts: Api<ServiceAccount> = Api::default_namespaced(self.client.clone());
        let fakes = ListParams::default().labels("type=kwok");
        eventually("the cluster takes pods", READY_WITHIN, || {
            let checked = self.check();
            let (accounts, nodes, fakes) = (&accounts, &nodes, &fakes);
            async move {
                checked?;
                let has_account = accounts.get_opt("default").await?.is_some();
                let ready = nodes
                    .list(fakes)
                    .await?
                    .into_iter()
                    .filter(is_ready)
                    .count();
                Ok((has_account && ready == fake_nodes as usize).then_some(()))
            }
        })
        .await
    }

    /// Makes one more fake node, with so many processors.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn fake_node(&self, number: u32, cpu: &str) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        let node = fake::node(number, cpu, false)?;
        nodes.create(&PostParams::default(), &node).await?;
        Ok(())
    }

    /// The number of one more real node.
    pub(super) fn next_node(&self) -> u8 {
        self.nodes.fetch_add(1, Ordering::Relaxed)
    }

    fn check(&mut self) -> anyhow::Result<()> {
        let optional = self.kwok.iter_mut().chain(&mut self.api_server);
        let always = [
            &mut self.etcd,
            &mut self.controller_manager,
            &mut self.scheduler,
        ];
        optional.chain(always).try_for_each(Program::check)
    }

    /// A client that may do everything.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// A kubeconfig that may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.admin.file
    }

    /// A user with a certificate, in a group or in none. Another one of the same name takes its place.
    ///
    /// # Errors
    /// When its kubeconfig cannot be written.
    pub fn user(&self, name: &str, group: Option<&str>) -> anyhow::Result<Access> {
        let places = &self.places;
        Access::certified(
            &places.folder,
            &places.url(),
            &places.authority,
            name,
            group,
        )
    }

    /// A service account that exists, by a token of an hour, as a pod of it has.
    ///
    /// # Errors
    /// When there is none.
    pub fn service_account(&self, namespace: &str, name: &str) -> anyhow::Result<Access> {
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace])?;
        let credentials = json!({"token": token.trim()});
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let places = &self.places;
        Access::new(
            &places.folder,
            &places.url(),
            &places.authority.pem,
            &user,
            &credentials,
        )
    }

    /// The API server's URL.
    pub fn url(&self) -> String {
        self.places.url()
    }

    /// This machine's address, as real nodes and their pods reach it.
    pub fn host(&self) -> Option<IpAddr> {
        self.places.network.as_ref()?.host().parse().ok()
    }

    /// The address of the service that answers names, as each node's kubelet tells its pods.
    pub(super) fn name_server(&self) -> String {
        self.places.services().replace(".0/24", ".10")
    }

    /// Makes a namespace and waits until pods can be made in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn namespace(&self, name: &str, labels: &Value) -> anyhow::Result<()> {
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
        let namespaces: Api<Namespace> = Api::all(self.client());
        namespaces
            .create(&PostParams::default(), &namespace)
            .await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), name);
        eventually("the namespace takes pods", READY_WITHIN, || async {
            Ok(accounts.get_opt("default").await?.map(|_| ()))
        })
        .await
    }

    /// Runs kubectl as one that may do everything: what it prints.
    ///
    /// # Errors
    /// With what it says, when it fails.
    pub fn kubectl(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut kubectl = programs::command(&KUBERNETES, "kubectl");
        let output = output(
            kubectl
                .arg("--kubeconfig")
                .arg(&self.admin.file)
                .args(words),
        )?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {words:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Has the definitions of a folder, and waits until objects of them can be made.
    ///
    /// # Errors
    /// With what kubectl says, when it fails.
    pub fn define(&self, folder: &Path) -> anyhow::Result<()> {
        let folder = folder.display().to_string();
        let names = self.kubectl(&[
            "apply",
            "--server-side",
            "--filename",
            &folder,
            "-o",
            "name",
        ])?;
        let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
        let names: Vec<&str> = names.lines().collect();
        self.kubectl(&[&wait[..], &names[..]].concat())?;
        Ok(())
    }

    /// Where the audit log is now.
    ///
    /// # Errors
    /// When the API server is away.
    pub async fn mark(&self) -> anyhow::Result<Mark> {
        self.audit.mark(&self.client).await
    }

    /// All that was written since, by anybody.
    ///
    /// # Errors
    /// When the API server is away.
    pub async fn writes_since(&self, mark: Mark) -> anyhow::Result<Vec<Write>> {
        self.audit.since(mark, &self.client).await
    }

    /// The API server's process, while it runs: to look at, or to pause.
    pub fn api_server(&self) -> Option<&Program> {
        self.api_server.as_ref()
    }

    /// Ends the API server by SIGTERM.
    pub fn stop_api_server(&mut self) {
        if let Some(mut running) = self.api_server.take() {
            running.end();
        }
    }

    /// Starts it again, once, at the same address, after it was ended; and the scheduler and KWOK, which have waited for it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_api_server(&mut self) -> anyhow::Result<()> {
        let started = self
            .crew
            .start("kube-apiserver", self.places.api_server())?;
        let started = self.api_server.insert(started);
        answers(&self.client, &mut [&mut self.etcd, started]).await?;
        // In a cluster it ends when it cannot renew its lease, and is started again.
        self.scheduler.end();
        self.scheduler = self
            .crew
            .start("kube-scheduler", self.places.scheduler()?)?;
        // What failed meanwhile it would try again after up to half an hour; a kubelet does within seconds.
        if let Some(kwok) = &mut self.kwok {
            kwok.end();
            let anew = self.places.kwok(fake::ADDRESSES[1])?;
            *kwok = self.crew.start("kwok", anew)?;
        }
        Ok(())
    }
}

/// Waits until the API server behind a client is ready, unless one of these ends.
async fn answers(client: &kube::Client, programs: &mut [&mut Program]) -> anyhow::Result<()> {
    eventually("the API server is ready", READY_WITHIN, || {
        let checked = programs.iter_mut().try_for_each(|program| program.check());
        async move {
            checked?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await.ok().map(|_| ()))
        }
    })
    .await
}

/// Whether a node says that it is ready.
pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
