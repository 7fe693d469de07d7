//! Whether the objects are those that the store speaks of: for operators, and never on a hot path.

use std::collections::BTreeSet;

use carrel_core::{RepositoryId, SnapshotId};
use carrel_store::SharedStore;
use carrel_store::heads::GenerationRow;
use carrel_store::learners::Learner;
use jiff::Timestamp;

use crate::objects::FileKind;
use crate::{Error, Objects};

/// So many learners are read at once.
const PAGE: u32 = 500;

/// What does not add up between heads and objects, a line each. Names are compared, contents are not read. What is written,
/// removed or erased meanwhile disturbs nothing.
///
/// # Errors
/// When the store or the storage does not answer.
pub async fn compare(
    store: &SharedStore,
    objects: &Objects,
    now: Timestamp,
) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    let there = repositories(objects).await?;
    let mut known = BTreeSet::new();
    let mut after = None;
    loop {
        let page = store.learners(after.as_ref(), PAGE, now).await?;
        let Some(last) = page.last() else {
            break;
        };
        after = Some(last.id.clone());
        for learner in &page {
            known.insert(learner.repository);
            let found = of_learner(store, objects, learner).await?;
            // What is being erased loses its key and its objects before its rows.
            if !found.is_empty() && stays(store, learner, now).await? {
                lines.extend(found);
            }
        }
    }
    known.extend(store.erased_repositories(now).await?);
    // What was erased meanwhile is gone by now, or still known as erased.
    let still = repositories(objects).await?;
    let nobodys = there
        .intersection(&still)
        .filter(|one| !known.contains(one));
    lines.extend(nobodys.map(|one| format!("repository {one}: it is nobody's")));
    Ok(lines)
}

async fn stays(store: &SharedStore, learner: &Learner, now: Timestamp) -> Result<bool, Error> {
    let row = store.learner(&learner.id, now).await?;
    Ok(row.is_some_and(|row| row.repository == learner.repository && !row.desired.deleting))
}

async fn repositories(objects: &Objects) -> Result<BTreeSet<RepositoryId>, Error> {
    let listed = objects.repositories().await;
    let listed = listed.map_err(Error::storage("listing repositories"))?;
    Ok(listed.into_iter().collect())
}

async fn of_learner(
    store: &SharedStore,
    objects: &Objects,
    learner: &Learner,
) -> Result<Vec<String>, Error> {
    let id = &learner.id;
    let mut lines = Vec::new();
    let Some((newest, _)) = &learner.newest_snapshot else {
        return Ok(lines);
    };
    if store.wrapped_key(id).await?.is_none() {
        lines.push(format!("{id}: it has snapshots, and no data key"));
    }
    let live = |rows: Vec<GenerationRow>| -> BTreeSet<SnapshotId> {
        let rows = rows.into_iter().filter(|row| !row.expired && !row.damaged);
        rows.filter_map(|row| row.snapshot).collect()
    };
    let mut missing = live(store.generations(id).await?);
    let listed = objects.list(learner.repository, FileKind::Snapshots).await;
    for (name, _) in listed.map_err(Error::storage("listing snapshots"))? {
        missing.retain(|snapshot| snapshot.as_str() != name);
    }
    if missing.is_empty() {
        return Ok(lines);
    }
    // Retention marks what it is about to remove.
    let still = live(store.generations(id).await?);
    for snapshot in missing.intersection(&still) {
        let told = if snapshot == newest {
            "its newest snapshot is not where snapshots are ('carrel snapshot verify' reads all of one)"
        } else {
            "an older snapshot is not where snapshots are"
        };
        lines.push(format!("{id}: {told}: {snapshot}"));
    }
    Ok(lines)
}
