//! An agent that tries the doors. The node's network enforces no policy: what is tried here is kept shut by the pod itself and by tokens,
//! and a pod that is told to try for itself finds out.

use std::time::Duration;

use anyhow::Context as _;
use carrel_tests::cluster::{Installation, Steps};
use carrel_tests::eventually;
use serde_json::{Value, json};

/// What a cluster does of itself is done by then, also where the machine is busy.
const LONG: Duration = Duration::from_mins(2);

/// What was said of each line of a message.
pub(super) fn said<'a>(reply: &'a str, line: &str) -> anyhow::Result<&'a str> {
    let found = reply
        .lines()
        .find_map(|said| said.strip_prefix(line)?.strip_prefix(": "));
    found.with_context(|| format!("nothing is said of '{line}' in {reply}"))
}

/// Where a learner's sidecar listens.
fn sidecar(school: &Installation, learner: &str) -> anyhow::Result<String> {
    let pods = school.pods()?;
    let own = pods
        .iter()
        .find(|pod| pod["metadata"]["labels"]["carrel.dev/learner"] == learner);
    let address = own.and_then(|pod| pod["status"]["podIP"].as_str());
    Ok(format!("{}:7080", address.context("they are awake")?))
}

fn service(school: &Installation, name: &str, namespace: &str) -> anyhow::Result<String> {
    let namespace = format!("--namespace={namespace}");
    let address = "--output=jsonpath={.spec.clusterIP}";
    school
        .plane
        .kubectl(&["get", "service", name, address, &namespace])
}

pub(super) async fn an_agent_finds_no_token_no_name_and_no_sidecar_that_listens(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    for learner in ["bob", "carl"] {
        school.api.reply(learner, "wake up").await?;
    }
    let (own, neighbours) = (sidecar(school, "bob")?, sidecar(school, "carl")?);
    let api_server = service(school, "kubernetes", "default")?;
    let of = |component: &str| {
        service(
            school,
            &format!("carrel-{component}"),
            Installation::NAMESPACE,
        )
    };
    let (gateway, router, vault) = (of("gateway")?, of("router")?, of("vault")?);
    let refused = [
        (
            "read /var/run/secrets/kubernetes.io/serviceaccount/token".to_owned(),
            "no such file",
        ),
        (format!("get https://{api_server}/api/v1/namespaces"), "401"),
        (
            "get http://carrel-gateway.school.svc:7070/".to_owned(),
            "lookup",
        ),
        // The way out is no way to what is inside of the cluster, or of its cloud.
        ("through https://169.254.169.254/".to_owned(), "Forbidden"),
        (format!("through https://{api_server}/"), "Forbidden"),
        (format!("through http://{neighbours}/v1/hello"), "403"),
        // No policy keeps it from these here: they ask who comes.
        (format!("get http://{own}/v1/hello"), "401"),
        (format!("get http://{neighbours}/v1/hello"), "401"),
        (
            format!("get https://{}:10250/pods", school.node.address),
            "401",
        ),
        (
            format!("get http://{gateway}:7070/admin/v1/learners"),
            "401",
        ),
        (format!("get http://{router}:7071/v1/models"), "401"),
        (
            format!("get http://{vault}:7072/v1/learners/carl/key"),
            "401",
        ),
        ("write /hello".to_owned(), "read-only file system"),
        (
            "read /var/lib/kubelet/config.yaml".to_owned(),
            "no such file",
        ),
    ];
    let looks = [
        "list /",
        "list /proc",
        "read /proc/1/cmdline",
        "read /proc/1/environ",
    ];
    let script = refused.iter().map(|(line, _)| line.as_str());
    let script: Vec<&str> = script.chain(looks).collect();
    let reply = school.api.reply("bob", &script.join("\n")).await?;
    for (line, why) in &refused {
        let said = said(&reply, line)?;
        assert!(said.contains(why), "'{line}' was answered with '{said}'");
    }
    let [root, processes, first, environment] = looks.map(|line| said(&reply, line));
    let (processes, first, environment) = (processes?, first?, environment?);
    // Its root is its image's, and what its pod has: nothing of the node's.
    assert_eq!(root?, "dev etc inside opt proc sys tmp workspace");
    // The shim and itself.
    let is_number = |name: &&str| name.parse::<u32>().is_ok();
    let count = processes.split(' ').filter(is_number).count();
    assert_eq!(count, 2, "{processes}");
    let shim = r"/opt/carrel/bin/carrel\x00shim";
    assert!(first.contains(shim), "{first}");
    // Not even its own user reads what the shim was started with.
    assert!(environment.contains("permission denied"), "{environment}");
    steps.done("a hostile agent: no token, no name, nothing of the node's or its neighbours', nobody who listens to it");
    Ok(())
}

pub(super) async fn a_pod_that_reaches_what_it_must_not_takes_nobody(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let api_server = format!("{}:443", service(school, "kubernetes", "default")?);
    let tries = json!({"learners": {"mustNotReach": [api_server]}});
    school.install(&tries).await?;
    steps.done("helm upgrade: pods try the API server");
    let before: u32 = school.api.reply("carl", "awake").await?.parse()?;
    school.api.sleep("carl").await?;
    school.no_pods().await?;
    school.api.post("carl", "hello", "not kept in").await?;
    let why = format!("network policies are not enforced yet: the pod can reach {api_server}");
    eventually("the learner's condition says why", LONG, || async {
        let status = school.object("learner/carl")?["status"].take();
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let ready = conditions.find(|it| it["type"] == "Ready");
        let message = ready.filter(|it| it["status"] == "False");
        let message = message.and_then(|it| it["message"].as_str());
        Ok(message.filter(|it| it.contains(&why)).map(|_| ()))
    })
    .await?;
    let events = "--field-selector=reason=PodNotReady,involvedObject.name=carl";
    eventually("an event says so", LONG, || async {
        let events = school.kubectl(&["get", "events", events, "--output=json"])?;
        let events: Value = serde_json::from_str(&events)?;
        let note = events["items"][0]["message"].as_str();
        Ok(note.filter(|note| note.contains(&why)).map(|_| ()))
    })
    .await?;
    let pods = school.pods()?;
    let of_carl = |pod: &&Value| pod["metadata"]["labels"]["carrel.dev/class"] == "warm";
    let pod = pods.iter().find(of_carl).context("there is one")?;
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.find(|it| it["type"] == "Ready");
    assert_eq!(ready.map(|it| &it["status"]), Some(&json!("False")));
    assert!(pod["metadata"]["labels"]["carrel.dev/learner"].is_null());
    steps.done("a pod that reaches it takes nobody, and the learner's condition says why");
    school.install(&json!({})).await?;
    let turn = school.api.post("carl", "hello", "not kept in").await?.turn;
    let reply = eventually("the message is answered", LONG, || async {
        let turn = school.api.turn("carl", &turn).await?;
        Ok(turn["reply"]["text"].as_str().map(str::to_owned))
    })
    .await?;
    assert_eq!(reply, (before + 1).to_string());
    steps.done("helm upgrade to where nothing is reached: the message is answered");
    Ok(())
}
