//! How containers begin, end, and leave nothing behind.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use carrel_fleet_local::container::{ContainerSpec, Exit, Options, Runtime, container_main};
use carrel_testkit::{ends, until};

use crate::fixture::{Bed, Outcome, ended, options, value};

crate::tests![
    a_container_that_ended_leaves_nothing_on_the_host,
    a_container_that_cannot_start_says_why_and_leaves_nothing,
    a_maker_that_stands_still_is_killed_and_leaves_nothing,
    a_container_whose_maker_does_not_end_is_ended_and_leaves_nothing,
    a_container_that_nobody_waits_for_any_more_is_ended_and_leaves_nothing,
    what_cannot_be_cleared_does_not_hide_why_there_is_no_container,
    a_killed_container_ends_with_all_its_processes,
    a_container_dies_with_the_process_that_started_it,
    what_an_earlier_run_left_is_ended_and_cleared,
    a_container_that_talks_without_end_is_kept_in_its_last_words,
    starting_takes_milliseconds,
];

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// Our control groups on the whole machine that have to do with a folder of state.
fn groups_of(pid: i32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines()
        .filter(|line| line.contains("/carrel-"))
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some(format!(
                "/sys/fs/cgroup/{}{}",
                fields.next()?,
                fields.next()?
            ))
        })
        .collect()
}

async fn a_container_that_ended_leaves_nothing_on_the_host(bed: Bed) -> Outcome {
    let before = mounts();
    let container = bed.runtime.start(bed.spec(1, &["wait"])).await.unwrap();
    assert_eq!(
        mounts(),
        before,
        "no mount of a container shows on the host"
    );
    let groups = groups_of(container.pid());
    assert!(!groups.is_empty() || !container.limits_missing().is_empty());
    assert!(
        groups.iter().all(|group| Path::new(group).exists()),
        "{groups:?}"
    );
    container.remove().await.unwrap();
    container.remove().await.unwrap();
    assert!(
        groups.iter().all(|group| !Path::new(group).exists()),
        "{groups:?}"
    );
    assert_eq!(
        std::fs::read_dir(bed.folder.path().join("state"))
            .unwrap()
            .count(),
        0
    );
    drop((container, bed));
    let parents = groups.iter().filter_map(|group| Path::new(group).parent());
    assert_eq!(
        parents.filter(|parent| parent.exists()).count(),
        0,
        "{groups:?}"
    );
    Outcome::Passed
}

async fn a_container_that_cannot_start_says_why_and_leaves_nothing(bed: Bed) -> Outcome {
    let before = children();
    let spec = ContainerSpec {
        argv: vec!["/absent".into()],
        ..bed.spec(1, &[])
    };
    let refused = bed.runtime.start(spec).await.unwrap_err().to_string();
    assert!(
        refused.contains("executing /absent") && refused.contains("No such file"),
        "{refused}"
    );
    assert_eq!(
        std::fs::read_dir(bed.folder.path().join("state"))
            .unwrap()
            .count(),
        0
    );
    let spec = ContainerSpec {
        workspace_dir: "/absent".into(),
        ..bed.spec(1, &[])
    };
    let refused = bed.runtime.start(spec).await.unwrap_err().to_string();
    assert!(refused.contains("opening /absent"), "{refused}");
    assert_eq!(children().difference(&before).count(), 0);
    Outcome::Passed
}

/// The processes whose parent we are, those that have ended and wait to be reaped too.
fn children() -> BTreeSet<i32> {
    let ours = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let is_ours = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map(|(_, fields)| fields);
        after_name.and_then(|fields| fields.split_whitespace().nth(1)) == Some(&ours)
    };
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_ours)
        .collect()
}

/// A runtime whose makers do what the script says, in a folder of state of its own.
fn scripted(bed: &Bed, script: &str, made_within: Duration) -> Runtime {
    let file = bed.folder.path().join("maker");
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let runtime = Runtime::open(Options {
        executable: file,
        made_within,
        ..options(scripted_state(bed))
    });
    runtime.unwrap()
}

