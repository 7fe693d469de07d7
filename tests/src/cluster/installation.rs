//! Carrel as an operator installs it: its chart in a cluster with real nodes, on a database and a bucket of this machine, which pods
//! reach at the bridge's address.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use carrel_cluster_tools::INSTALLATION;
use carrel_testkit::link::{Link, To};
use carrel_testkit::postgres::Server;
use carrel_testkit::s3::{BUCKET, S3Server};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::chart::{self, RELEASE};
use super::steps::Steps;
use super::{ControlPlane, Mark, Node, NodeOptions, Operator, Options, names, programs, tally};
use crate::agent;
use crate::api::Api;
use crate::require::{carrel, skip};
use crate::variables::unheard;
use crate::wait::{eventually, output};

/// The role of the database that all components have.
const ROLE: &str = "carrel";
/// Its password, as a file has it.
const PASSWORD: &str = "not 1234 but 4321\n";
/// What a cluster does of itself is done by then, also where the machine is busy.
const LONG: Duration = Duration::from_mins(2);

/// A release in a cluster. Dropping it ends all of it.
pub struct Installation {
    /// The client of its gateway, by the Service.
    pub api: Api,
    /// Its node.
    pub node: Node,
    /// The cluster.
    pub plane: ControlPlane,
    /// The storage of snapshots.
    pub s3: S3Server,
    /// When the cluster was there, and nothing in it.
    pub empty_at: Instant,
    nodes: NodeOptions,
    values: Value,
    folder: TempDir,
    links: [Link; 2],
}

impl Installation {
    /// The namespace of components and objects.
    pub const NAMESPACE: &str = "school";
    /// The namespace of learners' pods.
    pub const LEARNERS: &str = "carrel-learners";

    /// A cluster with one node, and the release in it, ready. `None` when the machine lacks what it needs, which is said. All its nodes
    /// are as these options have it.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(steps: &mut Steps, mut nodes: NodeOptions) -> anyhow::Result<Option<Self>> {
        let test = steps.test;
        let Some(image) = image() else {
            skip(
                test,
                "image",
                "CARREL_IMAGE names no archive of the image ('cargo xtask image --dev' writes one)",
            )?;
            return Ok(None);
        };
        if let Some(reason) = programs::missing(INSTALLATION) {
            skip(test, "node", &reason)?;
            return Ok(None);
        }
        let Some(server) = Server::shared(&[]) else {
            return Ok(None);
        };
        let folder = TempDir::with_prefix("carrel-installation-")?;
        let s3 = match S3Server::start(folder.path()) {
            Ok(s3) => s3,
            Err(reason) => {
                skip(test, "s3", &reason)?;
                return Ok(None);
            }
        };
        let options = Options {
            reachable: true,
            ..Options::default()
        };
        let Some(plane) = ControlPlane::start(test, options).await? else {
            return Ok(None);
        };
        steps.done("a control plane");
        let names = folder.path().join("coredns.tar");
        names::write_image(&names)?;
        nodes.images.extend([names, image]);
        let Some(node) = Node::start(test, &plane, nodes.clone()).await? else {
            return Ok(None);
        };
        steps.done("a node with the images");
        names::serve(&plane, folder.path())?;
        steps.done("names of services");
        let empty_at = Instant::now();
        let operator = Operator::of(&plane)?;
        operator
            .carrel(&["doctor", "--pre", "-n", Self::NAMESPACE], "")?
            .well()?;
        steps.done("doctor --pre: the cluster is fit for it");

