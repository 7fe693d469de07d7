//! Being the fleet of a store: one process is at a time.

use std::time::Duration;

use carrel_core::OwnerId;
use carrel_fleet_local::LocalFleet;
use carrel_store::SharedStore;
use carrel_store::processes::{Lead, Process, Role, Task};
use jiff::SignedDuration;
use tokio::time::Instant;
use uuid::Uuid;

use super::base::{Base, now};
use crate::exit::{Failure, Kind};

/// How often a fleet says that it is there, and for how long each time.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);
const ANNOUNCED_FOR: SignedDuration = SignedDuration::from_secs(20);
/// How often it is asked for the task again once it may be another's.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Our own former connection may hold the task for so long: until the server has heard that it is gone.
const OURS_FOR: Duration = Duration::from_secs(45);

/// The task, while it is ours.
pub(super) struct FleetTask {
    store: SharedStore,
    lead: Lead,
}

impl FleetTask {
    /// What ended when another has it.
    pub(super) const TAKEN: &str = "the fleet's task, which another has taken,";

    /// Takes it.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when another fleet has it.
    pub(super) async fn take(store: SharedStore) -> anyhow::Result<Self> {
        if let Some(lead) = store.lead(Task::Fleet).await? {
            return Ok(Self { store, lead });
        }
        let message = "another fleet works on this store: stop it; one whose machine is gone is forgotten within a minute";
        Err(Failure::new(Kind::Conflict, message).into())
    }

    /// Returns when another fleet has it. That the database was away is no reason to end every learner's pod.
    pub(super) async fn taken(&self) {
        self.lead.lost().await;
        refused_for_long(|| self.store.lead(Task::Fleet)).await;
    }

    /// Says to gateways that the fleet is there, and how it keeps learners apart.
    pub(super) fn announce(base: &Base, fleet: &LocalFleet) {
        let (store, cancel) = (base.shared(), base.cancel.clone());
        let process = Process {
            id: OwnerId(Uuid::now_v7()),
            role: Role::Fleet,
            address: String::new(),
            report: serde_json::to_string(&fleet.report()).unwrap_or_default(),
        };
        base.tracker.spawn(async move {
            let mut due = tokio::time::interval(ANNOUNCE_EVERY);
            while cancel.run_until_cancelled(due.tick()).await.is_some() {
                let now = now();
                let told = store.announce(&process, now, now + ANNOUNCED_FOR).await;
                if let Err(error) = told {
                    tracing::warn!(%error, "gateways are not told that the fleet is there");
                }
            }
            // A gateway that asks meanwhile is told of none.
            drop(store.withdraw(process.id).await);
        });
    }
}

/// Asks for the task until it has been another's for longer than our own former connection may hold it.
async fn refused_for_long<F>(mut ask: impl FnMut() -> F)
where
    F: Future<Output = carrel_store::Result<Option<Lead>>>,
{
    let mut refused_since = None;
    loop {
        match ask().await {
            Ok(Some(again)) => {
                refused_since = None;
                again.lost().await;
            }
            Ok(None) => {
                let since = *refused_since.get_or_insert_with(Instant::now);
                if since.elapsed() > OURS_FOR {
                    return;
                }
            }
            Err(error) => {
                refused_since = None;
                tracing::warn!(%error, "whether this is still the only fleet is asked again");
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn away() -> carrel_store::Error {
        carrel_store::Error::Unavailable {
            doing: "asking",
            source: "it is away".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_anothers_only_when_our_own_connection_cannot_hold_it_any_more() {
        let began = Instant::now();
        refused_for_long(|| ready(Ok(None))).await;
        assert!(began.elapsed() > OURS_FOR);
        // Whoever was refused for almost as long and then was not begins anew; so does one who heard nothing.
        let began = Instant::now();
        let almost = OURS_FOR.saturating_sub(Duration::from_secs(5));
        let mut answers = [Ok(Some(())), Err(away())].into_iter();
        let mut due = began + almost;
        let ask = || {
            let answer = if Instant::now() < due {
                Ok(None)
            } else {
                due = Instant::now() + almost;
                answers.next().unwrap_or(Ok(None)).map(|there| {
                    there.map(|()| {
                        let lost = CancellationToken::new();
                        lost.cancel();
                        Lead::new(lost, CancellationToken::new())
                    })
                })
            };
            ready(answer)
        };
        assert!(timeout(2 * OURS_FOR, refused_for_long(ask)).await.is_err());
    }
}
