//! Carrel as separate processes: gateways, routers, vaults and the fleet on one database and one bucket.

use std::fs::{File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
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
}

impl Roles {
    /// A database with the schema, an empty bucket and a configuration; nothing runs yet. `None` when the machine lacks
    /// what it needs, which is said. `documents` are `LearnerClass` and `Learner`.
    ///
    /// # Errors
    /// When something does not start.
    pub fn prepare(test: &str, documents: &[Value]) -> anyhow::Result<Option<Self>> {
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
        let settings = json!({
            "objects": {
                "url": format!("s3://{BUCKET}/school"),
                "endpoint": s3.endpoint(),
                "pathStyle": true,
                "credentialsFile": "s3.credentials",
            },
            "gateway": {"routerUrl": format!("http://{router}"), "vaultUrl": format!("http://{vault}")},
            "limits": {"messagesPerMinute": 1_000_000},
        });
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

    /// The folder with keys and configuration.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A command on this folder, in the database's role of its first word.
    ///
    /// # Errors
    /// When there is no executable.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<Command> {
        let role = words.first().context("a command has a word")?;
        let url = self.server.url(&format!("carrel_{role}"), &self.database);
        let mut command = Command::new(carrel()?);
        unheard(&mut command)
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
        let address = if TcpListener::bind(named).is_ok() {
            named
        } else {
            "127.0.0.1:0"
        };
        let mut command = self.command(&[role, "-o", "json", "--health-listen", "127.0.0.1:0"])?;
        if role != "fleet" {
            command.args(["--listen", address]);
        }
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let stdout = self.folder.path().join(format!("{role}.{number}"));
        let log = stdout.with_extension(format!("{number}.log"));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&log)?)
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

/// An address that was free a moment ago.
fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}
