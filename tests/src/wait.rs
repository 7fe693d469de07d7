//! Waiting for a condition, with an end.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::machine;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(4);
/// By then a program has ended, or said what it has to say.
const PROGRAM_WITHIN: Duration = Duration::from_mins(2);

/// Looks until there is an answer.
///
/// # Errors
/// After `within`, saying what was waited for.
pub async fn eventually<T, F>(
    what: &str,
    within: Duration,
    look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    eventually_every(PAUSE, what, within, look).await
}

/// The same with another pause between two looks: where to look costs what is measured meanwhile.
///
/// # Errors
/// After `within`, saying what was waited for.
pub async fn eventually_every<T, F>(
    pause: Duration,
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let began = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        anyhow::ensure!(began.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(pause).await;
    }
}

/// What a program says and how it ends.
///
/// # Errors
/// When it does not end within [`PROGRAM_WITHIN`]: then it is killed.
pub fn output(command: &mut Command) -> anyhow::Result<Output> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (pid, (end, ended)) = (child.id(), mpsc::channel());
    // Nobody may wait for it any more.
    thread::spawn(move || drop(end.send(child.wait_with_output())));
    let output = ended.recv_timeout(PROGRAM_WITHIN);
    if output.is_err() {
        machine::kill(pid);
    }
    Ok(output.with_context(|| format!("{command:?} does not end"))??)
}

/// The lines that a program writes, up to one that `is_last`.
///
/// # Errors
/// When that does not come within [`PROGRAM_WITHIN`].
pub fn lines(
    from: impl Read + Send + 'static,
    is_last: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<String>> {
    let (write, written) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(from).lines().map_while(Result::ok);
        // Until nobody reads them any more.
        let _ = lines.map(|line| write.send(line)).find(Result::is_err);
    });
    let (began, mut lines) = (Instant::now(), Vec::new());
    while !lines.last().is_some_and(|line: &String| is_last(line)) {
        let left = PROGRAM_WITHIN.saturating_sub(began.elapsed());
        let line = written.recv_timeout(left);
        lines.push(line.with_context(|| format!("no last line after {lines:#?}"))?);
    }
    Ok(lines)
}
