//! A class lets its agents out to a host: through the sidecar's proxy and the router's egress port, and to no other.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrel_tests::cluster::{Installation, Steps};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::hostile::said;

/// What a cluster does of itself is done by then, also where the machine is busy.
const LONG: Duration = Duration::from_mins(1);
/// The count of ways out that were opened.
const OPENED: &str = "carrel_egress_connections_total{result=\"ok\"} ";

pub(super) async fn a_host_that_a_class_allows_is_reached_through_the_router(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let before = opened(school).await?;
    let host = school.plane.host().context("it is reachable")?;
    let listener = TcpListener::bind((host, 0)).await?;
    let allowed = format!("through http://{}/greeting", listener.local_addr()?);
    let refused = format!("through http://{}:10250/", school.node.address);
    let script = format!("{allowed}\n{refused}");
    let (asked, reply) = tokio::join!(
        timeout(LONG, answer(&listener)),
        school.api.reply("bob", &script)
    );
    let reply = reply?;
    // Nobody else answers so.
    assert_eq!(said(&reply, &allowed)?, "204");
    let asked = asked.context("the agent did not come")??;
    ensure!(asked.starts_with("GET /greeting HTTP/1.1\r\n"), "{asked}");
    assert_eq!(said(&reply, &refused)?, "403");
    assert_eq!(opened(school).await? - before, 1);
    steps.done("a host that a class allows is reached through the router, another is not");
    Ok(())
}

/// Answers one request without content: what was asked.
async fn answer(listener: &TcpListener) -> anyhow::Result<String> {
    let (mut stream, _) = listener.accept().await?;
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(stream.read_u8().await?);
    }
    stream
        .write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        .await?;
    Ok(String::from_utf8(asked)?)
}

/// How many ways out all routers have opened.
async fn opened(school: &Installation) -> anyhow::Result<u32> {
    let selector = "--selector=app.kubernetes.io/component=router";
    let pods: Value =
        serde_json::from_str(&school.kubectl(&["get", "pods", selector, "--output=json"])?)?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut all = 0;
    for pod in pods["items"].as_array().context("it is a list")? {
        let address = pod["status"]["podIP"].as_str().context("it runs")?;
        let metrics = client.get(format!("http://{address}:7079/metrics"));
        let metrics = metrics.send().await?.text().await?;
        let count = metrics.lines().find_map(|line| line.strip_prefix(OPENED));
        all += count.map_or(Ok(0), str::parse::<u32>)?;
    }
    Ok(all)
}
