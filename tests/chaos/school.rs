//! The processes under test, with somebody who starts again what ended, and every link between them in our hands.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use carrel_testkit::link::{Link, To, Weather};
use carrel_testkit::postgres::Server;
use carrel_tests::machine::{self, Pod};
use carrel_tests::roles::How;
use carrel_tests::{Api, Member, Roles, agent, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bill::Bill;
use crate::disk::{DatabaseDisk, PodsDisk};
use crate::schedule::{DOOR, PROCESSES, to_database};

/// All processes that ended are there again by then.
const BACK_WITHIN: Duration = Duration::from_mins(1);
/// A database that does not answer within this is away.
const ASKED_WITHIN: Duration = Duration::from_secs(3);
const GLANCE: Duration = Duration::from_millis(50);
/// Between two starts of a process that does not start.
const START_AGAIN: Duration = Duration::from_millis(300);

/// The learners, each with its class.
pub(crate) const LEARNERS: [(&str, &str); 8] = [
    ("ada", "steady"),
    ("bob", "steady"),
    ("cyd", "restless"),
    ("dan", "restless"),
    ("eve", "restless"),
    ("fay", "steady"),
    ("gus", "tight"),
    ("hal", "tight"),
];
/// Learners who say nothing by themselves: the incarnations and owners of their turns are replaced.
pub(crate) const REPLACED: [&str; 3] = ["ivy", "jan", "kim"];
/// What the class `tight` may spend in a day, in nano-USD: a few calls.
pub(crate) const BUDGET: u64 = 2_500_000;

pub(crate) fn is_tight(learner: &str) -> bool {
    LEARNERS.contains(&(learner, "tight"))
}

/// A process, whichever runs at the moment.
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    role: &'static str,
    how: How,
    member: Mutex<Option<Member>>,
    back_at: Mutex<Instant>,
}