        let host = plane.host().context("it is reachable")?;
        let links = [
            Link::start_at(host, To::Socket(server.socket()))?,
            Link::start_at(host, To::OneOf(vec![([127, 0, 0, 1], s3.port()).into()]))?,
        ];
        let database = server.database("template1");
        server.psql(
            "postgres",
            &format!(
                "CREATE ROLE {ROLE} LOGIN PASSWORD '{}'; ALTER DATABASE {database} OWNER TO {ROLE}",
                PASSWORD.trim_end()
            ),
        );
        server.ask_password_of(ROLE).await;
        let values = values(&links, &database, &plane.url(), nodes.cilium)?;
        let mut it = Self {
            api: Api::new("http://127.0.0.1:1", "")?,
            node,
            plane,
            s3,
            empty_at,
            nodes,
            values,
            folder,
            links,
        };
        let token = it.secrets()?;
        let installed = it.install(&json!({})).await;
        if let Err(error) = installed {
            it.tell();
            return Err(error);
        }
        it.api = Api::new(&it.gateway()?, &token)?;
        steps.done("helm install, until all components are ready");
        Ok(Some(it))
    }

    /// One more node.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn another_node(&self, test: &str) -> anyhow::Result<Node> {
        let node = Node::start(test, &self.plane, self.nodes.clone()).await?;
        node.context("there is one already")
    }

    /// Where its pods reach the database, and the storage of snapshots.
    pub fn storage(&self) -> [String; 2] {
        self.links.each_ref().map(Link::address)
    }

    /// Namespace, keys, the database's password and the bucket's credentials, as an operator makes them: the operator's token.
    fn secrets(&self) -> anyhow::Result<String> {
        self.plane
            .kubectl(&["create", "namespace", Self::NAMESPACE])?;
        let mut keys = std::process::Command::new(carrel()?);
        unheard(&mut keys).args([
            "keys",
            "create",
            "--secret",
            "carrel-keys",
            "--namespace",
            Self::NAMESPACE,
        ]);
        let keys = output(&mut keys)?;
        ensure!(
            keys.status.success(),
            "keys create: {}",
            String::from_utf8_lossy(&keys.stderr)
        );
        let secret: Value = serde_yaml::from_slice(&keys.stdout)?;
        let of = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        let password = of("carrel-database", json!({"password": PASSWORD}));
        let credentials = json!({"credentials": S3Server::credentials()});
        let credentials = of("carrel-bucket", credentials);
        let items = [&secret, &password, &credentials];
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
        let token = secret["stringData"]["admin.token"]
            .as_str()
            .context("a token is a text")?;
        Ok(token.trim().to_owned())
    }

    /// `helm upgrade --install` with these values laid over the usual ones, until all is ready.
    ///
    /// # Errors
    /// With what helm says.
    pub async fn install(&self, more: &Value) -> anyhow::Result<String> {
        let (usual, over) = (
            self.folder.path().join("values.json"),
            self.folder.path().join("more.json"),
        );
        std::fs::write(&usual, self.values.to_string())?;
        std::fs::write(&over, more.to_string())?;
        let [usual, over] = [&usual, &over].map(|path| path.display().to_string());
        self.helm(&[
            "upgrade",
            "--install",
            RELEASE,
            chart::FOLDER,
            "--values",
            &usual,
            "--values",
            &over,
            "--wait",
            "--timeout",
            "110s",
        ])
        .await
    }

    /// Runs helm in the release's namespace: what it prints.
    ///
    /// # Errors
    /// With what it says, when it fails.
    pub async fn helm(&self, words: &[&str]) -> anyhow::Result<String> {
        let said = chart::helm(&self.plane, Self::NAMESPACE, self.folder.path(), words).await?;
        said.well().with_context(|| format!("helm {words:?}"))
    }

    /// The gateway's URL, by its Service.
    ///
    /// # Errors
    /// When there is none.
    pub fn gateway(&self) -> anyhow::Result<String> {
        let address = self.kubectl(&[
            "get",
            "service",
            "carrel-gateway",
            "--output=jsonpath={.spec.clusterIP}",
        ])?;
        Ok(format!("http://{address}:7070"))
    }

    /// A client of the gateway whose Service was made anew.
    ///
    /// # Errors
    /// When there is none.
    pub fn again(&self) -> anyhow::Result<Api> {
        Api::new(&self.gateway()?, self.api.token())
    }

    /// Runs kubectl in the release's namespace: what it prints.
    ///
    /// # Errors
    /// With what it says, when it fails.
    pub fn kubectl(&self, words: &[&str]) -> anyhow::Result<String> {
        self.plane
            .kubectl(&[&["--namespace", Self::NAMESPACE], words].concat())
    }

    /// Applies an object.
    ///
    /// # Errors
    /// With what kubectl says, when it is refused.
    pub fn apply(&self, object: &Value) -> anyhow::Result<()> {
        self.apply_to(Self::NAMESPACE, object)
    }

    /// Applies an object of another namespace.
    ///
    /// # Errors
    /// With what kubectl says, when it is refused.
    pub fn apply_to(&self, namespace: &str, object: &Value) -> anyhow::Result<()> {
        let file = self.folder.path().join("object.json");
        std::fs::write(&file, object.to_string())?;
        let file = file.display().to_string();
        let words = ["apply", "--namespace", namespace, "--filename", &file];
        self.plane.kubectl(&words)?;
        Ok(())
    }

    /// Makes a learner with kubectl, and waits until the gateway has seen them.
    ///
    /// # Errors
    /// When it does not.
    pub async fn learner(&self, name: &str, class: &str) -> anyhow::Result<()> {
        self.apply(&agent::learner(name, class))?;
        let path = format!("/admin/v1/learners/{name}");
        eventually("the gateway knows the learner", LONG, || async {
            let (status, _) = self.api.call(Method::GET, &path, None).await?;
            Ok(status.is_success().then_some(()))
        })
        .await
    }

    /// An object of the release's namespace.
    ///
    /// # Errors
    /// When there is none.
    pub fn object(&self, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&[
            "get",
            name,
            "--output=json",
        ])?)?)
    }

    /// All pods of learners.
    ///
    /// # Errors
    /// When the API server is away.
    pub fn pods(&self) -> anyhow::Result<Vec<Value>> {
        let list = self.plane.kubectl(&[
            "get",
            "pods",
            "--namespace",
            Self::LEARNERS,
            "--output=json",
        ])?;
        let mut list: Value = serde_json::from_str(&list)?;
        Ok(serde_json::from_value(list["items"].take())?)
    }

    /// Waits until so many pods of a class wait for somebody, all of them ready: which.
    ///
    /// # Errors
    /// When there are not.
    pub async fn blank(&self, class: &str, count: usize) -> anyhow::Result<Vec<Value>> {
        eventually("as many pods wait as shall", LONG, || async {
            let mut pods = self.pods()?;
            pods.retain(|pod| {
                let labels = &pod["metadata"]["labels"];
                labels["carrel.dev/class"] == class && labels["carrel.dev/learner"].is_null()
            });
            let is_ready = |pod: &Value| {
                let conditions = pod["status"]["conditions"].as_array();
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
            };
            Ok((pods.len() == count && pods.iter().all(is_ready)).then_some(pods))
        })
        .await
    }

    /// Waits until no learner has a pod.
    ///
    /// # Errors
    /// When one stays.
    pub async fn no_pods(&self) -> anyhow::Result<()> {
        eventually("all learners' pods are gone", LONG, || async {
            let pods = self.pods()?;
            let theirs = pods
                .iter()
                .any(|pod| !pod["metadata"]["labels"]["carrel.dev/learner"].is_null());
            Ok((!theirs).then_some(()))
        })
        .await
    }

    /// What gateway and controller have written since a mark, leases apart, and how often the controller has renewed its own.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub async fn written(&self, since: Mark) -> anyhow::Result<(BTreeMap<String, usize>, usize)> {
        let writes = self.plane.writes_since(since).await?;
        let mut ours = BTreeMap::new();
        for component in ["gateway", "controller"] {
            let account = format!(
                "system:serviceaccount:{}:carrel-{component}",
                Self::NAMESPACE
            );
            for (what, count) in tally(&writes, &account) {
                *ours.entry(what).or_default() += count;
            }
        }
        let renewals = ours.remove("update leases").unwrap_or_default();
        Ok((ours, renewals))
    }

    /// Prints what helps whoever sees a test fail.
    #[expect(
        clippy::print_stdout,
        reason = "a test that fails shows what its cluster says"
    )]
    pub fn tell(&self) {
        let everything: [&[&str]; 4] = [
            &["get", "pods,learners", "--all-namespaces", "--output=wide"],
            &[
                "get",
                "events",
                "--all-namespaces",
                "--sort-by=.lastTimestamp",
            ],
            &[
                "logs",
                "--namespace=school",
                "--selector=app.kubernetes.io/name=carrel",
                "--prefix",
                "--tail=40",
            ],
            &["get", "learners", "--namespace=school", "--output=yaml"],
        ];
        for words in everything {
            let said = self
                .plane
                .kubectl(words)
                .unwrap_or_else(|error| error.to_string());
            println!("---- kubectl {}\n{said}", words.join(" "));
        }
    }
}

