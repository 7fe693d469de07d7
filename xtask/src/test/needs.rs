//! The programs that tests use and a machine with Rust may lack. They are Debian's, so they are installed where that
//! is possible without asking; elsewhere the command is printed and the tests that need them are skipped.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program, the Debian package that has it, and what for.
struct Need {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const NEEDS: [Need; 5] = [
    Need {
        program: "chromium",
        package: "chromium",
        purpose: "the pages are used in a real browser",
    },
    Need {
        program: "chromedriver",
        package: "chromium-driver",
        purpose: "drives that browser",
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
        program: "postgres",
        package: "postgresql",
        purpose: "the store on PostgreSQL is tested against a real server",
    },
];

/// Installs what is missing if it can, and says what it found, did or could not do.
pub(super) fn provide() {
    for need in &NEEDS {
        let found = if is_there(need.program) {
            "found"
        } else {
            "missing"
        };
        println!("{}: {found} ({})", need.program, need.purpose);
    }
    let missing = missing();
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
        let still = self::missing();
        if !still.is_empty() {
            println!(
                "still missing: {}; their tests are skipped",
                still.join(" ")
            );
        }
    }
}

fn missing() -> Vec<&'static str> {
    let missing = NEEDS.iter().filter(|need| !is_there(need.program));
    missing.map(|need| need.package).collect()
}

fn is_there(program: &str) -> bool {
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
    let output = Command::new("timeout")
        .args(["600", "apt-get", "-o", "DPkg::Lock::Timeout=120", "-q"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            println!("apt-get {}: {}", arguments.join(" "), output.status);
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => println!("apt-get does not start: {error}"),
    }
}
