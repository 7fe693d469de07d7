//! A real PostgreSQL server of Debian's, one for a whole test program, on a Unix socket of its own, and databases in it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::certificates::Certified;
use crate::until;

/// The database's own superuser.
pub const SUPERUSER: &str = "postgres";

/// Ends the server and removes its folder when the test program has ended, however it ended: then its standard input does.
const WATCH: &str = r#"cat; p=$(head -n 1 "$1/data/postmaster.pid"); kill -QUIT "$p"; while kill -0 "$p"; do sleep 0.05; done; rm -rf "$1""#;
const RELOADED: &str = "received SIGHUP, reloading configuration files";
const READY: &str = "database system is ready to accept connections";

/// A running server.
#[derive(Debug)]
pub struct Server {
    programs: PathBuf,
    folder: PathBuf,
    databases: AtomicU32,
    settings: Vec<String>,
    process: Mutex<Child>,
    /// Its standard input is closed by the kernel when this program ends.
    _watcher: Child,
}

impl Server {
    /// The server of this test program, started with settings (`name=value`) when first asked for. `None` where PostgreSQL is
    /// not installed, which is said as the skip of the test that asks.
    ///
    /// # Panics
    /// When it does not start, or is absent and `CARREL_REQUIRE` names `postgres`.
    pub fn shared(settings: &[&str]) -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        let server = SERVER.get_or_init(|| Some(Self::start(&programs()?, settings)));
        if server.is_none() {
            skip();
        }
        server.as_ref()
    }

    fn start(programs: &Path, settings: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("carrel-pg-{}", std::process::id()));
        // What an earlier program of this number left.
        let _ = fs::remove_dir_all(&folder);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .expect("a folder for the server");
        own(&folder);
        let data = folder.join("data");
        run(unprivileged(&programs.join("initdb"))
            .args([
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ])
            .args(["--username", SUPERUSER, "--pgdata"])
            .arg(&data));
        let settings: Vec<String> = settings.iter().map(|text| (*text).to_owned()).collect();
        let process = serve(programs, &folder, &settings);
        let watcher = Command::new("sh")
            .args(["-c", WATCH, "watch"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self {
            programs: programs.to_owned(),
            folder,
            databases: AtomicU32::new(0),
            settings,
            process: Mutex::new(process),
            _watcher: watcher,
        }
    }

    /// Ends the server, by its own word for it, and starts it again after a while. Whoever else uses it sees that too.
    ///
    /// # Panics
    /// When it does not start again.
    pub fn restart(&self, end: End, down: Duration) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let signal = match end {
            End::Fast => Signal::INT,
            End::Crash => Signal::QUIT,
        };
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process has a number"), signal).expect("it runs");
        process.wait().expect("it ends");
        thread::sleep(down);
        *process = serve(&self.programs, &self.folder, &self.settings);
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.id()
    }

    /// The folder of its socket.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The socket on which it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// The URL of a database for a role.
    pub fn url(&self, role: &str, database: &str) -> String {
        let folder = self.folder.display();
        format!("postgres://{role}@localhost/{database}?host={folder}")
    }

    /// Makes a database with a name of its own, as a copy of `template`; its name.
    pub fn database(&self, template: &str) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        self.psql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE {template}"),
        );
        name
    }

    /// Runs statements as the superuser; what they give.
    ///
    /// # Panics
    /// When one fails.
    pub fn psql(&self, database: &str, statements: &str) -> String {
        self.ask(database, statements)
            .expect("statements that the server takes")
    }

    /// The same, of a server that may be away.
    ///
    /// # Errors
    /// The statements, and what psql says when one fails.
    pub fn ask(&self, database: &str, statements: &str) -> Result<String, String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .args(["-U", SUPERUSER, "-d", database, "-h"])
            .arg(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = psql.spawn().expect("psql starts");
        let mut input = child.stdin.take().expect("it is piped");
        // One that has ended by now says why.
        let _ = input.write_all(statements.as_bytes());
        drop(input);
        let output = child.wait_with_output().expect("psql ends");
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("{statements}\n{}", told(&output)))
    }

    /// A program of PostgreSQL's, as the superuser of this server; a database's name is its last word.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.args(["-U", SUPERUSER, "-h"]).arg(&self.folder);
        command
    }

    /// Serves TLS from now on, with this certificate.
    ///
    /// # Panics
    /// When the server does not take them.
    pub async fn serve_tls(&self, certificate: &Certified) {
        let data = self.folder.join("data");
        let Certified { chain, key, .. } = certificate;
        for (pem, name) in [(chain, "server.crt"), (key, "server.key")] {
            let to = data.join(name);
            fs::write(&to, pem).expect("written");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("protected");
            own(&to);
        }
        self.psql("postgres", "ALTER SYSTEM SET ssl = on");
        self.reload().await;
    }

    /// Asks a role for its password from now on.
    ///
    /// # Panics
    /// When the server's rules cannot be written.
    pub async fn ask_password_of(&self, role: &str) {
        let rules = self.folder.join("data/pg_hba.conf");
        let others = fs::read_to_string(&rules).expect("it has rules");
        let all = format!("local all {role} scram-sha-256\n{others}");
        fs::write(&rules, all).expect("written");
        self.reload().await;
    }

    /// Returns when the server has read its settings and rules anew.
    async fn reload(&self) {
        let before = self.log().matches(RELOADED).count();
        self.psql("postgres", "SELECT pg_reload_conf()");
        let is_taken = async || self.log().matches(RELOADED).count() > before;
        until("its files are read again", is_taken).await;
    }

    /// What the server has written in its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It closes its connections and ends well.
    Fast,
    /// It drops everything, and recovers from its log.
    Crash,
}

