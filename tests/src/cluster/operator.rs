//! An operator at a shell whose kubeconfig names a cluster, and no server of Carrel on the machine.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::Context as _;
use tempfile::TempDir;

use super::{Access, ControlPlane, programs};
use crate::require::carrel;
use crate::variables::unheard;
use carrel_cluster_tools::KUBERNETES;

/// An operator's shell.
#[derive(Debug)]
pub struct Operator {
    kubeconfig: PathBuf,
    home: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit status.
    pub status: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Operator {
    /// One who may do everything.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn of(plane: &ControlPlane) -> anyhow::Result<Self> {
        Self::with(plane.kubeconfig())
    }

    /// One who may do what that user may.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn named(access: &Access) -> anyhow::Result<Self> {
        Self::with(&access.file)
    }

    /// One with this kubeconfig.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn with(kubeconfig: &Path) -> anyhow::Result<Self> {
        let home = TempDir::with_prefix("carrel-operator-")?;
        std::os::unix::fs::symlink(carrel()?, home.path().join("kubectl-carrel"))?;
        Ok(Self {
            kubeconfig: kubeconfig.to_path_buf(),
            home,
        })
    }

    /// Runs `carrel`, which finds the cluster as the kubeconfig's current context: `["-n", "school", "learner", "ls"]`, say.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn carrel(&self, words: &[&str], stdin: &str) -> anyhow::Result<Said> {
        self.run(Command::new(carrel()?).args(words), stdin)
    }

    /// Runs `kubectl`, which finds `carrel` as its plugin.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn kubectl(&self, words: &[&str], stdin: &str) -> anyhow::Result<Said> {
        self.run(programs::command(&KUBERNETES, "kubectl").args(words), stdin)
    }

    fn run(&self, command: &mut Command, stdin: &str) -> anyhow::Result<Said> {
        let home = self.home.path();
        let mut child = unheard(command)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", home)
            .env("PATH", home)
            .env_remove("XDG_DATA_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("its input is ours")?;
        // One that does not read it ends before it is written.
        let _ = input.write_all(stdin.as_bytes());
        drop(input);
        Said::of(child.wait_with_output()?)
    }
}

impl Said {
    pub(super) fn of(output: Output) -> anyhow::Result<Self> {
        Ok(Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        })
    }

    /// What it printed, when it ended well.
    ///
    /// # Errors
    /// With what it said, when it did not.
    pub fn well(self) -> anyhow::Result<String> {
        anyhow::ensure!(self.status == Some(0), "{self:?}");
        Ok(self.stdout)
    }
}
