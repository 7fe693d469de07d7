//! A real node: containerd, runc, kubelet and kube-proxy in namespaces of their own, joined to the control plane's bridge; its pods are on a
//! bridge, too, or, where policies count, Cilium is their network.

mod files;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrel_cluster_tools::{CILIUM, CONTAINERD, INSIDE, KUBERNETES, NODE, RUNC};
use k8s_openapi::api::core::v1::Node as Object;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tempfile::TempDir;

use super::crew::{Crew, Program};
use super::network::{Network, ip};
use super::plane::{ControlPlane, is_ready};
use super::{image, programs};
use crate::machine;
use crate::require::skip;
use crate::variables::unheard;
use crate::wait::{eventually, output};

/// The hierarchies of control groups, version 1.
const GROUPS: &str = "/sys/fs/cgroup";
/// A node is ready by then, also where the machine is busy.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// The node's first process: its mounts, its address, then the daemons.
const INIT: &str = include_str!("node/init.sh");

/// How a node is started.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// Archives of images that its pods may run, besides [`Node::INSIDE`].
    pub images: Vec<PathBuf>,
    /// The kubelet's.
    pub feature_gates: Vec<(&'static str, bool)>,
    /// Whether Cilium is the network of its pods, which enforces policies: on all nodes of a cluster or on none.
    pub cilium: bool,
}

/// A node. Dropping it kills it with all that runs on it, as a machine that loses its power, and takes away what it has made.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    daemons: Program,
    _crew: Crew,
}

impl Node {
    /// An image that every node has: `inside`, whose words are in its source.
    pub const INSIDE: &str = "localhost/carrel/inside:1";

    /// Starts a node of a control plane that is reachable, and waits until it is ready. `None` when the machine lacks what it
    /// needs, which is said.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(
        test: &str,
        plane: &ControlPlane,
        options: NodeOptions,
    ) -> anyhow::Result<Option<Self>> {
        if let Some(reason) = missing(&options) {
            skip(test, "node", &reason)?;
            return Ok(None);
        }
        Self::run(plane, &options).await.map(Some)
    }

    async fn run(plane: &ControlPlane, options: &NodeOptions) -> anyhow::Result<Self> {
        let network = plane
            .places
            .network
            .as_ref()
            .context("the control plane is not reachable")?;
        let index = plane.next_node();
        let folder = TempDir::with_prefix("carrel-node-")?.keep();
        let groups = folder
            .file_name()
            .context("it has a name")?
            .to_string_lossy()
            .into_owned();
        let name = format!("node-{index}");
        let files = files::Files {
            folder: &folder,
            name: &name,
            address: network.node(index),
            pods: network.pods_of(index),
            groups: &groups,
        };
        let (pods, address) = (files.pods.clone(), files.address.clone());
        let after = format!(
            "for try in $(seq 100); do find {GROUPS}/*/{groups} -depth -type d -exec rmdir {{}} + && break; sleep 0.05; done
            ip route delete {pods}; rm -rf '{}'",
            folder.display()
        );
        let mut crew = Crew::new(&folder.join("log"), &after)?;
        make_groups(&groups)?;
        files.write(&plane.places, options)?;
        let mut images = vec![folder.join("inside.tar")];
        image::write(
            &images[0],
            Self::INSIDE,
            &[("/inside", &programs::path(&INSIDE, "inside"))],
        )?;
        images.extend(options.images.iter().cloned());

        let mut unshare = Command::new("unshare");
        unheard(&mut unshare)
            .args([
                "--mount",
                "--net",
                "--pid",
                "--uts",
                "--ipc",
                "--fork",
                "--kill-child",
            ])
            .args(["bash", "-euc", INIT, "node"])
            .args(&images)
            .env("NODE", &folder)
            .env("NAME", &name)
            .env("ADDRESS", &address)
            .env("HOST", network.host())
            .env("ROUTES", routes(network, index))
            .env("PODS", network.pods())
            .env("KUBERNETES", KUBERNETES.folder().unwrap_or_default())
            .env("CILIUM", cilium(options))
            // One operator is enough for all.
            .env("OPERATOR", if index == 0 { "yes" } else { "" })
            .env("PATH", path());
        let mut daemons = crew.start("node", unshare)?;
        let first = eventually("the node's namespaces are made", READY_WITHIN, || {
            let checked = daemons.check();
            let child = first(&daemons);
            async move { checked.map(|()| child) }
        })
        .await?;
        let (bridge, port) = (network.bridge(), format!("{}n{index}", network.bridge()));
        ip(&format!(
            "link add {port} type veth peer name eth0 netns {first}"
        ))?;
        ip(&format!("link set {port} master {bridge} up"))?;
        ip(&format!("route add {pods} via {address} dev {bridge}"))?;
        // This machine reaches services by its first node.
        if index == 0 {
            ip(&format!(
                "route add {} via {address} dev {bridge}",
                network.services()
            ))?;
        }
        let nodes: Api<Object> = Api::all(plane.client());
        if options.cilium {
            share_out(&nodes, &name, &pods).await?;
        }
        eventually("the node is ready", READY_WITHIN, || {
            let checked = daemons.check();
            let (nodes, name) = (&nodes, &name);
            async move {
                checked?;
                Ok(nodes.get_opt(name).await?.filter(is_ready).map(|_| ()))
            }
        })
        .await?;
        Ok(Self {
            name,
            address,
            daemons,
            _crew: crew,
        })
    }

    /// The folder of what it keeps.
    pub fn folder(&self) -> &Path {
        let logs = self.daemons.folder();
        logs.parent().unwrap_or(logs)
    }

    /// Runs `ip` with these words in its network.
    ///
    /// # Errors
    /// With what that says, when it fails.
    pub fn ip(&self, words: &str) -> anyhow::Result<()> {
        let first = first(&self.daemons).context("the node runs")?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &first.to_string(), "--net", "ip"]);
        let output = output(command.args(words.split_whitespace()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {words}: {said}");
        Ok(())
    }

    /// What one of its daemons has logged: `containerd`, `kubelet`, `kube-proxy`, `cilium-agent`.
    pub fn log(&self, daemon: &str) -> String {
        let log = self.daemons.folder().join(format!("{daemon}.log"));
        std::fs::read_to_string(log).unwrap_or_default()
    }
}

