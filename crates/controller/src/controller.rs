//! Starts a controller's parts and ends them.

use std::sync::Arc;
use std::time::Duration;

use carrel_core::learner::LearnerState;
use carrel_core::lifecycle::{self, Wish};
use carrel_telemetry::Readiness;
use kube::Client;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Writer;
use crate::events::Events;
use crate::gate::Progress;
use crate::lease::{Held, Leadership, Term};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::shared::{Handle, Shared};
use crate::sight::Sight;
use crate::world::Known;
use crate::{events, learner, pool, room, watch as watches};

/// The lease's name.
const LEASE: &str = "carrel-controller";
/// Learners looked at at once.
const AT_ONCE: usize = 128;
/// Between lists, when one failed.
const LIST_AGAIN: Duration = Duration::from_millis(500);
/// How long what is under way may take when the controller is told to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a controller ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// It does not hold the lease any more: another acts.
    Deposed,
}

/// The clients of a controller: watches have connections of their own, or they would wait behind calls.
#[derive(Clone)]
pub struct Clients {
    /// For calls.
    pub calls: Client,
    /// For watches.
    pub watches: Client,
    /// For the lease, which must not wait behind a storm of calls.
    pub lease: Client,
}

/// Runs a controller until it is told to end or does not lead any more. While it waits for the lease its caches are kept, so that it
/// acts as soon as it leads.
pub async fn run(
    options: Options,
    clients: Clients,
    metrics: Metrics,
    readiness: Readiness,
    cancel: CancellationToken,
) -> Ended {
    let tracker = TaskTracker::new();
    let stop = cancel.child_token();
    let _stops = stop.clone().drop_guard();
    let writes = metrics.writes.clone();
    let (namespace, identity) = (options.namespace.clone(), options.identity.clone());
    let leadership = Leadership::new(
        clients.lease.clone(),
        &namespace,
        LEASE,
        &identity,
        options.now,
        writes.clone(),
    );
    let (events, waiting) = Events::new(&namespace);
    let recorder = (clients.calls.clone(), identity.clone(), writes.clone());
    let term = Arc::new(Term::default());
    let writer = Writer::new(clients.calls, namespace, writes, Arc::clone(&term));
    let shared = Shared::new(
        options,
        writer,
        events,
        metrics,
        stop.clone(),
        tracker.clone(),
        term,
    );
    shared.metrics.count(&shared);
    let (calls, instance, counted) = recorder;
    shared.spawn(events::write(waiting, calls, instance, counted));

    let sight = Sight::new(readiness, watches::names(&shared.options.pods.namespaces));
    begin_watches(&shared, &clients.watches, &sight);
    let lead = async {
        // Whoever has seen nothing assigns nothing.
        sight.complete().await;
        let (held, at_once) = leadership.take().await;
        // Whoever waited for it may have been blind for long meanwhile; what was listed just now need not be listed again.
        while !(at_once && sight.is_clear())
            && let Err(error) = watches::refresh(&shared, &clients.watches).await
        {
            tracing::warn!(
                error = crate::chain(&error),
                "what there is cannot be listed"
            );
            tokio::time::sleep(LIST_AGAIN).await;
        }
        held
    };
    let Some(held) = cancel.run_until_cancelled(lead).await else {
        return Ended::Told;
    };
    tracing::info!(identity, "this controller leads");
    begin_work(&shared, &held);
    let leads = leadership.keep(held, &cancel, |until| shared.term.lasts(until));
    let kept = leads.await;
    shared.term.end();
    stop.cancel();
    tracker.close();
    if tokio::time::timeout(FAREWELL, tracker.wait())
        .await
        .is_err()
    {
        tracing::warn!("some tasks did not end in time");
    }
    let Some(held) = kept else {
        return Ended::Deposed;
    };
    // Nothing of ours is under way any more.
    leadership.give_back(held).await;
    Ended::Told
}

fn begin_watches(shared: &Handle, client: &Client, sight: &Sight) {
    let of = || (Arc::clone(shared), client.clone(), sight.clone());
    let (handle, calls, seen) = of();
    shared.spawn(watches::learners(handle, calls, seen));
    let (handle, calls, seen) = of();
    shared.spawn(watches::classes(handle, calls, seen));
    for namespace in shared.options.pods.namespaces.clone() {
        let (handle, calls, seen) = of();
        shared.spawn(watches::pods(handle, calls, namespace, seen));
    }
}

/// From here on this process acts: whoever does not rest is looked at, and whoever comes.
fn begin_work(shared: &Handle, held: &Held) {
    {
        let (mut guard, now) = (shared.world(), shared.now());
        let world = &mut *guard;
        let named = world
            .learners
            .iter()
            .filter_map(|(id, known)| Some((known.status.pod.as_ref()?.uid, id.clone())));
        world.pods.reclaim(named.collect());
        for (id, known) in &world.learners {
            if known.status.pod.is_some() {
                let progress = match known.status.state {
                    LearnerState::Ready => Progress::Lives,
                    _ => Progress::Waits,
                };
                world.gate.adopt(id, progress, now);
            }
        }
    }
    shared.term.lasts(held.acts_until());
    let waiting: Vec<_> = {
        let world = shared.world();
        let labelled = world.pods.iter().filter_map(|pod| pod.learner.clone());
        let orphans = labelled.filter(|id| !world.learners.contains_key(id));
        let stirring = world.learners.iter().filter(|(_, known)| !rests(known));
        stirring.map(|(id, _)| id.clone()).chain(orphans).collect()
    };
    for id in &waiting {
        shared.queue.now(id);
    }
    shared.spawn(work(Arc::clone(shared)));
    shared.spawn(pool::run(Arc::clone(shared)));
    shared.spawn(room::run(Arc::clone(shared)));
}

/// Whether nothing is to be done for a learner, as the objects say.
fn rests(known: &Known) -> bool {
    let wish = lifecycle::wish(&known.desired, &known.status);
    let is_asleep = known.status.pod.is_none() && wish == Wish::Asleep;
    known.is_visited && is_asleep && !learner::restore_is_due(known)
}

/// Looks at whoever is due; never returns.
async fn work(shared: Handle) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let id = shared.queue.next().await;
        let handle = Arc::clone(&shared);
        shared.tracker.spawn(async move {
            let _place = place;
            let again = learner::reconcile(&handle, &id).await;
            let again = again.map(|at| handle.instant(at));
            handle.queue.done(&id, again);
        });
    }
}
