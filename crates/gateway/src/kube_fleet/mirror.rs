//! Takes over into the store what the objects say: a row for each learner, its class, its wish and what is seen of it, and the
//! classes, which router and vault read there. One gateway does it for all; nothing is written that is so already.

use std::collections::HashSet;
use std::time::Duration;

use carrel_core::LearnerId;
use carrel_core::lifecycle;
use carrel_protocol::fleet;
use carrel_store::learners::{Created, Learner, NewLearner};
use carrel_store::processes::Task;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::KubeFleet;
use super::record::Record;

/// How often one that does not do it asks whether it may, and one that failed tries again.
const AGAIN: Duration = Duration::from_secs(2);
/// All are compared so often, though no hint says so.
const ALL_EVERY: Duration = Duration::from_mins(10);
const PAGE: u32 = 1000;
const AT_ONCE: usize = 8;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Store(#[from] carrel_store::Error),
    #[error(transparent)]
    Fleet(#[from] fleet::Error),
}

/// Mirrors while no other gateway does, until the process ends.
pub(super) async fn run(fleet: KubeFleet, cancel: CancellationToken) {
    let mirrors = async {
        fleet.0.cache.completed().await;
        // Nobody can have the sender but this fleet.
        let _ = fleet
            .0
            .known_classes
            .changes()
            .wait_for(|times| *times > 0)
            .await;
        loop {
            match fleet.0.parts.store.lead(Task::Mirror).await {
                Ok(Some(lead)) => tokio::select! {
                    () = lead.lost() => {}
                    ended = follow(&fleet) => if let Err(error) = ended {
                        tracing::warn!(%error, "taking objects over into the store is begun again");
                    },
                },
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "who takes objects over cannot be asked"),
            }
            sleep(AGAIN).await;
        }
    };
    cancel.run_until_cancelled(mirrors).await;
}

/// Ends with the first failure: whoever begins again compares all.
async fn follow(fleet: &KubeFleet) -> Result<(), Error> {
    let mut changes = fleet.0.cache.changes();
    let mut classes = fleet.0.known_classes.changes();
    classes.mark_unchanged();
    take_classes(fleet).await?;
    let mut left = take_all(fleet).await?;
    let mut all_due = Instant::now() + ALL_EVERY;
    loop {
        let again = Instant::now() + AGAIN;
        tokio::select! {
            // The sender lives as long as the fleet.
            _ = classes.changed() => take_classes(fleet).await?,
            first = changes.recv() => match gathered(first, &mut changes) {
                Some(stirred) => left.extend(take(fleet, stirred).await?),
                None => left = take_all(fleet).await?,
            },
            () = sleep_until(again), if !left.is_empty() => {
                left = take(fleet, std::mem::take(&mut left)).await?;
            }
            () = sleep_until(all_due) => {
                left = take_all(fleet).await?;
                all_due = Instant::now() + ALL_EVERY;
            }
        }
    }
}

/// Who changed lately. `None`: hints were lost, it may be anybody.
fn gathered(
    first: Result<LearnerId, RecvError>,
    changes: &mut Receiver<LearnerId>,
) -> Option<HashSet<LearnerId>> {
    let mut stirred = HashSet::from([first.ok()?]);
    loop {
        match changes.try_recv() {
            Ok(learner) => stirred.insert(learner),
            Err(TryRecvError::Lagged(_)) => return None,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(stirred),
        };
    }
}

/// Classes whose object differs from what is stored. One whose object is gone stays: its learners may be awake.
async fn take_classes(fleet: &KubeFleet) -> Result<(), Error> {
    let store = &fleet.0.parts.store;
    for (name, spec) in fleet.0.known_classes.usable() {
        if store.class(&name).await?.as_ref() != Some(&spec) {
            store.put_class(&name, &spec).await?;
            tracing::info!(class = %name, "the class is taken over from its object");
        }
    }
    Ok(())
}

