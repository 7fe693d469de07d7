//! Hints that something changed: to this process at once, to others by `NOTIFY`, outside of what appends, many in one, from one
//! connection; and what others say, by one listener. Hints may be lost with their connection: polling is the truth.

use std::collections::BTreeSet;
use std::time::Duration;

use carrel_core::LearnerId;
use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub(crate) const CHANNEL: &str = "carrel_changes";
const HINTS_KEPT: usize = 4096;
/// Hints that come within this go in one notification.
const GATHER: Duration = Duration::from_millis(10);
/// PostgreSQL takes payloads of less than 8000 bytes; a learner's id has at most 63.
const IDS_AT_ONCE: usize = 100;
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Gives and takes hints.
#[derive(Debug, Clone)]
pub(crate) struct Hints {
    here: broadcast::Sender<LearnerId>,
    elsewhere: mpsc::Sender<LearnerId>,
}

impl Hints {
    /// Starts what tells others and what listens to them, until it is cancelled.
    pub(crate) fn start(pool: &PgPool, tracker: &TaskTracker, cancel: &CancellationToken) -> Self {
        let (here, _) = broadcast::channel(HINTS_KEPT);
        let (elsewhere, given) = mpsc::channel(HINTS_KEPT);
        let me = Uuid::new_v4().simple().to_string();
        let tells = tell(pool.clone(), me.clone(), given);
        let listens = listen(pool.clone(), me, here.clone());
        tracker.spawn(cancel.clone().run_until_cancelled_owned(tells));
        tracker.spawn(cancel.clone().run_until_cancelled_owned(listens));
        Self { here, elsewhere }
    }

    /// Says that something changed for a learner. Never waits: a hint too many is dropped.
    pub(crate) fn give(&self, learner: &LearnerId) {
        // Nobody listening is no fault: whoever comes later reads the log.
        drop(self.here.send(learner.clone()));
        drop(self.elsewhere.try_send(learner.clone()));
    }

    pub(crate) fn receiver(&self) -> broadcast::Receiver<LearnerId> {
        self.here.subscribe()
    }
}

/// Tells other processes. Its own name goes first, so that the teller does not hear itself.
async fn tell(pool: PgPool, me: String, mut given: mpsc::Receiver<LearnerId>) {
    let mut batch = Vec::new();
    while given.recv_many(&mut batch, IDS_AT_ONCE).await > 0 {
        let ids: BTreeSet<LearnerId> = batch.drain(..).collect();
        let ids = ids.iter().map(LearnerId::as_str);
        let payload = [me.as_str()].into_iter().chain(ids).collect::<Vec<_>>();
        let told = sqlx::query("SELECT pg_notify($1, $2)")
            .bind(CHANNEL)
            .bind(payload.join(" "))
            .execute(&pool)
            .await;
        if let Err(error) = told {
            tracing::debug!(%error, "other processes are not told of changes; they poll");
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Hears other processes.
async fn listen(pool: PgPool, me: String, here: broadcast::Sender<LearnerId>) {
    loop {
        if let Err(error) = hear(&pool, &me, &here).await {
            tracing::debug!(%error, "changes in other processes are not heard; they are polled");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn hear(
    pool: &PgPool,
    me: &str,
    here: &broadcast::Sender<LearnerId>,
) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    while let Some(notification) = listener.try_recv().await? {
        let mut words = notification.payload().split(' ');
        if words.next() == Some(me) {
            continue;
        }
        for learner in words.filter_map(|word| word.parse().ok()) {
            drop(here.send(learner));
        }
    }
    Ok(())
}
