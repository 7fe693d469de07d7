//! The figures of `docs/BENCHMARKS.md`, measured on this machine against the executable as it ships.

#![expect(clippy::print_stdout, reason = "figures are for people to read")]

use std::fs;

fn main() -> anyhow::Result<()> {
    println!("machine: {}", machine()?);
    Ok(())
}

/// Processor, cores and memory, without which a figure means nothing.
fn machine() -> anyhow::Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let model = field(&processors, "model name").unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism()?;
    let total = field(&memory, "MemTotal").unwrap_or("unknown memory");
    Ok(format!("{model}, {cores} cores, {total}"))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}
