//! One `carrel up` as a person starts it: it prints links.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use carrel_tests::machine;
use carrel_tests::variables::unheard;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    folder: TempDir,
    child: Child,
    /// The printed link that signs learner `me` in.
    pub(crate) chat: String,
    /// The printed link that signs the operator in.
    pub(crate) console: String,
}

impl Server {
    /// Starts it with these documents and waits until it has said that it is ready.
    pub(crate) fn start(documents: &[Value]) -> anyhow::Result<Self> {
        Self::configured(&json!({}), documents)
    }

    /// The same, with something laid over the configuration.
    pub(crate) fn configured(config: &Value, documents: &[Value]) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("carrel-pages-")?;
        let documents: Vec<_> = std::iter::once(config)
            .chain(documents)
            .map(|document| format!("---\n{document}\n"))
            .collect();
        std::fs::write(folder.path().join("config.yaml"), documents.concat())?;
        let (child, chat, console) = run(&folder, ["127.0.0.1:0", "127.0.0.1:0"])?;
        Ok(Self {
            folder,
            child,
            chat,
            console,
        })
    }

    /// Its address, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        self.chat.split("/#").next().unwrap_or_default()
    }

    /// A new link for a learner, from the command line.
    pub(crate) fn link(&self, learner: &str) -> anyhow::Result<String> {
        let output = unheard(&mut Command::new(carrel_tests::carrel()?))
            .args(["learner", "link", learner])
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout)?;
        said.split_whitespace()
            .find(|word| word.contains("code="))
            .map(str::to_owned)
            .context(said)
    }

    /// The operator's token.
    pub(crate) fn admin_token(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(
            self.folder.path().join("data/admin.token"),
        )?)
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again, at the same address.
    pub(crate) fn again(&mut self) -> anyhow::Result<()> {
        let address = self.url().trim_start_matches("http://").to_owned();
        (self.child, _, self.console) = run(&self.folder, [&address, "127.0.0.1:0"])?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
        machine::remove_run_dir(&self.folder.path().join("data"));
    }
}

fn run(folder: &TempDir, addresses: [&str; 2]) -> anyhow::Result<(Child, String, String)> {
    let mut child = unheard(&mut Command::new(carrel_tests::carrel()?))
        .args([
            "up",
            "--listen",
            addresses[0],
            "--model-listen",
            addresses[1],
            "--data-dir",
        ])
        .arg(folder.path().join("data"))
        .arg("--config")
        .arg(folder.path().join("config.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("its words are ours")?;
    let (mut chat, mut console) = (String::new(), String::new());
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        match words.next() {
            Some("chat") => words.next().unwrap_or_default().clone_into(&mut chat),
            Some("console") => words.next().unwrap_or_default().clone_into(&mut console),
            Some("Stop") => return Ok((child, chat, console)),
            _ => {}
        }
    }
    let _ = child.kill();
    anyhow::bail!("carrel up ended before it was ready: {}", child.wait()?)
}
