//! Keeps the leases of this process's turns alive, and says to other gateways that it is there.

use std::time::Duration;

use carrel_protocol::token::Signer;
use carrel_store::processes::{Process, Role};
use jiff::SignedDuration;
use tokio::time::{MissedTickBehavior, interval};

use crate::gateway::{Gateway, Shared};

/// How long a lease lasts without renewal, and how often it is renewed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lasting {
    pub(super) lasts: SignedDuration,
    renewed_every: Duration,
}

/// Nobody else would take a turn.
const ALONE: Lasting = Lasting {
    lasts: SignedDuration::from_secs(20),
    renewed_every: Duration::from_secs(5),
};
/// So late another may take a dead gateway's turns over.
const AMONG_OTHERS: Lasting = Lasting {
    lasts: SignedDuration::from_secs(6),
    renewed_every: Duration::from_secs(2),
};

impl Lasting {
    pub(super) fn of(gateway: &Gateway) -> Self {
        if gateway.options.alone {
            ALONE
        } else {
            AMONG_OTHERS
        }
    }
}

/// Renews until the process ends; a turn whose lease is lost is let go.
pub(crate) async fn renew(shared: Shared) {
    let lasting = Lasting::of(&shared);
    let mut due = interval(lasting.renewed_every);
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
        let until = shared.now() + lasting.lasts;
        match shared.options.store.renew(&leases, until).await {
            // One that ended meanwhile is told too, and is disowned by then or lets go.
            Ok(lost) => shared.roster.lose(&lost),
            Err(error) => tracing::warn!(%error, "leases cannot be renewed"),
        }
    }
}

/// What a gateway says of itself to other processes: the name of its key, which is the same for all gateways.
pub fn report(signer: &Signer) -> String {
    serde_json::json!({"kid": signer.public_key().kid}).to_string()
}

/// Says again and again that this gateway is there, and at the end that it goes; nothing where there are no others.
pub(crate) async fn announce(shared: Shared) {
    if shared.options.alone {
        return;
    }
    let process = Process {
        id: shared.owner,
        role: Role::Gateway,
        address: shared.options.relay_url.clone(),
        report: report(&shared.options.signer),
    };
    let store = &shared.options.store;
    let mut due = interval(AMONG_OTHERS.renewed_every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shared
        .cancel
        .run_until_cancelled(due.tick())
        .await
        .is_some()
    {
        let now = shared.now();
        if let Err(error) = store
            .announce(&process, now, now + AMONG_OTHERS.lasts)
            .await
        {
            tracing::warn!(%error, "other gateways are not told that this one is there");
        }
    }
    // Who asks for a stream here meanwhile is not answered, and asks again.
    drop(store.withdraw(process.id).await);
}
