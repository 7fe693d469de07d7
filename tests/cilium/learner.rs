//! What a learner's agent tries.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrel_tests::cluster::Installation;
use carrel_tests::eventually;

use crate::beside::{self, COMPONENTS, ELSEWHERE, METADATA};

/// The port that a neighbour's agent opens for everybody.
const NEIGHBOURS_AGENT: u16 = 9000;
/// How long its turn lasts, in seconds: longer than the questions.
const TURN: u32 = 20;
/// What is changed is in force by then.
const LONG: Duration = Duration::from_mins(1);

/// Addresses, each as `reach` takes it.
pub(crate) struct Doors {
    /// Router and vault.
    open: Vec<String>,
    /// All else, each with the components that reach it.
    pub(crate) shut: Vec<(String, &'static [&'static str])>,
    /// Of it what every pod tries at its start.
    pub(crate) tried: [String; 2],
    /// The sidecar of ada's pod.
    pub(crate) sidecar: String,
}

impl Doors {
    /// Finds them while ada and bob are awake.
    pub(crate) fn find(school: &Installation) -> anyhow::Result<Self> {
        let service = |namespace: &str, name: &str| {
            let namespace = format!("--namespace={namespace}");
            school.plane.kubectl(&[
                "get",
                "service",
                name,
                &namespace,
                "--output=jsonpath={.spec.clusterIP}",
            ])
        };
        let pod = |namespace: &str, label: &str| {
            let (namespace, label) = (
                format!("--namespace={namespace}"),
                format!("--selector={label}"),
            );
            school.plane.kubectl(&[
                "get",
                "pods",
                &namespace,
                &label,
                "--output=jsonpath={.items[0].status.podIP}",
            ])
        };
        let school_is = Installation::NAMESPACE;
        let component = |name: &str| format!("app.kubernetes.io/component={name}");
        let of_learner = |name: &str| {
            pod(
                Installation::LEARNERS,
                &format!("carrel.dev/learner={name}"),
            )
        };
        let names = service("kube-system", "kube-dns")?;
        let [database, bucket] = school.storage();
        let api_server = school.plane.url();
        let api_server = api_server
            .strip_prefix("https://")
            .context("it has an address")?;
        let (router, vault) = (
            service(school_is, "carrel-router")?,
            service(school_is, "carrel-vault")?,
        );
        let neighbour = of_learner("bob")?;
        let kubernetes = format!("{}:443", service("default", "kubernetes")?);
        let gateway = format!("{}:7070", service(school_is, "carrel-gateway")?);
        let tried = [METADATA.to_owned(), gateway.clone()];
        Ok(Self {
            open: vec![
                format!("{router}:7071"),
                format!("{router}:7074"),
                format!("{vault}:7072"),
            ],
            shut: vec![
                (kubernetes, &["gateway", "controller"]),
                (api_server.to_owned(), &["gateway", "controller"]),
                (METADATA.to_owned(), &[]),
                (gateway, &["gateway"]),
                (
                    format!("{}:7070", pod(school_is, &component("gateway"))?),
                    &["gateway"],
                ),
                (
                    format!("{}:7079", pod(school_is, &component("vault"))?),
                    &[],
                ),
                (format!("{neighbour}:7080"), &["gateway", "controller"]),
                (format!("{neighbour}:{NEIGHBOURS_AGENT}"), &[]),
                (database, &["gateway", "router", "vault"]),
                // Of this machine, which is to the cluster what the internet is.
                (bucket, &["vault"]),
                (format!("{}:8080", pod(ELSEWHERE, "app=served")?), &[]),
                (format!("{names}:53"), &COMPONENTS),
                (
                    format!("kubernetes.default.svc.cluster.local.@{names}:53"),
                    &COMPONENTS,
                ),
            ],
            tried,
            sidecar: format!("{}:7080", of_learner("ada")?),
        })
    }

    /// # Errors
    /// When the agent reaches what it must not, or not what it must.
    pub(crate) async fn are_shut(&self, school: &Installation) -> anyhow::Result<()> {
        let (open, shut) = self.try_all(school, "shut").await?;
        ensure!(open == self.open, "open: {open:#?}\nshut: {shut:#?}");
        // Policies let nothing through, in silence: what answers with a refusal was reached.
        let refused = |line: &&String| !line.contains("timeout");
        let answered: Vec<&String> = shut.iter().filter(refused).collect();
        ensure!(answered.is_empty(), "it answers: {answered:#?}");
        Ok(())
    }

    /// Waits until the agent reaches all that nobody else's policy keeps from it: the vault shows its metrics to nobody.
    pub(crate) async fn are_open(&self, school: &Installation) -> anyhow::Result<()> {
        let mut tried = 0;
        eventually("the machine reaches the sidecar", LONG, || async {
            Ok(beside::is_reached(&self.sidecar).await.then_some(()))
        })
        .await?;
        eventually("all is reached", LONG, || {
            tried += 1;
            let key = format!("open {tried}");
            async move {
                let (_, shut) = self.try_all(school, &key).await?;
                let is_metrics = |line: &String| line.contains(":7079: ");
                Ok((shut.len() == 1 && shut.iter().all(is_metrics)).then_some(()))
            }
        })
        .await
    }

    /// What ada's agent reaches while bob's listens; and what it says of the rest.
    async fn try_all(
        &self,
        school: &Installation,
        key: &str,
    ) -> anyhow::Result<(Vec<String>, Vec<String>)> {
        let listen = format!("listen {NEIGHBOURS_AGENT}\nslow {TURN}");
        let turn = school.api.post("bob", &listen, key).await?.turn;
        let mut neighbour = school.api.post_and_follow("bob", &listen, key).await?;
        let mut said = String::new();
        while !said.contains("listening") {
            let event = neighbour.next().await?;
            said += event.context("the turn does not end yet")?.text("text");
        }
        let shut = self.shut.iter().map(|(address, _)| address.clone());
        let all: Vec<String> = self.open.iter().cloned().chain(shut).collect();
        let reach = format!("reach {}", all.join(" "));
        let reply = school.api.reply("ada", &reach).await?;
        let turn = school.api.turn("bob", &turn).await?;
        ensure!(
            turn["reply"].is_null(),
            "the neighbour did not listen until the end: {turn}"
        );
        while neighbour.next().await?.is_some() {}
        let (mut open, mut shut) = (Vec::new(), Vec::new());
        for address in &all {
            let line = reply
                .lines()
                .find(|line| line.starts_with(&format!("reach {address}: ")));
            let line = line.with_context(|| format!("nothing is said of {address} in {reply}"))?;
            if line.ends_with(": reached") {
                open.push(address.clone());
            } else {
                shut.push(line.to_owned());
            }
        }
        Ok((open, shut))
    }
}
