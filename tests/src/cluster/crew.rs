//! Programs that belong to a test: one process group, which ends when the test program does, however it ends.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::up::signal;

/// A program that was asked to end has done so by then; else it is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// So much of a program's log is shown when it fails.
const LINES: usize = 15;
/// Waits until the test program has closed its standard input, by ending or on purpose; then kills what is left of the group, waits
/// until that is gone, and does what is to be done after.
const WATCH: &str = r#"
read -r group && { cat; for try in $(seq 200); do kill -s KILL -- "-$group" || break; sleep 0.02; done; }
eval "$1""#;

/// The programs. Dropping it kills those that run, and cleans up.
#[derive(Debug)]
pub(super) struct Crew {
    watcher: Child,
    logs: PathBuf,
    group: Option<i32>,
}

impl Crew {
    /// Nobody yet. `after` is what a shell does when all have ended.
    pub(super) fn new(logs: &Path, after: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(logs)?;
        let watcher = Command::new("sh")
            .args(["-c", WATCH, "watch", after])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting sh")?;
        Ok(Self {
            watcher,
            logs: logs.to_owned(),
            group: None,
        })
    }

    /// Starts a program; its log is kept, after what an earlier one of its name logged.
    pub(super) fn start(
        &mut self,
        name: &'static str,
        mut command: Command,
    ) -> anyhow::Result<Program> {
        let log = self.logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(self.group.unwrap_or(0))
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        if self.group.is_none() {
            self.group = Some(i32::try_from(child.id())?);
            let input = self.watcher.stdin.as_mut().context("it is piped")?;
            writeln!(input, "{}", child.id())?;
        }
        Ok(Program { name, child, log })
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// One of them. Dropping it kills it; if a test fails meanwhile, the end of its log is shown.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The folder of its log.
    pub(super) fn folder(&self) -> &Path {
        self.log.parent().unwrap_or(Path::new("/"))
    }

    /// Pauses it, or lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self, paused: bool) -> anyhow::Result<()> {
        signal(self.pid(), if paused { Signal::STOP } else { Signal::CONT })
    }

    /// # Errors
    /// With the end of its log, when it has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended: {status}\n{}", self.name, self.last_lines()),
            None => Ok(()),
        }
    }

    /// Asks it to end and waits until it has.
    pub(super) fn end(&mut self) {
        // One that has ended already, or is paused, is killed.
        let _ = signal(self.pid(), Signal::TERM);
        carrel_testkit::ends(self.pid(), ENDS_WITHIN);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for Program {
    #[expect(
        clippy::print_stdout,
        reason = "a test that fails shows what its programs have logged"
    )]
    fn drop(&mut self) {
        if thread::panicking() {
            println!(
                "---- the last that {} logged\n{}",
                self.name,
                self.last_lines()
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
