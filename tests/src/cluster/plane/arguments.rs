//! What the programs of a control plane are started with.

use std::path::PathBuf;
use std::process::Command;

use carrel_cluster_tools::{ETCD, KUBERNETES, KWOK};
use carrel_testkit::certificates::Certified;

use super::Places;
use crate::cluster::access::MASTERS;
use crate::cluster::{audit, fake, programs};

/// What KWOK does with nodes and pods.
const STAGES: &str = include_str!("stages.yaml");
/// The services of a cluster that has no real node are reached by nobody.
const SERVICES: &str = "10.96.0.0/24";

impl Places {
    /// Writes what the programs are to read.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let first_service = self.services().replace(".0/24", ".1");
        let names = [
            "kubernetes.default.svc",
            "localhost",
            host,
            first_service.as_str(),
        ];
        self.keep("apiserver", &self.authority.certify(&names))?;
        self.keep("etcd", &self.authority.certify(&["localhost", "127.0.0.1"]))?;
        for name in ["apiserver-etcd", "front-proxy"] {
            self.keep(name, &self.authority.certify_user(name, None))?;
        }
        let caller = self
            .authority
            .certify_user("apiserver-kubelet", Some(MASTERS));
        self.keep("apiserver-kubelet", &caller)?;
        // Any key will do to sign tokens of service accounts.
        self.keep("accounts", &self.authority.certify_user("accounts", None))?;
        std::fs::write(self.folder.join("ca.crt"), &self.authority.pem)?;
        std::fs::write(self.folder.join("audit.yaml"), audit::policy().to_string())?;
        Ok(std::fs::write(self.folder.join("stages.yaml"), STAGES)?)
    }

    fn keep(&self, name: &str, certified: &Certified) -> anyhow::Result<()> {
        std::fs::write(self.folder.join(format!("{name}.crt")), &certified.chain)?;
        Ok(std::fs::write(
            self.folder.join(format!("{name}.key")),
            &certified.key,
        )?)
    }

    /// The network of services.
    pub(in crate::cluster) fn services(&self) -> String {
        let network = self.network.as_ref();
        network.map_or_else(|| SERVICES.to_owned(), super::Network::services)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Data that nobody needs after the test is not synced to the disk.
    pub(super) fn etcd(&self) -> Command {
        let mut command = programs::command(&ETCD, "etcd");
        let url = format!("https://{}", self.etcd);
        // It is alone: nobody calls it as a peer.
        let peer = "http://127.0.0.1:1";
        command.args(["--name=test", "--unsafe-no-fsync", "--log-level=warn"]);
        command.args([
            "--quota-backend-bytes=4294967296",
            "--auto-compaction-mode=revision",
        ]);
        command.args(["--auto-compaction-retention=10000", "--client-cert-auth"]);
        command.args(["--listen-peer-urls=http://127.0.0.1:0"]);
        command.arg(format!("--initial-advertise-peer-urls={peer}"));
        command.arg(format!("--initial-cluster=test={peer}"));
        command.arg(format!("--data-dir={}", self.file("etcd")));
        command.arg(format!("--listen-client-urls={url}"));
        command.arg(format!("--advertise-client-urls={url}"));
        command.arg(format!("--trusted-ca-file={}", self.file("ca.crt")));
        command.arg(format!("--cert-file={}", self.file("etcd.crt")));
        command.arg(format!("--key-file={}", self.file("etcd.key")));
        command
    }

    pub(super) fn api_server(&self) -> Command {
        let mut command = programs::command(&KUBERNETES, "kube-apiserver");
        let (host, port) = self.address.rsplit_once(':').unwrap_or_default();
        command.arg(format!("--bind-address={host}"));
        command.arg(format!("--secure-port={port}"));
        match &self.network {
            // A loopback address may not be an endpoint.
            None => command.arg("--endpoint-reconciler-type=none"),
            Some(network) => command.arg(format!("--advertise-address={}", network.host())),
        };
        command.arg(format!("--etcd-servers=https://{}", self.etcd));
        command.arg(format!("--service-cluster-ip-range={}", self.services()));
        command.arg(format!("--cert-dir={}", self.folder.display()));
        let files = [
            ("tls-cert-file", "apiserver.crt"),
            ("tls-private-key-file", "apiserver.key"),
            ("client-ca-file", "ca.crt"),
            ("etcd-cafile", "ca.crt"),
            ("etcd-certfile", "apiserver-etcd.crt"),
            ("etcd-keyfile", "apiserver-etcd.key"),
            ("service-account-key-file", "accounts.crt"),
            ("service-account-signing-key-file", "accounts.key"),
            ("kubelet-client-certificate", "apiserver-kubelet.crt"),
            ("kubelet-client-key", "apiserver-kubelet.key"),
            ("kubelet-certificate-authority", "ca.crt"),
            ("requestheader-client-ca-file", "ca.crt"),
            ("proxy-client-cert-file", "front-proxy.crt"),
            ("proxy-client-key-file", "front-proxy.key"),
            ("audit-policy-file", "audit.yaml"),
            ("audit-log-path", "audit.log"),
        ];
        command.args(files.map(|(flag, name)| format!("--{flag}={}", self.file(name))));
        command.args([
            "--audit-log-maxsize=100000",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--anonymous-auth=false",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--kubelet-preferred-address-types=InternalIP",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--enable-aggregator-routing=true",
            "--allow-privileged=true",
            "--profiling=false",
        ]);
        command.args(&self.api_arguments);
        command
    }

    /// What a client of the API server is told that is one of a kind, and fast.
    fn alone(&self, program: &str, user: &str) -> anyhow::Result<Command> {
        let mut command = programs::command(&KUBERNETES, program);
        let kubeconfig = self.access(user)?;
        for flag in [
            "kubeconfig",
            "authentication-kubeconfig",
            "authorization-kubeconfig",
        ] {
            command.arg(format!("--{flag}={}", kubeconfig.display()));
        }
        command.args([
            "--leader-elect=false",
            "--secure-port=0",
            "--profiling=false",
        ]);
        command.args(["--kube-api-qps=300", "--kube-api-burst=600"]);
        Ok(command)
    }

    fn access(&self, user: &str) -> anyhow::Result<PathBuf> {
        let (folder, url) = (&self.folder, self.url());
        Ok(super::Access::certified(folder, &url, &self.authority, user, None)?.file)
    }

    pub(super) fn controller_manager(&self) -> anyhow::Result<Command> {
        let mut command =
            self.alone("kube-controller-manager", "system:kube-controller-manager")?;
        command.arg(format!("--root-ca-file={}", self.file("ca.crt")));
        command.arg(format!(
            "--service-account-private-key-file={}",
            self.file("accounts.key")
        ));
        command.arg("--use-service-account-credentials=true");
        if self.network.is_none() {
            // All nodes are fake: they say once that they are ready.
            command.arg("--node-monitor-grace-period=24h");
        }
        Ok(command)
    }

    pub(super) fn scheduler(&self) -> anyhow::Result<Command> {
        self.alone("kube-scheduler", "system:kube-scheduler")
    }

    pub(super) fn kwok(&self, addresses: &str) -> anyhow::Result<Command> {
        let mut command = programs::command(&KWOK, "kwok");
        command.arg(format!(
            "--kubeconfig={}",
            self.master("kwok")?.file.display()
        ));
        command.arg(format!("--config={}", self.file("stages.yaml")));
        command.arg(format!("--cidr={addresses}"));
        command.arg(format!(
            "--manage-nodes-with-annotation-selector={}",
            fake::SELECTOR
        ));
        // It holds no leases of nodes: whoever begins anew with them may forget pods that it sees before it has seen that they are its own.
        command.args(["--manage-all-nodes=false", "--node-ip=127.0.0.1", "-v=WARN"]);
        Ok(command)
    }
}
