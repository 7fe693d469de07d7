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

/// What met nobody over the fixed seeds and should have. What else goes wrong at the time may keep everybody from storage or off a
/// link: of each of these one fault must have met. A backup or a restore lasts some milliseconds, and only root fills the pods' disk.
pub(crate) fn missed(met: &BTreeSet<String>, is_root: bool) -> Vec<&'static str> {
    let of_storage = |kind: &str| kind.starts_with("storage ") || kind == "full bucket";
    let of_links =
        |kind: &str| kind.starts_with("on ") || ["cut", "late", "half-open"].contains(&kind);
    let by_chance = |kind: &str| kind == "kill Worker" || (kind == "full Pods" && !is_root);
    let demanded = KINDS
        .into_iter()
        .filter(|kind| !of_storage(kind) && !of_links(kind) && !by_chance(kind));
    let mut missed: Vec<_> = demanded.filter(|kind| !met.contains(*kind)).collect();
    if !met.iter().any(|kind| of_storage(kind)) {
        missed.push("storage");
    }
    if !met.iter().any(|kind| of_links(kind)) {
        missed.push("links");
    }
    missed
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
