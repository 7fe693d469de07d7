//! The adapter `Http`: `POST /v1/turn` to the agent, answered line by line.

use std::os::fd::AsFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carrel_core::turn::FailureCode;
use carrel_protocol::agent::{Line, TurnRequest};
use carrel_protocol::sidecar::Frame;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustix::net::Shutdown;
use tokio::time::{Instant, timeout, timeout_at};

use super::outcome::{Ended, Outcome, ReplyPath};
use super::pace::Pace;
use crate::attempt::Attempt;
use crate::awake::Awake;
use crate::upstream::{self, Whole};

/// The most bytes of a line.
const LINE_BYTES: usize = 1 << 20;
/// The most bytes of an answer, as they come: text may be written six times as long as it is.
const ANSWER_BYTES: usize = 32 << 20;
/// The most files of a reply.
const FILES: usize = 16;
/// How long an agent that is told to stop may take to settle.
const SETTLE_WITHIN: Duration = Duration::from_millis(500);
/// How long after its answer broke off an agent's death is waited for.
const DEATH_WITHIN: Duration = Duration::from_millis(500);

/// Runs a turn.
pub(super) async fn run(awake: &Awake, attempt: &Attempt, order: &TurnRequest) -> Outcome {
    let stream = match awake.link.dial(awake.ports.agent).await {
        Ok(stream) => stream,
        Err(error) => return broken_off(awake, &error.to_string()).await,
    };
    // To close our half of the connection while its answer is still read.
    let Ok(half) = stream.as_fd().try_clone_to_owned() else {
        return Outcome::Died {
            by_agent: false,
            reason: "out of descriptors".to_owned(),
        };
    };
    let body = serde_json::to_vec(order).unwrap_or_default();
    let request = Request::post("/v1/turn")
        .header("host", "127.0.0.1")
        .header("content-type", "application/json")
        .header("accept", "application/x-ndjson")
        .body(Whole::from(Bytes::from(body)));
    let Ok(request) = request else {
        return Outcome::Died {
            by_agent: false,
            reason: "no request could be made".to_owned(),
        };
    };
    let answer = upstream::exchange(stream, request, &awake.pod.tasks);
    let stopped = attempt.stop.cancelled();
    let answer = tokio::select! {
        answer = answer => answer,
        () = stopped => return Outcome::Ended(Ended { stopped: true, files: Vec::new() }),
    };
    let answer = match answer {
        Ok(answer) if answer.status() == http::StatusCode::OK => answer,
        Ok(answer) => return Outcome::fault("the agent answered", &answer.status()),
        Err(error) => return broken_off(awake, &upstream::chain(&error)).await,
    };
    let mut lines = Lines {
        body: answer.into_body(),
        buffer: BytesMut::new(),
        heard: 0,
        pace: Pace::new(),
    };
    let mut ended = Ended::default();
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = attempt.stop.cancelled() => break,
            // What it has said is read to its end; what others of its processes hold open is not waited for.
            _ = awake.agent_ended() => match timeout(DEATH_WITHIN, lines.next()).await {
                Ok(line) => line,
                Err(_) => return broken_off(awake, "").await,
            },
        };
        match hear(line, attempt, &mut ended) {
            Heard::More => {}
            Heard::Last(outcome) => return outcome,
            Heard::Nothing(why) => return broken_off(awake, &why).await,
        }
    }
    // The caller going away is a stop; whoever notices may say and write its last.
    let _ = rustix::net::shutdown(half, Shutdown::Write);
    let until = Instant::now() + SETTLE_WITHIN;
    while let Ok(line) = timeout_at(until, lines.next()).await {
        match hear(line, attempt, &mut ended) {
            Heard::More => {}
            Heard::Last(_) | Heard::Nothing(_) => break,
        }
    }
    Outcome::Ended(Ended {
        stopped: true,
        ..ended
    })
}

async fn broken_off(awake: &Awake, why: &str) -> Outcome {
    tracing::debug!(why, "the agent's answer broke off");
    let end = timeout(DEATH_WITHIN, awake.agent_ended()).await.ok();
    Outcome::broken_off(end, &awake.log)
}

