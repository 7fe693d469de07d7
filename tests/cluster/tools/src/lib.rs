#![doc = include_str!("../README.md")]

use std::env;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Go's variable of this name: what is pinned, and no path of the machine.
pub const GO_FLAGS: &str = "-mod=readonly -buildvcs=false -trimpath";

/// Programs that are built together, from one pinned module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    /// Its name, which is that of its module's folder.
    pub name: &'static str,
    /// What is built.
    pub programs: &'static [Program],
    /// The module whose version the programs name as their own, and the variables that hold it.
    version: Option<(&'static str, &'static [&'static str])>,
    /// Build tags; with any, C is linked, too.
    pub tags: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    /// What is ours of it.
    source: &'static str,
}

/// A change of one file of a module, and what stands beside the programs that were built of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Patch {
    /// The module.
    pub module: &'static str,
    /// The file in it.
    pub file: &'static str,
    /// What stands there, once.
    pub from: &'static str,
    /// What is to stand there.
    pub to: &'static str,
    /// A folder of the module that the programs read while they run.
    pub data: &'static str,
}

/// A program's name and its package, or a file's name and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Program {
    /// Its file's name.
    pub name: &'static str,
    /// What Go builds it from; `MODULE//PATH` is a file of a module.
    pub package: &'static str,
}

const fn program(name: &'static str, package: &'static str) -> Program {
    Program { name, package }
}

macro_rules! group {
    ($constant:ident, $doc:literal, $name:literal, [$($program:literal: $package:literal),+ $(,)?] $(, $field:ident: $value:expr)*) => {
        #[doc = $doc]
        pub const $constant: Group = Group {
            $($field: $value,)*
            ..Group {
                name: $name,
                programs: &[$(program($program, $package)),+],
                version: None,
                tags: "",
                source: "",
                go_mod: include_str!(concat!("../", $name, "/go.mod")),
                go_sum: include_str!(concat!("../", $name, "/go.sum")),
            }
        };
    };
}

group!(KUBERNETES, "Kubernetes itself.", "kubernetes", [
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
], version: Some(("k8s.io/kubernetes", &[
    "k8s.io/component-base/version.gitVersion",
    "k8s.io/client-go/pkg/version.gitVersion",
])));
group!(ETCD, "The store of the API server.", "etcd", ["etcd": "go.etcd.io/etcd/server/v3"]);
group!(KWOK, "Nodes and pods that are only objects.", "kwok", ["kwok": "sigs.k8s.io/kwok/cmd/kwok"]);
group!(CONTAINERD, "Containers of a real node.", "containerd", [
    "containerd": "github.com/containerd/containerd/v2/cmd/containerd",
    "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    "ctr": "github.com/containerd/containerd/v2/cmd/ctr",
], version: Some(("github.com/containerd/containerd/v2", &["github.com/containerd/containerd/v2/version.Version"])));
group!(RUNC, "One container.", "runc", ["runc": "github.com/opencontainers/runc"],
    version: Some(("github.com/opencontainers/runc", &["main.version"])), tags: "seccomp");
group!(CNI, "The network of pods on a node.", "cni", [
    "bridge": "github.com/containernetworking/plugins/plugins/main/bridge",
    "loopback": "github.com/containernetworking/plugins/plugins/main/loopback",
    "host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
    "portmap": "github.com/containernetworking/plugins/plugins/meta/portmap",
]);
group!(INSIDE, "What runs in containers.", "inside", ["inside": "."], source: include_str!("../inside/main.go"));
group!(COREDNS, "Answers the names of services.", "coredns", ["coredns": "."], source: include_str!("../coredns/main.go"));
group!(HELM, "Installs charts.", "helm", ["helm": "helm.sh/helm/v3/cmd/helm"],
    version: Some(("helm.sh/helm/v3", &["helm.sh/helm/v3/internal/version.version"])));
group!(KUBECONFORM, "Checks manifests against schemas.", "kubeconform",
    ["kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"]);
group!(KUBE_SCORE, "Checks manifests against good practice.", "kube-score",
    ["kube-score": "github.com/zegl/kube-score/cmd/kube-score"]);
group!(DEFINITIONS, "Definitions of others that the chart uses where they are there.", "definitions", [
    "httproutes.yaml": "sigs.k8s.io/gateway-api//config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    "servicemonitors.yaml":
        "github.com/prometheus-operator/prometheus-operator//example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    "prometheusrules.yaml":
        "github.com/prometheus-operator/prometheus-operator//example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
]);
group!(KUSTOMIZE, "Builds manifests.", "kustomize", ["kustomize": "sigs.k8s.io/kustomize/kustomize/v5"]);

