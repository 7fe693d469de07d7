//! An incarnation that is awake: its workspace is restored, its agent runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carrel_protocol::sidecar::Assignment;
use carrel_protocol::vault::Head;
use tokio::time::Instant;

use crate::agent_log::AgentLog;
use crate::link::{Error, Link, Ports};
use crate::pod::Pod;
use crate::shim::protocol::{End, Pipes, Wanted};
use crate::snapshot::Snapshots;
use crate::vault::Vault;
use crate::{environment, fingerprint};

/// An incarnation that is awake.
#[derive(Debug)]
pub(crate) struct Awake {
    pub(crate) pod: Arc<Pod>,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) link: Link,
    pub(crate) ports: Ports,
    pub(crate) vault: Vault,
    pub(crate) snapshots: Snapshots,
    /// The committed state that the workspace goes on from.
    pub(crate) head: Head,
    /// What the workspace was like then.
    pub(crate) committed_tree: fingerprint::Fingerprint,
    /// The long-lived agent's process, if the adapter has one.
    pub(crate) agent: Option<i32>,
    /// What the agent wrote to its standard error, the end of it.
    pub(crate) log: AgentLog,
    /// Gaps between the learner's last messages, newest last.
    pub(crate) gaps: Vec<Duration>,
    /// When the last turn came.
    pub(crate) last_message: Option<Instant>,
}

impl Awake {
    /// The workspace, as the agent sees it.
    pub(crate) fn folder(&self) -> &PathBuf {
        let options = &self.pod.options;
        options
            .agent_workspace
            .as_ref()
            .unwrap_or(&options.workspace)
    }

    /// What to start, with these pipes.
    pub(crate) fn wanted(&self, pipes: Pipes, more: Vec<(String, String)>) -> Wanted {
        let (options, folder) = (&self.pod.options, self.folder());
        let class = &self.assignment.class;
        let argv = if class.is_built_in_agent() {
            let own = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
            let program = options.agent_executable.clone().unwrap_or(own);
            vec![program.display().to_string(), "agent".to_owned()]
        } else {
            class.agent.command.clone()
        };
        let mut environment = {
            let learner = &self.head.opaque_learner;
            environment::environment(&self.assignment, learner, self.ports, folder)
        };
        environment.extend(more);
        Wanted {
            argv,
            environment,
            folder: folder.clone(),
            home: folder.join(environment::HOME),
            pipes,
        }
    }

    /// Starts the long-lived agent.
    pub(crate) async fn start_agent(&mut self) -> Result<(), Error> {
        let (pid, [log]) = self.link.start(self.wanted(Pipes::Log, Vec::new())).await?;
        self.agent = Some(pid);
        self.log.follow(log, &self.pod.tasks)
    }

    /// Waits until the long-lived agent has ended; never returns for adapters without one.
    pub(crate) async fn agent_ended(&self) -> End {
        match self.agent {
            Some(pid) => self.link.ended(pid).await,
            None => std::future::pending().await,
        }
    }

    /// Notes that a message came.
    pub(crate) fn note_message(&mut self, time: Instant) {
        if let Some(last) = self.last_message.replace(time) {
            self.gaps.push(time - last);
        }
    }

    /// How long the learner may be quiet.
    pub(crate) fn idle_window(&self) -> Duration {
        let idle = &self.assignment.class.idle;
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        carrel_core::idle::window(
            &self.gaps,
            seconds(idle.min_seconds),
            seconds(idle.max_seconds),
        )
    }
}

/// How an agent's end reads, for people.
pub(crate) fn describe(end: End) -> String {
    match end {
        End::Code(code) => format!("the agent ended with exit code {code}"),
        End::Signal(9) => {
            "the agent was killed by signal 9 (often: it ran out of memory)".to_owned()
        }
        End::Signal(signal) => format!("the agent was killed by signal {signal}"),
    }
}
