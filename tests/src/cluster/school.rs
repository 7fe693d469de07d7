//! Learners in a cluster of fake nodes: a control plane with our objects, controllers as processes, stand-ins of sidecars.

mod status;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::status::Status;
use super::{Access, ControlPlane, Options, Proxy, StandIn};
use crate::require::carrel;
use crate::up::{ready_line, signal};
use crate::variables::unheard;
use crate::wait::eventually;

/// Where our objects are.
pub const NAMESPACE: &str = "carrel";
/// Where pods are made.
pub const LEARNER_NAMESPACES: [&str; 2] = ["learners-0", "learners-1"];
/// Our definitions.
pub const DEFINITIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/crds");
/// Whose writes are the controllers'.
pub const CONTROLLER: &str = "carrel-controller";
/// What a controller does has been done by then, also where the machine is busy.
pub const SOON: Duration = Duration::from_mins(2);

/// Learners in a cluster of fake nodes.
pub struct School {
    /// The cluster.
    pub plane: ControlPlane,
    /// Its pods' sidecars.
    pub stand_in: StandIn,
    folder: TempDir,
    access: Access,
    settings: Value,
    started: AtomicU32,
}

/// A controller. Dropping it kills it.
pub struct Controller {
    child: Child,
    log: PathBuf,
    /// Its ready line.
    pub ready: Value,
}

