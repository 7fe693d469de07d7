//! What the test does inside a container: a curious and a hostile agent.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

pub(crate) fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<_> = words
        .into_iter()
        .map(|word| word.into_string().unwrap_or_default())
        .collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["whoami"] => who_am_i(),
        ["write", paths @ ..] => paths.iter().for_each(|path| try_write(path)),
        ["read", paths @ ..] => paths.iter().for_each(|path| try_read(path)),
        ["connect", address] => try_connect(address),
        ["loopback"] => loopback(),
        ["socket"] => talk_to_sidecar(),
        ["escape"] => escape(),
        ["eat", megabytes] => eat(megabytes.parse().unwrap_or(1)),
        ["eat-in-child"] => eat_in_child(),
        ["fork"] => fork_without_end(),
        ["fill", folder] => fill(folder),
        ["chatter", lines] => (0..lines.parse().unwrap_or(1)).for_each(|line| say("line", line)),
        ["wait"] => wait(),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

fn say(key: &str, value: impl std::fmt::Display) {
    println!("{key}={value}");
}

fn who_am_i() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for key in [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
    ] {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        say(key, line.unwrap_or_default().trim());
    }
    say("uid", rustix::process::getuid().as_raw());
    say("gid", rustix::process::getgid().as_raw());
    say("pid", std::process::id());
    say("cwd", std::env::current_dir().unwrap().display());
    let variables: Vec<_> = std::env::vars()
        .map(|(key, value)| key + ":" + &value)
        .collect();
    say("env", variables.join(","));
    say(
        "hostname",
        fs::read_to_string("/proc/sys/kernel/hostname")
            .unwrap()
            .trim(),
    );
    let processes = names("/proc")
        .into_iter()
        .filter(|name| name.parse::<u32>().is_ok())
        .count();
    say("processes", processes);
    say("root", names("/").join(","));
    say(
        "owner",
        std::os::unix::fs::MetadataExt::uid(&fs::metadata("/workspace").unwrap()),
    );
    say("descriptors", names("/proc/self/fd").len() - 1);
    say(
        "shell",
        Command::new("/bin/sh")
            .args(["-c", "echo works"])
            .output()
            .is_ok(),
    );
}

fn names(folder: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .map(|entries| {
            entries
                .filter_map(Result::ok)
                .map(|e| e.file_name().to_string_lossy().into_owned())
        })
        .into_iter()
        .flatten()
        .collect();
    names.sort();
    names
}

fn try_write(path: &str) {
    let folder = fs::metadata(path).is_ok_and(|found| found.is_dir());
    let target = if folder {
        format!("{path}/written")
    } else {
        path.to_owned()
    };
    let written = fs::OpenOptions::new()
        .write(true)
        .create(folder)
        .open(&target);
    say(
        path,
        written.and_then(|mut file| file.write_all(b"0")).is_ok(),
    );
}

fn try_read(path: &str) {
    let found = fs::read(path)
        .map(|bytes| bytes.len())
        .or_else(|_| fs::read_dir(path).map(Iterator::count));
    say(
        path,
        found.map_or("nothing".into(), |count| count.to_string()),
    );
}

fn try_connect(address: &str) {
    say("connected", TcpStream::connect(address).is_ok());
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let interfaces = interfaces
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'));
    say(
        "interfaces",
        interfaces
            .map(|(name, _)| name.trim())
            .collect::<Vec<_>>()
            .join(","),
    );
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    say("routes", routes.lines().count().saturating_sub(1));
}

fn loopback() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"!").unwrap();
    let mut byte = [0];
    listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
    say("heard", byte == *b"!");
}

fn talk_to_sidecar() {
    let mut socket = UnixStream::connect("/run/carrel/sidecar").unwrap();
    socket.write_all(b"?").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    say("answer", answer);
}

/// With no filter installed: the kernel's own rules must hold by themselves.
fn escape() {
    let shell = |line: &str| {
        let done = Command::new("/bin/sh")
            .args(["-c", line])
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success())
    };
    say("namespace", shell("unshare --user --map-root-user true"));
    say("mount", shell("mount -t tmpfs none /tmp"));
    say("unmount", shell("umount /proc/kcore || umount /usr"));
    say("remount", shell("mount -o remount,rw /usr"));
    say("hostname", shell("hostname stolen"));
    say("device", shell("mknod /tmp/disk b 254 0"));
    say("root", shell("su -c true || sudo -n true || chroot / true"));
    say("kill", shell("kill -9 -1; kill -9 1"));
    say(
        "memory",
        fs::read("/dev/mem").is_ok() || fs::read("/proc/kcore").is_ok_and(|b| !b.is_empty()),
    );
    for path in [
        "/",
        "/usr",
        "/run/carrel",
        "/proc/sys",
        "/proc/bus",
        "/proc/irq",
    ] {
        let flags = rustix::fs::statvfs(path).unwrap().f_flag;
        say(
            &format!("sealed {path}"),
            flags.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        );
    }
    say(
        "cgroup",
        fs::write("/sys/fs/cgroup/cgroup.procs", "1").is_ok(),
    );
}

fn eat(megabytes: usize) {
    let eaten: Vec<_> = (0..megabytes).map(|_| vec![1_u8; 1 << 20]).collect();
    say("eaten", eaten.len());
}

fn eat_in_child() {
    let status = Command::new("/carrel")
        .args(["inside", "eat", "512"])
        .stdout(Stdio::null())
        .status();
    say("child_survived", status.unwrap().success());
}

fn fork_without_end() {
    let mut children = Vec::new();
    let refused = loop {
        match Command::new("/usr/bin/sleep").arg("60").spawn() {
            Ok(child) => children.push(child),
            Err(error) => break error,
        }
        if children.len() > 500 {
            break std::io::Error::other("never refused");
        }
    };
    say("children", children.len());
    say("refused", refused);
}

fn fill(folder: &str) {
    let mut file = fs::File::create(format!("{folder}/filler")).unwrap();
    let block = vec![7; 1 << 20];
    let written = (0..512)
        .take_while(|_| file.write_all(&block).is_ok())
        .count();
    say("megabytes", written);
    let files = (0..50_000).take_while(|n| fs::File::create(format!("{folder}/{n}")).is_ok());
    say("files", files.count());
}

fn wait() {
    loop {
        std::thread::park();
    }
}
