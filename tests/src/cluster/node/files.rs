//! What a node's daemons read.

use std::path::Path;

use carrel_cluster_tools::{CILIUM, CNI};
use serde_json::{Map, Value, json};

use super::NodeOptions;
use crate::cluster::access::Access;
use crate::cluster::plane::Places;
use crate::cluster::programs;

/// The machine's own settings that a kubelet sets: in a node they are files that only it reads.
const SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// A node's own values.
pub(super) struct Files<'a> {
    pub(super) folder: &'a Path,
    pub(super) name: &'a str,
    pub(super) address: String,
    /// The network of its pods.
    pub(super) pods: String,
    /// Its control groups' name.
    pub(super) groups: &'a str,
}

impl Files<'_> {
    pub(super) fn write(&self, places: &Places, options: &NodeOptions) -> anyhow::Result<()> {
        for folder in [
            "lib/kubelet",
            "lib/containerd",
            "lib/cni",
            "log",
            "cni",
            "proc",
        ] {
            std::fs::create_dir_all(self.folder.join(folder))?;
        }
        for setting in SETTINGS {
            let to = self.folder.join("settings").join(setting);
            std::fs::create_dir_all(to.parent().unwrap_or(self.folder))?;
            std::fs::write(to, std::fs::read(Path::new("/proc/sys").join(setting))?)?;
        }
        let serving = places.authority.certify(&[self.name, &self.address]);
        self.keep("serving.crt", &serving.chain)?;
        self.keep("serving.key", &serving.key)?;
        self.keep("ca.crt", &places.authority.pem)?;
        self.keep("resolv.conf", "")?;
        self.keep("containerd.toml", &self.containerd())?;
        // Cilium writes its own, once it is ready.
        if !options.cilium {
            self.keep("cni/pods.conflist", &self.network().to_string())?;
        }
        self.keep("kubelet.yaml", &self.kubelet(places, options).to_string())?;
        self.keep("proxy.yaml", &self.proxy(places).to_string())?;
        for (user, group) in [
            (format!("system:node:{}", self.name), Some("system:nodes")),
            ("system:kube-proxy".to_owned(), None),
        ] {
            Access::certified(self.folder, &places.url(), &places.authority, &user, group)?;
        }
        if options.cilium {
            Access::master(self.folder, &places.url(), &places.authority, "cilium")?;
        }
        Ok(())
    }

    fn keep(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.folder.join(name), text)?)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Whoever may not raise a process's standing with the killer of those out of memory must not be asked to.
    fn containerd(&self) -> String {
        format!(
            r#"version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dirs = ["{plugins}", "{cilium}"]
    conf_dir = "{configuration}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
            pause = super::Node::INSIDE,
            plugins = programs::path(&CNI, "").display(),
            cilium = programs::path(&CILIUM, "").display(),
            configuration = self.file("cni"),
        )
    }

    fn network(&self) -> Value {
        let addresses = json!({
            "type": "host-local",
            "ranges": [[{"subnet": self.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        });
        let bridge = json!({
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": addresses,
        });
        let ports = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]})
    }

    fn kubelet(&self, places: &Places, options: &NodeOptions) -> Value {
        let gates = options.feature_gates.iter();
        let gates: Map<String, Value> = gates
            .map(|(name, on)| ((*name).to_owned(), (*on).into()))
            .collect();
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.file("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.file("serving.crt"),
            "tlsPrivateKeyFile": self.file("serving.key"),
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.groups),
            "failCgroupV1": false,
            "oomScoreAdj": 0,
            "failSwapOn": false,
            "clusterDomain": "cluster.local",
            "clusterDNS": [places.services().replace(".0/24", ".10")],
            "resolvConf": self.file("resolv.conf"),
            "volumePluginDir": self.file("plugins"),
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            // How much pods have written is looked at so often.
            "volumeStatsAggPeriod": "5s",
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "kubeAPIQPS": 100,
            "kubeAPIBurst": 200,
            "featureGates": gates,
        })
    }

    fn proxy(&self, places: &Places) -> Value {
        let network = places.network.as_ref();
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self.file("system-kube-proxy.kubeconfig")},
            "hostnameOverride": self.name,
            "mode": "iptables",
            "clusterCIDR": network.map(super::Network::pods),
            "oomScoreAdj": 0,
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        })
    }
}
