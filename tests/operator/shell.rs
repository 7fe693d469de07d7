//! The tests themselves: nothing of the shell that runs them reaches a server.

use std::process::Command;

use anyhow::ensure;
use carrel_tests::variables::PROVIDER_KEYS;
use serde_json::json;

use crate::{carrel, plain};

/// Set for this program when it runs in a shell that holds keys and settings.
const HOLDS_KEYS: &str = "CARREL_TEST_HOLDS_KEYS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a test that starts itself again")]
async fn no_key_and_no_setting_of_the_shell_reaches_a_server_of_the_tests() -> anyhow::Result<()> {
    const NAME: &str = "shell::no_key_and_no_setting_of_the_shell_reaches_a_server_of_the_tests";
    if std::env::var(HOLDS_KEYS).is_ok() {
        let up = plain("a shell with keys", json!({})).await?;
        let said = carrel(&up, &["doctor"], "")?;
        ensure!(
            up.ready()["providers"] == json!(["demo"]) && said.status == Some(0),
            "{} {}",
            up.ready(),
            said.stderr
        );
        return Ok(());
    }
    let mut again = Command::new(std::env::current_exe()?);
    again.args(["--exact", NAME, "--nocapture"]);
    for name in PROVIDER_KEYS {
        again.env(name, "worth nothing");
    }
    let again = again
        .env("CARREL_SERVER", "http://127.0.0.1:9")
        .env(HOLDS_KEYS, "yes")
        .output()?;
    let said = String::from_utf8_lossy(&again.stdout);
    ensure!(
        again.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&again.stderr)
    );
    Ok(())
}
