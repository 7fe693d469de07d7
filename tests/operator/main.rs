//! The operator's commands against a server that runs: what they print, how they end, and what an edited file does; and
//! that server as its operator starts and ends it.

mod chat;
mod commands;
mod elsewhere;
mod every;
mod far;
mod keys;
mod refused;
mod reload;
mod shell;
mod snapshots;
mod store;
mod up;

use std::io::Write as _;
use std::process::{Output, Stdio};

use anyhow::Context as _;
use carrel_tests::Up;
use serde_json::json;

/// A server without containers: nothing of it wakes.
async fn plain(test: &str, settings: serde_json::Value) -> anyhow::Result<Up> {
    let mut all = json!({"fleet": {"isolation": "process"}});
    all.as_object_mut()
        .zip(settings.as_object())
        .context("settings are objects")
        .map(|(all, more)| all.extend(more.clone()))?;
    let setup = carrel_tests::Setup {
        settings: Some(all),
        keeps_log: true,
        ..carrel_tests::Setup::default()
    };
    let up = Up::start(test, setup).await?;
    up.context("processes can always be had")
}

/// How a command on a server's folder ended.
#[derive(Debug)]
struct Said {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs a command with a standard input that is no terminal.
fn carrel(up: &Up, words: &[&str], stdin: &str) -> anyhow::Result<Said> {
    let mut child = up
        .command(words)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // One that does not read it ends before it is written.
    let _ = child
        .stdin
        .take()
        .context("its input is ours")?
        .write_all(stdin.as_bytes());
    said(child.wait_with_output()?)
}

fn said(output: Output) -> anyhow::Result<Said> {
    Ok(Said {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}
