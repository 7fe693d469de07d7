//! Carrel as separate processes: gateways, routers, vaults and the fleet on one database and one bucket.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carrel_testkit::postgres::Server;
use carrel_testkit::s3::{BUCKET, S3Server};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::Api;
use crate::machine;
use crate::require::{carrel, skip};
use crate::up::{ready_line, signal};
use crate::variables::unheard;
use crate::wait::eventually;

/// A process that was asked to end has done so by then.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// A turn that is free, or whose owner died, has an owner by then.
const OWNED_WITHIN: Duration = Duration::from_secs(10);

/// How a process is started other than by default.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// Where it listens.
    pub listen: Option<String>,
    /// Variables besides.
    pub variables: Vec<(&'static str, String)>,
    /// Where its log is kept, after what is there; else in a file of its own.
    pub log: Option<PathBuf>,
    /// A command that becomes the process whose words follow it, as in `nsenter`.
    pub under: Vec<String>,
}

/// One process of one role. Dropping it kills it.
#[derive(Debug)]
pub struct Member {
    role: String,
    child: Child,
    ready: Value,
    log: PathBuf,
}

/// What all processes share.
#[derive(Debug)]
pub struct Roles {
    folder: TempDir,
    /// The database's server.
    pub server: &'static Server,
    /// The database's name in it.
    pub database: String,
    /// The storage of snapshots.
    pub s3: S3Server,
    pub(crate) router: String,
    pub(crate) vault: String,
    started: AtomicU32,
    /// Settings of every process besides the file's, as variables.
    pub variables: Vec<(&'static str, String)>,
    /// Whose certificates clients believe, in PEM, where roles show them.
    pub(crate) trusted: Option<String>,
    executable: PathBuf,
}

impl Roles {
    /// A database with the schema, an empty bucket and a configuration; nothing runs yet. `None` when the machine lacks
    /// what it needs, which is said. `documents` are `LearnerClass` and `Learner`.
    ///
    /// # Errors
    /// When something does not start.
    pub fn prepare(test: &str, documents: &[Value]) -> anyhow::Result<Option<Self>> {
        Self::prepare_with(test, &json!({}), documents)
    }

    /// The same, with settings that are laid over the usual ones, two levels deep.
    ///
    /// # Errors
    /// When something does not start.
    pub fn prepare_with(
        test: &str,
        more: &Value,
        documents: &[Value],
    ) -> anyhow::Result<Option<Self>> {
        let Some(server) = Server::shared(&[]) else {
            return Ok(None);
        };
        let folder = TempDir::with_prefix("carrel-roles-")?;
        let s3 = match S3Server::start(folder.path()) {
            Ok(s3) => s3,
            Err(reason) => {
                skip(test, "s3", &reason)?;
                return Ok(None);
            }
        };
        let (router, vault) = (free_address()?, free_address()?);
        let database = server.database("template1");
        least_rights(server, &database);
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        std::fs::write(data.join("s3.credentials"), S3Server::credentials())?;
        // One for all vaults, and for nobody else's eyes.
        let kek = data.join("kek");
        std::fs::write(
            &kek,
            format!("{}\n", STANDARD.encode(rand::random::<[u8; 32]>())),
        )?;
        std::fs::set_permissions(&kek, Permissions::from_mode(0o600))?;
        let mut settings = json!({
            "objects": {
                "url": format!("s3://{BUCKET}/school"),
                "endpoint": s3.endpoint(),
                "pathStyle": true,
                "credentialsFile": "s3.credentials",
            },
            "gateway": {"routerUrl": format!("http://{router}"), "vaultUrl": format!("http://{vault}")},
            "limits": {"messagesPerMinute": 1_000_000},
        });
        for (section, values) in more.as_object().into_iter().flatten() {
            match (settings[section].as_object_mut(), values.as_object()) {
                (Some(usual), Some(values)) => usual.extend(values.clone()),
                _ => settings[section] = values.clone(),
            }
        }
        let mut text = String::new();
        for document in [&settings].into_iter().chain(documents) {
            text.push_str("---\n");
            text.push_str(&document.to_string());
            text.push('\n');
        }
        std::fs::write(data.join("carrel.yaml"), text)?;
        let roles = Self {
            folder,
            server,
            database,
            s3,
            router,
            vault,
            started: AtomicU32::new(0),
            variables: Vec::new(),
            trusted: None,
            executable: carrel()?.to_owned(),
        };
        let migrated = roles.command(&["migrate"])?.output()?;
        ensure!(
            migrated.status.success(),
            "carrel migrate: {}",
            String::from_utf8_lossy(&migrated.stderr)
        );
        // The rights on what was made just now.
        least_rights(server, &roles.database);
        Ok(Some(roles))
    }

    /// Runs another executable from now on.
    #[must_use]
    pub fn running(mut self, executable: PathBuf) -> Self {
        self.executable = executable;
        self
    }

    /// The executable that they run.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// The folder with keys and configuration.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A command on this folder, in the database's role of its first word.
    ///
    /// # Errors
    /// When there is no executable.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<Command> {
        self.command_under(&[], words)
    }

