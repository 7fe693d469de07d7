//! Keeps the leases of this process's turns alive.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{MissedTickBehavior, interval};

use crate::gateway::Shared;

/// How long a lease lasts without renewal.
pub(super) const LASTS: SignedDuration = SignedDuration::from_secs(20);
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// Renews until the process ends; a turn whose lease is lost is let go.
pub(crate) async fn renew(shared: Shared) {
    let mut due = interval(RENEW_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            _ = due.tick() => {}
        }
        let leases = shared.roster.leases();
        if leases.is_empty() {
            continue;
        }
        let until = shared.now() + LASTS;
        match shared.options.store.renew(&leases, until).await {
            // One that ended meanwhile is told too, and is disowned by then or lets go.
            Ok(lost) => shared.roster.lose(&lost),
            Err(error) => tracing::warn!(%error, "leases cannot be renewed"),
        }
    }
}
