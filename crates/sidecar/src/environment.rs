//! What an agent is told through its environment.

use std::path::Path;

use carrel_protocol::sidecar::Assignment;

use crate::link::Ports;

/// The key that agents send to the model proxy; worth nothing anywhere.
const WORTHLESS_KEY: &str = "carrel";
/// The agent's home in its workspace.
pub(crate) const HOME: &str = ".home";

/// The environment of an agent whose workspace is at `workspace`, as it sees it, and to which its learner is called `learner`.
pub(crate) fn environment(
    assignment: &Assignment,
    learner: &str,
    ports: Ports,
    workspace: &Path,
) -> Vec<(String, String)> {
    let models = format!("http://127.0.0.1:{}", ports.models);
    let proxy = format!("http://127.0.0.1:{}", ports.egress);
    let mut environment = vec![
        ("CARREL_WORKSPACE", workspace.display().to_string()),
        ("CARREL_AGENT_PORT", ports.agent.to_string()),
        ("CARREL_LEARNER", learner.to_owned()),
        ("HOME", workspace.join(HOME).display().to_string()),
        ("TZ", assignment.time_zone.clone()),
        ("LANG", assignment.locale.clone()),
        ("ANTHROPIC_BASE_URL", models.clone()),
        ("ANTHROPIC_AUTH_TOKEN", WORTHLESS_KEY.to_owned()),
        ("OPENAI_BASE_URL", format!("{models}/v1")),
        ("OPENAI_API_KEY", WORTHLESS_KEY.to_owned()),
    ];
    // Some programs read one spelling, some the other.
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"] {
        environment.push((name, proxy.clone()));
    }
    for name in ["NO_PROXY", "no_proxy"] {
        environment.push((name, "127.0.0.1,localhost,::1".to_owned()));
    }
    environment
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
