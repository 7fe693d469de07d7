//! `carrel vault`: what operators do with the vault as a whole.

use carrel_protocol::vault::Rewrapped;

use crate::cli::VaultCommand;
use crate::client::Client;
use crate::exit::{Failure, Kind};
use crate::output;

pub(super) async fn run(command: VaultCommand) -> anyhow::Result<()> {
    let VaultCommand::Rewrap { client } = command;
    let done: Rewrapped = Client::find(&client)
        .await?
        .post("/admin/v1/vault/rewrap", &serde_json::json!({}))
        .await?;
    output::line(&format!(
        "{} data keys were wrapped by the first key, {} had nothing to do",
        done.rewrapped, done.left
    ))?;
    if done.failed.is_empty() {
        output::talk("the other keys may leave the key file now, before the next start");
        return Ok(());
    }
    let failed: Vec<_> = done.failed.iter().map(ToString::to_string).collect();
    let message = format!(
        "no key of the key file opens those of {}: put the key back that wrapped them, restart, and run this again",
        failed.join(", ")
    );
    Err(Failure::new(Kind::Failed, message).into())
}
