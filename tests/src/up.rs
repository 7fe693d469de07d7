//! One `carrel up`, on a folder of its own.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;
use crate::machine;
use crate::require::{carrel, skip};
use crate::variables::unheard;
use crate::wait::eventually;

/// Tests send more messages than people may.
const CONFIG: &str = "limits: {messagesPerMinute: 1000000}\n";
/// A server whose machine is busy is ready by then.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// A server that was asked to end has done so by then.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// How a server is started.
#[derive(Debug, Default)]
pub struct Setup {
    /// `LearnerClass` and `Learner` documents.
    pub documents: Vec<Value>,
    /// More of `carrel.yaml`.
    pub settings: Option<Value>,
    /// More flags.
    pub flags: Vec<&'static str>,
    /// What a shell does before the server takes its place, in mounts of its own; `$DATA` is the data folder.
    pub first: Option<String>,
    /// A command that becomes the one whose words follow it, as in `setsid`; the server is started by it.
    pub under: Vec<String>,
    /// Who runs it and owns its folder, if not who runs the test: only root may say.
    pub user: Option<u32>,
    /// Whether its log is kept, for [`Up::log`], instead of shown.
    pub keeps_log: bool,
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Up {
    folder: TempDir,
    setup: Setup,
    child: Child,
    ready: Value,
    /// A client of it.
    pub api: Api,
}

impl Up {
    /// Starts a server in a new folder and waits until it is ready, however it isolates its learners.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn any(setup: Setup) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("carrel-tests-")?;
        std::fs::write(folder.path().join("config.yaml"), text(&setup))?;
        std::fs::create_dir_all(folder.path().join("data/objects"))?;
        if let Some(user) = setup.user {
            // The one that cargo built lies where others may not go.
            std::fs::copy(carrel()?, folder.path().join("carrel"))?;
            for name in ["", "config.yaml", "data", "data/objects", "carrel"] {
                chown(folder.path().join(name), Some(user), Some(user))?;
            }
        }
        let (child, ready, api) = run(folder.path(), &setup).await?;
        Ok(Self {
            folder,
            setup,
            child,
            ready,
            api,
        })
    }

    /// The same; `None` when the machine gives it no containers, which is said, and neither settings nor flags ask for
    /// isolation `process`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(test: &str, setup: Setup) -> anyhow::Result<Option<Self>> {
        let settings = setup.settings.as_ref();
        let is_plain = settings.is_some_and(|all| all["fleet"]["isolation"] == "process")
            || setup.flags.contains(&"process");
        let up = Self::any(setup).await?;
        if up.ready["isolation"] == "oci" || is_plain {
            return Ok(Some(up));
        }
        skip(
            test,
            "oci",
            &format!("no containers here: isolation is {}", up.ready["isolation"]),
        )?;
        Ok(None)
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The file that it was configured with.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    /// What it has printed since it was started.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn said(&self) -> anyhow::Result<String> {
        said(self.folder.path())
    }

    /// What it has logged, when its log is kept.
    ///
    /// # Errors
    /// When it is not.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("log"))?)
    }

    /// Its ready line.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// What its ready line says under a key; or null.
    pub fn says(&self, key: &str) -> &Value {
        &self.ready[key]
    }

    /// A text of its ready line: `gateway_url`, `model_url` …; or the empty one.
    pub fn text(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap_or_default()
    }

    /// Whether it says that it cannot set this limit here: `cpu`, `memory` or `pids`.
    pub fn lacks(&self, limit: &str) -> bool {
        let missing = self.ready["limits_missing"].as_array().map(Vec::as_slice);
        missing
            .unwrap_or_default()
            .iter()
            .any(|missing| missing == limit)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A command on this server's folder.
    ///
    /// # Errors
    /// When there is no executable.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(carrel()?);
        unheard(&mut command)
            .args(words)
            .env("CARREL_DATA_DIR", self.data());
        Ok(command)
    }

    /// Ends it by SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        ensure!(
            status.code().is_none(),
            "the server had ended by itself: {status}"
        );
        Ok(())
    }

    /// Ends it by SIGTERM: its exit status.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        signal(self.child.id(), Signal::TERM)?;
        self.ended().await
    }

    /// Waits until it has ended, as it was asked to: its exit status.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let child = &mut self.child;
        eventually("the server ends", STOPS_WITHIN, || {
            let status = child.try_wait();
            async move { Ok(status?) }
        })
        .await
    }

    /// Starts it again on the same folder, after it ended.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn again(&mut self) -> anyhow::Result<()> {
        let (child, ready, api) = run(self.folder.path(), &self.setup).await?;
        (self.child, self.ready, self.api) = (child, ready, api);
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        machine::remove_run_dir(&self.data());
    }
}

