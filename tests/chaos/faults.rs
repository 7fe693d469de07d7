//! Does what a schedule says, to what is met at that moment.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_testkit::link::Weather;
use carrel_tests::eventually;
use carrel_tests::machine::{self, Pod};
use carrel_tests::up::signal;
use rustix::process::Signal;

use crate::schedule::{Fault, Part, Schedule};
use crate::school::{LEARNERS, School};

/// What a fault is meant for is there by then, or it meets nobody.
const MET_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks into the database.
const GLANCE: Duration = Duration::from_millis(100);
const HELD_WITHIN: Duration = Duration::from_secs(30);
const ANSWERED_WITHIN: Duration = Duration::from_secs(40);

/// A commit that was sent before the fence rose above its epoch and arrived after.
#[derive(Debug, Clone)]
pub(crate) struct LateCommit {
    pub(crate) learner: &'static str,
    /// The turn of the message that was sent for it.
    pub(crate) turn: String,
    pub(crate) epoch: u64,
    /// The fence when it arrived.
    pub(crate) fence: u64,
    /// The answer, from its first line on.
    pub(crate) answer: String,
}

/// What came of a schedule.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Faults that met somebody.
    pub(crate) met: usize,
    pub(crate) late_commit: Option<anyhow::Result<LateCommit>>,
}

/// Carries a schedule out. Ends when all that it disturbed has ended.
pub(crate) async fn perform(school: &School, schedule: &Schedule) -> Done {
    let began = Instant::now();
    let each = schedule.faults.iter().map(|planned| async move {
        tokio::time::sleep_until((began + planned.at).into()).await;
        let met = one(school, &planned.fault).await;
        println!(
            "  {:>5.1}–{:>4.1} s  {}{}",
            planned.at.as_secs_f64(),
            began.elapsed().as_secs_f64(),
            planned.fault,
            if met { "" } else { " (met nobody)" }
        );
        met
    });
    let met = futures::future::join_all(each).await;
    tokio::time::sleep_until((began + schedule.lasts).into()).await;
    Done {
        met: met.into_iter().filter(|met| *met).count(),
        late_commit: None,
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
        let owner = ["gateway-1", "gateway-2"].into_iter().find(|gateway| {
            let link = school.link(&format!("gateways to {gateway}")).address();
            address
                .as_ref()
                .is_some_and(|address| address.ends_with(&link))
        });
        if owner.is_none() {
            tokio::time::sleep(GLANCE).await;
        }
        Ok(owner.and_then(|gateway| school.pid(gateway)))
    };
    eventually("a turn has an owner", MET_WITHIN * 3, look)
        .await
        .ok()
}

/// A commit is held on its way, its incarnation dies, the next one raises the fence, and then the commit arrives.
pub(crate) async fn late_commit(school: &School, lot: usize) -> anyhow::Result<LateCommit> {
    let learner = LEARNERS[lot % LEARNERS.len()].0;
    let vaults = school.link("all to vaults");
    let place = vaults.held().len();
    vaults.weather(Weather::Held(format!("PUT /v1/learners/{learner}/head")));
    let key = format!("late-{place}");
    let sent = async {
        let mut gateway = 0;
        eventually("a message is accepted", HELD_WITHIN, || {
            gateway += 1;
            let api = school.client(gateway);
            let key = key.clone();
            async move { Ok(api?.post(learner, "count", &key).await.ok()) }
        })
        .await
    };
    let turn = sent.await?.turn;
    let held = eventually("a commit is held", HELD_WITHIN, || async {
        Ok((vaults.held().len() > place).then_some(()))
    })
    .await;
    let result = async {
        held?;
        let (epoch, pod) = eventually("its pod is seen", HELD_WITHIN, || async {
            let document = school.client(0)?.learner(learner).await?;
            let pod: Option<Pod> = school
                .pods()
                .into_iter()
                .find(|pod| document["pod"] == pod.name.as_str());
            Ok(pod
                .zip(document["epoch"].as_u64())
                .map(|(pod, epoch)| (epoch, pod)))
        })
        .await?;
        machine::kill(pod.sidecar);
        let fence = eventually(
            "the next incarnation raises the fence",
            HELD_WITHIN,
            || async {
                let rows = school
                    .ask(&format!("SELECT fence FROM learner WHERE id = '{learner}'"))
                    .await;
                let fence: Option<u64> = rows.first().and_then(|row| row[0].parse().ok());
                Ok(fence.filter(|fence| *fence > epoch))
            },
        )
        .await?;
        vaults.weather(Weather::Clear);
        let answer = eventually("what came late is answered", ANSWERED_WITHIN, || async {
            // It is JSON.
            Ok(vaults
                .held()
                .get(place)
                .filter(|answer| answer.contains('}'))
                .cloned())
        })
        .await?;
        anyhow::Ok(LateCommit {
            learner,
            turn,
            epoch,
            fence,
            answer,
        })
    }
    .await;
    vaults.weather(Weather::Clear);
    result.with_context(|| format!("a late commit of {learner}"))
}
