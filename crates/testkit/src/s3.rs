//! A real server that speaks S3's protocol: versitygw, built from its Go module into the user's cache by
//! `cargo xtask test`, on a folder. It is reached through a proxy in this process that can disturb what passes.

mod proxy;
pub mod sts;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use proxy::Fault;
use proxy::Proxy;

use crate::certificates::Certified;

/// The version that is built; `xtask` reads it too.
const VERSION: &str = include_str!("../versitygw.version");
/// It is there in a tenth of a second on a quiet machine.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// The bucket that every server has.
pub const BUCKET: &str = "snapshots";
/// The key's name that every server takes.
pub const ACCESS_KEY_ID: &str = "carrel-test";
/// Its key.
pub const SECRET_ACCESS_KEY: &str = "no-secret-at-all";

/// A running server. Dropping it ends it; it also ends with the thread that started it.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    folder: PathBuf,
    proxy: Proxy,
    scheme: &'static str,
}

/// How a server is unlike others.
#[derive(Debug, Default)]
pub struct Setup {
    /// It speaks TLS, with this certificate.
    pub certificate: Option<Certified>,
    /// Its region, if not the usual one.
    pub region: Option<&'static str>,
    /// It finds the bucket in the host's name, before this domain.
    pub domain: Option<&'static str>,
}

impl S3Server {
    /// Starts a server on a folder, by the thread that will outlive it.
    ///
    /// # Errors
    /// Why there is none on this machine, in words for a skip.
    pub fn start(folder: &Path) -> Result<Self, String> {
        Self::start_as(folder, &Setup::default())
    }

    /// The same, unlike others.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_as(folder: &Path, setup: &Setup) -> Result<Self, String> {
        let program = program()?;
        let data = folder.join("s3");
        std::fs::create_dir_all(data.join(BUCKET)).map_err(|error| error.to_string())?;
        let socket = folder.join("s3.sock");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(["--access", ACCESS_KEY_ID, "--secret", SECRET_ACCESS_KEY])
            .args(["--quiet", "--port"])
            .arg(&socket);
        if let Some(Certified { chain, key, .. }) = &setup.certificate {
            for (flag, pem, name) in [("--cert", chain, "s3.crt"), ("--key", key, "s3.key")] {
                let file = folder.join(name);
                std::fs::write(&file, pem).map_err(|error| error.to_string())?;
                command.arg(flag).arg(file);
            }
        }
        let named = [
            ("--region", setup.region),
            ("--virtual-domain", setup.domain),
        ];
        for (flag, value) in named {
            command.args(value.into_iter().flat_map(|value| [flag, value]));
        }
        let child = command
            .arg("posix")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("setpriv does not start: {error}"))?;
        let mut server = Self {
            child,
            proxy: Proxy::start(socket.clone()).map_err(|error| error.to_string())?,
            folder: data,
            scheme: setup.certificate.as_ref().map_or("http", |_| "https"),
        };
        let deadline = Instant::now() + STARTS_WITHIN;
        while UnixStream::connect(&socket).is_err() {
            let ended = server.child.try_wait().ok().flatten();
            if let Some(status) = ended {
                return Err(format!("versitygw ended at its start: {status}"));
            }
            if Instant::now() > deadline {
                return Err("versitygw does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.proxy.port)
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.proxy.port
    }

    /// The folder in which the bucket's objects are files of their names.
    pub fn bucket_folder(&self) -> PathBuf {
        self.folder.join(BUCKET)
    }

    /// Disturbs each `every`th request from now on; cuts what is under way. `None` disturbs nothing.
    pub fn disturb(&self, fault: Option<Fault>, every: u64) {
        self.proxy.disturb(fault, every);
    }

    /// How many requests were disturbed.
    pub fn disturbed(&self) -> u64 {
        self.proxy.disturbed()
    }

    /// The file of its keys as Amazon's tools have it.
    pub fn credentials() -> String {
        format!(
            "[default]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n"
        )
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended by itself; nothing is owed to it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the cache of the XDG specification is named by variables"
)]
fn program() -> Result<PathBuf, String> {
    let cache = std::env::var("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.or_else(|_| std::env::var("HOME").map(|home| Path::new(&home).join(".cache")));
    let name = format!("carrel/versitygw-{}/versitygw", VERSION.trim());
    let program = cache.unwrap_or_default().join(name);
    if program.is_file() {
        return Ok(program);
    }
    Err(format!(
        "{} is not there ('cargo xtask test' builds it where Go is installed)",
        program.display()
    ))
}
