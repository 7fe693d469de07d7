//! An agent that tries the doors. The node's network enforces no policy: what is tried here is kept shut by the pod itself and by tokens.

use anyhow::Context as _;
use carrel_tests::cluster::{Installation, Steps};
use serde_json::Value;

/// What was said of each line of a message.
fn said<'a>(reply: &'a str, line: &str) -> anyhow::Result<&'a str> {
    let found = reply
        .lines()
        .find_map(|said| said.strip_prefix(line)?.strip_prefix(": "));
    found.with_context(|| format!("nothing is said of '{line}' in {reply}"))
}

pub(super) async fn an_agent_finds_no_token_no_name_and_no_sidecar_that_listens(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let address = |pod: &Value| pod["status"]["podIP"].as_str().map(str::to_owned);
    let pods = school.pods()?;
    let own = pods
        .iter()
        .find(|pod| pod["metadata"]["labels"]["carrel.dev/learner"] == "bob");
    let own = own.and_then(address).context("bob is awake")?;
    let api_server = school.plane.kubectl(&[
        "get",
        "service",
        "kubernetes",
        "--output=jsonpath={.spec.clusterIP}",
    ])?;
    let refused = [
        (
            "read /var/run/secrets/kubernetes.io/serviceaccount/token".to_owned(),
            "no such file",
        ),
        (format!("get https://{api_server}/api/v1/namespaces"), "401"),
        (format!("get http://{own}:7080/v1/hello"), "401"),
        (
            "get http://carrel-gateway.school.svc:7070/".to_owned(),
            "lookup",
        ),
        ("read /etc/shadow".to_owned(), "no such file"),
    ];
    let script: Vec<&str> = refused.iter().map(|(line, _)| line.as_str()).collect();
    let reply = school.api.reply("bob", &script.join("\n")).await?;
    for (line, why) in &refused {
        let said = said(&reply, line)?;
        assert!(said.contains(why), "'{line}' was answered with '{said}'");
    }
    steps.done("a hostile agent: no token, no name, no sidecar that listens to it");
    Ok(())
}
