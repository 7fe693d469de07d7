//! Runs one test program as cargo would, bounded in time, with nothing left running after it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};

use super::build::Artifact;

/// How often it is looked whether the program has ended while something it started keeps its output open.
const GLANCE: Duration = Duration::from_secs(1);

/// What came of a run.
pub(super) struct Ran {
    /// What it said on both streams, in order.
    pub(super) output: String,
    /// It exited 0, in time.
    pub(super) ended_well: bool,
    /// The end in words: "exited with 101".
    pub(super) ending: String,
    pub(super) took: Duration,
}

/// What end-to-end tests are about.
pub(super) struct Product<'a> {
    /// The executable that they start.
    pub(super) carrel: &'a Path,
    /// The archive of the container image, where one could be made.
    pub(super) image: Option<&'a Path>,
}

/// Runs a test program, told so.
pub(super) fn run(
    test: &Artifact,
    words: &[&str],
    product: &Product<'_>,
    bound: Duration,
) -> anyhow::Result<Ran> {
    let mut command = Command::new(&test.executable);
    command
        // Output of tests that pass is wanted too: a skip says so there.
        .arg("--show-output")
        .args(words)
        .current_dir(&test.folder)
        .env("CARGO_MANIFEST_DIR", &test.folder)
        .env("CARREL_BIN", product.carrel)
        .envs(product.image.map(|image| ("CARREL_IMAGE", image)))
        .env("NO_COLOR", "1");
    run_command(command, bound).with_context(|| format!("running {}", test.executable.display()))
}

fn run_command(mut command: Command, bound: Duration) -> anyhow::Result<Ran> {
    let started = Instant::now();
    let (reader, writer) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let mut child = command.spawn()?;
    // The command holds the pipe's other end: without this the output never ends.
    drop(command);

    let (sender, lines) = channel();
    let reading = std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).into_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    let mut output = String::new();
    let status = listen(&mut child, &lines, &mut output, started + bound)?;
    end_group(&child);
    let status_at_end = child.wait()?;
    // Whatever was said before the end is still in the pipe; a stranger that holds it open is not waited for.
    while let Ok(line) = lines.recv_timeout(GLANCE) {
        output.push_str(&line);
    }
    drop(lines);
    if reading.is_finished() {
        let _ = reading.join();
    }
    Ok(Ran {
        output,
        ended_well: status.is_some_and(|status| status.success()),
        ending: match status {
            Some(_) => words(status_at_end),
            None => format!("was killed after {} s", bound.as_secs()),
        },
        took: started.elapsed(),
    })
}

/// Collects lines until the program ends; `None` if the deadline comes first.
fn listen(
    child: &mut Child,
    lines: &Receiver<String>,
    output: &mut String,
    deadline: Instant,
) -> anyhow::Result<Option<ExitStatus>> {
    loop {
        match lines.recv_timeout(GLANCE) {
            Ok(line) => output.push_str(&line),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    return Ok(Some(status));
                }
            }
            // Both streams are closed: it ends, or does nothing that anybody sees.
            Err(RecvTimeoutError::Disconnected) => return wait_until(child, deadline),
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

fn wait_until(child: &mut Child, deadline: Instant) -> anyhow::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Ends the program and all of its group. What made groups of its own dies with its parent.
fn end_group(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // Gone already is the usual case.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, bound: Duration) -> Ran {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run_command(command, bound).unwrap()
    }

    #[test]
    fn both_streams_are_kept_in_order_and_the_end_is_told() {
        let ran = shell(
            "echo one; echo two >&2; printf three; exit 7",
            Duration::from_mins(1),
        );
        assert_eq!(ran.output, "one\ntwo\nthree");
        assert!(!ran.ended_well);
        assert_eq!(ran.ending, "exited with 7");
        assert!(shell("exit 0", Duration::from_mins(1)).ended_well);
    }

    #[test]
    fn a_program_without_end_is_killed_and_what_it_said_is_kept() {
        let ran = shell("echo begun; exec tail -f /dev/null", Duration::from_secs(1));
        assert_eq!(ran.output, "begun\n");
        assert!(!ran.ended_well);
        assert_eq!(ran.ending, "was killed after 1 s");
    }

    #[test]
    fn what_a_program_leaves_behind_is_ended_and_not_waited_for() {
        let ran = shell("tail -f /dev/null & echo $!", Duration::from_mins(1));
        assert!(ran.ended_well, "{}", ran.ending);
        assert!(ran.took < Duration::from_secs(30), "{:?}", ran.took);
        let stat = format!("/proc/{}/stat", ran.output.trim());
        let lives = || {
            let stat = std::fs::read_to_string(&stat);
            // A zombie is dead: its new parent has not fetched it yet.
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while lives() {
            assert!(
                Instant::now() < deadline,
                "what was left behind still lives"
            );
            std::thread::yield_now();
        }
    }
}
