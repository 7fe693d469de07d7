//! 2,000 learners asleep: what they cost while nobody writes.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use carrel_tests::figures::Figures;
use carrel_tests::machine::pods;

use crate::up;

const LEARNERS: usize = 2000;
/// How long is watched.
const WATCH: Duration = Duration::from_mins(1);

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let up = up("idle", LEARNERS).await?;
    // What the start itself does has ended by then.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (written, used) = (written(up.pid())?, ticks(up.pid())?);
    tokio::time::sleep(WATCH).await;
    let wrote = self::written(up.pid())? - written;
    let used = ticks(up.pid())? - used;
    let pods = pods(up.pid()).len();
    figures.held(
        "2,000 learners asleep, watched for 60 s",
        &format!(
            "{pods} pods, {wrote} bytes written, {} ms of processor time",
            used * 10
        ),
        "no process, no timer, no write",
        pods == 0 && wrote == 0,
    );
    Ok(())
}

/// `write_bytes` of `/proc/PID/io` (proc_pid_io(5)).
fn written(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("the kernel counts writes")?.parse()?)
}

/// Processor time in ticks of 10 ms: fields 14 and 15 of `/proc/PID/stat` (proc_pid_stat(5)).
pub(super) fn ticks(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").context("a process has a name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |place: usize| fields.get(place).and_then(|text| text.parse::<u64>().ok());
    Ok(field(11).context("user time")? + field(12).context("system time")?)
}
