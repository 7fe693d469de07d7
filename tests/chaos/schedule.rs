//! What is to go wrong, and when: drawn from a seed, and nothing else.

pub(crate) mod kinds;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use carrel_testkit::link::Weather;
use carrel_testkit::postgres::End;
use carrel_testkit::s3;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// The processes, by name.
pub(crate) const PROCESSES: [&str; 7] = [
    "gateway-1",
    "gateway-2",
    "router-1",
    "router-2",
    "vault-1",
    "vault-2",
    "fleet",
];
/// The way to pods for gateways that are elsewhere.
pub(crate) const DOOR: &str = "gateways to the fleet";
/// Links that are not between a process and its database.
pub(crate) const LINKS: [&str; 7] = [
    DOOR,
    "clients to gateway-1",
    "clients to gateway-2",
    "gateways to gateway-1",
    "gateways to gateway-2",
    "all to routers",
    "all to vaults",
];
/// What the bucket answers.
const STORAGE: [s3::Fault; 6] = [
    s3::Fault::Answer(500, "InternalError"),
    s3::Fault::Answer(503, "SlowDown"),
    s3::Fault::Slow(Duration::from_millis(300)),
    s3::Fault::Truncated,
    s3::Fault::Cut,
    s3::Fault::Full,
];
/// A gateway's lease lasts 6 s: it is over after a pause of this.
const PAST_A_LEASE: Duration = Duration::from_secs(8);

/// The name of a process's link to the database.
pub(crate) fn to_database(process: &str) -> String {
    format!("{process} to the database")
}

/// A part of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Sidecar,
    Shim,
    /// The sidecar's short-lived child that restores or backs up.
    Worker,
}

/// A disk besides the bucket's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// The database's: it can be read.
    Database,
    /// That of the machine of the pods: workspaces, and what is restored.
    Pods,
}

/// Something that goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// SIGKILL; it is started again after a while.
    Kill {
        who: &'static str,
        back: Duration,
    },
    /// SIGKILL to the part of a pod, whichever is met: the lot chooses among those that are there.
    KillPart {
        part: Part,
        lot: usize,
    },
    /// SIGSTOP, later SIGCONT.
    Pause {
        who: &'static str,
        lasts: Duration,
    },
    /// The gateway that owns a turn is paused past its lease.
    PauseOwner {
        lasts: Duration,
    },
    PausePart {
        part: Part,
        lot: usize,
        lasts: Duration,
    },
    /// A link has weather.
    Link {
        link: String,
        weather: Weather,
        lasts: Duration,
    },
    /// Each `every`th request to the bucket meets this.
    Storage {
        fault: s3::Fault,
        every: u64,
        lasts: Duration,
    },
    PauseStorage {
        lasts: Duration,
    },
    Database {
        end: End,
        down: Duration,
    },
    /// There is no room on a disk.
    Full {
        disk: Disk,
        lasts: Duration,
    },
}

impl Fault {
    /// Which turns may fail because of it, while it lasts.
    pub(crate) fn excuses(&self) -> Option<Excuse> {
        match self {
            Self::Storage {
                fault: s3::Fault::Full | s3::Fault::Truncated,
                ..
            } => Some(Excuse::Snapshots),
            Self::Full {
                disk: Disk::Pods, ..
            } => Some(Excuse::Pods),
            _ => None,
        }
    }
}

/// What fails as it should while something lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// A turn whose snapshot the bucket does not take for longer than a commit waits, or does not give back whole.
    Snapshots,
    /// A turn whose agent cannot write, or does not start, or whose snapshot has no room.
    Pods,
}

impl Excuse {
    /// With which codes those turns fail.
    pub(crate) const fn codes(self) -> &'static [&'static str] {
        match self {
            Self::Snapshots => &["snapshot_failed"],
            Self::Pods => &[
                "snapshot_failed",
                "agent_failed",
                "agent_ended",
                "agent_not_ready",
            ],
        }
    }
}

/// A fault at its time.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
}

/// What happens in one round.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// In order of time.
    pub(crate) faults: Vec<Planned>,
    /// How long it goes on; what began then has its end.
    pub(crate) lasts: Duration,
}

