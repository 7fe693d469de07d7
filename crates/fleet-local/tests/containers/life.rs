//! How containers begin, end, and leave nothing behind.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use carrel_fleet_local::container::{ContainerSpec, Exit, Options, Runtime};

use crate::fixture::{Bed, Outcome, ended, options, value};

crate::tests![
    a_container_that_ended_leaves_nothing_on_the_host,
    a_container_that_cannot_start_says_why_and_leaves_nothing,
    a_maker_that_stands_still_is_killed_and_leaves_nothing,
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
    Outcome::Passed
}

async fn a_maker_that_stands_still_is_killed_and_leaves_nothing(bed: Bed) -> Outcome {
    let marker = format!("{}.7", 7_000_000 + std::process::id());
    let script = bed.folder.path().join("stands-still");
    std::fs::write(&script, format!("#!/bin/sh\nexec sleep {marker}\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let runtime = Runtime::open(Options {
        executable: script,
        made_within: Duration::from_secs(1),
        ..options(bed.folder.path().join("slow"))
    });
    let runtime = runtime.unwrap();
    let spec = bed.spec(1, &["wait"]);
    let given_up = tokio::time::timeout(Duration::from_secs(20), runtime.start(spec));
    let given_up = given_up.await.unwrap().unwrap_err().to_string();
    assert!(given_up.contains("none within 1s"), "{given_up}");
    assert_eq!(processes_named(&marker), 0);
    let left = std::fs::read_dir(bed.folder.path().join("slow")).unwrap();
    assert_eq!(left.count(), 0);
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
    while processes_named(&marker) < 2 {
        tokio::task::yield_now().await;
    }
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
    let deadline = Instant::now() + Duration::from_secs(5);
    let alive = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !status.is_empty() && !status.contains(") Z ")
    };
    while alive() {
        assert!(
            Instant::now() < deadline,
            "container {pid} outlives its runtime"
        );
        tokio::task::yield_now().await;
    }
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
