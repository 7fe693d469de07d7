//! Processor time of this machine: all of it, and by program.

#![expect(clippy::cast_precision_loss, reason = "ticks of a measurement are few")]

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context as _;

/// Ticks a second, in which the kernel tells times (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Programs of which less than this is spent are not named, in milliseconds.
const NAMED_FROM: f64 = 0.5;

/// Processor time, in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Spent {
    all: f64,
    by_program: BTreeMap<String, f64>,
}

impl Spent {
    /// Since the machine started.
    pub(super) fn until_now() -> anyhow::Result<Self> {
        let mut by_program = BTreeMap::new();
        for process in std::fs::read_dir("/proc")? {
            // One that has ended meanwhile, or no process.
            let Ok(text) = std::fs::read_to_string(process?.path().join("stat")) else {
                continue;
            };
            if let Some((program, ticks)) = of_process(&text) {
                *by_program.entry(program).or_default() += milliseconds(ticks);
            }
        }
        let text = std::fs::read_to_string("/proc/stat")?;
        Ok(Self {
            all: milliseconds(of_machine(&text).context("a line of all processors")?),
            by_program,
        })
    }

    /// What was spent since then.
    pub(super) fn since(&self) -> anyhow::Result<Self> {
        let mut spent = Self::until_now()?;
        spent.all -= self.all;
        for (program, spent) in &mut spent.by_program {
            *spent -= self.by_program.get(program).copied().unwrap_or_default();
        }
        Ok(spent)
    }

    /// The share of each of so many.
    pub(super) fn each(mut self, count: usize) -> Self {
        self.all /= count as f64;
        self.by_program
            .values_mut()
            .for_each(|spent| *spent /= count as f64);
        self
    }

    /// By everybody.
    pub(super) fn all(&self) -> f64 {
        self.all
    }

    /// By the processes of a program.
    pub(super) fn by(&self, program: &str) -> f64 {
        self.by_program.get(program).copied().unwrap_or_default()
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.0} ms", self.all)?;
        let mut programs: Vec<_> = self.by_program.iter().collect();
        programs.retain(|(_, spent)| **spent >= NAMED_FROM);
        programs.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        for (place, (program, spent)) in programs.into_iter().enumerate() {
            let before = if place == 0 { " (" } else { ", " };
            write!(formatter, "{before}{program} {spent:.1}")?;
        }
        formatter.write_str(")")
    }
}

fn milliseconds(ticks: u64) -> f64 {
    ticks as f64 * 1e3 / TICKS
}

/// All but idle and iowait (`proc_stat(5)`).
fn of_machine(text: &str) -> Option<u64> {
    let line = text.lines().next()?;
    let spent = line.split_whitespace().skip(1).take(8);
    let spent: Vec<u64> = spent.filter_map(|word| word.parse().ok()).collect();
    Some(spent.iter().sum::<u64>() - spent.get(3)? - spent.get(4)?)
}

/// A process's program, and its time in user and kernel mode (`proc_pid_stat(5)`).
fn of_process(text: &str) -> Option<(String, u64)> {
    let (before, after) = text.rsplit_once(')')?;
    let program = before.split_once('(')?.1;
    let mut fields = after.split_whitespace().skip(11);
    let (user, kernel): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((program.to_owned(), user + kernel))
}
