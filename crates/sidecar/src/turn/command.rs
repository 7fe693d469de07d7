//! The adapter `Command`: one process a turn, the text on its standard input, the reply on its standard output.

use std::os::fd::OwnedFd;
use std::time::Duration;

use carrel_protocol::agent::TurnRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::sleep;

use super::inbox;
use super::outcome::{Ended, Outcome};
use super::pace::Pace;
use crate::attempt::{Attempt, TooMuch};
use crate::awake::Awake;
use crate::link::Error;
use crate::shim::protocol::{End, Pipes};

/// How long a command that is told to stop may take.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// Runs a turn.
pub(super) async fn run(awake: &Awake, attempt: &Attempt, order: &TurnRequest) -> Outcome {
    let more = inbox::environment(awake.folder(), order);
    let started = awake.link.start(awake.wanted(Pipes::Talk, more)).await;
    let (pid, pipes) = match started {
        Ok(started) => started,
        Err(error @ Error::Refused(_)) => {
            return Outcome::fault("the agent cannot be started", &error);
        }
        Err(error) => return Outcome::lost(awake, &error),
    };
    let (input, output) = match open(awake, pipes) {
        Ok(pipes) => pipes,
        Err(error) => {
            return Outcome::Died {
                by_agent: false,
                reason: error.to_string(),
            };
        }
    };
    let text = order.message.text.clone();
    awake.pod.tasks.spawn(async move {
        let mut input = input;
        // A command need not read it.
        let _ = input.write_all(text.as_bytes()).await;
    });
    let ending = async {
        let stopped = tokio::select! {
            end = awake.link.ended(pid) => return (false, end),
            () = attempt.stop.cancelled() => true,
        };
        let _ = awake.link.terminate().await;
        let settled = tokio::time::timeout(SETTLE_WITHIN, awake.link.ended(pid)).await;
        (stopped, settled.unwrap_or(End::Signal(9)))
    };
    let ending = async {
        let ending = ending.await;
        // What it left running holds the output open, and may not go on behind the snapshot.
        awake.link.kill_all().await.map(|()| ending)
    };
    let (heard, ending) = match tokio::try_join!(
        async { listen(output, attempt).await.map_err(Outcome::too_much) },
        async { ending.await.map_err(|error| Outcome::lost(awake, &error)) },
    ) {
        Ok(both) => both,
        Err(outcome) => return outcome,
    };
    let () = heard;
    match ending {
        (true, _) => Outcome::Ended(Ended {
            stopped: true,
            files: Vec::new(),
        }),
        (false, End::Code(0)) => Outcome::Ended(Ended::default()),
        (false, end) => Outcome::broken_off(Some(end), &awake.log),
    }
}

fn open(
    awake: &Awake,
    [input, output, log]: [OwnedFd; 3],
) -> Result<(pipe::Sender, pipe::Receiver), Error> {
    awake.log.follow(log, &awake.pod.tasks)?;
    let input = pipe::Sender::from_owned_fd(input).map_err(Error::Socket)?;
    let output = pipe::Receiver::from_owned_fd(output).map_err(Error::Socket)?;
    Ok((input, output))
}

/// Says what comes, until the output ends. Bytes that are no UTF-8 become U+FFFD.
async fn listen(mut output: pipe::Receiver, attempt: &Attempt) -> Result<(), TooMuch> {
    let mut kept = Vec::with_capacity(16 * 1024);
    let mut pace = Pace::new();
    loop {
        pace.ready().await;
        let read = output.read_buf(&mut kept).await.unwrap_or(0);
        pace.read(read);
        let ended = read == 0;
        // A character may have come in part: the rest of it is awaited.
        let whole = if ended {
            kept.len()
        } else {
            whole_characters(&kept)
        };
        if whole > 0 {
            attempt.say(&String::from_utf8_lossy(&kept[..whole]))?;
            kept.drain(..whole);
        }
        if ended {
            return Ok(());
        }
        // Nobody reads faster than this; more comes in larger pieces.
        sleep(Duration::from_millis(1)).await;
    }
}

/// How many bytes do not end in the middle of a character.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => {
            // Wrong somewhere before the end: only a last, started character may still become whole.
            let start = bytes
                .iter()
                .rposition(|byte| *byte >= 0xC0)
                .unwrap_or(bytes.len());
            let unfinished = std::str::from_utf8(&bytes[start..])
                .is_err_and(|error| error.error_len().is_none());
            if unfinished { start } else { bytes.len() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::whole_characters;

    #[test]
    fn a_character_that_came_in_part_is_awaited() {
        assert_eq!(whole_characters("aä".as_bytes()), 3);
        assert_eq!(whole_characters(&"aä".as_bytes()[..2]), 1);
        assert_eq!(whole_characters(b"a\xFFb"), 3);
        assert_eq!(whole_characters(b"a\xFF\xE2\x82"), 2);
        assert_eq!(whole_characters(b""), 0);
    }
}
