//! Does what a schedule says, to what is met at that moment.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use carrel_testkit::link::Weather;
use carrel_tests::machine;
use carrel_tests::up::signal;
use carrel_tests::{eventually, eventually_every};
use jiff::Timestamp;
use rustix::process::Signal;

use crate::schedule::kinds::kinds;
use crate::schedule::{Disk, Excuse, Fault, Part, Schedule};
use crate::school::School;

/// What a fault is meant for is there by then, or it meets nobody.
const MET_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks into the database.
const GLANCE: Duration = Duration::from_millis(100);

/// A time in which some turns could not but fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excused {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) what: Excuse,
}

/// What came of a schedule.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Faults that met somebody.
    pub(crate) met: usize,
    /// Of which kinds these were.
    pub(crate) kinds: BTreeSet<String>,
    pub(crate) excused: Vec<Excused>,
}

/// Carries a schedule out. Ends when all that it disturbed has ended.
pub(crate) async fn perform(school: &School, schedule: &Schedule) -> Done {
    let began = Instant::now();
    let each = schedule.faults.iter().map(|planned| async move {
        tokio::time::sleep_until((began + planned.at).into()).await;
        let from = Timestamp::now();
        let met = one(school, &planned.fault).await;
        let to = Timestamp::now();
        println!(
            "  {:>5.1}–{:>4.1} s  {}{}",
            planned.at.as_secs_f64(),
            began.elapsed().as_secs_f64(),
            planned.fault,
            if met { "" } else { " (met nobody)" }
        );
        met.then_some((&planned.fault, from, to))
    });
    let met: Vec<_> = futures::future::join_all(each)
        .await
        .into_iter()
        .flatten()
        .collect();
    tokio::time::sleep_until((began + schedule.lasts).into()).await;
    let excused = met.iter().filter_map(|(fault, from, to)| {
        let (from, to, what) = (*from, *to, fault.excuses()?);
        Some(Excused { from, to, what })
    });
    Done {
        met: met.len(),
        kinds: met.iter().flat_map(|(fault, ..)| kinds(fault)).collect(),
        excused: excused.collect(),
    }
}

/// One fault, to its end; whether it met anybody.
async fn one(school: &School, fault: &Fault) -> bool {
    match fault {
        Fault::Kill { who, back } => school.kill(who, *back).unwrap_or(false),
        Fault::KillPart { part, lot } => part_of(school, *part, *lot)
            .await
            .is_some_and(machine::kill),
        Fault::Pause { who, lasts } => pause(school.pid(who), *lasts).await,
        Fault::PausePart { part, lot, lasts } => {
            pause(part_of(school, *part, *lot).await, *lasts).await
        }
        Fault::PauseOwner { lasts } => pause(owner(school).await, *lasts).await,
        Fault::PauseStorage { lasts } => pause(Some(school.roles.s3.pid()), *lasts).await,
        Fault::Link {
            link,
            weather,
            lasts,
        } => {
            let link = school.link(link);
            let before = link.disturbed();
            link.weather(weather.clone());
            tokio::time::sleep(*lasts).await;
            link.weather(Weather::Clear);
            link.disturbed() > before
        }
        Fault::Storage {
            fault,
            every,
            lasts,
        } => {
            let s3 = &school.roles.s3;
            let before = s3.disturbed();
            s3.disturb(Some(*fault), *every);
            tokio::time::sleep(*lasts).await;
            s3.disturb(None, 1);
            s3.disturbed() > before
        }
        Fault::Database { end, down } => {
            let (server, end, down) = (school.roles.server, *end, *down);
            let restarted = tokio::task::spawn_blocking(move || server.restart(end, down));
            restarted.await.is_ok()
        }
        Fault::Full { disk, lasts } => match (disk, &school.pods_disk) {
            (Disk::Database, _) => school.database_disk.fill_for(*lasts).await,
            (Disk::Pods, Some(disk)) => disk.fill_for(*lasts).await,
            (Disk::Pods, None) => false,
        },
    }
}

async fn pause(pid: Option<u32>, lasts: Duration) -> bool {
    let Some(pid) = pid else { return false };
    let stopped = signal(pid, Signal::STOP).is_ok();
    tokio::time::sleep(lasts).await;
    // It may have been killed meanwhile.
    let _ = signal(pid, Signal::CONT);
    stopped
}

/// A part of some pod, as soon as there is one.
async fn part_of(school: &School, part: Part, lot: usize) -> Option<u32> {
    let look = || async {
        let found: Vec<u32> = school
            .pods()
            .into_iter()
            .filter_map(|pod| match part {
                Part::Sidecar => Some(pod.sidecar),
                Part::Shim => pod.shim,
                Part::Worker => machine::snapshot_worker(pod.sidecar),
            })
            .collect();
        let count = found.len();
        Ok((count > 0).then(|| found[lot % count]))
    };
    eventually("a part of a pod", MET_WITHIN, look).await.ok()
}

/// A gateway that holds the lease of a turn that runs.
async fn owner(school: &School) -> Option<u32> {
    let look = || async {
        // While the database is away there is nothing to see.
        let rows = school.ask(
            "SELECT p.address FROM turn t JOIN process p ON p.id = t.lease_owner WHERE t.state = 'running' LIMIT 1",
        ).await;
        let address = rows.first().and_then(|row| row.first().cloned());
        let owner = address.and_then(|address| school.gateway_at(&address));
        Ok(owner.and_then(|gateway| school.pid(gateway)))
    };
    eventually_every(GLANCE, "a turn has an owner", MET_WITHIN * 3, look)
        .await
        .ok()
}
