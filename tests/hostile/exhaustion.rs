//! What an agent can use up: its own share, while its neighbour is answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use carrel_tests::machine::{pods, run_dir};
use carrel_tests::{Api, Setup, Up, agent, eventually, skip};
use futures::FutureExt as _;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use serde_json::json;

use crate::shell;

const TEST: &str = "what_an_agent_uses_up_is_its_own";

/// A file that has neither name nor descriptor, and is held by being mapped (`mmap` is called by its number).
const MAPPED: &str = "perl -e 'open F, q(+>big); print F q(x) x (1 << 20) for 1 .. 300; unlink q(big); \
    my $mmap = qx(uname -m) =~ /x86_64/ ? 9 : 222; syscall($mmap, 0, 300 << 20, 1, 2, fileno F, 0); close F; sleep 60'";

/// Nameless files of 30 MB, ten one after the other, so that none alone is over the room while it can be seen; what is done
/// with each is `HIDE`.
const PIECES: &str = r"perl -e 'use Socket;
    my ($mmap, $send) = qx(uname -m) =~ /x86_64/ ? (9, 46) : (222, 211);
    socketpair(my $to, my $from, AF_UNIX, SOCK_STREAM, 0) or die;
    sub hide { my $fd = shift; HIDE }
    for (1 .. 10) {
        open(my $f, q(+>), q(big)) or die;
        unlink q(big);
        print $f q(x) x (30 << 20);
        $f->flush;
        hide(fileno $f);
        close $f;
    }
    sleep 60'";

/// Sends a descriptor into a socket from which nobody reads (`sendmsg` with `SCM_RIGHTS`, called by its number).
const PARK: &str = "my $rights = pack(q(QiiiI), 20, SOL_SOCKET, 1, $fd, 0); my $byte = q(x); \
    my $io = pack(q(PQ), $byte, 1); my $message = pack(q(QQPQPQQ), 0, 0, $io, 1, $rights, 24, 0); \
    syscall($send, fileno $to, $message, 0) == 1 or die";

/// Maps the first page alone.
const MAP_A_PAGE: &str = "syscall($mmap, 0, 4096, 1, 2, $fd, 0) > 0 or die";

#[tokio::test]
async fn what_is_hidden_in_sockets_and_behind_one_page_counts() -> anyhow::Result<()> {
    let ways = [("parked", PARK), ("page", MAP_A_PAGE)];
    let learners = ways.map(|(name, _)| name);
    let Some(up) = shell::up("hidden_in_sockets", &learners).await? else {
        return Ok(());
    };
    for (name, hide) in ways {
        let script = PIECES.replace("HIDE", hide);
        let error = up.api.failure(name, &script).await?;
        ensure!(error.text("code") == "workspace_limit", "{name}: {error:?}");
    }
    Ok(())
}

/// Hands a descriptor from one process to the other without pause, while the disk fills and is looked at.
const PASSING: &str = r"perl -e 'use Socket;
    my ($send, $receive) = qx(uname -m) =~ /x86_64/ ? (46, 47) : (211, 212);
    socketpair(my $to, my $from, AF_UNIX, SOCK_STREAM, 0) or die;
    my $fd = fileno STDERR;
    my $parent = $$;
    if (!fork) {
        while (getppid == $parent) {
            my ($byte, $rights) = (q(x), q(x) x 24);
            my $io = pack(q(PQ), $byte, 1);
            my $message = pack(q(QQPQPQQ), 0, 0, $io, 1, $rights, 24, 0);
            exit if syscall($receive, fileno $from, $message, 0x40) != 1 && !$!{EAGAIN};
            my $got = unpack(q(x16 i), $rights);
            require POSIX; POSIX::close($got) if $got > 2 && $got != fileno $from && $got != fileno $to;
        }
        exit;
    }
    open(my $f, q(>), q(big)) or die;
    for (1 .. 3000) { PARK; select undef, undef, undef, 0.001; print $f q(x) x 16000 }
    print qq(done\n)'";

#[tokio::test]
async fn an_agent_that_hands_descriptors_on_is_not_taken_for_one_that_hides() -> anyhow::Result<()>
{
    let Some(up) = shell::up("hands_descriptors_on", &["nan"]).await? else {
        return Ok(());
    };
    let said = up.api.reply("nan", &PASSING.replace("PARK", PARK)).await?;
    ensure!(said == "done\n", "{said}");
    Ok(())
}

/// Processes that can be seen into for a moment, again and again; the program that cannot be read looks like a shell.
const FLICKERING: &str = r#"cp /bin/sh s; chmod 111 s
    echo 'sleep 0.01; exec ./s -c "sleep 0.35; exec /bin/sh flicker"' > flicker
    i=0; while [ $i -lt 250 ]; do i=$((i + 1)); /bin/sh flicker & done; wait"#;

