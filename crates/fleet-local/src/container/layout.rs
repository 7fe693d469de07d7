//! What a container sees as its file system: a pure list of pieces, in the order in which they are put
//! together. [`super::assemble`] executes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::spec::{CONTAINER_USER, ContainerSpec, EXECUTABLE, RootKind, SHARED, WORKSPACE};

/// Folders that must exist in an image before its read-only root is used.
pub(crate) const IMAGE_FOLDERS: [&str; 6] =
    ["proc", "dev", "tmp", "workspace", "run/carrel", ".carrel"];
/// Empty file that must exist in an image, to bind Carrel's executable over.
pub(crate) const IMAGE_FILE: &str = "carrel";

/// Where the libraries of Carrel's executable are in a container made from an image, which may have
/// another C library or none.
const LIBRARIES: &str = ".carrel/lib";

/// What kernel knowledge and switches in `/proc` an agent has no business with (the list of runc).
const MASKED: [&str; 9] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
];
const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// One piece of a root. Paths are relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A folder, new or there.
    Folder(PathBuf),
    /// A new symbolic link.
    Link { at: PathBuf, to: PathBuf },
    /// A new file with this text.
    File { at: PathBuf, text: String },
    /// A part of the host.
    Bind(Bind),
    /// The processes of this container.
    Proc,
    /// New terminals.
    Terminals,
    /// An empty file system in memory.
    Memory { at: PathBuf, bytes: u64, mode: u32 },
    /// Nothing to read here.
    Mask(PathBuf),
    /// What is here can only be read.
    ReadOnly(PathBuf),
    /// The file system that was mounted here is complete and can only be read.
    Seal(PathBuf),
}

/// A part of the host in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub(super) from: PathBuf,
    pub(super) at: PathBuf,
    pub(super) writable: bool,
    pub(super) device: bool,
    /// Follow a link at the end of `from`: for the host's own paths, not for a learner's.
    pub(super) follow: bool,
}

impl Bind {
    fn host(from: impl Into<PathBuf>, at: impl Into<PathBuf>) -> Self {
        Self {
            from: from.into(),
            at: at.into(),
            writable: false,
            device: false,
            follow: true,
        }
    }
}

/// What the host has at the paths that matter; see [`Host::look`].
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// `/bin`, `/lib` … that are links, with what they point to.
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
    /// Folders among them.
    pub(super) folders: Vec<PathBuf>,
    /// Files among them.
    pub(super) files: Vec<PathBuf>,
    /// Carrel's executable.
    pub(super) executable: PathBuf,
    /// Shared libraries that it has loaded, the loader among them.
    pub(super) libraries: Vec<PathBuf>,
}

impl Host {
    /// The paths that [`layout`] asks about.
    pub(super) const ASKED: [&str; 11] = [
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/etc/ssl/certs",
        "/etc/ssl/openssl.cnf",
        "/etc/pki/tls/certs",
        "/etc/pki/ca-trust",
        "/etc/alternatives",
    ];
}

/// The pieces of a container's root, in order.
pub(super) fn layout(spec: &ContainerSpec, host: &Host) -> Vec<Piece> {
    let mut pieces = match spec.root {
        RootKind::HostUsr => host_root(host),
        RootKind::Image { .. } => library_folder(host),
    };
    pieces.push(Piece::Proc);
    pieces.extend(devices());
    pieces.push(Piece::Memory {
        at: "tmp".into(),
        bytes: spec.limits.tmp_bytes,
        mode: 0o1777,
    });
    pieces.push(Piece::Bind(Bind::host(
        &host.executable,
        inside(EXECUTABLE),
    )));
    let shared = Bind {
        follow: false,
        ..Bind::host(&spec.shared_dir, inside(SHARED))
    };
    let workspace = Bind::host(&spec.workspace_dir, inside(WORKSPACE));
    pieces.push(Piece::Bind(shared));
    pieces.push(Piece::Bind(Bind {
        writable: true,
        follow: false,
        ..workspace
    }));
    pieces.extend(MASKED.map(|path| Piece::Mask(path.into())));
    pieces.extend(READ_ONLY.map(|path| Piece::ReadOnly(path.into())));
    pieces
}

