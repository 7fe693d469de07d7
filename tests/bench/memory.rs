//! What Carrel costs at rest: start, memory of the server, private memory of one awake learner's sidecar and shim.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::figures::Figures;
use carrel_tests::machine::pods;

use crate::{RUNS, median, up};

/// For memory to be given back after a turn.
const REST: Duration = Duration::from_secs(5);

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let (mut ready, mut idle, mut pod) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let began = Instant::now();
        let up = up("memory", 1).await?;
        ready.push(began.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(REST).await;
        idle.push(resident(up.pid())?);
        up.api.reply("l0", "Hello!").await?;
        tokio::time::sleep(REST).await;
        let found = pods(up.pid());
        let one = found.first().context("the learner is awake")?;
        let shim = one.shim.context("its shim runs")?;
        pod.push(private(one.sidecar)? + private(shim)?);
    }
    figures.at_most("`carrel up` ready", "ms", &[(median(&mut ready)?, 1000.0)]);
    figures.at_most(
        "idle memory of `carrel up` (resident set)",
        "MiB",
        &[(median(&mut idle)?, 60.0)],
    );
    figures.at_most(
        "private memory (USS) of sidecar and shim of an awake learner, at rest",
        "MiB",
        &[(median(&mut pod)?, 10.0)],
    );
    Ok(())
}

pub(super) fn resident(pid: u32) -> anyhow::Result<f64> {
    sum(pid, &["Rss:"])
}

fn private(pid: u32) -> anyhow::Result<f64> {
    sum(pid, &["Private_Clean:", "Private_Dirty:"])
}

/// Fields of `/proc/PID/smaps_rollup` (proc_pid_smaps(5)), in MiB.
fn sum(pid: u32, fields: &[&str]) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let mut kibibytes = 0.0;
    for line in text
        .lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)))
    {
        let value = line
            .split_whitespace()
            .nth(1)
            .context("a field has a value")?;
        kibibytes += value.parse::<f64>()?;
    }
    Ok(kibibytes / 1024.0)
}
