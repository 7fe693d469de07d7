//! What kinds of faults there are.

use std::collections::BTreeSet;

use carrel_testkit::link::Weather;

use super::Fault;

/// What goes wrong, and where.
pub(crate) const KINDS: [&str; 34] = [
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

/// Kinds that stand in for each other.
const FAMILIES: [&str; 8] = [
    "kill a process",
    "pause a process",
    "kill or pause a part of a pod",
    "pause past a lease",
    "end the database",
    "fill a disk",
    "fail the storage",
    "fail a link",
];

/// Of what nothing met anybody over the fixed seeds. A single fault may meet nobody: who is to be killed is dead already, what else
/// goes wrong at the time keeps everybody from storage or off a link, a backup lasts some milliseconds. So of each family one must.
pub(crate) fn missed(met: &BTreeSet<String>) -> Vec<&'static str> {
    let met: Vec<_> = met.iter().map(|kind| family(kind)).collect();
    let missed = FAMILIES.into_iter().filter(|name| !met.contains(name));
    missed.collect()
}

fn family(kind: &str) -> &'static str {
    match kind.split_once(' ') {
        Some(("kill" | "pause", "Sidecar" | "Shim" | "Worker")) => FAMILIES[2],
        Some(("kill", _)) => FAMILIES[0],
        Some(("pause", "past a lease")) => FAMILIES[3],
        Some(("pause" | "storage", "storage" | "500" | "503" | "slow" | "truncated" | "cut")) => {
            FAMILIES[6]
        }
        Some(("pause", _)) => FAMILIES[1],
        Some(("database", _)) => FAMILIES[4],
        Some(("full", _)) => FAMILIES[5],
        _ => FAMILIES[7],
    }
}

fn role(process: &str) -> &str {
    process.split('-').next().unwrap_or(process)
}

/// Which kind one is; on a link it is two, what goes wrong and where.
pub(crate) fn kinds(fault: &Fault) -> Vec<String> {
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