/// The first process's arguments: in an image, Carrel is started through the host's loader, with the
/// host's libraries for itself and for nothing that it starts.
pub(super) fn arguments(spec: &ContainerSpec, host: &Host) -> Vec<String> {
    let loader = host
        .libraries
        .iter()
        .filter_map(|path| path.file_name()?.to_str());
    let loader = loader.into_iter().find(|name| name.starts_with("ld-"));
    match (&spec.root, loader, spec.argv.first()) {
        (RootKind::Image { .. }, Some(loader), Some(program)) if program == EXECUTABLE => {
            let mut arguments = vec![
                format!("/{LIBRARIES}/{loader}"),
                "--library-path".to_owned(),
                format!("/{LIBRARIES}"),
            ];
            arguments.extend(spec.argv.iter().cloned());
            arguments
        }
        _ => spec.argv.clone(),
    }
}

fn inside(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/'))
}

fn host_root(host: &Host) -> Vec<Piece> {
    let folders = [
        "usr",
        "proc",
        "dev",
        "tmp",
        "workspace",
        "run",
        "run/carrel",
        "etc",
    ];
    let mut pieces: Vec<_> = folders.iter().map(|at| Piece::Folder(at.into())).collect();
    pieces.push(Piece::File {
        at: IMAGE_FILE.into(),
        text: String::new(),
    });
    pieces.push(Piece::Bind(Bind::host("/usr", "usr")));
    for (at, to) in &host.links {
        pieces.push(Piece::Link {
            at: relative(at),
            to: to.clone(),
        });
    }
    for path in host.folders.iter().chain(&host.files) {
        let at = relative(path);
        let above: Vec<_> = at.ancestors().skip(1).map(Path::to_path_buf).collect();
        let above = above
            .into_iter()
            .rev()
            .filter(|path| !path.as_os_str().is_empty());
        pieces.extend(above.map(Piece::Folder));
        pieces.push(if host.files.contains(path) {
            Piece::File {
                at: at.clone(),
                text: String::new(),
            }
        } else {
            Piece::Folder(at.clone())
        });
        pieces.push(Piece::Bind(Bind::host(path, at)));
    }
    let user = CONTAINER_USER;
    let texts = [
        (
            "etc/passwd",
            format!("agent:x:{user}:{user}:agent:{WORKSPACE}:/bin/sh\n"),
        ),
        ("etc/group", format!("agent:x:{user}:\n")),
        (
            "etc/hosts",
            "127.0.0.1 localhost\n::1 localhost\n".to_owned(),
        ),
    ];
    pieces.extend(texts.map(|(at, text)| Piece::File {
        at: at.into(),
        text,
    }));
    pieces
}

fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_path_buf()
}

fn library_folder(host: &Host) -> Vec<Piece> {
    let mut pieces = vec![
        Piece::Memory {
            at: ".carrel".into(),
            bytes: 64 << 10,
            mode: 0o755,
        },
        Piece::Folder(LIBRARIES.into()),
    ];
    for library in &host.libraries {
        let Some(name) = library.file_name() else {
            continue;
        };
        let at = Path::new(LIBRARIES).join(name);
        pieces.push(Piece::File {
            at: at.clone(),
            text: String::new(),
        });
        pieces.push(Piece::Bind(Bind::host(library, at)));
    }
    pieces.push(Piece::Seal(".carrel".into()));
    pieces
}

fn devices() -> Vec<Piece> {
    let dev = Path::new("dev");
    let mut pieces = vec![Piece::Memory {
        at: dev.into(),
        bytes: 64 << 10,
        mode: 0o755,
    }];
    for name in DEVICES {
        pieces.push(Piece::File {
            at: dev.join(name),
            text: String::new(),
        });
        let from = Path::new("/dev").join(name);
        pieces.push(Piece::Bind(Bind {
            writable: true,
            device: true,
            ..Bind::host(from, dev.join(name))
        }));
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    pieces.extend(links.map(|(at, to)| Piece::Link {
        at: dev.join(at),
        to: to.into(),
    }));
    pieces.push(Piece::Folder(dev.join("pts")));
    pieces.push(Piece::Terminals);
    pieces.push(Piece::Folder(dev.join("shm")));
    pieces.push(Piece::Memory {
        at: dev.join("shm"),
        bytes: 16 << 20,
        mode: 0o1777,
    });
    pieces.push(Piece::Seal(dev.into()));
    pieces
}
