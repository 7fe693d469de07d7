//! Keeps the leases of this process's turns alive, and says to other gateways that it is there.

use std::time::Duration;

use carrel_store::processes::{Process, Role};
use jiff::SignedDuration;
use tokio::time::{MissedTickBehavior, interval};

use crate::gateway::{Gateway, Shared};

/// How long a lease lasts without renewal: so late may another take a dead gateway's turns over.
pub(super) const LASTS: SignedDuration = SignedDuration::from_secs(6);
const RENEW_EVERY: Duration = Duration::from_secs(2);

/// Renews until the process ends; a turn whose lease is lost is let go.
pub(crate) async fn renew(shared: Shared) {
    let mut due = interval(RENEW_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => break,
            _ = due.tick() => {}
        }
        if !shared.options.alone {
            announce(&shared).await;
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
    if !shared.options.alone {
        // Who asks for a stream here meanwhile is not answered, and asks again.
        drop(shared.options.store.withdraw(shared.owner).await);
    }
}

async fn announce(gateway: &Gateway) {
    let process = Process {
        id: gateway.owner,
        role: Role::Gateway,
        address: gateway.options.relay_url.clone(),
        report: "{}".to_owned(),
    };
    let (store, now) = (&gateway.options.store, gateway.now());
    if let Err(error) = store.announce(&process, now, now + LASTS).await {
        tracing::warn!(%error, "other gateways are not told that this one is there");
    }
}
