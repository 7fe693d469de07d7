//! The programs that tests use and a machine with Rust may lack. They are Debian's, so they are installed where that
//! is possible without asking; elsewhere the command is printed and the tests that need them are skipped.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use carrel_cluster_tools::cache;

use super::cluster;

/// A program or a file, the Debian package that has it, and what for.
pub(super) struct Need {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const NEEDS: [Need; 9] = [
    Need {
        program: "chromium",
        package: "chromium",
        purpose: "the pages are used in a real browser",
    },
    Need {
        program: "restic",
        package: "restic",
        purpose: "stock restic must open our repositories",
    },
    Need {
        program: "strace",
        package: "strace",
        purpose: "counts what is synced before a head moves",
    },
    Need {
        program: "ip",
        package: "iproute2",
        purpose: "a container's network is made for the sidecar's own tests",
    },
    Need {
        program: "postgres",
        package: "postgresql",
        purpose: "the store on PostgreSQL is tested against a real server",
    },
    Need {
        program: "iptables",
        package: "iptables",
        purpose: "a real node's services and ports",
    },
    Need {
        program: "gcc",
        package: "gcc",
        purpose: "builds runc",
    },
    Need {
        program: "pkg-config",
        package: "pkg-config",
        purpose: "builds runc",
    },
    Need {
        program: "/usr/include/seccomp.h",
        package: "libseccomp-dev",
        purpose: "builds runc",
    },
];

/// What the tier of policies needs besides: an agent of Cilium compiles its programs for the kernel.
pub(super) const CILIUM: [Need; 3] = [
    Need {
        program: "/usr/lib/llvm-16/bin/clang",
        package: "clang-16",
        purpose: "compiles what enforces network policies",
    },
    Need {
        program: "/usr/lib/llvm-16/bin/llc",
        package: "llvm-16",
        purpose: "compiles what enforces network policies",
    },
    Need {
        program: "/usr/sbin/bpftool",
        package: "bpftool",
        purpose: "asks the kernel what it can",
    },
];

/// Installs what is missing if it can, and says what it found, did or could not do.
pub(super) fn provide() {
    provide_s3_server();
    provide_packages(&NEEDS);
    cluster::provide(is_there("go"));
}

pub(super) fn provide_packages(needs: &[Need]) {
    for need in needs {
        let found = if is_there(need.program) {
            "found"
        } else {
            "missing"
        };
        println!("{}: {found} ({})", need.program, need.purpose);
    }
    let missing = missing(needs);
    if missing.is_empty() {
        return;
    }
    let packages = missing.join(" ");
    if !is_there("apt-get") {
        println!("no apt-get here: install {packages} by hand, else their tests are skipped");
    } else if !rustix::process::geteuid().is_root() {
        println!("not root: run 'sudo apt-get install {packages}', else their tests are skipped");
    } else {
        println!("installing {packages} with apt-get");
        apt_get(&["update"]);
        let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
        arguments.extend(missing);
        apt_get(&arguments);
        let still = self::missing(needs);
        if !still.is_empty() {
            println!(
                "still missing: {}; their tests are skipped",
                still.join(" ")
            );
        }
    }
}

/// The module of the S3 server, and its version; testkit looks for it by the same.
const S3_SERVER: &str = "github.com/versity/versitygw/cmd/versitygw";
const S3_SERVER_VERSION: &str = include_str!("../../../crates/testkit/versitygw.version");

/// Builds the S3 server into the user's cache, once.
fn provide_s3_server() {
    let Some(cache) = cache() else {
        println!("versitygw: no HOME, so no cache to build it into; its tests are skipped");
        return;
    };
    let version = S3_SERVER_VERSION.trim();
    let folder = cache.join(format!("versitygw-{version}"));
    let purpose = "a real server of S3's protocol";
    if folder.join("versitygw").is_file() {
        println!("versitygw: found ({purpose})");
    } else if is_there("go") {
        println!("versitygw: missing ({purpose}); building {version} with Go, once");
        let mut build = Command::new("timeout");
        build
            .args(["900", "go", "install"])
            .arg(format!("{S3_SERVER}@{version}"))
            .env("GOBIN", &folder);
        run(build, "go install");
    } else {
        println!("versitygw: missing ({purpose}), and no Go to build it: its tests are skipped");
    }
}

fn missing(needs: &[Need]) -> Vec<&'static str> {
    let missing = needs.iter().filter(|need| !is_there(need.program));
    missing.map(|need| need.package).collect()
}

pub(super) fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).chain(servers());
    folders.any(|folder| folder.join(program).is_file())
}

/// Debian keeps PostgreSQL's servers off the path, a folder for each version.
fn servers() -> impl Iterator<Item = PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    versions.flatten().map(|version| version.path().join("bin"))
}

/// Bounded in time by `timeout`, and quiet unless it fails.
fn apt_get(arguments: &[&str]) {
    let mut command = Command::new("timeout");
    command
        .args(["600", "apt-get", "-o", "DPkg::Lock::Timeout=120", "-q"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(command, &format!("apt-get {}", arguments.join(" ")));
}

/// Runs a command, and says what it said if it fails.
fn run(mut command: Command, name: &str) {
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            println!("{name}: {}", output.status);
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => println!("{name} does not start: {error}"),
    }
}