/// The first process of a node's namespaces.
fn first(daemons: &Program) -> Option<u32> {
    machine::family(daemons.pid()).get(1).copied()
}

/// Where Cilium is, if it is wanted.
fn cilium(options: &NodeOptions) -> PathBuf {
    let folder = options.cilium.then(|| CILIUM.folder()).flatten();
    folder.unwrap_or_default()
}

/// Gives a node the network of its pods, which Cilium takes from its object.
async fn share_out(nodes: &Api<Object>, name: &str, pods: &str) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"spec": {"podCIDR": pods, "podCIDRs": [pods]}}));
    eventually("the node has registered", READY_WITHIN, || async {
        match nodes.patch(name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(Some(())),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Why this machine can have no node, in words for a skip.
fn missing(options: &NodeOptions) -> Option<String> {
    let memory = Path::new(GROUPS).join("memory");
    let reasons = [
        programs::missing(NODE),
        programs::missing(if options.cilium { &[CILIUM][..] } else { &[] }),
        (!rustix::process::geteuid().is_root()).then(|| "only root can make a node".to_owned()),
        (!memory.is_dir())
            .then(|| format!("{} is no hierarchy of control groups", memory.display())),
    ];
    reasons.into_iter().flatten().next()
}

/// The folders of its programs, before the machine's own.
fn path() -> String {
    let mut path = String::new();
    for group in [CONTAINERD, RUNC] {
        let _ = write!(path, "{}:", group.folder().unwrap_or_default().display());
    }
    // Last: where Debian has the compiler of Cilium's programs for the kernel, by the names that it calls.
    path + "/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/llvm-16/bin"
}

/// The ways to pods on all nodes that there may be besides.
fn routes(network: &Network, index: u8) -> String {
    let others = Network::NODES.filter(|other| *other != index);
    let routes =
        others.map(|other| format!("{} via {}\n", network.pods_of(other), network.node(other)));
    routes.collect()
}

/// Makes a control group of this name in every hierarchy of version 1.
fn make_groups(name: &str) -> anyhow::Result<()> {
    for hierarchy in std::fs::read_dir(GROUPS)? {
        let hierarchy = hierarchy?.path();
        if hierarchy.ends_with("unified") || hierarchy.is_symlink() {
            continue;
        }
        let group = hierarchy.join(name);
        std::fs::create_dir(&group).with_context(|| format!("making {}", group.display()))?;
        // A new group has no processors and no memory until it is given some.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if group.join(file).exists() {
                std::fs::copy(hierarchy.join(file), group.join(file))?;
            }
        }
    }
    Ok(())
}