#[tokio::test]
async fn who_cannot_be_seen_into_keeps_no_shim_from_obeying() -> anyhow::Result<()> {
    let resources =
        json!({"cpu": "1", "memory": "512Mi", "ephemeralStorage": "64Mi", "pids": 1000});
    let many = json!({"turn": {"timeoutSeconds": 8}, "resources": resources});
    let setup = Setup {
        documents: vec![shell::class("many", &many), agent::learner("eve", "many")],
        ..Setup::default()
    };
    let Some(up) = Up::start("who_cannot_be_seen_into", setup).await? else {
        return Ok(());
    };
    let began = Instant::now();
    let error = up.api.failure("eve", FLICKERING).await?;
    let codes = ["timeout", "workspace_limit"];
    ensure!(codes.contains(&error.text("code")), "{error:?}");
    let took = began.elapsed();
    ensure!(took < Duration::from_secs(20), "ended after {took:?}");
    Ok(())
}

/// What is said of one whose processes are too many to look at in time.
const UNSEEN: &str = "How full the workspace is could not be seen in time.";
/// Learner, what its agent does, and the code with which its turn fails.
const HARM: [(&str, &str, &str); 14] = [
    ("forks", "perl -e 'fork while 1'", "timeout"),
    (
        "memory",
        "exec perl -e 'push @kept, q(a) x (1 << 20) . $_ for 1 .. 4096'",
        "agent_died",
    ),
    (
        "disk",
        "dd if=/dev/zero of=big bs=1M count=4096",
        "workspace_limit",
    ),
    (
        "hidden",
        "mkdir d; chmod 300 d; dd if=/dev/zero of=d/big bs=1M count=4096",
        "workspace_limit",
    ),
    (
        "held",
        "exec 3>big; rm big; dd if=/dev/zero bs=1M count=300 >&3; sleep 60",
        "workspace_limit",
    ),
    ("mapped", MAPPED, "workspace_limit"),
    (
        "unseen",
        "cp /usr/bin/sleep s; chmod 111 s; exec ./s 60",
        "workspace_limit",
    ),
    ("sparse", "truncate -s 1000G big", "workspace_limit"),
    (
        "files",
        "perl -e 'for (1 .. 100001) { open(my $f, q(>), $_) or die }'",
        "workspace_limit",
    ),
    (
        "closed",
        "mkdir d; touch d/x; chmod 000 d",
        "workspace_limit",
    ),
    (
        "long",
        "perl -e 'for (1 .. 9) { my $d = q(d) x 200; mkdir $d; chdir $d }'",
        "workspace_limit",
    ),
    (
        "output",
        "perl -e '$| = 1; print q(a) x (1 << 20) for 1 .. 1024'",
        "output_limit",
    ),
    (
        "errors",
        "perl -e 'print STDERR q(a) x (1 << 20) for 1 .. 1024'",
        "timeout",
    ),
    ("silent", "sleep 600", "timeout"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_uses_up_is_its_own_and_its_neighbour_is_answered() -> anyhow::Result<()> {
    let brief = json!({"turn": {"timeoutSeconds": 4}});
    let mut documents = vec![
        shell::class("shell", &json!({})),
        shell::class("brief", &brief),
        agent::learner("nan", "shell"),
    ];
    for (name, _, code) in HARM {
        documents.push(agent::learner(
            name,
            if code == "timeout" { "brief" } else { "shell" },
        ));
    }
    let setup = Setup {
        documents,
        ..Setup::default()
    };
    let Some(up) = Up::start(TEST, setup).await? else {
        return Ok(());
    };
    let ended = AtomicBool::new(false);
    let harm = async {
        for (name, script, code) in HARM {
            let limit = match name {
                "forks" => "pids",
                other => other,
            };
            if up.lacks(limit) {
                skip(
                    TEST,
                    limit,
                    &format!("{name}: this user cannot limit {limit} here"),
                )?;
                continue;
            }
            up.api.reply(name, "echo kept > kept").await?;
            let error = up
                .api
                .failure(name, &format!("echo lost >> kept\n{script}"))
                .await?;
            let (said, detail) = (error.text("code"), error.text("detail"));
            // Who forks without end may end sooner: two looks in a row had no time for all of them (ADR 0003).
            let is_unseen = name == "forks" && said == "workspace_limit" && detail == UNSEEN;
            ensure!(said == code || is_unseen, "{name}: {error:?}");
            ensure!(!detail.is_empty(), "{name}: {error:?}");
            let said = up.api.reply(name, "cat kept; ls | wc -l").await?;
            ensure!(
                said == "kept\n1\n",
                "{name} goes on from the last good snapshot: {said}"
            );
        }
        Ok(())
    };
    let harm = harm.inspect(|_: &anyhow::Result<()>| ended.store(true, Ordering::Relaxed));
    let (harmed, answers) = tokio::join!(harm, neighbour(&up.api, &ended));
    harmed?;
    let answers = answers?;
    ensure!(
        answers >= HARM.len(),
        "the neighbour was answered {answers} times only"
    );
    all_folders_go(&up).await
}

/// Asks again and again until the harm has ended; how often it was answered.
async fn neighbour(api: &Api, ended: &AtomicBool) -> anyhow::Result<usize> {
    let mut answers = 0;
    while !ended.load(Ordering::Relaxed) {
        answers += 1;
        let said = api
            .reply(
                "nan",
                "n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) | tee n",
            )
            .await?;
        ensure!(
            said == format!("{answers}\n"),
            "the neighbour's {answers}th answer is {said}"
        );
    }
    Ok(answers)
}

/// Folders of pods that have ended are removed, whatever is in them.
async fn all_folders_go(up: &Up) -> anyhow::Result<()> {
    let folder = run_dir(&up.data()).join("p");
    eventually(
        "the folders of ended pods are removed",
        // Tens of thousands of folders, on a disk that others use.
        Duration::from_mins(2),
        || async {
            let there = std::fs::read_dir(&folder)?.count();
            Ok((there <= pods(up.pid()).len()).then_some(()))
        },
    )
    .await
}

/// Folders in each other, more than any stack or file table has room for.
const DEEP: &str = "perl -e 'for (1 .. 15000) { mkdir(q(d)) or die $!; chdir(q(d)) or die $! }'";

#[tokio::test]
async fn folders_deeper_than_a_stack_end_neither_a_server_nor_the_next() -> anyhow::Result<()> {
    let name = "folders_deeper_than_a_stack";
    let Some(mut up) = shell::up(name, &["eve"]).await? else {
        return Ok(());
    };
    up.api.reply("eve", "echo kept > kept").await?;
    let error = up.api.failure("eve", DEEP).await?;
    ensure!(error.text("code") == "workspace_limit", "{error:?}");
    all_folders_go(&up).await?;
    ensure!(up.api.reply("eve", "cat kept").await? == "kept\n");
    // What a killed server leaves may be as deep.
    let pod = pods(up.pid()).pop().context("its pod")?;
    let workspace = run_dir(&up.data())
        .join("p")
        .join(pod.name)
        .join("workspace");
    up.kill()?;
    let mut at = openat(CWD, workspace, OFlags::DIRECTORY, Mode::empty())?;
    for _ in 0..15_000 {
        mkdirat(&at, "d", Mode::RWXU)?;
        at = openat(&at, "d", OFlags::DIRECTORY, Mode::empty())?;
    }
    up.again().await?;
    all_folders_go(&up).await?;
    ensure!(up.api.reply("eve", "cat kept").await? == "kept\n");
    Ok(())
}

/// Eight that start others without pause, while the disk fills and is looked at.
const RESTLESS: &str = "for i in 1 2 3 4 5 6 7 8; do while [ ! -e end ]; do /bin/true; done & done; \
    for i in 1 2 3 4 5 6 7 8 9 10; do head -c 5000000 /dev/zero >> big; sleep 0.3; done; rm big; touch end; wait; echo done";

#[tokio::test]
async fn an_agent_whose_processes_come_and_go_is_not_taken_for_one_that_hides() -> anyhow::Result<()>
{
    let Some(up) = shell::up("processes_come_and_go", &["nan"]).await? else {
        return Ok(());
    };
    ensure!(up.api.reply("nan", RESTLESS).await? == "done\n");
    Ok(())
}

/// More that have work than processors, each starting short-lived ones, like a build that starts all it can.
const BUILD: &str = "i=0; while [ $i -lt 40 ]; do i=$((i + 1)); \
    (while [ ! -e end ]; do perl -e '$x += $_ for 1 .. 100000'; done) & done; \
    for i in 1 2 3 4 5 6 7 8 9 10; do head -c 5000000 /dev/zero >> big; sleep 0.5; done; \
    rm big; touch end; wait; echo done";

#[tokio::test]
async fn a_build_that_starts_all_it_can_is_not_taken_for_one_that_hides() -> anyhow::Result<()> {
    let resources = json!({"cpu": "1", "memory": "512Mi", "ephemeralStorage": "64Mi", "pids": 256});
    let setup = Setup {
        documents: vec![
            shell::class("build", &json!({"resources": resources})),
            agent::learner("nan", "build"),
        ],
        ..Setup::default()
    };
    let Some(up) = Up::start("a_build", setup).await? else {
        return Ok(());
    };
    ensure!(up.api.reply("nan", BUILD).await? == "done\n");
    Ok(())
}
