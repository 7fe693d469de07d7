//! Hints that something changed: to this process at once, to others by `NOTIFY`, outside of what appends, many in one, from one
//! connection; and what others say, by one listener. Hints may be lost with their connection: polling is the truth.

use std::collections::BTreeSet;
use std::time::Duration;

use carrel_core::LearnerId;
use sqlx::Executor as _;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::pool::Pool;

pub(crate) const CHANNEL: &str = "carrel_changes";
/// Said again, it changes nothing and is answered.
const LISTEN: &str = "LISTEN carrel_changes";
const HINTS_KEPT: usize = 4096;
/// Hints that come within this go in one notification.
const GATHER: Duration = Duration::from_millis(10);
/// PostgreSQL takes payloads of less than 8000 bytes; a learner's id has at most 63.
const IDS_AT_ONCE: usize = 100;
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// A listener that has heard nothing for so long asks whether the server is there, and waits so long for the answer.
const QUIET: Duration = Duration::from_secs(15);
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Gives and takes hints.
#[derive(Debug, Clone)]
pub(crate) struct Hints {
    here: broadcast::Sender<LearnerId>,
    elsewhere: mpsc::Sender<LearnerId>,
}

impl Hints {
    /// Starts what tells others and what listens to them, until it is cancelled.
    pub(crate) fn start(
        connect: &PgConnectOptions,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        let (here, _) = broadcast::channel(HINTS_KEPT);
        let (elsewhere, given) = mpsc::channel(HINTS_KEPT);
        let me = Uuid::new_v4().simple().to_string();
        let tells = tell(Pool::new(connect, 1, ANSWERS_WITHIN), me.clone(), given);
        let listens = listen(connect.clone(), me, here.clone());
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
async fn tell(pool: Pool, me: String, mut given: mpsc::Receiver<LearnerId>) {
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
async fn listen(connect: PgConnectOptions, me: String, here: broadcast::Sender<LearnerId>) {
    loop {
        if let Err(error) = hear(&connect, &me, &here).await {
            tracing::debug!(%error, "changes in other processes are not heard; they are polled");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until the connection ends, or nothing comes on it any more.
async fn hear(
    connect: &PgConnectOptions,
    me: &str,
    here: &broadcast::Sender<LearnerId>,
) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect_lazy_with(connect.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    loop {
        let Ok(heard) = timeout(QUIET, listener.try_recv()).await else {
            let is_there = timeout(ANSWERS_WITHIN, listener.execute(LISTEN)).await;
            is_there.map_err(|_elapsed| sqlx::Error::PoolTimedOut)??;
            continue;
        };
        let Some(notification) = heard? else {
            return Ok(());
        };
        let mut words = notification.payload().split(' ');
        if words.next() == Some(me) {
            continue;
        }
        for learner in words.filter_map(|word| word.parse().ok()) {
            drop(here.send(learner));
        }
    }
}
