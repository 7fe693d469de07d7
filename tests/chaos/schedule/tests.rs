//! What the fixed seeds draw.

use std::collections::BTreeSet;

use rand::SeedableRng as _;

use super::kinds::{KINDS, kinds, missed};
use super::{Disk, Fault, Schedule, StdRng};
use crate::SEEDS;
use crate::round::Plan;

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
fn a_family_of_faults_that_met_nobody_is_named() {
    let mut met: BTreeSet<String> = KINDS.map(str::to_owned).into();
    assert!(missed(&met).is_empty());
    for by_chance in ["kill Worker", "pause Sidecar", "storage cut", "kill fleet"] {
        met.remove(by_chance);
    }
    assert!(missed(&met).is_empty());
    met.retain(|kind| !kind.ends_with("Sidecar") && !kind.ends_with("Shim"));
    assert_eq!(missed(&met), ["kill or pause a part of a pod"]);
    assert_eq!(missed(&BTreeSet::new()).len(), 8);
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
    assert_eq!(full(Disk::Pods).excuses(), Some(super::Excuse::Pods));
    let storage = |fault| Fault::Storage {
        fault,
        every: 1,
        lasts,
    };
    let excusing = super::STORAGE.map(|fault| storage(fault).excuses());
    let snapshots = Some(super::Excuse::Snapshots);
    assert_eq!(excusing, [None, None, None, snapshots, None, snapshots]);
}