/// Sends SIGINT, as Ctrl-C does.
///
/// # Errors
/// When there is no such process.
pub fn interrupt(pid: u32) -> anyhow::Result<()> {
    signal(pid, Signal::INT)
}

/// Sends a signal.
///
/// # Errors
/// When there is no such process.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a process has a number")?;
    Ok(kill_process(pid, signal)?)
}

/// `carrel.yaml` with its documents.
fn text(setup: &Setup) -> String {
    let mut text = CONFIG.to_owned();
    for document in setup.settings.iter().chain(&setup.documents) {
        text.push_str("---\n");
        text.push_str(&document.to_string());
        text.push('\n');
    }
    text
}

/// The line that a server prints in a file when it is ready.
pub(crate) async fn ready_line(child: &mut Child, stdout: &Path) -> anyhow::Result<Value> {
    let ready = eventually("the server is ready", READY_WITHIN, || {
        let (said, ended) = (std::fs::read_to_string(stdout), child.try_wait());
        async move {
            if let Some(status) = ended? {
                anyhow::bail!("the server ended before it was ready: {status}");
            }
            let line = said?.strip_suffix('\n').map(serde_json::from_str::<Value>);
            Ok(line.transpose()?)
        }
    })
    .await;
    if ready.is_err() {
        let _ = child.kill();
        child.wait()?;
    }
    ready
}

/// What the server of this folder has printed.
fn said(folder: &Path) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(folder.join("stdout"))?)
}

async fn run(folder: &Path, setup: &Setup) -> anyhow::Result<(Child, Value, Api)> {
    let data = folder.join("data");
    let mut words: Vec<OsString> = setup.under.iter().map(OsString::from).collect();
    if let Some(first) = &setup.first {
        let own_mounts = ["unshare", "--mount", "--propagation", "private"];
        words.extend(own_mounts.map(OsString::from));
        words.extend(["/bin/sh", "-e", "-c"].map(OsString::from));
        words.push(format!("{first}\nexec \"$0\" \"$@\"").into());
    }
    words.push(match setup.user {
        None => carrel()?.into(),
        Some(_) => folder.join("carrel").into(),
    });
    let mut command = Command::new(&words[0]);
    if let Some(user) = setup.user {
        command.uid(user).gid(user);
    }
    unheard(&mut command)
        .env("DATA", &data)
        .args(&words[1..])
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--model-listen",
            "127.0.0.1:0",
            "-o",
            "json",
        ])
        .arg("--data-dir")
        .arg(&data)
        .arg("--config")
        .arg(folder.join("config.yaml"))
        .args(&setup.flags)
        .stdin(Stdio::null())
        .stdout(File::create(folder.join("stdout"))?);
    if setup.keeps_log {
        let mut log = File::options();
        command.stderr(log.create(true).append(true).open(folder.join("log"))?);
    }
    let mut child = command.spawn().context("starting carrel up")?;
    let ready = ready_line(&mut child, &folder.join("stdout")).await?;
    let text = |key: &str| {
        ready[key]
            .as_str()
            .with_context(|| format!("the ready line has no {key}"))
    };
    let token = std::fs::read_to_string(text("admin_token_file")?)?;
    let api = Api::new(text("gateway_url")?, token.trim())?;
    Ok((child, ready, api))
}
