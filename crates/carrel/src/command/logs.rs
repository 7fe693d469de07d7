//! `carrel learner logs`: what happened to a learner.

use carrel_gateway::EventPage;

use super::learner::{path, segment};
use crate::cli;
use crate::client::Client;
use crate::output;

/// Prints a learner's durable events, a line each.
pub(super) async fn run(id: &str, follow: bool, flags: &cli::Client) -> anyhow::Result<()> {
    let server = Client::find(flags).await?;
    // Asking for the learner first makes a wrong name an error and not an empty log.
    let _: serde_json::Value = server.get(&path(id, "")).await?;
    let mut after = String::new();
    loop {
        let page = format!("/admin/v1/events?learner={}&limit=500{after}", segment(id));
        let page: EventPage = server.get(&page).await?;
        for placed in &page.events {
            let event = &placed.event;
            if flags.output == cli::Output::Json {
                output::line(&serde_json::to_string(event)?)?;
            } else {
                let body = serde_json::to_string(&event.body)?;
                output::line(&format!("{:.0} {} {body}", event.time, event.version))?;
            }
        }
        if page.events.is_empty() {
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        after = format!("&after={}", page.next);
    }
}
