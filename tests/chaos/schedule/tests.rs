//! What the fixed seeds draw.

use std::collections::BTreeSet;

use rand::SeedableRng as _;

use super::{Disk, Fault, Schedule, StdRng, Weather};
use crate::SEEDS;
use crate::round::Plan;

/// What goes wrong, and where.
const KINDS: [&str; 34] = [
    "kill gateway",
    "kill router",
    "kill vault",
    "kill fleet",
    "kill Sidecar",
    "kill Shim",
    "kill Worker",
    "pause gateway",
    "pause router",
    "pause vault",
    "pause fleet",
    "pause Sidecar",
    "pause Shim",
    "pause storage",
    "pause past a lease",
    "cut",
    "late",
    "half-open",
    "on clients",
    "on gateways to gateway",
    "on gateways to the fleet",
    "on all to routers",
    "on all to vaults",
    "on the database's",
    "storage 500",
    "storage 503",
    "storage slow",
    "storage truncated",
    "storage cut",
    "full bucket",
    "full Database",
    "full Pods",
    "database Fast",
    "database Crash",
];

fn role(process: &str) -> &str {
    process.split('-').next().unwrap_or(process)
}

fn kinds(fault: &Fault) -> Vec<String> {
    use carrel_testkit::s3;
    let one = match fault {
        Fault::Kill { who, .. } => format!("kill {}", role(who)),
        Fault::KillPart { part, .. } => format!("kill {part:?}"),
        Fault::Pause { who, .. } => format!("pause {}", role(who)),
        Fault::PauseOwner { .. } => "pause past a lease".to_owned(),
        Fault::PausePart { part, .. } => format!("pause {part:?}"),
        Fault::Link { link, weather, .. } => {
            let weather = match weather {
                Weather::Cut => "cut",
                Weather::Late(_) => "late",
                Weather::Swallowed => "half-open",
                Weather::Clear | Weather::Held(_) => "nothing",
            };
            let link = match link.as_str() {
                link if link.ends_with(" to the database") => "on the database's".to_owned(),
                link if link.starts_with("clients") => "on clients".to_owned(),
                link => format!("on {}", role(link)),
            };
            return vec![weather.to_owned(), link];
        }
        Fault::Storage { fault, .. } => match fault {
            s3::Fault::Answer(status, _) => format!("storage {status}"),
            s3::Fault::Slow(_) => "storage slow".to_owned(),
            s3::Fault::Truncated => "storage truncated".to_owned(),
            s3::Fault::Cut => "storage cut".to_owned(),
            s3::Fault::Full => "full bucket".to_owned(),
            s3::Fault::NoConditions => "nothing".to_owned(),
        },
        Fault::PauseStorage { .. } => "pause storage".to_owned(),
        Fault::Database { end, .. } => format!("database {end:?}"),
        Fault::Full { disk, .. } => format!("full {disk:?}"),
    };
    vec![one]
}

fn drawn(seed: u64) -> BTreeSet<String> {
    let plan = Plan::default();
    let schedule = Schedule::draw(&mut StdRng::seed_from_u64(seed), plan.lasts, plan.faults);
    schedule
        .faults
        .iter()
        .flat_map(|planned| kinds(&planned.fault))
        .collect()
}

#[test]
fn the_fixed_seeds_have_every_kind_of_fault_between_them() {
    let drawn: BTreeSet<String> = SEEDS.into_iter().flat_map(drawn).collect();
    let missing: Vec<_> = KINDS
        .iter()
        .filter(|kind| !drawn.contains(**kind))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    let known = |kind: &&String| !KINDS.contains(&kind.as_str());
    let unknown: Vec<_> = drawn.iter().filter(known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn a_seed_draws_the_same_schedule_each_time() {
    let plan = Plan::default();
    let draw = |seed| {
        let schedule = Schedule::draw(&mut StdRng::seed_from_u64(seed), plan.lasts, plan.faults);
        format!("{schedule:?}")
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn only_what_fills_or_spoils_the_storage_excuses_a_turn() {
    let lasts = super::PAST_A_LEASE;
    let full = |disk| Fault::Full { disk, lasts };
    assert!(full(Disk::Database).excuses().is_none());
    assert_eq!(full(Disk::Pods).excuses(), Some(super::Excuse::Anything));
    let storage = |fault| Fault::Storage {
        fault,
        every: 1,
        lasts,
    };
    let excusing = super::STORAGE.map(|fault| storage(fault).excuses());
    let snapshots = Some(super::Excuse::Snapshots);
    assert_eq!(excusing, [None, None, None, snapshots, None, snapshots]);
}