fn scripted_state(bed: &Bed) -> PathBuf {
    bed.folder.path().join("scripted")
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

async fn a_maker_that_stands_still_is_killed_and_leaves_nothing(bed: Bed) -> Outcome {
    let marker = format!("{}.7", 7_000_000 + std::process::id());
    let stands_still = format!("exec sleep {marker}");
    let runtime = scripted(&bed, &stands_still, Duration::from_secs(1));
    let spec = bed.spec(1, &["wait"]);
    let given_up = tokio::time::timeout(Duration::from_secs(20), runtime.start(spec));
    let given_up = given_up.await.unwrap().unwrap_err().to_string();
    assert!(given_up.contains("none within 1s"), "{given_up}");
    assert_eq!(processes_named(&marker), 0);
    assert!(is_empty(&scripted_state(&bed)));
    Outcome::Passed
}

/// Makes a container like any maker, says so, and stays.
pub(crate) fn lingerer(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let _made = container_main(words);
    loop {
        std::thread::park();
    }
}

async fn a_container_whose_maker_does_not_end_is_ended_and_leaves_nothing(bed: Bed) -> Outcome {
    let before = children();
    let state = bed.folder.path().join("state");
    let runtime = Runtime::open(Options {
        subcommand: vec!["lingerer".to_owned()],
        made_within: Duration::from_secs(3),
        ..options(state.clone())
    });
    let runtime = runtime.unwrap();
    let record = state.join("learner-1/container.json");
    let (given_up, ()) = tokio::join!(
        runtime.start(bed.spec(1, &["wait"])),
        until("its first process is known", || async { record.exists() }),
    );
    let given_up = given_up.unwrap_err().to_string();
    assert!(given_up.contains("none within 3s"), "{given_up}");
    assert!(is_empty(&state));
    assert_eq!(children().difference(&before).count(), 0);
    Outcome::Passed
}

async fn a_container_that_nobody_waits_for_any_more_is_ended_and_leaves_nothing(
    bed: Bed,
) -> Outcome {
    let before = children();
    let (begun, goes_on) = (
        bed.folder.path().join("begun"),
        bed.folder.path().join("goes-on"),
    );
    let script = format!(
        ": > {}\nwhile [ ! -e {} ]; do sleep 0.01; done\nexec {} \"$@\"",
        begun.display(),
        goes_on.display(),
        std::env::current_exe().unwrap().display()
    );
    let runtime = scripted(&bed, &script, Duration::from_secs(30));
    tokio::select! {
        started = runtime.start(bed.spec(1, &["wait"])) => unreachable!("it was held: {started:?}"),
        () = until("its maker runs", || async { begun.exists() }) => {}
    }
    std::fs::write(goes_on, "").unwrap();
    let is_left = || !is_empty(&scripted_state(&bed)) || !children().is_subset(&before);
    until("nothing of it is left", || async { !is_left() }).await;
    Outcome::Passed
}

async fn what_cannot_be_cleared_does_not_hide_why_there_is_no_container(bed: Bed) -> Outcome {
    let state_dir = scripted_state(&bed).join("learner-1");
    let state_dir = state_dir.display();
    // A file in its place is no folder that can be removed.
    let script = format!("cat > /dev/null; rm -r {state_dir}; : > {state_dir}; exit 3");
    let runtime = scripted(&bed, &script, Duration::from_secs(30));
    let refused = runtime.start(bed.spec(1, &["wait"])).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("Code(3)"), "{refused}");
    Outcome::Passed
}