/// Everything that runs.
pub(crate) struct School {
    pub(crate) roles: Roles,
    pub(crate) bill: Bill,
    /// The provider's key and prices, which routers read.
    _files: TempDir,
    links: BTreeMap<String, Link>,
    /// Where each process itself listens.
    listens: BTreeMap<&'static str, String>,
    slots: Vec<Arc<Slot>>,
    pub(crate) database_disk: DatabaseDisk,
    /// Only root can make one.
    pub(crate) pods_disk: Option<PodsDisk>,
    tokens: String,
    /// What happened that nobody ordered.
    pub(crate) notes: Arc<Mutex<Vec<String>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address to which a process can come back: of no range from which the kernel gives ports to connections.
fn lasting_address() -> anyhow::Result<String> {
    let mut ports = std::iter::repeat_with(|| rand::random_range(10_000..30_000));
    let free = ports.find(|port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    Ok(format!("127.0.0.1:{}", free.context("a port is free")?))
}

fn cells(row: &str) -> Vec<String> {
    row.split('|').map(str::to_owned).collect()
}

fn documents() -> Vec<Value> {
    let classes = [
        ("steady", json!({})),
        (
            "restless",
            json!({"idle": {"minSeconds": 1, "maxSeconds": 2}}),
        ),
        (
            "tight",
            json!({"budget": {"perDayUsd": "0.0025", "onExhausted": "Refuse"}}),
        ),
    ];
    let classes = classes.iter().map(|(name, more)| agent::http(name, more));
    let replaced = REPLACED.iter().map(|name| (*name, "steady"));
    let learners = LEARNERS.into_iter().chain(replaced);
    let learners = learners.map(|(name, class)| agent::learner(name, class));
    classes.chain(learners).collect()
}

/// All links but those to the database.
fn between(listens: &BTreeMap<&str, String>) -> anyhow::Result<BTreeMap<String, Link>> {
    let near = |process: &str| -> anyhow::Result<SocketAddr> { Ok(listens[process].parse()?) };
    let mut links = BTreeMap::new();
    for gateway in ["gateway-1", "gateway-2"] {
        for who in ["clients", "gateways"] {
            let link = Link::start(To::OneOf(vec![near(gateway)?]))?;
            links.insert(format!("{who} to {gateway}"), link);
        }
    }
    for role in ["router", "vault"] {
        let both = vec![near(&format!("{role}-1"))?, near(&format!("{role}-2"))?];
        links.insert(format!("all to {role}s"), Link::start(To::OneOf(both))?);
    }
    let door = Link::start(To::OneOf(vec![near("fleet")?]))?;
    links.insert(DOOR.to_owned(), door);
    Ok(links)
}

fn role_of(process: &'static str) -> &'static str {
    process.split('-').next().unwrap_or(process)
}

/// By which links a process reaches the database, and is reached.
fn variables(
    process: &'static str,
    roles: &Roles,
    links: &BTreeMap<String, Link>,
) -> Vec<(&'static str, String)> {
    let store = format!(
        "postgres://carrel_{}@{}/{}",
        role_of(process),
        links[&to_database(process)].address(),
        roles.database
    );
    let mut variables = vec![("CARREL_STORE_URL", store)];
    let reached = [
        ("CARREL_GATEWAY_RELAY_URL", format!("gateways to {process}")),
        ("CARREL_FLEET_URL", format!("gateways to the {process}")),
    ];
    for (variable, link) in reached {
        if let Some(link) = links.get(&link) {
            variables.push((variable, format!("http://{}", link.address())));
        }
    }
    variables
}

impl School {
    /// Starts everything, undisturbed. `None` when the machine lacks what it needs, which is said.
    pub(crate) async fn open(
        test: &str,
        executable: Option<PathBuf>,
    ) -> anyhow::Result<Option<Self>> {
        // What is written is there when a process dies; that machines die is not tried here.
        if Server::shared(&["fsync=off"]).is_none() {
            return Ok(None);
        }
        let bill = Bill::open().await?;
        let mut listens = BTreeMap::new();
        for process in PROCESSES {
            listens.insert(process, lasting_address()?);
        }
        let mut links = between(&listens)?;
        let url = |link: &str| format!("http://{}", links[link].address());
        let files = TempDir::new()?;
        let mut settings = bill.settings(files.path())?;
        settings["gateway"] =
            json!({"routerUrl": url("all to routers"), "vaultUrl": url("all to vaults")});
        settings["fleet"] = json!({"startsPerSecond": 1000});
        settings["telemetry"] = json!({"logFilter":
            "warn,carrel_gateway=info,carrel_fleet_local=info,carrel_router=info,carrel_vault=info"});
        let Some(roles) = Roles::prepare_with(test, &settings, &documents())? else {
            return Ok(None);
        };
        let roles = match executable {
            Some(executable) => roles.running(executable),
            None => roles,
        };
        let database_disk = DatabaseDisk::of(roles.server, &roles.database);
        let is_root = rustix::process::geteuid().is_root();
        let pods_disk = is_root.then(|| PodsDisk::of(&roles.data(), roles.executable()));
        let pods_disk = pods_disk.transpose()?;
        let mut slots = Vec::new();
        for process in [
            "gateway-1",
            "fleet",
            "gateway-2",
            "router-1",
            "router-2",
            "vault-1",
            "vault-2",
        ] {
            let database = Link::start(To::Socket(roles.server.socket()))?;
            links.insert(to_database(process), database);
            let how = How {
                listen: Some(listens[process].clone()),
                variables: variables(process, &roles, &links),
                log: Some(roles.data().join(format!("{process}.log"))),
                under: match &pods_disk {
                    Some(disk) if process == "fleet" => disk.joins(),
                    _ => Vec::new(),
                },
            };
            slots.push(Arc::new(Slot {
                name: process,
                role: role_of(process),
                how,
                member: Mutex::new(None),
                back_at: Mutex::new(Instant::now()),
            }));
        }
        for slot in &slots {
            let started = roles.start_as(slot.role, &slot.how).await;
            let log = || std::fs::read_to_string(roles.data().join(format!("{}.log", slot.name)));
            let member =
                started.with_context(|| format!("{}: {}", slot.name, log().unwrap_or_default()))?;
            *lock(&slot.member) = Some(member);
        }
        let token = std::fs::read_to_string(roles.data().join("admin.token"))?;
        Ok(Some(Self {
            roles,
            bill,
            _files: files,
            links,
            slots,
            listens,
            database_disk,
            pods_disk,
            tokens: token.trim().to_owned(),
            notes: Arc::default(),
        }))
    }

    /// Starts again what ended. Does not end.
    pub(crate) async fn supervise(&self) {
        let each = self.slots.iter().map(|slot| self.keep(slot));
        futures::future::join_all(each).await;
    }

    async fn keep(&self, slot: &Slot) {
        loop {
            tokio::time::sleep(GLANCE).await;
            {
                let mut member = lock(&slot.member);
                match member.as_mut().map(Member::exit_status) {
                    Some(Ok(None)) => continue,
                    Some(Ok(Some(status))) => {
                        self.note(&format!("{} ended by itself: {status}", slot.name));
                    }
                    Some(Err(error)) => self.note(&format!("{}: {error:#}", slot.name)),
                    None => {}
                }
                *member = None;
            }
            if Instant::now() < *lock(&slot.back_at) {
                continue;
            }
            match self.roles.start_as(slot.role, &slot.how).await {
                Ok(member) => *lock(&slot.member) = Some(member),
                // As it may while what it needs is away: whoever keeps processes running tries again.
                Err(_) => tokio::time::sleep(START_AGAIN).await,
            }
        }
    }

    pub(crate) fn note(&self, what: &str) {
        println!("    NOTE {what}");
        lock(&self.notes).push(what.to_owned());
    }

    fn slot(&self, name: &str) -> anyhow::Result<&Slot> {
        let slot = self.slots.iter().find(|slot| slot.name == name);
        Ok(slot.context("there is such a process")?)
    }

    /// Kills a process, which is started again after `back`; whether it was there.
    pub(crate) fn kill(&self, name: &str, back: Duration) -> anyhow::Result<bool> {
        let slot = self.slot(name)?;
        *lock(&slot.back_at) = Instant::now() + back;
        let member = lock(&slot.member).take();
        // Dropping it kills it.
        Ok(member.is_some())
    }

    /// The number of a process, while it is there.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        let member = lock(&self.slot(name).ok()?.member);
        member.as_ref().map(Member::pid)
    }

    /// The pods of the fleet that runs.
    pub(crate) fn pods(&self) -> Vec<Pod> {
        self.pid("fleet").map(machine::pods).unwrap_or_default()
    }

    pub(crate) fn link(&self, name: &str) -> &Link {
        &self.links[name]
    }

    /// Where a process listens, past every link.
    pub(crate) fn address(&self, process: &str) -> &str {
        &self.listens[process]
    }

    /// The gateway of which the database knows this address.
    pub(crate) fn gateway_at(&self, address: &str) -> Option<&'static str> {
        ["gateway-1", "gateway-2"].into_iter().find(|gateway| {
            let link = self.link(&format!("gateways to {gateway}"));
            address.ends_with(&link.address())
        })
    }

    /// How much was disturbed on all links.
    pub(crate) fn disturbed(&self) -> u64 {
        self.links.values().map(Link::disturbed).sum()
    }

    /// A client of a gateway, by number, over the clients' link.
    pub(crate) fn client(&self, gateway: usize) -> anyhow::Result<Api> {
        let link = &self.links[&format!("clients to gateway-{}", 1 + gateway % 2)];
        Api::new(&format!("http://{}", link.address()), &self.tokens)
    }

    /// Clear weather everywhere, nothing half-open.
    pub(crate) fn clear(&self) {
        self.roles.s3.disturb(None, 1);
        for link in self.links.values() {
            link.weather(Weather::Clear);
            link.reset_half_open();
        }
    }

    /// Waits until every process is there and says that it is ready.
    pub(crate) async fn all_ready(&self) -> anyhow::Result<()> {
        for slot in &self.slots {
            eventually(&format!("{} is ready", slot.name), BACK_WITHIN, || async {
                let url = lock(&slot.member)
                    .as_ref()
                    .map(|m| m.text("health_url").to_owned());
                let Some(url) = url else { return Ok(None) };
                let answer = reqwest::get(format!("{url}/readyz")).await;
                Ok(answer
                    .is_ok_and(|answer| answer.status().is_success())
                    .then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Every log, with its process.
    pub(crate) fn logs(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let read = |slot: &Arc<Slot>| anyhow::Ok((slot.name, self.log(slot.name)?));
        self.slots.iter().map(read).collect()
    }

    /// What a process has logged, since the beginning.
    pub(crate) fn log(&self, name: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.log_file(name))?)
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.roles.data().join(format!("{name}.log"))
    }

    /// Rows of the database, as its superuser sees them; none while it is away.
    pub(crate) async fn ask(&self, statement: &str) -> Vec<Vec<String>> {
        let (server, database) = (self.roles.server, self.roles.database.clone());
        let statement = statement.to_owned();
        let asked = tokio::task::spawn_blocking(move || server.ask(&database, &statement));
        let Ok(Ok(Ok(rows))) = tokio::time::timeout(ASKED_WITHIN, asked).await else {
            return Vec::new();
        };
        rows.lines().map(cells).collect()
    }

    /// The same, of a database that is there.
    pub(crate) fn rows(&self, statement: &str) -> Vec<Vec<String>> {
        let rows = self.roles.server.psql(&self.roles.database, statement);
        rows.lines().map(cells).collect()
    }

    /// A command of the operator on the store.
    pub(crate) fn store(&self, words: &[&str]) -> anyhow::Result<std::process::Output> {
        let url = self
            .roles
            .server
            .url("carrel_migrate", &self.roles.database);
        let words = [&["store"], words].concat();
        let mut command = self.roles.command(&words)?;
        Ok(command.env("CARREL_STORE_URL", url).output()?)
    }

    /// Keeps logs, and what clients heard, of which a failure is to be understood; where.
    pub(crate) fn keep_evidence(&self, name: &str, heard: &str) -> anyhow::Result<PathBuf> {
        let folder = std::env::temp_dir().join(format!("carrel-chaos-{name}"));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("heard"), heard)?;
        for slot in &self.slots {
            let log = self.log_file(slot.name);
            std::fs::copy(log, folder.join(format!("{}.log", slot.name)))?;
        }
        std::fs::write(folder.join("postgres.log"), self.roles.server.log())?;
        let events = self.roles.server.psql(
            &self.roles.database,
            "SELECT learner, version, to_timestamp(time / 1e9), type, body FROM event ORDER BY tx, sequence",
        );
        std::fs::write(folder.join("events"), events)?;
        let turns = self.roles.server.psql(
            &self.roles.database,
            "SELECT t.*, m.text FROM turn t JOIN message m USING (place) ORDER BY place",
        );
        std::fs::write(folder.join("turns"), turns)?;
        ensure!(folder.is_dir());
        Ok(folder)
    }
}
