use std::process::{Child, Command, Stdio};

use super::*;

const LONG: u64 = 64 << 20;

#[test]
fn a_mapping_tells_the_inode_of_a_file_in_the_workspace() {
    let line = "7f01a000-7f01c000 rw-s 00005000 fe:00 262   /workspace/a b (deleted)";
    assert_eq!(mapping(line, "/workspace/"), Some(262));
    for other in [
        "7f01a000-7f01c000 rw-s 00000000 00:01 7  /memfd:x (deleted)",
        "7f01a000-7f01c000 rw-s 00000000 00:01 7  /workspaces/x (deleted)",
        "7f01a000-7f01c000 rw-p 00000000 00:00 0  [heap]",
        "7f01a000-7f01c000 rw-p 00000000 00:00 0",
    ] {
        assert_eq!(mapping(other, "/workspace/"), None, "{other}");
    }
}

#[test]
fn a_file_counts_once_however_often_it_is_held_and_not_while_it_has_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let own = HashSet::from([rustix::process::getpid()]);
    let held = || {
        let list = || Ok(own.clone());
        measure(list, folder.path(), WITHIN, &mut HashSet::new())
            .unwrap()
            .bytes
    };
    // Other tests of this process hold files, too.
    fs::write(&path, vec![7; usize::try_from(LONG).unwrap()]).unwrap();
    let first = File::open(&path).unwrap();
    let second = File::open(&path).unwrap();
    assert!(held() < LONG, "it has a name");
    fs::remove_file(&path).unwrap();
    assert!((LONG..2 * LONG).contains(&held()));
    drop((first, second));
    assert!(held() < LONG, "nobody holds it");
}

/// A program in a folder of its own, and those that it started.
struct Program {
    folder: tempfile::TempDir,
    child: Child,
    pids: HashSet<Pid>,
}

impl Program {
    /// Does this with `F`, a long file without a name, says its process ids and waits.
    fn with_long_file(does: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "use Socket; use IO::Handle; my @all = ($$); \
            open F, q(+>), q(long file) or die; print F q(x) x {LONG}; F->flush; unlink q(long file); \
            {does}; print qq(@all\\n); STDOUT->flush; <STDIN>"
        );
        let mut child = Command::new("perl")
            .args(["-e", &script])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        let pids = said.split_whitespace().map(|pid| pid.parse().unwrap());
        Self {
            folder,
            child,
            pids: pids.filter_map(Pid::from_raw).collect(),
        }
    }

    fn look(&self, within: Duration, before: &mut HashSet<Pid>) -> Look {
        // As the kernel calls it.
        let folder = self.folder.path().canonicalize().unwrap();
        // A set of its own each time, in an order of its own.
        let list = || Ok(self.pids.iter().copied().collect());
        measure(list, &folder, within, before).unwrap()
    }
}

/// Ends it; whoever it started reads the end of the same input.
impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

fn map_a_page() -> String {
    format!(
        "syscall({}, 0, 4096, 1, 2, fileno F, 0) > 0 or die",
        libc::SYS_mmap
    )
}

fn unseen(why: Why, file: Option<&str>, again: bool) -> Unseen {
    Unseen {
        program: "perl".to_owned(),
        why,
        file: file.map(str::to_owned),
        again,
    }
}

#[test]
fn one_page_of_a_long_file_that_nobody_has_open_tells_that_not_all_was_seen() {
    let program = Program::with_long_file(&format!("{}; close F", map_a_page()));
    let mut before = HashSet::new();
    for again in [false, true, true] {
        let look = program.look(WITHIN, &mut before);
        let told = unseen(Why::Maps, Some("long file"), again);
        assert_eq!(
            look,
            Look {
                bytes: 0,
                unseen: Some(told)
            }
        );
    }
}

#[test]
fn a_mapped_file_counts_whole_while_somebody_has_it_open() {
    let program = Program::with_long_file(&map_a_page());
    let look = program.look(WITHIN, &mut HashSet::new());
    assert_eq!(look.unseen, None);
    assert!(look.bytes >= LONG, "{look:?}");
}

#[test]
fn of_two_that_map_the_same_it_is_the_same_one_each_time() {
    let fork = "my $pid = fork; if (!$pid) { <STDIN>; exit } push @all, $pid";
    let program = Program::with_long_file(&format!("{}; close F; {fork}", map_a_page()));
    assert_eq!(program.pids.len(), 2);
    let mut before = HashSet::new();
    program.look(WITHIN, &mut before);
    for _ in 0..20 {
        let look = program.look(WITHIN, &mut before);
        assert_eq!(
            look.unseen,
            Some(unseen(Why::Maps, Some("long file"), true))
        );
    }
}

#[test]
fn a_descriptor_that_waits_in_a_socket_is_hidden() {
    let park = format!(
        "socketpair(my $to, my $from, AF_UNIX, SOCK_STREAM, 0) or die; \
        my $rights = pack(q(QiiiI), 20, SOL_SOCKET, 1, fileno F, 0); my $byte = q(x); \
        my $io = pack(q(PQ), $byte, 1); my $message = pack(q(QQPQPQQ), 0, 0, $io, 1, $rights, 24, 0); \
        syscall({}, fileno $to, $message, 0) == 1 or die; close F",
        libc::SYS_sendmsg
    );
    let program = Program::with_long_file(&park);
    let look = program.look(WITHIN, &mut HashSet::new());
    assert_eq!(look.unseen, Some(unseen(Why::Hides, None, false)));
}

#[test]
fn who_could_not_be_looked_at_in_time_is_not_said_to_hide() {
    // Also not because of what it maps: who has that open was not looked for.
    let program = Program::with_long_file(&map_a_page());
    let mut before = HashSet::new();
    for again in [false, true] {
        let look = program.look(Duration::ZERO, &mut before);
        assert_eq!(look.unseen, Some(unseen(Why::NoTime, None, again)));
    }
}
