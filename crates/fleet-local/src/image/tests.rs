use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::FutureExt as _;
use futures::future::{Shared, WeakShared};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::unpack::{Limits, add_mount_points, unpack_layer};
use super::{Error, Images, Pull, while_waited_for};

/// Whatever is told is told by then.
const SOON: Duration = Duration::from_secs(30);

const ENOUGH: Limits = Limits {
    bytes: 1 << 20,
    entries: 100,
};

/// One line of a layer: path, kind, link target or content, mode.
type Line<'a> = (&'a str, EntryType, &'a str, u32);

fn tar_of(lines: &[Line<'_>]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (path, kind, text, mode) in lines {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_mtime(1_234_567);
        let content = if *kind == EntryType::Regular {
            text.as_bytes()
        } else {
            b""
        };
        header.set_size(content.len() as u64);
        if kind.is_symlink() || kind.is_hard_link() {
            header.as_mut_bytes()[157..157 + text.len()].copy_from_slice(text.as_bytes());
        }
        // Written raw: the library refuses to make the paths that an attacker makes.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn file_of(bytes: &[u8]) -> fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

struct Root {
    folder: TempDir,
}

impl Root {
    fn new() -> Self {
        let root = Self {
            folder: TempDir::new().unwrap(),
        };
        fs::create_dir(root.folder.path().join("rootfs")).unwrap();
        fs::write(root.folder.path().join("outside"), "host").unwrap();
        root
    }

    fn apply(&self, lines: &[Line<'_>]) -> Result<Limits, Error> {
        unpack_layer(
            &file_of(&tar_of(lines)),
            &self.at(""),
            ENOUGH,
            &CancellationToken::new(),
        )
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join("rootfs").join(path)
    }

    fn untouched(&self) -> bool {
        let mut names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names == ["outside", "rootfs"]
            && fs::read_to_string(self.folder.path().join("outside")).unwrap() == "host"
    }
}

#[test]
fn files_links_and_folders_are_unpacked_without_owner_rights() {
    let root = Root::new();
    root.apply(&[
        ("bin/", EntryType::Directory, "", 0o2555),
        ("./bin/tool", EntryType::Regular, "run", 0o4755),
        ("bin/alias", EntryType::Symlink, "tool", 0o777),
        ("bin/twin", EntryType::Link, "bin/tool", 0o755),
        ("dev/disk", EntryType::Block, "", 0o666),
        ("dev/pipe", EntryType::Fifo, "", 0o666),
    ])
    .unwrap();
    assert_eq!(fs::read_to_string(root.at("bin/alias")).unwrap(), "run");
    assert_eq!(fs::read_to_string(root.at("bin/twin")).unwrap(), "run");
    let found = fs::metadata(root.at("bin/tool")).unwrap();
    assert_eq!(
        found.permissions().mode() & 0o7777,
        0o755,
        "no set-user bit"
    );
    assert_eq!(
        fs::metadata(root.at("bin")).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    let time = found
        .modified()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(time.as_secs(), 1_234_567);
    assert_eq!(
        fs::read_dir(root.at("dev")).unwrap().count(),
        0,
        "no device, no pipe"
    );
}

#[test]
fn a_layer_removes_only_what_lower_layers_brought() {
    let root = Root::new();
    let file = |path, text| (path, EntryType::Regular, text, 0o644);
    root.apply(&[
        file("a/old", "1"),
        file("a/deep/old", "2"),
        file("b/gone", "3"),
        file("b/stays", "4"),
    ])
    .unwrap();
    // The marks come after what the same layer adds, where a careless reader would remove that too.
    root.apply(&[
        file("a/new", "5"),
        file("b/gone/now-a-folder", "6"),
        file("a/.wh..wh..opq", ""),
        file("b/.wh.gone", ""),
    ])
    .unwrap();
    assert!(!root.at("a/old").exists() && !root.at("a/deep").exists());
    assert_eq!(fs::read_to_string(root.at("a/new")).unwrap(), "5");
    assert_eq!(
        fs::read_to_string(root.at("b/gone/now-a-folder")).unwrap(),
        "6"
    );
    assert_eq!(fs::read_to_string(root.at("b/stays")).unwrap(), "4");
    assert!(!root.at("a/.wh..wh..opq").exists() && !root.at("b/.wh.gone").exists());
}

#[test]
fn no_path_and_no_link_leads_out_of_the_root() {
    let file = |path| (path, EntryType::Regular, "stolen", 0o644);
    let link = |path, to| (path, EntryType::Symlink, to, 0o777);
    let attacks: [&[Line<'_>]; 7] = [
        &[file("../outside")],
        &[file("a/../../outside")],
        &[link("up", ".."), file("up/outside")],
        &[link("up", "../../../../.."), file("up/outside")],
        &[link("outside", "../outside"), file("outside")],
        &[("twin", EntryType::Link, "../outside", 0o644), file("twin")],
        &[
            link("up", ".."),
            file("up/.wh.outside"),
            file("up/.wh..wh..opq"),
        ],
    ];
    for attack in attacks {
        let root = Root::new();
        let done = root.apply(attack);
        assert!(root.untouched(), "{attack:?} {done:?}");
    }
    let root = Root::new();
    let path = root.folder.path().to_str().unwrap().to_owned();
    root.apply(&[link("abs", &path), file("abs/outside")])
        .unwrap();
    root.apply(&[file("abs/.wh.outside")]).unwrap();
    assert!(
        root.untouched(),
        "an absolute link is followed below the root"
    );
}

#[test]
fn a_layer_over_the_limits_is_refused() {
    let root = Root::new();
    let layer = file_of(&tar_of(&[("a", EntryType::Regular, "12345", 0o644)]));
    let refused = |limits| {
        unpack_layer(&layer, &root.at(""), limits, &CancellationToken::new())
            .unwrap_err()
            .to_string()
    };
    assert!(refused(Limits { bytes: 4, ..ENOUGH }).contains("larger"));
    assert!(
        refused(Limits {
            entries: 0,
            ..ENOUGH
        })
        .contains("larger")
    );
    let left = unpack_layer(&layer, &root.at(""), ENOUGH, &CancellationToken::new()).unwrap();
    assert_eq!(
        (left.bytes, left.entries),
        (ENOUGH.bytes - 5, ENOUGH.entries - 1)
    );
}

#[test]
fn compressed_layers_are_known_by_their_first_bytes() {
    let plain = tar_of(&[("a", EntryType::Regular, "same", 0o644)]);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for layer in [plain, gzip.finish().unwrap(), zstd] {
        let root = Root::new();
        unpack_layer(
            &file_of(&layer),
            &root.at(""),
            ENOUGH,
            &CancellationToken::new(),
        )
        .unwrap();
        assert_eq!(fs::read_to_string(root.at("a")).unwrap(), "same");
    }
}

#[test]
fn mount_points_are_real_whatever_the_image_has_there() {
    let root = Root::new();
    root.apply(&[
        ("proc", EntryType::Symlink, "/etc", 0o777),
        ("run", EntryType::Symlink, "..", 0o777),
        ("carrel", EntryType::Directory, "", 0o755),
        ("workspace", EntryType::Regular, "a file", 0o644),
    ])
    .unwrap();
    add_mount_points(&root.at("")).unwrap();
    for folder in [
        "proc",
        "run",
        "run/carrel",
        "workspace",
        "tmp",
        "dev",
        ".carrel",
    ] {
        assert!(
            fs::symlink_metadata(root.at(folder)).unwrap().is_dir(),
            "{folder}"
        );
    }
    assert!(fs::symlink_metadata(root.at("carrel")).unwrap().is_file());
    assert!(root.untouched());
}

#[test]
fn an_unpacking_that_nobody_waits_for_stops() {
    let root = Root::new();
    root.apply(&[("a", EntryType::Regular, "1", 0o644)])
        .unwrap();
    let layer = file_of(&tar_of(&[
        (".wh.a", EntryType::Regular, "", 0o644),
        ("b", EntryType::Regular, "2", 0o644),
    ]));
    let stop = CancellationToken::new();
    stop.cancel();
    let stopped = unpack_layer(&layer, &root.at(""), ENOUGH, &stop);
    assert!(stopped.is_err());
    assert!(root.at("a").exists() && !root.at("b").exists());
}

#[tokio::test]
async fn all_who_wait_for_a_pull_share_its_failure_and_its_name_is_forgotten() {
    let registry = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = registry.local_addr().unwrap().to_string();
    let folder = TempDir::new().unwrap();
    let images = Images::new(folder.path().join("images"));
    let name = |tag: &str| format!("{address}/school:{tag}");
    let one = name("one");
    let (first, second, third, ()) = tokio::join!(
        images.get(&one),
        images.get(&one),
        images.get(&one),
        // Whoever asks a second time is refused at once.
        async move { drop(registry.accept().await.unwrap().0) },
    );
    let first = first.unwrap_err();
    for other in [second, third] {
        assert!(Arc::ptr_eq(&other.unwrap_err(), &first));
    }
    // Who comes later tries anew.
    assert!(!Arc::ptr_eq(&images.get(&one).await.unwrap_err(), &first));
    images.get(&name("two")).await.unwrap_err();
    let pulls = images.pulls.lock().unwrap();
    assert_eq!(pulls.keys().collect::<Vec<_>>(), [&name("two")]);
}

#[tokio::test]
async fn work_that_nobody_waits_for_is_told_to_stop() {
    let (begin, begun) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let runtime = Handle::current();
    let work = move |stop: &CancellationToken| {
        begin.send(()).unwrap();
        let told = tokio::time::timeout(SOON, stop.cancelled());
        end.send(runtime.block_on(told).is_ok()).unwrap();
    };
    tokio::select! {
        done = while_waited_for(work) => unreachable!("{done:?}"),
        begun = begun => begun.unwrap(),
    }
    assert!(ended.await.unwrap());
}

/// Part of a pull: says whether it ended on the thread of whoever asks for a pull, and with the lock on all pulls held there.
#[derive(Clone)]
struct Part {
    pulls: Arc<Mutex<HashMap<String, WeakShared<Pull>>>>,
    asker: ThreadId,
    ended_under_lock: Arc<AtomicBool>,
}

impl Drop for Part {
    fn drop(&mut self) {
        // The asker alone locks it.
        if thread::current().id() == self.asker && self.pulls.try_lock().is_err() {
            self.ended_under_lock.store(true, Ordering::SeqCst);
        }
    }
}

/// Whoever asks for a pull looks at those under way, and holds each for a moment; whoever waits for it lets go just then.
#[test]
fn a_pull_whose_last_waiter_goes_while_somebody_asks_does_not_end_under_the_lock() {
    const ROUNDS: usize = 1_000;
    const PULLS: usize = 200;
    let images = Images::new("/absent".into());
    let (waiting, gone) = (AtomicUsize::new(0), AtomicBool::new(false));
    let ended_under_lock = Arc::new(AtomicBool::new(false));
    let part = Part {
        pulls: Arc::clone(&images.pulls),
        asker: thread::current().id(),
        ended_under_lock: Arc::clone(&ended_under_lock),
    };
    let begin = || {
        let part = part.clone();
        let pull = async move {
            let _part = part;
            std::future::pending().await
        };
        pull.boxed().shared()
    };
    thread::scope(|scope| {
        let (hand_over, pulls) = mpsc::channel::<Vec<Shared<Pull>>>();
        scope.spawn(|| {
            for pulls in pulls {
                waiting.fetch_add(1, Ordering::SeqCst);
                drop(pulls);
                gone.store(true, Ordering::SeqCst);
            }
        });
        for round in 0..ROUNDS {
            let begun: Vec<_> = (0..PULLS).map(|_| begin()).collect();
            let named = begun.iter().enumerate().filter_map(|(number, pull)| {
                let weak = pull.downgrade()?;
                Some((format!("{number}"), weak))
            });
            images.pulls.lock().unwrap().extend(named);
            hand_over.send(begun).unwrap();
            while waiting.load(Ordering::SeqCst) == round {
                std::hint::spin_loop();
            }
            while !gone.swap(false, Ordering::SeqCst) {
                drop(images.pulling("other"));
            }
        }
        drop(hand_over);
    });
    assert!(!ended_under_lock.load(Ordering::SeqCst));
}
