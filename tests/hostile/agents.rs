//! What an agent can see: nothing of the host's, of its neighbours' or of our secrets.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use carrel_tests::machine::{pods, run_dir};
use rustix::process::geteuid;

use crate::shell::{quoted, up};

const DIARY: &str = "the neighbour fears fractions";

#[tokio::test]
async fn an_agent_reads_no_file_of_the_host_or_of_its_neighbour() -> anyhow::Result<()> {
    let Some(up) = up("an_agent_reads_no_file", &["eve", "nan"]).await? else {
        return Ok(());
    };
    up.api
        .reply("nan", &format!("echo {} > diary", quoted(DIARY)))
        .await?;
    let neighbour = pods(up.pid()).pop().context("the neighbour is awake")?;
    let pod = run_dir(&up.data()).join("p").join(&neighbour.name);
    let data = up.data();
    let mut paths: Vec<PathBuf> = ["admin.token", "kek", "signing.key", "store.db"]
        .map(|name| data.join(name))
        .into();
    paths.push(pod.join("workspace/diary"));
    paths.push(
        format!(
            "/proc/{}/root/workspace/diary",
            neighbour.shim.context("a shim")?
        )
        .into(),
    );
    paths.extend(["/etc/shadow", "/etc/passwd"].map(PathBuf::from));
    // An ordinary user's agent would read no more than the user does.
    for path in paths
        .iter()
        .filter(|path| path.starts_with(&data) || geteuid().is_root())
    {
        assert!(
            fs::read(path).is_ok(),
            "the host itself reads {}",
            path.display()
        );
    }
    let ways = [
        "",
        "/proc/1/root",
        "/proc/self/root",
        "/workspace/../..",
        "/proc/self/cwd/../..",
    ];
    let mut script = String::from("ln -s / up\n");
    for path in paths.iter().filter(|path| !path.ends_with("passwd")) {
        for way in ways.iter().chain(&["/workspace/up"]) {
            let path = quoted(&format!("{way}{}", path.display()));
            script.push_str(&["cat ", &path, " && echo READ ", &path, "\n"].concat());
        }
    }
    script += "cat /etc/passwd; find / -name diary -o -name 'w-*' -o -name '*.sock' 2>/dev/null\n\
        ls -A /run/carrel /dev/shm /tmp; ls -d /root /home /var /opt /srv /sys /boot\n\
        cat /proc/mounts /proc/[0-9]*/mountinfo; echo end";
    let said = up.api.reply("eve", &script).await?;
    assert!(!said.contains("READ"), "{said}");
    assert!(!said.contains(DIARY), "{said}");
    assert!(
        said.contains("agent:x:10001"),
        "its own /etc/passwd: {said}"
    );
    assert!(!said.contains("root:"), "{said}");
    for folder in ["/root", "/home", "/var", "/opt", "/srv", "/sys", "/boot"] {
        assert!(
            !said.lines().any(|line| line == folder),
            "{folder} is there: {said}"
        );
    }
    // Its own folder's place on the host is in its table of mounts, as in any container.
    for name in [data.display().to_string(), neighbour.name] {
        assert!(!said.contains(&name), "{name} is named: {said}");
    }
    assert_eq!(
        up.api.reply("nan", "cat diary").await?,
        format!("{DIARY}\n")
    );
    Ok(())
}

/// Looks for tokens in the memory of every process it sees but itself, and says how much it read. The pattern is spelt so
/// that it does not match itself.
const SEARCH: &str = r#"perl -e '
    for my $pid (grep { $_ != $$ } map { m{(\d+)$} } glob "/proc/[0-9]*") {
        open(my $maps, "<", "/proc/$pid/maps") or next;
        open(my $mem, "<", "/proc/$pid/mem") or next;
        while (<$maps>) {
            my ($from, $to) = /^(\w+)-(\w+) r/ or next;
            my $bytes = "";
            sysseek($mem, hex $from, 0) and sysread($mem, $bytes, hex($to) - hex($from));
            $read{$pid} += length $bytes;
            print "TOKEN $1\n" while $bytes =~ /(eyJ[\w-]{12,}\.[\w-]{12,})/g;
        }
    }
    print "SEARCHED $_ $read{$_}\n" for keys %read;