/// The archive of Carrel's image.
fn image() -> Option<PathBuf> {
    let path = std::env::var_os("CARREL_IMAGE").filter(|path| !path.is_empty())?;
    Some(path.into())
}

/// What an operator says who has little room; on a network that enforces policies, or on one that does not.
fn values(
    [store, bucket]: &[Link; 2],
    database: &str,
    api_server: &str,
    is_enforced: bool,
) -> anyhow::Result<Value> {
    let port = api_server.rsplit(':').next().unwrap_or_default();
    let port: u16 = port.parse().context("the API server has a port")?;
    let mut values = json!({
        "image": {"repository": "localhost/carrel", "pullPolicy": "Never"},
        // The link is on this machine alone, and the server has no certificate.
        "database": {
            "url": format!("postgres://{ROLE}@{}/{database}?sslmode=disable", store.address()),
            "existingSecret": "carrel-database",
        },
        "objects": {
            "url": format!("s3://{BUCKET}/school"),
            "endpoint": format!("http://{}", bucket.address()),
            "pathStyle": true,
            "existingSecret": "carrel-bucket",
        },
        "prePull": {"enabled": true, "images": [Node::INSIDE]},
        "priorityClasses": {"enabled": true},
        "networkPolicy": {"egress": {"apiServerPorts": [port]}},
        "config": {"drainSeconds": 1, "limits": {"messagesPerMinute": 100_000}},
    });
    for component in ["gateway", "router", "vault", "controller"] {
        values[component] = json!({"resources": {"requests": {"cpu": "20m"}}});
    }
    if !is_enforced {
        // What is reached by everybody is not tried; nobody has this.
        values["learners"] = json!({"mustNotReach": ["169.254.169.254:80"]});
    }
    Ok(values)
}
