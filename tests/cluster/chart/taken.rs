//! A real API server takes all that the chart renders, and its pods, where Pod Security `restricted` is enforced.

use std::path::Path;

use carrel_tests::cluster::school::{DEFINITIONS, LEARNER_NAMESPACES, NAMESPACE};
use carrel_tests::cluster::{Chart, Operator, objects};
use serde_json::{Value, json};

use crate::start_chart;

/// What is said of an autoscaler where nobody measures.
const UNMEASURED: [&str; 2] = ["FailedGetResourceMetric", "FailedComputeMetricsReplicas"];

/// A kind of installation, a further word, and the command with which the notes go on.
const WAYS_IN: [(&str, &str, &str); 5] = [
    (
        "default",
        "--hide-secret",
        "port-forward service/carrel-gateway 7070\n",
    ),
    (
        "everything",
        "--hide-secret",
        "get ingress carrel-gateway\n",
    ),
    ("ha", "--hide-secret", "get httproute carrel-gateway\n"),
    (
        "minimal",
        "--set=gateway.service.type=NodePort",
        "get service carrel-gateway -o jsonpath='{.spec.ports[0].nodePort}'",
    ),
    (
        "external",
        "--hide-secret",
        "get service carrel-gateway -o jsonpath='{.status.loadBalancer",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_enforces_restricted_takes_every_kind_of_installation() -> anyhow::Result<()>
{
    let test = "a_cluster_that_enforces_restricted_takes_every_kind_of_installation";
    let Some(chart) = start_chart(test, 2).await? else {
        return Ok(());
    };
    let operator = Operator::of(&chart.plane)?;
    for (kind, more, next) in WAYS_IN {
        let said = chart
            .install(&Chart::values_of(kind), &["--dry-run=server", more])
            .await?;
        let (_, notes) = said.stdout.split_once("\nNOTES:\n").unwrap_or_default();
        assert!(
            notes.contains(&format!("kubectl -n {NAMESPACE} {next}")),
            "{kind}: {notes}"
        );
    }
    let wait = ["--wait", "--timeout=110s"];
    let said = chart
        .install(&Chart::values_of("everything"), &wait)
        .await?;
    assert_eq!(said.stderr, "", "a warning");
    came_up(&operator)?;
    for namespace in [NAMESPACE, LEARNER_NAMESPACES[0]] {
        let root = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root", "namespace": namespace},
            "spec": {"containers": [{"name": "root", "image": "registry.example/root"}]},
        });
        let said = operator.kubectl(&["create", "-f", "-"], &root.to_string())?;
        let told = "violates PodSecurity \"restricted:";
        assert!(said.stderr.contains(told), "{namespace}: {said:?}");
    }
    let mut all = Vec::new();
    for values in Chart::values()? {
        all.push((values.clone(), chart.render(&values).await?));
    }
    let base = Path::new(DEFINITIONS).join("../base");
    let [own, rest] =
        ["namespace.yaml", "carrel.yaml"].map(|name| std::fs::read_to_string(base.join(name)));
    all.push((base, format!("{}---\n{}", own?, rest?)));
    for (values, rendered) in all {
        for object in objects(&rendered)? {
            // What is in it is asked for next.
            if object["kind"] == "Namespace" {
                let words = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
                operator.kubectl(&words, &object.to_string())?.well()?;
            }
        }
        let words = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "-f",
            "-",
        ];
        let said = operator.kubectl(&words, &rendered)?;
        let taken = said
            .stdout
            .matches("serverside-applied (server dry run)")
            .count();
        assert!(
            said.status == Some(0) && said.stderr.is_empty() && taken == objects(&rendered)?.len(),
            "{}: {said:?}",
            values.display()
        );
    }
    Ok(())
}

/// Fake pods have addresses of this machine's loopback, to which no service may lead.
const UNROUTED: [&str; 2] = ["FailedToUpdateEndpoint", "FailedToUpdateEndpointSlices"];

/// Whether all pods that were asked for are there, and nobody was told of a refusal.
fn came_up(operator: &Operator) -> anyhow::Result<()> {
    let list = |words: &[&str]| -> anyhow::Result<Vec<Value>> {
        let words = [&["get", "--all-namespaces", "-o", "json"], words].concat();
        let mut list: Value = serde_json::from_str(&operator.kubectl(&words, "")?.well()?)?;
        Ok(serde_json::from_value(list["items"].take())?)
    };
    let deployments = list(&["deployments"])?;
    assert_eq!(deployments.len(), 4, "{deployments:?}");
    for deployment in deployments {
        let status = &deployment["status"];
        assert_eq!(
            status["availableReplicas"], status["replicas"],
            "{deployment}"
        );
    }
    let pre_pulls = list(&["daemonsets"])?;
    let available = pre_pulls.iter().map(|it| &it["status"]["numberAvailable"]);
    assert_eq!(available.collect::<Vec<_>>(), [2], "{pre_pulls:?}");
    let warnings = list(&["events", "--field-selector=type!=Normal"])?;
    let told: Vec<String> = warnings
        .iter()
        .filter(|event| !UNMEASURED.iter().any(|reason| event["reason"] == *reason))
        .filter(|event| !UNROUTED.iter().any(|reason| event["reason"] == *reason))
        .map(|event| format!("{}: {}", event["reason"], event["message"]))
        .collect();
    assert_eq!(told, Vec::<String>::new());
    Ok(())
}