fn seconds(lots: &mut StdRng, from: f64, to: f64) -> Duration {
    let drawn = Duration::from_secs_f64(lots.random_range(from..to));
    Duration::from_millis(u64::try_from(drawn.as_millis()).unwrap_or(u64::MAX))
}

impl Schedule {
    /// Draws a round of so many faults.
    pub(crate) fn draw(lots: &mut StdRng, lasts: Duration, faults: usize) -> Self {
        let mut all: Vec<Planned> = (0..faults)
            .map(|_| Planned {
                at: seconds(lots, 0.5, lasts.as_secs_f64()),
                fault: fault(lots),
            })
            .collect();
        all.push(Planned {
            at: seconds(lots, 0.5, lasts.as_secs_f64() / 2.0),
            fault: Fault::PauseOwner {
                lasts: PAST_A_LEASE,
            },
        });
        all.sort_by_key(|planned| planned.at);
        Self { faults: all, lasts }
    }
}

fn fault(lots: &mut StdRng) -> Fault {
    let (lot, who) = (lots.random_range(0..64), *lots.pick(&PROCESSES));
    match lots.random_range(0..100) {
        0..15 => Fault::Kill {
            who,
            back: seconds(lots, 0.0, 3.0),
        },
        15..31 => Fault::KillPart {
            part: *lots.pick(&[Part::Sidecar, Part::Shim, Part::Worker]),
            lot,
        },
        31..39 => Fault::Pause {
            who,
            lasts: seconds(lots, 0.5, 9.0),
        },
        39..45 => Fault::PausePart {
            part: *lots.pick(&[Part::Sidecar, Part::Shim]),
            lot,
            lasts: seconds(lots, 0.5, 6.0),
        },
        45..74 => weather(lots, who),
        74..87 => Fault::Storage {
            fault: *lots.pick(&STORAGE),
            every: *lots.pick(&[1, 1, 2, 3]),
            lasts: seconds(lots, 0.5, 5.0),
        },
        87..90 => Fault::PauseStorage {
            lasts: seconds(lots, 0.5, 5.0),
        },
        90..95 => Fault::Full {
            disk: *lots.pick(&[Disk::Database, Disk::Pods]),
            lasts: seconds(lots, 0.5, 4.0),
        },
        _ => Fault::Database {
            end: *lots.pick(&[End::Fast, End::Crash]),
            down: seconds(lots, 0.0, 2.0),
        },
    }
}

fn weather(lots: &mut StdRng, who: &str) -> Fault {
    let link = if lots.random_bool(0.4) {
        to_database(who)
    } else {
        (*lots.pick(&LINKS)).to_owned()
    };
    let late = seconds(lots, 0.01, 0.3);
    let weather = match lots.random_range(0..10) {
        0..4 => Weather::Cut,
        4..7 => Weather::Swallowed,
        _ => Weather::Late(late),
    };
    Fault::Link {
        link,
        weather,
        lasts: seconds(lots, 0.5, 6.0),
    }
}

/// One of several, which are never none.
trait Pick {
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T;
}

impl Pick for StdRng {
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.choose(self)
            .expect("there is something to choose from")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { who, back } => write!(f, "{who} is killed, and is back after {back:?}"),
            Self::KillPart { part, .. } => write!(f, "a {part:?} is killed"),
            Self::Pause { who, lasts } => write!(f, "{who} is paused for {lasts:?}"),
            Self::PauseOwner { lasts } => write!(f, "a turn's owner is paused for {lasts:?}"),
            Self::PausePart { part, lasts, .. } => write!(f, "a {part:?} is paused for {lasts:?}"),
            Self::Link {
                link,
                weather,
                lasts,
            } => write!(f, "{link}: {weather:?} for {lasts:?}"),
            Self::Storage {
                fault,
                every,
                lasts,
            } => write!(
                f,
                "storage: {fault:?} of each {every}th request for {lasts:?}"
            ),
            Self::PauseStorage { lasts } => write!(f, "storage is paused for {lasts:?}"),
            Self::Database { end, down } => write!(f, "database: {end:?}, down for {down:?}"),
            Self::Full { disk, lasts } => write!(f, "disk of {disk:?}: full for {lasts:?}"),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6.1} s  {}", self.at.as_secs_f64(), self.fault)
    }
}
