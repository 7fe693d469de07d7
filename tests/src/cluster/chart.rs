//! The chart in a cluster whose nodes are only objects, and how helm is called.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carrel_cluster_tools::{CHART, DEFINITIONS, HELM, KUBECONFORM};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::school::NAMESPACE;
use super::{ControlPlane, Options, Said, programs};
use crate::require::skip;
use crate::wait::output;

/// The release's name, which is also that of its objects.
pub(super) const RELEASE: &str = "carrel";
/// Where the chart is.
pub(super) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/carrel");
/// What the chart uses where a cluster knows it.
const FOREIGN: [&str; 2] = ["gateway.networking.k8s.io/v1", "monitoring.coreos.com/v1"];

/// The chart, and a cluster for it.
pub struct Chart {
    /// The cluster.
    pub plane: ControlPlane,
    home: TempDir,
}

impl Chart {
    /// A cluster that has all that the chart can ask for: others' definitions, and a namespace, that of [`NAMESPACE`], in which
    /// Pod Security `restricted` is enforced. `None` when the machine lacks what it needs, which is said.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(test: &str, fake_nodes: u32) -> anyhow::Result<Option<Self>> {
        if let Some(reason) = programs::missing(CHART) {
            skip(test, "helm", &reason)?;
            return Ok(None);
        }
        let options = Options {
            fake_nodes,
            ..Options::default()
        };
        let Some(plane) = ControlPlane::start(test, options).await? else {
            return Ok(None);
        };
        let level = ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}"));
        let [enforce, warn] = &level;
        plane
            .namespace(
                NAMESPACE,
                &json!({enforce: "restricted", warn: "restricted"}),
            )
            .await?;
        let foreign = DEFINITIONS.folder().context("it is built")?;
        plane.define(&foreign)?;
        let home = TempDir::with_prefix("carrel-chart-")?;
        Ok(Some(Self { plane, home }))
    }

    /// The files of values, one for each kind of installation.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn values() -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(Path::new(FOLDER).join("ci"))?;
        let mut files = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    }

    /// The file of values of a kind of installation: `default`, say.
    pub fn values_of(kind: &str) -> PathBuf {
        Path::new(FOLDER).join(format!("ci/{kind}-values.yaml"))
    }

    /// The chart rendered with a file of values, as for this cluster.
    ///
    /// # Errors
    /// With what helm says.
    pub async fn render(&self, values: &Path) -> anyhow::Result<String> {
        let version = self.plane.client().apiserver_version().await?.git_version;
        let mut words = vec!["template", "--kube-version", &version];
        words.extend(FOREIGN.iter().flat_map(|known| ["--api-versions", *known]));
        self.helm(&words, values).await?.well()
    }

    /// Installs the chart with a file of values; `more` are further words for helm.
    ///
    /// # Errors
    /// With what helm says.
    pub async fn install(&self, values: &Path, more: &[&str]) -> anyhow::Result<Said> {
        let said = self.helm(&[&["install"], more].concat(), values).await?;
        anyhow::ensure!(said.status == Some(0), "{said:?}");
        Ok(said)
    }

    async fn helm(&self, words: &[&str], values: &Path) -> anyhow::Result<Said> {
        let values = values.display().to_string();
        let words = [words, &[RELEASE, FOLDER, "--values", &values]].concat();
        helm(&self.plane, NAMESPACE, self.home.path(), &words).await
    }

    /// What kubeconform says of the manifests of a folder, by the schemas of another: `GROUP/KIND_VERSION.json`.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn conform(schemas: &Path, manifests: &Path) -> anyhow::Result<Said> {
        let place = "{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json";
        let mut kubeconform = programs::command(&KUBECONFORM, "kubeconform");
        kubeconform
            .args(["-strict", "-summary", "-schema-location"])
            .arg(format!("{}/{place}", schemas.display()))
            .arg(manifests);
        Said::of(output(&mut kubeconform)?)
    }
}

/// The objects of manifests, in order.
///
/// # Errors
/// When they are no YAML.
pub fn objects(manifests: &str) -> anyhow::Result<Vec<Value>> {
    let objects: Vec<Value> = serde_yaml::from_multiple(manifests)?;
    Ok(objects
        .into_iter()
        .filter(|object| !object.is_null())
        .collect())
}

/// Runs helm for a namespace of a cluster; what it keeps is in `home`.
pub(super) async fn helm(
    plane: &ControlPlane,
    namespace: &str,
    home: &Path,
    words: &[&str],
) -> anyhow::Result<Said> {
    let mut helm = programs::command(&HELM, "helm");
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(variable, home.join("helm"));
    }
    helm.args(words)
        .args(["--namespace", namespace])
        .arg("--kubeconfig")
        .arg(plane.kubeconfig());
    // Whoever waits for it does other things meanwhile.
    Said::of(tokio::task::spawn_blocking(move || output(&mut helm)).await??)
}
