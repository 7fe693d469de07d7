//! Processes say that they are there, and one at a time does what only one may.

use super::fixture::{at, owner};
use crate::SharedStore;
use crate::processes::{Process, Role, Task};

pub async fn a_process_is_there_until_it_goes_or_is_silent(store: SharedStore) {
    let process = |role, address: &str| Process {
        id: owner(),
        role,
        address: address.to_owned(),
        report: "{}".to_owned(),
    };
    let (stays, goes) = (process(Role::Gateway, "a"), process(Role::Gateway, "b"));
    let fleet = process(Role::Fleet, "");
    for one in [&stays, &goes, &fleet] {
        store.announce(one, at(0), at(10)).await.expect("announced");
    }
    let moved = Process {
        address: "c".to_owned(),
        ..stays
    };
    store.announce(&moved, at(5), at(20)).await.expect("again");
    let there = async |second| {
        let mut found = store.processes(Role::Gateway, at(second)).await;
        if let Ok(found) = &mut found {
            found.sort_by(|a, b| a.address.cmp(&b.address));
        }
        found.expect("read")
    };
    assert_eq!(there(9).await, [goes.clone(), moved.clone()]);
    // The one that says nothing any more is gone by itself.
    assert_eq!(there(10).await, std::slice::from_ref(&moved));
    store.withdraw(moved.id).await.expect("withdrawn");
    store.withdraw(moved.id).await.expect("repeated");
    assert_eq!(there(5).await, [goes]);
    let fleets = store.processes(Role::Fleet, at(0)).await;
    assert_eq!(fleets.expect("read"), [fleet]);
}

pub async fn a_task_is_one_holders_at_a_time(store: SharedStore) {
    let lead = async |task| store.lead(task).await.expect("answered");
    let first = lead(Task::Fleet).await.expect("free");
    assert!(lead(Task::Fleet).await.is_none());
    let other = lead(Task::Maintenance).await;
    assert!(other.is_some(), "tasks are apart");
    drop(first);
    // Whether it was given up is heard by the server a moment later.
    let taken = async {
        while lead(Task::Fleet).await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    let taken = tokio::time::timeout(super::fixture::SHOWN_WITHIN, taken).await;
    taken.expect("free again");
}