enum Heard {
    More,
    Last(Outcome),
    Nothing(String),
}

fn hear(line: Result<Option<Bytes>, Fault>, attempt: &Attempt, ended: &mut Ended) -> Heard {
    let line = match line {
        Ok(Some(line)) => line,
        Ok(None) => return Heard::Nothing("it ended without its last line".to_owned()),
        Err(Fault::Broken(why)) => return Heard::Nothing(why),
        Err(Fault::TooLong) => {
            return Heard::Last(Outcome::too_much(crate::attempt::TooMuch));
        }
    };
    let line = match serde_json::from_slice::<Line>(&line) {
        Ok(line) => line,
        // The agent's words are the learner's: not into logs.
        Err(error) => {
            let at = format!("column {}", error.column());
            return Heard::Last(Outcome::fault(
                "a line of the agent's answer is not understood",
                &at,
            ));
        }
    };
    let said = match line {
        Line::Text { text } => attempt.say(&text),
        Line::Status { text } => attempt.mark(Frame::Status { text }),
        Line::Tool {
            id,
            name,
            status,
            summary,
        } => attempt.mark(Frame::Tool {
            id,
            name,
            status,
            summary,
        }),
        Line::File { .. } if ended.files.len() >= FILES => Err(crate::attempt::TooMuch),
        Line::File {
            name,
            media_type,
            path,
        } => {
            ended.files.push(ReplyPath {
                name,
                media_type,
                path,
            });
            Ok(())
        }
        Line::Done => return Heard::Last(Outcome::Ended(std::mem::take(ended))),
        Line::Error {
            code,
            message,
            retryable,
            reason,
        } => {
            return Heard::Last(Outcome::Failed {
                code: known_code(&code),
                detail: message.chars().take(2000).collect(),
                retryable,
                reason: told_by_agent(&code, &reason),
            });
        }
    };
    match said {
        Ok(()) => Heard::More,
        Err(too_much) => Heard::Last(Outcome::too_much(too_much)),
    }
}

/// What the operator is told: as much of the agent's own words as fits a line.
fn told_by_agent(code: &str, reason: &str) -> String {
    let words = [code, reason].map(|text| text.chars().take(500).collect::<String>());
    let [code, reason] = words.map(|text| text.escape_debug().to_string());
    let said = format!("the agent's error line: {code}");
    if reason.is_empty() {
        said
    } else {
        format!("{said}: {reason}")
    }
}

/// An agent may name the two causes that are not its own.
fn known_code(code: &str) -> FailureCode {
    [FailureCode::BudgetExhausted, FailureCode::ModelUnavailable]
        .into_iter()
        .find(|known| known.to_string() == code)
        .unwrap_or(FailureCode::AgentFailed)
}

enum Fault {
    Broken(String),
    TooLong,
}

/// The lines of a body.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    heard: usize,
    pace: Pace,
}

impl Lines {
    /// The next line that is not empty; `None` at the end. Dropping it loses nothing.
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1).freeze();
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            if self.buffer.len() > LINE_BYTES || self.heard > ANSWER_BYTES {
                return Err(Fault::TooLong);
            }
            self.pace.ready().await;
            match self.body.frame().await {
                None if self.buffer.trim_ascii().is_empty() => return Ok(None),
                None => return Ok(Some(self.buffer.split().freeze())),
                Some(Err(error)) => return Err(Fault::Broken(upstream::chain(&error))),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.heard += data.len();
                        self.pace.read(data.len());
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_told_one_bounded_line_of_the_agents_words() {
        assert_eq!(told_by_agent("odd", ""), "the agent's error line: odd");
        let told = told_by_agent("busy\n", &"x\ny".repeat(400));
        assert!(
            told.starts_with("the agent's error line: busy\\n: x\\nyx"),
            "{told}"
        );
        assert!(!told.contains('\n') && told.len() < 1_200, "{told}");
    }
}