impl School {
    /// A cluster with our definitions and namespaces; no controller runs yet. `None` when the machine lacks what it needs, which is
    /// said. The settings are laid over `kubernetes` and `fleet` of the configuration.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn open(test: &str, nodes: u32, settings: &Value) -> anyhow::Result<Option<Self>> {
        let options = Options {
            fake_nodes: nodes,
            ..Options::default()
        };
        let Some(plane) = ControlPlane::start(test, options).await? else {
            return Ok(None);
        };
        plane.define(Path::new(DEFINITIONS))?;
        for namespace in LEARNER_NAMESPACES.into_iter().chain([NAMESPACE]) {
            plane.namespace(namespace, &json!({})).await?;
        }
        let access = plane.user(CONTROLLER, Some("system:masters"))?;
        Self::on(plane, access, settings).await.map(Some)
    }

    /// The same in a cluster that has definitions and namespaces, with a controller that may do what `access` lets it.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn on(plane: ControlPlane, access: Access, settings: &Value) -> anyhow::Result<Self> {
        let stand_in = StandIn::start(plane.client()).await?;
        let folder = TempDir::with_prefix("carrel-school-")?;
        keys(&folder)?;
        let mut school = Self {
            settings: json!({
                "kubernetes": {
                    "namespace": NAMESPACE,
                    "learnerNamespaces": LEARNER_NAMESPACES,
                    "image": "carrel",
                    "sidecarPort": stand_in.port(),
                },
                "fleet": {"maxLive": 10_000, "startsPerSecond": 500},
                "telemetry": {"logFilter": "info"},
            }),
            plane,
            stand_in,
            folder,
            access,
            started: AtomicU32::new(0),
        };
        for (section, values) in settings.as_object().into_iter().flatten() {
            for (key, value) in values.as_object().into_iter().flatten() {
                school.settings[section][key] = value.clone();
            }
        }
        Ok(school)
    }

    /// Starts a controller. Whether it leads is another matter.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn controller(&self) -> anyhow::Result<Controller> {
        self.controller_by(&self.access.file).await
    }

    /// A way to the API server for controllers, on which the test stands.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn proxy(&self) -> anyhow::Result<Proxy> {
        Proxy::start(&self.access).await
    }

    /// Starts a controller that goes by this kubeconfig.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn controller_by(&self, kubeconfig: &Path) -> anyhow::Result<Controller> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let path = |name: &str| self.folder.path().join(name);
        let (stdout, log) = (
            path(&format!("{number}.out")),
            path(&format!("{number}.log")),
        );
        std::fs::write(path("carrel.yaml"), self.settings.to_string())?;
        let mut command = std::process::Command::new(carrel()?);
        unheard(&mut command);
        let mut child = command
            .args([
                "controller",
                "-o",
                "json",
                "--health-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(self.folder.path())
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&log)?)
            .spawn()
            .context("starting a controller")?;
        let ready = ready_line(&mut child, &stdout).await?;
        Ok(Controller { child, log, ready })
    }

    /// Objects of ours.
    fn objects(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("carrel.dev", "v1alpha1", kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        Api::namespaced_with(self.plane.client(), NAMESPACE, &resource)
    }

    /// The learners' objects.
    pub fn learners(&self) -> Api<DynamicObject> {
        self.objects("Learner", "learners")
    }

    /// The classes' objects.
    pub fn classes(&self) -> Api<DynamicObject> {
        self.objects("LearnerClass", "learnerclasses")
    }

    /// The pods of both learner namespaces, of this selector of labels.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn pods(&self, labels: &str) -> anyhow::Result<Vec<Pod>> {
        let mut found = Vec::new();
        for namespace in LEARNER_NAMESPACES {
            let pods: Api<Pod> = Api::namespaced(self.plane.client(), namespace);
            found.extend(
                pods.list(&ListParams::default().labels(labels))
                    .await?
                    .items,
            );
        }
        Ok(found)
    }

    /// Makes a class, or changes it.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn class(&self, name: &str, spec: &Value) -> anyhow::Result<()> {
        let class = json!({"apiVersion": "carrel.dev/v1alpha1", "kind": "LearnerClass", "metadata": {"name": name}, "spec": spec});
        let params = PatchParams::apply("test").force();
        self.classes()
            .patch(name, &params, &Patch::Apply(class))
            .await?;
        Ok(())
    }

    /// Makes a learner of a class.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn learner(&self, name: &str, class: &str) -> anyhow::Result<()> {
        let learner = json!({"apiVersion": "carrel.dev/v1alpha1", "kind": "Learner", "metadata": {"name": name}, "spec": {"className": class}});
        let params = PatchParams::apply("test").force();
        self.learners()
            .patch(name, &params, &Patch::Apply(learner))
            .await?;
        Ok(())
    }

    /// Makes a learner of a class, and waits for the controller's first visit.
    ///
    /// # Errors
    /// When the API server refuses it, or nobody comes in time.
    pub async fn resting(&self, name: &str, class: &str) -> anyhow::Result<()> {
        self.learner(name, class).await?;
        let rests = self.status(name, "first visit", |status| status.is_asleep(0));
        rests.await.map(drop)
    }

    /// Wants an incarnation after an epoch, as a gateway does.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn wake(&self, name: &str, after: u64) -> anyhow::Result<()> {
        self.change(name, &json!({"wakeAfterEpoch": after})).await
    }

    /// Wants an older state of a learner's workspace, or none any more.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn wants(&self, name: &str, snapshot: Option<&str>) -> anyhow::Result<()> {
        let wish = json!({"restore": {"snapshotId": snapshot}});
        self.change(name, &wish).await
    }

    /// Changes what a learner's object says of what is wanted.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn change(&self, name: &str, spec: &Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        let params = PatchParams::default();
        self.learners().patch(name, &params, &patch).await?;
        Ok(())
    }

    /// Deletes a learner's object.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        self.learners()
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// A learner's status, once it is as it should be.
    ///
    /// # Errors
    /// When it is not in time; with the status as it is.
    pub async fn status(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        let learners = self.learners();
        let last = Mutex::new(Status(Value::Null));
        let found = eventually(what, SOON, || async {
            let learner = learners.get_opt(name).await?;
            let status = learner.map(|learner| Status(learner.data["status"].clone()));
            if let Some(status) = &status {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = status.clone();
            }
            Ok(status.filter(&is_so))
        });
        let found = found.await;
        let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.with_context(|| {
            let around = ["get", "nodes,pods", "--all-namespaces", "-o", "wide"];
            let around = self.plane.kubectl(&around);
            let around = around.unwrap_or_else(|error| error.to_string());
            format!("{name} is {}\n{around}", last.0)
        })
    }

    /// What events of this reason say.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn events(&self, reason: &str) -> anyhow::Result<Vec<String>> {
        let events: Api<Event> = Api::namespaced(self.plane.client(), NAMESPACE);
        let events = events.list(&ListParams::default()).await?.items;
        let events = events
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some(reason));
        Ok(events.filter_map(|event| event.note).collect())
    }

    /// Gives the lease free whose holder was killed: nobody acts by it any more, and waiting until it has run out is not what is
    /// tried.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn free_lease(&self) -> anyhow::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.plane.client(), NAMESPACE);
        leases.delete(CONTROLLER, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Nobody speaks for a fake node any more. That is said of it at once, as the node controller does after 50 s without a lease;
    /// the rest (taint, pods that are not ready, eviction) is that controller's.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn dies(&self, node: &str) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.plane.client());
        let params = PatchParams::default();
        let nobodys = json!({"metadata": {"annotations": {"kwok.x-k8s.io/node": null}}});
        nodes.patch(node, &params, &Patch::Merge(nobodys)).await?;
        let unknown = json!({"status": {"conditions": [{
            "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "nothing is heard of it",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}});
        nodes
            .patch_status(node, &params, &Patch::Strategic(unknown))
            .await?;
        Ok(())
    }

    /// Waits until so many blank pods are ready.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn pool(&self, ready: usize) -> anyhow::Result<Vec<Pod>> {
        eventually("the pool is full", SOON, || async {
            let blank = self.pods("!carrel.dev/learner").await?;
            let count = blank.iter().filter(|pod| is_ready(pod)).count();
            Ok((count == ready && blank.len() == ready).then_some(blank))
        })
        .await
    }
}

impl Controller {
    /// What it has logged.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// When that cannot be asked.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it by SIGTERM, and waits until it has.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        signal(self.pid(), Signal::TERM)?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "it ended with {status}: {}", self.log()?);
        Ok(())
    }

    /// Pauses it, or lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self, paused: bool) -> anyhow::Result<()> {
        signal(self.pid(), if paused { Signal::STOP } else { Signal::CONT })
    }

    /// A text of its metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        self.health("metrics").await
    }

    /// What its health port says at a path.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn health(&self, path: &str) -> anyhow::Result<String> {
        let url = self.ready["health_url"].as_str().unwrap_or_default();
        Ok(reqwest::get(format!("{url}/{path}")).await?.text().await?)
    }
}

impl Drop for Controller {
    #[expect(
        clippy::print_stdout,
        reason = "a test that fails shows what its programs have logged"
    )]
    fn drop(&mut self) {
        println!(
            "---- a controller logged\n{}",
            self.log().unwrap_or_default()
        );
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The names of pods, sorted.
pub fn names(pods: &[Pod]) -> Vec<String> {
    let mut names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    names.sort();
    names
}

/// The keys of an installation, in the folder.
fn keys(folder: &TempDir) -> anyhow::Result<()> {
    let made = folder.path().join("made");
    let mut command = std::process::Command::new(carrel()?);
    unheard(&mut command);
    let status = command
        .args(["keys", "create", "--out"])
        .arg(&made)
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "no keys were made: {status}");
    for file in std::fs::read_dir(&made)? {
        let file = file?;
        std::fs::rename(file.path(), folder.path().join(file.file_name()))?;
    }
    Ok(())
}
