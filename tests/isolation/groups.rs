//! What a container shares with its host: no namespace but that of the clock; and of the processor its part.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use carrel_tests::{Setup, Up, agent, machine, skip};
use serde_json::json;

use crate::shell;

fn namespaces_here() -> anyhow::Result<BTreeMap<String, String>> {
    fs::read_dir("/proc/self/ns")?
        .map(|entry| {
            let entry = entry?;
            let target = fs::read_link(entry.path())?;
            Ok((
                entry.file_name().to_string_lossy().into_owned(),
                target.to_string_lossy().into_owned(),
            ))
        })
        .collect()
}

#[tokio::test]
async fn every_namespace_of_an_agent_is_its_own() -> anyhow::Result<()> {
    let Some(up) = shell::up("every_namespace_of_an_agent", &["ada", "bob"]).await? else {
        return Ok(());
    };
    let script = "cd /proc/self/ns; for n in *; do echo $n $(readlink $n); done";
    let mut seen = vec![namespaces_here()?];
    for learner in ["ada", "bob"] {
        let said = up.api.reply(learner, script).await?;
        let pairs = said.lines().filter_map(|line| line.split_once(' '));
        seen.push(
            pairs
                .map(|(name, target)| (name.to_owned(), target.to_owned()))
                .collect(),
        );
    }
    let names = [
        "cgroup",
        "ipc",
        "mnt",
        "net",
        "pid",
        "pid_for_children",
        "user",
        "uts",
    ];
    for name in names {
        ensure!(
            seen[0].contains_key(name),
            "this kernel has no {name}: {:?}",
            seen[0]
        );
    }
    for (name, here) in &seen[0] {
        // Clocks are read only: setting them takes rights that no agent has.
        if name.starts_with("time") {
            continue;
        }
        let [ada, bob] = [1, 2].map(|place| seen[place].get(name));
        ensure!(ada.is_some() && bob.is_some(), "{name}: {seen:?}");
        ensure!(
            ada != Some(here) && bob != Some(here) && ada != bob,
            "{name} is shared: {seen:?}"
        );
    }
    Ok(())
}

/// Processor time for each time that passes, in thousandths, as a control group has it.
fn share(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(both) => {
            let (quota, period) = both.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    Some(number(&quota)? * 1000 / number(&period)?)
}

#[tokio::test]
async fn a_containers_group_has_its_class_s_part_of_the_processor() -> anyhow::Result<()> {
    let test = "a_containers_part_of_the_processor";
    let resources = json!({"cpu": "700m", "memory": "128Mi", "pids": 64});
    let setup = Setup {
        documents: vec![
            shell::class("slow", &json!({"resources": resources})),
            agent::learner("ada", "slow"),
        ],
        ..Setup::default()
    };
    let Some(up) = Up::start(test, setup).await? else {
        return Ok(());
    };
    if up.lacks("cpu") {
        return skip(test, "cpu", "this user cannot limit processor time here");
    }
    up.api.reply("ada", "echo awake").await?;
    let pod = machine::pods(up.pid()).pop().context("its pod")?;
    let groups = machine::control_groups(&[pod]);
    let shares: Vec<_> = groups.iter().filter_map(|group| share(group)).collect();
    ensure!(shares == [700], "{shares:?} in {groups:?}");
    Ok(())
}
