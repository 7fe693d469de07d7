//! `run.json`: what a running `carrel up` tells clients on the same machine (mode 0600), and prints with `-o json`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

const NAME: &str = "run.json";

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunFile {
    pub(crate) gateway_url: String,
    pub(crate) model_url: String,
    pub(crate) data_dir: String,
    pub(crate) admin_token_file: String,
    pub(crate) isolation: String,
    pub(crate) limits_missing: Vec<String>,
    pub(crate) providers: Vec<String>,
    pub(crate) pid: u32,
}

impl RunFile {
    /// The file of a data folder; `None` when nothing runs there.
    pub(crate) fn read(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = data_dir.join(NAME);
        match std::fs::read(&path) {
            Ok(text) => {
                let run = serde_json::from_slice(&text)
                    .with_context(|| format!("{} cannot be understood", path.display()))?;
                Ok(Some(run))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Whether the server lives that wrote it: one that was killed leaves it behind.
    pub(crate) fn is_of_a_process(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
    }

    /// Writes it beside its place and renames it there, so that no reader sees half of it.
    pub(crate) fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let (new, path) = (data_dir.join("run.json.new"), data_dir.join(NAME));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)?;
        Ok(())
    }

    /// Nothing runs there any more.
    pub(crate) fn remove(data_dir: &Path) {
        // Gone already is as well.
        let _: std::io::Result<()> = std::fs::remove_file(data_dir.join(NAME));
    }
}
