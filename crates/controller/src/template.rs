//! Of what a class's pods are made: a pure function of the class and of what all pods have in common.
//!
//! Pod Security `restricted` holds for every container. Nothing of it concerns a learner: pods are born blank.

use carrel_core::class::{Bytes, ClassSpec, CpuMillis, Resources};
use carrel_crd::names;
use k8s_openapi::api::core::v1::Pod;
use rand::Rng as _;
use rand::distr::Alphanumeric;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::options::PodOptions;
use crate::world::Class;

/// The user and group of sidecar and agent: one, so that they share files; far from any user of the node.
const USER: u32 = 10_001;
/// Where Carrel's executable and the shim's socket are: a folder, and `/carrel` is the executable's own name in Carrel's image.
const CARREL: &str = "/opt/carrel";
/// All that survives.
const WORKSPACE: &str = "/workspace";
/// Seconds until a pod leaves a node that is not ready or cannot be reached.
const LEAVES_NODE: u32 = 30;

/// Makes pods.
pub(crate) struct Template {
    options: PodOptions,
    /// The public keys of those who may assign, as a sidecar reads them.
    keys: String,
}

impl Template {
    pub(crate) fn new(options: &PodOptions, keys: String) -> Self {
        Self {
            options: options.clone(),
            keys,
        }
    }

    /// What two pods have in common if and only if they are of one class and made of the same.
    pub(crate) fn hash(&self, name: &str, class: &ClassSpec) -> String {
        let mut spec = self.spec(class);
        // The order of keys is that of their making or of their letters, as the build has it.
        spec.sort_all_objects();
        let text = format!("{name} {spec}");
        hex::encode(&Sha256::digest(text)[..8])
    }

    /// A new pod of a class; its name is its own.
    pub(crate) fn pod(&self, class: &Class, namespace: &str) -> Result<Pod, serde_json::Error> {
        serde_json::from_value(json!({
            "metadata": {
                "name": name(),
                "namespace": namespace,
                "labels": {
                    names::PART_OF.0: names::PART_OF.1,
                    names::COMPONENT.0: names::COMPONENT.1,
                    names::CLASS: class.name,
                    names::CLASS_HASH: class.hash,
                },
                "annotations": {
                    "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
                    "kubectl.kubernetes.io/default-container": names::AGENT,
                },
            },
            "spec": self.spec(&class.spec),
        }))
    }