group!(PROMETHEUS, "Checks and plays alerts.", "prometheus", ["promtool": "github.com/prometheus/prometheus/cmd/promtool"]);

group!(CILIUM, "A network of pods that enforces policies.", "cilium", [
    "cilium-agent": "github.com/cilium/cilium/daemon",
    "cilium-operator": "github.com/cilium/cilium/operator",
    "cilium-cni": "github.com/cilium/cilium/plugins/cilium-cni",
], version: Some(("github.com/cilium/cilium", &["github.com/cilium/cilium/pkg/version.ciliumVersion"])));

/// What a control plane with fake nodes needs.
pub const CLUSTER: &[Group] = &[KUBERNETES, ETCD, KWOK];
/// What a real node needs besides.
pub const NODE: &[Group] = &[CONTAINERD, RUNC, CNI, INSIDE];
/// What a cluster needs besides, in which a chart is installed.
pub const INSTALLATION: &[Group] = &[COREDNS, HELM];
/// What charts and manifests are tested with.
pub const CHART: &[Group] = &[HELM, KUBECONFORM, KUBE_SCORE, KUSTOMIZE, DEFINITIONS];

/// A kernel without loadable modules has no list of them, and Cilium's agent ends without one.
const NO_MODULES: Patch = Patch {
    module: "github.com/cilium/cilium",
    file: "pkg/datapath/linux/modules/modules_linux.go",
    from: "\"/proc/modules\"",
    to: "\"/dev/null\"",
    data: "bpf",
};

impl Group {
    /// What is changed in a module before it is built.
    pub fn patch(&self) -> Option<Patch> {
        (*self == CILIUM).then_some(NO_MODULES)
    }

    /// Where its programs are once they are built; `None` where there is no place for a cache.
    pub fn folder(&self) -> Option<PathBuf> {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        (GO_FLAGS, self.linker_flags()).hash(&mut hasher);
        if let Some(patch) = self.patch() {
            patch.hash(&mut hasher);
        }
        let name = format!("{}-{:016x}", self.name, hasher.finish());
        Some(cache()?.join("tools").join(name))
    }

    /// Whether it is built.
    pub fn is_built(&self) -> bool {
        self.folder().is_some_and(|folder| folder.is_dir())
    }

    /// The folder of its pinned module.
    pub fn module(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.name)
    }

    /// What Go's linker is told: no symbols, and the version that is pinned.
    pub fn linker_flags(&self) -> String {
        let mut flags = "-s -w".to_owned();
        if let Some((module, variables)) = self.version {
            for variable in variables {
                let _ = write!(flags, " -X {variable}={}", self.pinned(module));
            }
        }
        flags
    }

    /// The version of a module that is required.
    fn pinned(&self, module: &str) -> &'static str {
        let mut lines = self.go_mod.lines();
        let version = lines.find_map(|line| line.trim().strip_prefix(module)?.strip_prefix(' '));
        version
            .and_then(|version| version.split_whitespace().next())
            .unwrap_or_default()
    }
}

/// What Carrel's tests keep between runs: `$XDG_CACHE_HOME/carrel`, else `~/.cache/carrel`.
pub fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let caches = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(caches.join("carrel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_names_the_version_that_its_module_requires() {
        let all = [CLUSTER, NODE, INSTALLATION, CHART, &[CILIUM]].concat();
        for group in all {
            if let Some((module, _)) = group.version {
                let line = format!("{module} {} h1:", group.pinned(module));
                assert!(group.pinned(module).starts_with('v'), "{line}");
                assert!(group.go_sum.contains(&line), "{line}");
            }
        }
        for file in DEFINITIONS.programs {
            let (module, _) = file.package.split_once("//").unwrap();
            let line = format!("{module} {} h1:", DEFINITIONS.pinned(module));
            assert!(DEFINITIONS.go_sum.contains(&line), "{line}");
        }
        assert!(ETCD.version.is_none() && ETCD.linker_flags() == "-s -w");
        let kubelet = KUBERNETES.linker_flags();
        assert!(
            kubelet.contains("component-base/version.gitVersion=v1."),
            "{kubelet}"
        );
    }

    #[test]
    fn another_pin_is_another_folder() {
        let other = Group { go_sum: "", ..ETCD };
        assert_ne!(ETCD.folder(), other.folder());
        assert_eq!(ETCD.folder(), ETCD.folder());
    }
}