    fn command_under(&self, under: &[String], words: &[&str]) -> anyhow::Result<Command> {
        let role = words.first().context("a command has a word")?;
        let url = self.server.url(&format!("carrel_{role}"), &self.database);
        let mut program = under
            .iter()
            .map(OsStr::new)
            .chain([self.executable.as_os_str()]);
        let mut command = Command::new(program.next().context("there is an executable")?);
        unheard(&mut command)
            .args(program)
            .args(words)
            .env("CARREL_DATA_DIR", self.data())
            .env("CARREL_STORE_URL", url);
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        Ok(command)
    }

    /// Starts one more process of a role and waits until it is ready. The first router and the first vault get the addresses
    /// that the configuration names.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(&self, role: &str) -> anyhow::Result<Member> {
        let named = match role {
            "router" => self.router.as_str(),
            "vault" => self.vault.as_str(),
            _ => "127.0.0.1:0",
        };
        let listen = TcpListener::bind(named).is_ok().then(|| named.to_owned());
        let how = How {
            listen,
            ..How::default()
        };
        self.start_as(role, &how).await
    }

    /// The same, as it is told.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_as(&self, role: &str, how: &How) -> anyhow::Result<Member> {
        let words = [role, "-o", "json", "--health-listen", "127.0.0.1:0"];
        let mut command = self.command_under(&how.under, &words)?;
        let address = how.listen.as_deref().unwrap_or("127.0.0.1:0");
        command.args(["--listen", address]);
        command.envs(how.variables.iter().map(|(name, value)| (name, value)));
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let stdout = self.folder.path().join(format!("{role}.{number}"));
        let own_log = || stdout.with_extension(format!("{number}.log"));
        let log = how.log.clone().unwrap_or_else(own_log);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("starting carrel {role}"))?;
        let ready = ready_line(&mut child, &stdout)
            .await
            .with_context(|| role.to_owned())?;
        Ok(Member {
            role: role.to_owned(),
            child,
            ready,
            log,
        })
    }

    /// The address of the gateway that runs the turn that is open.
    ///
    /// # Errors
    /// When no gateway takes it in time.
    pub async fn owner(&self) -> anyhow::Result<String> {
        const OWNER: &str = "SELECT p.address FROM turn t JOIN process p ON p.id = t.lease_owner \
            WHERE t.state IN ('queued', 'running')";
        eventually("the turn has an owner", OWNED_WITHIN, || async {
            let found = self.server.psql(&self.database, OWNER);
            Ok(Some(found.trim().to_owned()).filter(|address| !address.is_empty()))
        })
        .await
    }

    /// A client of a gateway, with the operator's token.
    ///
    /// # Errors
    /// When there is no token.
    pub fn api(&self, gateway: &Member) -> anyhow::Result<Api> {
        let token = std::fs::read_to_string(self.data().join("admin.token"))?;
        Api::trusting(gateway.text("url"), token.trim(), self.trusted.as_deref())
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        machine::remove_run_dir(&self.data());
    }
}

impl Member {
    /// How it ended, if it has.
    ///
    /// # Errors
    /// When that cannot be asked.
    pub fn exit_status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// A text of its ready line: `url`, `health_url`.
    pub fn text(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap_or_default()
    }

    /// What it has logged.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Pauses it, or lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self, paused: bool) -> anyhow::Result<()> {
        signal(self.pid(), if paused { Signal::STOP } else { Signal::CONT })
    }

    /// Ends it by SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        ensure!(
            status.code().is_none(),
            "the {} had ended by itself: {status}",
            self.role
        );
        Ok(())
    }

    /// Ends it by SIGTERM: its exit status.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        signal(self.pid(), Signal::TERM)?;
        self.ended().await
    }

    /// Waits until it has ended, when it was asked to: its exit status.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let child = &mut self.child;
        eventually("it ends after SIGTERM", STOPS_WITHIN, || {
            let status = child.try_wait();
            async move { Ok(status?) }
        })
        .await
    }
}

impl Drop for Member {
    #[expect(
        clippy::print_stdout,
        reason = "a test that fails shows what its processes have logged"
    )]
    fn drop(&mut self) {
        for line in self.log().unwrap_or_default().lines() {
            println!("{} {}: {line}", self.role, self.pid());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives each role of Carrel its rights. One test at a time: they make the same roles.
fn least_rights(server: &Server, database: &str) {
    const ROLES: &str = include_str!("../../crates/store-postgres/roles.sql");
    static ONE: Mutex<()> = Mutex::new(());
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    server.psql(database, ROLES);
}

/// An address at which nobody listens. Below the ports that the system gives to whoever asks for any (ip(7),
/// `ip_local_port_range`), so that it is still free when the process that gets it starts.
pub(crate) fn free_address() -> anyhow::Result<String> {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    for _ in 0..PORTS {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            return Ok(address);
        }
    }
    bail!("somebody listens on each port from {FIRST} on")
}