/// Starts the server of a folder and waits until it is ready.
fn serve(programs: &Path, folder: &Path, settings: &[String]) -> Child {
    let mut server = unprivileged(&programs.join("postgres"));
    server
        .arg("-D")
        .arg(folder.join("data"))
        .arg("-k")
        .arg(folder)
        .args(["-c", "listen_addresses=", "-c", "max_connections=300"])
        .args(settings.iter().flat_map(|setting| ["-c", setting.as_str()]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Not ended with a terminal's or runner's group before its watcher does.
        .process_group(0);
    let mut process = server.spawn().expect("postgres starts");
    wait_until_ready(&mut process, &folder.join("log"));
    process
}

/// Where the newest server's programs are, if there is one.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.filter_map(|entry| {
        let entry = entry.ok()?;
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        (version >= 15 && programs.join("postgres").is_file()).then_some((version, programs))
    });
    found.max().map(|(_, programs)| programs)
}

#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests are told by variables what must be there, and say what is not"
)]
fn skip() {
    let reason = "PostgreSQL 15 or later is not installed ('apt-get install postgresql')";
    let required = std::env::var("CARREL_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|word| word.trim() == "postgres");
    assert!(!is_required, "{reason}, and it is required");
    let this = thread::current();
    println!("SKIP {}: {reason}", this.name().unwrap_or_default());
}

/// Gives a file to the user that the server runs as.
fn own(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let chown = Command::new("chown").arg(SUPERUSER).arg(path).status();
        assert!(
            chown.is_ok_and(|status| status.success()),
            "a user 'postgres'"
        );
    }
}

/// The programs refuse to run as root.
fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", SUPERUSER, "--regid", SUPERUSER, "--clear-groups"])
        .arg("--")
        .arg(program)
        .current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", told(&output));
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Reads the server's log until it says that it is ready, and keeps it in a file from then on, so that it never waits for a
/// reader.
fn wait_until_ready(process: &mut Child, log: &Path) {
    let mut kept = File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("a file for the log");
    let _ = kept.set_permissions(fs::Permissions::from_mode(0o600));
    let mut lines = BufReader::new(process.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains(READY) {
        line.clear();
        let read = lines.read_line(&mut line).unwrap_or_default();
        let _ = kept.write_all(line.as_bytes());
        assert!(read > 0, "{}", fs::read_to_string(log).unwrap_or_default());
    }
    thread::spawn(move || std::io::copy(&mut lines, &mut kept));
}