    fn spec(&self, class: &ClassSpec) -> Value {
        let options = &self.options;
        let agent_image = match class.agent.image.as_str() {
            "" => &options.image,
            image => image,
        };
        let storage = class.resources.ephemeral_storage.to_string();
        let carrel = mount("carrel", CARREL, false);
        let carrel_read = mount("carrel", CARREL, true);
        let (workspace, tmp) = (
            mount("workspace", WORKSPACE, false),
            mount("tmp", "/tmp", false),
        );
        let executable = format!("{CARREL}/bin/carrel");
        let socket = format!("{CARREL}/run/shim.sock");
        let mut spec = json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": options.grace_seconds,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["127.0.0.1"]},
            "setHostnameAsFQDN": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [
                {"name": "carrel", "emptyDir": {"sizeLimit": "512Mi"}},
                {"name": "workspace", "emptyDir": {"sizeLimit": storage}},
                {"name": "tmp", "emptyDir": {"sizeLimit": storage}},
            ],
            // Whoever waits for the pod waits for the copy: it takes the processor time that is there.
            "initContainers": [self.carrels(
                "shim",
                json!(["shim", "--install", executable]),
                json!({
                    "requests": {"cpu": "10m", "memory": "32Mi", "ephemeral-storage": "512Mi"},
                    "limits": {"memory": "32Mi", "ephemeral-storage": "512Mi"},
                }),
                json!([carrel]),
            )],
            "containers": [
                self.sidecar(&socket, json!([carrel, workspace, mount("sidecar-tmp", "/tmp", false)])),
                with(self.container(names::AGENT, agent_image), json!({
                    "command": [executable, "shim", "--socket", socket, "--"],
                    "workingDir": WORKSPACE,
                    "resources": agents(&class.resources),
                    "volumeMounts": [carrel_read, workspace, tmp],
                })),
            ],
        });
        self.by_choice(&mut spec, class);
        spec
    }

    /// What is there only when it is wanted.
    fn by_choice(&self, spec: &mut Value, class: &ClassSpec) {
        let options = &self.options;
        if let Some(volumes) = spec["volumes"].as_array_mut() {
            volumes.push(json!({"name": "sidecar-tmp", "emptyDir": {"sizeLimit": "1Gi"}}));
        }
        if class.isolation.user_namespace {
            spec["hostUsers"] = json!(false);
        }
        if !class.isolation.runtime_class_name.is_empty() {
            spec["runtimeClassName"] = json!(class.isolation.runtime_class_name);
        }
        if !options.priority_class.is_empty() {
            spec["priorityClassName"] = json!(options.priority_class);
        }
        if !options.host_aliases.is_empty() {
            let aliases = options.host_aliases.iter();
            spec["hostAliases"] = aliases
                .map(|(ip, name)| json!({"ip": ip, "hostnames": [name]}))
                .collect();
        }
        if !options.image_pull_secrets.is_empty() {
            let secrets = options.image_pull_secrets.iter();
            spec["imagePullSecrets"] = secrets.map(|name| json!({"name": name})).collect();
        }
        if options
            .node_selector
            .as_object()
            .is_some_and(|labels| !labels.is_empty())
        {
            spec["nodeSelector"] = options.node_selector.clone();
        }
        if !options.topology_spread_constraints.is_empty() {
            spec["topologySpreadConstraints"] = json!(options.topology_spread_constraints);
        }
        let leaves = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LEAVES_NODE});
        let mut tolerations = vec![
            leaves("node.kubernetes.io/not-ready"),
            leaves("node.kubernetes.io/unreachable"),
        ];
        tolerations.extend(options.tolerations.iter().cloned());
        spec["tolerations"] = json!(tolerations);
    }

    fn sidecar(&self, socket: &str, mounts: Value) -> Value {
        let options = &self.options;
        let mut arguments = vec![
            "sidecar".to_owned(),
            format!("--listen=0.0.0.0:{}", options.port),
            format!("--shim-socket={socket}"),
            format!("--workspace={WORKSPACE}"),
            format!("--agent-executable={CARREL}/bin/carrel"),
            "--farewell=/dev/termination-log".to_owned(),
            format!(
                "--grace-seconds={}",
                options.grace_seconds.saturating_sub(5).max(1)
            ),
        ];
        if !options.must_not_reach.is_empty() {
            let not = options.must_not_reach.iter();
            arguments.extend(not.map(|at| format!("--must-not-reach={at}")));
            let must = options.must_reach.iter();
            arguments.extend(must.map(|at| format!("--must-reach={at}")));
        }
        let probe = |path: &str| json!({"httpGet": {"path": path, "port": options.port}});
        let sidecar = self.carrels(
            names::SIDECAR,
            json!(arguments),
            json!({
                "requests": {"cpu": "10m", "memory": "48Mi", "ephemeral-storage": "64Mi"},
                "limits": {"memory": "384Mi", "ephemeral-storage": "1Gi"},
            }),
            mounts,
        );
        with(
            sidecar,
            json!({
                "env": [
                    {"name": "CARREL_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                    {"name": "CARREL_FLEET_KEYS", "value": self.keys},
                    {"name": "MALLOC_ARENA_MAX", "value": "1"},
                ],
                "ports": [{"name": "sidecar", "containerPort": options.port}],
                // What the pod is ready for is told by its sidecar; an idle or busy one stays ready, and none is killed by a probe.
                "readinessProbe": with(probe("/readyz"), json!({
                    "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3,
                })),
            }),
        )
    }

    /// A container of Carrel's own image.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what is handed over becomes part of the answer"
    )]
    fn carrels(&self, name: &str, arguments: Value, resources: Value, mounts: Value) -> Value {
        with(
            self.container(name, &self.options.image),
            json!({
                "command": ["/carrel"],
                "args": arguments,
                "resources": resources,
                "volumeMounts": mounts,
            }),
        )
    }

    fn container(&self, name: &str, image: &str) -> Value {
        let mut container = json!({
            "name": name,
            "image": image,
            "terminationMessagePolicy": "File",
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        });
        if !self.options.image_pull_policy.is_empty() {
            container["imagePullPolicy"] = json!(self.options.image_pull_policy);
        }
        container
    }
}

fn mount(volume: &str, path: &str, read_only: bool) -> Value {
    json!({"name": volume, "mountPath": path, "readOnly": read_only})
}

/// An agent's: requests equal limits, unless they are given apart.
fn agents(resources: &Resources) -> Value {
    let of = |cpu: CpuMillis, memory: Bytes| {
        json!({
            "cpu": cpu.to_string(),
            "memory": memory.to_string(),
            "ephemeral-storage": resources.ephemeral_storage.to_string(),
        })
    };
    let (cpu, memory) = (resources.cpu, resources.memory);
    let requests = &resources.requests;
    json!({
        "requests": of(requests.cpu.unwrap_or(cpu), requests.memory.unwrap_or(memory)),
        "limits": of(cpu, memory),
    })
}

fn with(base: Value, more: Value) -> Value {
    match (base, more) {
        (Value::Object(mut base), Value::Object(more)) => {
            base.extend::<Map<String, Value>>(more);
            Value::Object(base)
        }
        (base, _) => base,
    }
}

/// `w-` and ten letters or digits: enough that no two that live have the same.
fn name() -> String {
    let random = rand::rng().sample_iter(Alphanumeric).take(10);
    let text: String = random
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect();
    format!("w-{text}")
}

#[cfg(test)]
pub(crate) mod tests;