'"#;

#[tokio::test]
async fn no_secret_is_in_an_agents_environment_processes_or_files() -> anyhow::Result<()> {
    let Some(up) = up("no_secret_is_in_an_agents_reach", &["eve"]).await? else {
        return Ok(());
    };
    // The shell that reads it has this one in its memory: so the search finds what there is.
    let planted = "eyJwbGFudGVkIG9uZQ.aXMgZm91bmQgaGVyZQ";
    let look = format!(
        ": {planted}\n{SEARCH}\nenv\ntr '\\0' '\\n' < /proc/1/environ\ncat /proc/[0-9]*/cmdline\n\
        ls -l /proc/[0-9]*/fd; find /workspace /tmp /run /dev/shm -type f -exec cat {{}} +"
    );
    up.api.reply("eve", "echo hello").await?;
    let said = up.api.reply("eve", &look).await?;
    let tokens: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix("TOKEN "))
        .collect();
    assert!(
        tokens.contains(&planted),
        "the search finds nothing: {said}"
    );
    assert!(tokens.iter().all(|token| *token == planted), "{tokens:?}");
    for file in ["admin.token", "kek", "signing.key"] {
        let secret = fs::read_to_string(up.data().join(file))?;
        for line in secret
            .lines()
            .filter(|line| line.len() > 20 && !line.starts_with("-----"))
        {
            assert!(!said.contains(line.trim()), "{file} is there: {said}");
        }
    }
    let keys: Vec<_> = said.lines().filter(|line| line.contains("KEY=")).collect();
    assert_eq!(
        keys,
        ["OPENAI_API_KEY=carrel"],
        "a key that is worth nothing elsewhere"
    );
    assert!(said.contains("ANTHROPIC_AUTH_TOKEN=carrel\n"), "{said}");
    let learner = said
        .lines()
        .find_map(|line| line.strip_prefix("CARREL_LEARNER="));
    assert_ne!(learner.context("it is told an opaque name")?, "eve");
    Ok(())
}

#[tokio::test]
async fn an_agent_has_no_rights_and_takes_none() -> anyhow::Result<()> {
    let Some(up) = up("an_agent_has_no_rights", &["eve"]).await? else {
        return Ok(());
    };
    let tries = [
        "unshare --user true",
        "unshare --mount true",
        "mount -t tmpfs none /tmp",
        "chroot / true",
        "mknod device c 1 5",
        "chown 0 .",
        "setpriv --reuid 0 true",
        "nice -n -5 true 2>&1 | grep -q ermi && false",
        "echo 1 > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "touch /usr/bin/mine",
        "touch /etc/mine",
        "touch /run/carrel/mine",
        "touch /carrel",
        "echo $$ > /sys/fs/cgroup/cgroup.procs",
        "true 3<>/proc/1/mem",
        "ls -l /proc/1/fd",
        "kill -STOP 1; kill -0 0; perl -e 'kill(9, -1) > 500 or exit 1'",
        "perl -e 'exit(syscall(101, 16, 1, 0, 0) != 0)'",
        "perl -e 'use Socket; socket(my $s, 40, SOCK_STREAM, 0) or exit 1'",
        "perl -e 'use Socket; socket(my $s, AF_INET, SOCK_RAW, 1) or exit 1'",
    ];
    // Each in a shell of its own: one of them ends all that it may end.
    for attempt in tries {
        let events = up
            .api
            .ask("eve", &format!("({attempt}) 2>/dev/null && echo TAKEN"))
            .await?;
        let last = events.last().context("an outcome")?;
        let said = last.data["reply"]["text"].as_str().unwrap_or_default();
        assert!(!said.contains("TAKEN"), "{attempt}");
    }
    let said = up
        .api
        .reply(
            "eve",
            "grep -E '^(Cap|NoNew|Seccomp:|Uid)' /proc/self/status",
        )
        .await?;
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert!(
        said.contains("Seccomp:\t2") && said.contains("Uid:\t10001\t10001"),
        "{said}"
    );
    Ok(())
}