/// Compares every row with its object. Those that must be tried again.
pub(super) async fn take_all(fleet: &KubeFleet) -> Result<HashSet<LearnerId>, Error> {
    let store = &fleet.0.parts.store;
    let mut without: HashSet<LearnerId> = fleet.0.cache.all().into_iter().collect();
    let mut again = HashSet::new();
    let mut after: Option<LearnerId> = None;
    loop {
        let rows = store.learners(after.as_ref(), PAGE, now(fleet)).await?;
        let is_last = rows.len() < PAGE as usize;
        after = rows.last().map(|row| row.id.clone());
        let mut open = Vec::with_capacity(rows.len());
        for row in rows {
            let has_object = without.remove(&row.id);
            if !row.desired.deleting {
                open.push(row);
            } else if has_object {
                again.insert(row.id);
            }
        }
        let compared = stream::iter(open).map(|row| agree(fleet, row));
        compared
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        if is_last {
            break;
        }
    }
    again.extend(create(fleet, without).await?);
    Ok(again)
}

/// Compares those rows with their objects. Those that must be tried again.
pub(super) async fn take(
    fleet: &KubeFleet,
    learners: HashSet<LearnerId>,
) -> Result<HashSet<LearnerId>, Error> {
    let store = &fleet.0.parts.store;
    let (mut without, mut again) = (HashSet::new(), HashSet::new());
    let there = learners
        .into_iter()
        .filter(|learner| fleet.0.cache.has(learner));
    let mut rows = stream::iter(there)
        .map(async |learner| (store.learner(&learner, now(fleet)).await, learner))
        .buffer_unordered(AT_ONCE);
    while let Some((row, learner)) = rows.next().await {
        match row? {
            // Made anew before all of its namesake is erased.
            Some(row) if row.desired.deleting => {
                again.insert(learner);
            }
            Some(row) => agree(fleet, row).await?,
            None => {
                without.insert(learner);
            }
        }
    }
    again.extend(create(fleet, without).await?);
    Ok(again)
}

/// Makes rows for objects that have none. Those whose namesake is still being erased are to be tried again.
async fn create(
    fleet: &KubeFleet,
    without: HashSet<LearnerId>,
) -> Result<HashSet<LearnerId>, Error> {
    if without.is_empty() {
        return Ok(without);
    }
    let without: Vec<_> = without.into_iter().collect();
    let there = fleet.confirmed(&without).await?;
    let made = stream::iter(there).map(async |learner| {
        let made = make(fleet, &learner).await?;
        Ok::<_, Error>(made.then_some(learner))
    });
    let again = made
        .buffer_unordered(AT_ONCE)
        .try_filter_map(async |it| Ok(it));
    again.try_collect().await
}

/// Makes the row of one whose object is there; whether it must be tried again.
pub(super) async fn make(fleet: &KubeFleet, learner: &LearnerId) -> Result<bool, Error> {
    let store = &fleet.0.parts.store;
    let Some(record) = fleet.0.cache.get(learner) else {
        return Ok(false);
    };
    let new = NewLearner {
        id: learner.clone(),
        class: record.class,
        aliases: Vec::new(),
    };
    match store.create_learner(&new, now(fleet)).await? {
        Created::New | Created::Same | Created::Differs => {
            if let Some(row) = store.learner(learner, now(fleet)).await? {
                agree(fleet, row).await?;
            }
            Ok(false)
        }
        Created::StillErasing => Ok(true),
        Created::AliasTaken(_) => Ok(false),
    }
}

/// Makes the row say what the object says.
async fn agree(fleet: &KubeFleet, row: Learner) -> Result<(), Error> {
    let store = &fleet.0.parts.store;
    let Some(record) = fleet.0.cache.get(&row.id) else {
        return Ok(());
    };
    if record.class != row.class {
        store
            .change_learner(&row.id, Some(&record.class), None)
            .await?;
    }
    if record.desired.state != row.desired.state {
        store
            .set_desired_state(&row.id, record.desired.state)
            .await?;
    }
    if let Some(seen) = news(&record, &row) {
        store
            .put_status(&row.id, &row.status, &seen, now(fleet))
            .await?;
    }
    Ok(())
}

/// What is seen of a learner and not stored. An object that was made anew begins below what its learner has had: nothing of it is news
/// until it is above that.
fn news(record: &Record, row: &Learner) -> Option<carrel_core::learner::Status> {
    let seen = lifecycle::kept(&record.seen);
    (seen.epoch >= row.status.epoch && seen != row.status).then_some(seen)
}

fn now(fleet: &KubeFleet) -> Timestamp {
    fleet.0.parts.sidecars.clock.now()
}
