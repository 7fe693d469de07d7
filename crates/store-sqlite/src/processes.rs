//! The processes that share the store: this one. What is said of them goes with it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use carrel_core::OwnerId;
use carrel_store::processes::{Lead, Process, Role, Task};
use carrel_store::{Processes, Result};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::SqliteStore;

/// Who said that it is there, and which tasks are taken until their token ends.
#[derive(Debug, Default)]
pub(crate) struct Here {
    processes: Mutex<HashMap<OwnerId, (Process, Timestamp)>>,
    taken: Mutex<HashMap<Task, CancellationToken>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait::async_trait]
impl Processes for SqliteStore {
    async fn lead(&self, task: Task) -> Result<Option<Lead>> {
        let mut taken = lock(&self.here.taken);
        if taken.get(&task).is_some_and(|until| !until.is_cancelled()) {
            return Ok(None);
        }
        let release = CancellationToken::new();
        taken.insert(task, release.clone());
        Ok(Some(Lead::new(CancellationToken::new(), release)))
    }

    async fn announce(&self, process: &Process, now: Timestamp, until: Timestamp) -> Result<()> {
        let mut processes = lock(&self.here.processes);
        processes.retain(|_, (_, until)| *until > now);
        processes.insert(process.id, (process.clone(), until));
        Ok(())
    }

    async fn withdraw(&self, id: OwnerId) -> Result<()> {
        lock(&self.here.processes).remove(&id);
        Ok(())
    }

    async fn processes(&self, role: Role, now: Timestamp) -> Result<Vec<Process>> {
        let processes = lock(&self.here.processes);
        let there = processes
            .values()
            .filter(|(process, until)| process.role == role && *until > now);
        Ok(there.map(|(process, _)| process.clone()).collect())
    }
}
