//! `carrel doctor` of a release in a cluster: its parts, its objects, and what its gateway says.

use super::{Report, bad, before, definitions, here, parts, processes, school};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::up::Found;

pub(super) async fn look(cluster: &Cluster, report: &mut Report<'_>) -> anyhow::Result<()> {
    let version = before::version(cluster).await;
    let is_away = matches!(version, Found::Bad { .. });
    report.say("API server", version)?;
    if is_away {
        return Ok(());
    }
    report.say("definitions", definitions::installed(cluster).await)?;
    let pods = match cluster.pods().await {
        Ok(pods) if pods.is_empty() => {
            let absent = cluster.absent().await;
            return report.say("release", bad(absent, "carrel doctor --pre"));
        }
        Ok(pods) => pods,
        Err(error) => return report.say("release", bad(error, cluster.kubectl("get pods"))),
    };
    for (name, found) in parts::look(cluster, &pods).await {
        report.say(name, found)?;
    }
    report.say("lease", parts::lease(cluster).await)?;
    report.say("keys", parts::keys(cluster, &pods).await)?;
    for (name, found) in school::look(cluster).await {
        report.say(name, found)?;
    }
    report.say("processes", processes::look(cluster).await)?;
    gateway(cluster, report).await
}

/// The way that the other commands take, and what is behind it.
async fn gateway(cluster: &Cluster, report: &mut Report<'_>) -> anyhow::Result<()> {
    let logs = "logs -l app.kubernetes.io/component=gateway --tail 50";
    let server = match Client::behind_gateway(cluster).await {
        Ok(server) => server,
        Err(error) => {
            let next = cluster.kubectl("get pods -l app.kubernetes.io/part-of=carrel");
            return report.say("server", bad(error, next));
        }
    };
    let found = here::server_answers(&server, &cluster.kubectl(logs)).await;
    report.say("server", found)?;
    // It reads the database, with the admin token.
    let usage = server
        .get::<serde_json::Value>("/admin/v1/usage?by=class")
        .await;
    report.say(
        "database",
        match usage {
            Ok(_) => Found::Good("answers the gateway, and the admin token is its own".to_owned()),
            Err(error) => bad(error, cluster.kubectl(logs)),
        },
    )?;
    match Client::behind_router(cluster).await {
        Ok(router) => report.say("models", here::router_answers(&router).await),
        Err(error) => {
            let next = cluster.kubectl("get pods -l app.kubernetes.io/component=router");
            report.say("models", bad(error, next))
        }
    }
}