async fn a_killed_container_ends_with_all_its_processes(bed: Bed) -> Outcome {
    let marker = format!("{}.5", 7_000_000 + std::process::id());
    let line = format!("sleep {marker} & sleep {marker}");
    let argv = vec!["/bin/sh".into(), "-c".into(), line];
    let container = bed
        .runtime
        .start(ContainerSpec {
            argv,
            ..bed.spec(1, &[])
        })
        .await
        .unwrap();
    until("both run", async || processes_named(&marker) == 2).await;
    container.kill().unwrap();
    assert_eq!(ended(&container).await, Exit::Signal(9));
    assert_eq!(processes_named(&marker), 0);
    container.remove().await.unwrap();
    Outcome::Passed
}

fn processes_named(marker: &str) -> usize {
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = lines.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let sleeping = format!("sleep\0{marker}\0");
    lines.filter(|line| line == sleeping.as_bytes()).count()
}

/// Starts a container, tells its number, and waits to be killed.
pub(crate) fn leaver(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let folder = words.into_iter().next().unwrap_or_default();
    let bed = Bed {
        runtime: Runtime::open(options(Path::new(&folder).join("state"))).unwrap(),
        folder: tempfile::TempDir::with_prefix("carrel-leaver-").unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let spec = bed.spec(1, &["wait"]);
        let container = bed.runtime.start(spec).await.unwrap();
        println!("pid={}", container.pid());
        println!("learner={}", bed.folder.path().display());
        ended(&container).await;
    });
    ExitCode::FAILURE
}

async fn a_container_dies_with_the_process_that_started_it(bed: Bed) -> Outcome {
    let mut leaver = Command::new(std::env::current_exe().unwrap())
        .arg("leaver")
        .arg(bed.folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(leaver.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let said = format!("{}\n{}\n", lines.next().unwrap(), lines.next().unwrap());
    let pid: i32 = value(&said, "pid").parse().unwrap();
    let groups = groups_of(pid);
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    leaver.kill().unwrap();
    leaver.wait().unwrap();
    let ended = ends(pid.unsigned_abs(), Duration::from_secs(5));
    assert!(ended, "container {pid} outlives its runtime");
    // Its traces are what a sweep is for.
    let swept = bed.runtime.sweep().await.unwrap();
    assert_eq!(swept.len(), 1, "{swept:?}");
    assert!(
        groups.iter().all(|group| !Path::new(group).exists()),
        "{groups:?}"
    );
    std::fs::remove_dir_all(value(&said, "learner")).unwrap();
    Outcome::Passed
}

async fn what_an_earlier_run_left_is_ended_and_cleared(bed: Bed) -> Outcome {
    let container = bed.runtime.start(bed.spec(1, &["wait"])).await.unwrap();
    let groups = groups_of(container.pid());
    std::fs::create_dir(bed.folder.path().join("state/half-made")).unwrap();
    let later = Runtime::open(options(bed.folder.path().join("state"))).unwrap();
    let swept: Vec<_> = later
        .sweep()
        .await
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(swept, ["half-made", "learner-1"]);
    assert_eq!(ended(&container).await, Exit::Signal(9));
    assert!(
        groups.iter().all(|group| !Path::new(group).exists()),
        "{groups:?}"
    );
    assert!(
        later.sweep().await.unwrap().is_empty(),
        "the second time there is nothing"
    );
    Outcome::Passed
}

async fn a_container_that_talks_without_end_is_kept_in_its_last_words(bed: Bed) -> Outcome {
    let said = bed.run(&["chatter", "100000"]).await;
    assert!(
        said.ends_with("line=99999\n") && said.len() <= 4096,
        "{said}"
    );
    Outcome::Passed
}

async fn starting_takes_milliseconds(bed: Bed) -> Outcome {
    let mut times = Vec::new();
    for _ in 0..20 {
        let spec = bed.spec(1, &["wait"]);
        let begun = Instant::now();
        let container = bed.runtime.start(spec).await.unwrap();
        times.push(begun.elapsed());
        container.remove().await.unwrap();
    }
    times.sort();
    println!(
        "start of a container: median {:?}, slowest of 20 {:?}",
        times[10], times[19]
    );
    assert!(times[10] < Duration::from_millis(200), "{times:?}");
    Outcome::Passed
}
