//! Learners who go on talking, whatever happens: each repeats a message with its key until it is accepted, and reads one stream
//! of all its events, which it resumes by the last one's id at whichever gateway answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use carrel_tests::{Event, Place};
use rand::Rng as _;
use rand::rngs::StdRng;
use reqwest::StatusCode;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::school::{School, is_tight};

/// A client that is not answered within this says it again.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);
/// A stream shows a sign of life every 15 s; a client that sees no event for so long comes back.
const SILENCE: Duration = Duration::from_secs(16);
const PAUSE: Duration = Duration::from_millis(120);
/// After so many of its events a client comes back to its stream, at whichever gateway.
const WANDERS: f64 = 0.03;
/// So many messages wait for their outcome at most.
const AHEAD: usize = 3;

/// A message as its sender knows it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) text: String,
    /// Its turn, as it was accepted.
    pub(crate) turn: String,
    /// When it was.
    pub(crate) at: Instant,
}

/// What a learner said and heard.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    pub(crate) learner: &'static str,
    /// In the order in which they were accepted.
    pub(crate) sent: Vec<Sent>,
    /// Everything that its stream told.
    pub(crate) heard: Vec<Event>,
    /// On which of its streams, each.
    pub(crate) heard_on: Vec<usize>,
    /// How often its stream was opened.
    pub(crate) streams: usize,
    /// How often a message was repeated.
    pub(crate) repeated: usize,
    /// When it was told that something is away, and what.
    pub(crate) turned_away: Vec<(Instant, String)>,
    /// What it was told and should not have been.
    pub(crate) surprises: Vec<String>,
}

impl Talk {
    pub(crate) fn of(learner: &'static str) -> Self {
        Self {
            learner,
            ..Self::default()
        }
    }

    /// How many of its calls were refused because its budget was spent.
    pub(crate) fn refused(&self) -> usize {
        let reply = |event: &&Event| {
            event.data["reply"]["text"]
                .as_str()
                .is_some_and(|text| text.ends_with(" 429"))
        };
        self.heard.iter().filter(reply).count()
    }

    /// All that it heard, a line each, with the number of the stream on which it came.
    pub(crate) fn report(&self) -> String {
        let line = |(stream, event): (&usize, &Event)| {
            format!(
                "{} {stream} {} {} {}\n",
                self.learner, event.place, event.name, event.data
            )
        };
        self.heard_on.iter().zip(&self.heard).map(line).collect()
    }

    /// Whether something is in its workspace.
    fn has_kept(&self) -> bool {
        let reply = |event: &Event| {
            event.data["reply"]["text"]
                .as_str()
                .is_some_and(|text| text.contains(" kept "))
        };
        self.heard.iter().any(reply)
    }

    pub(crate) fn has_outcome(&self, turn: &str) -> bool {
        let mut heard = self.heard.iter();
        heard.any(|event| event.is_outcome() && event.text("turn_id") == turn)
    }

    /// What has no outcome yet.
    pub(crate) fn open(&self) -> Vec<&Sent> {
        let open = |sent: &&Sent| !self.has_outcome(&sent.turn);
        self.sent.iter().filter(open).collect()
    }
}

/// What a learner says next.
fn message(talk: &Talk, number: usize, lots: &mut StdRng) -> String {
    let learner = talk.learner;
    if !talk.has_kept() {
        return "keep 1500".to_owned();
    }
    // Those with little to spend spend it.
    let among = if is_tight(learner) { 0..60 } else { 25..100 };
    match lots.random_range(among) {
        0..55 => format!("pay {learner} {number}"),
        55..75 => format!("slow {}", lots.random_range(10..120)),
        75..92 => "count".to_owned(),
        92..95 => "keep 1500".to_owned(),
        95..98 => "exit".to_owned(),
        _ => "die".to_owned(),
    }
}

/// Talks until told to stop, says one thing more, and waits until everything that was accepted has its outcome, or `give_up`.
pub(crate) async fn talk(
    school: &School,
    talk: &mut Talk,
    mut lots: StdRng,
    stop: &CancellationToken,
    give_up: &CancellationToken,
) {
    let mut number = talk.sent.len();
    let mut due = VecDeque::new();
    let mut stream = None;
    let mut was_last = false;
    loop {
        if give_up.is_cancelled() || (was_last && due.is_empty()) {
            return;
        }
        let stopped = stop.is_cancelled();
        let wants_more =
            stopped || (due.len() < AHEAD && (due.is_empty() || lots.random_bool(0.3)));
        if !was_last && wants_more {
            was_last = stopped;
            let text = message(talk, number, &mut lots);
            let key = format!("{}-{number}", talk.learner);
            let turn = say(school, talk, &text, &key, &mut lots, give_up).await;
            let Some(turn) = turn else { return };
            talk.sent.push(Sent {
                text,
                turn: turn.clone(),
                at: Instant::now(),
            });
            due.push_back(turn);
            number += 1;
            tokio::time::sleep(PAUSE * lots.random_range(0..4)).await;
            continue;
        }
        listen(school, talk, &mut stream, &mut lots).await;
        due.retain(|turn| !talk.has_outcome(turn));
    }
}

/// Says a message until it is accepted: its turn.
async fn say(
    school: &School,
    talk: &mut Talk,
    text: &str,
    key: &str,
    lots: &mut StdRng,
    give_up: &CancellationToken,
) -> Option<String> {
    while !give_up.is_cancelled() {
        let api = school.client(lots.random_range(0..2)).ok()?;
        let answer = timeout(ANSWERED_WITHIN, api.send(talk.learner, text, key)).await;
        if let Ok(Ok((status, body))) = answer {
            if status == StatusCode::ACCEPTED {
                return body["turn_id"].as_str().map(str::to_owned);
            }
            let is_expected = [
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::TOO_MANY_REQUESTS,
            ];
            if status == StatusCode::SERVICE_UNAVAILABLE {
                let told = format!("'{text}' was answered with {status}: {body}");
                talk.turned_away.push((Instant::now(), told));
            }
            if !is_expected.contains(&status) {
                talk.surprises
                    .push(format!("'{text}' was answered with {status}: {body}"));
            }
        }
        talk.repeated += 1;
        tokio::time::sleep(PAUSE * lots.random_range(1..5)).await;
    }
    None
}

/// Reads one event, from a stream that is opened when there is none.
async fn listen(
    school: &School,
    talk: &mut Talk,
    stream: &mut Option<carrel_tests::Stream>,
    lots: &mut StdRng,
) {
    let Some(open) = stream else {
        let last: Option<Place> = talk.heard.last().map(|event| event.place);
        let Ok(api) = school.client(lots.random_range(0..2)) else {
            return;
        };
        let opened = timeout(ANSWERED_WITHIN, api.events(talk.learner, last)).await;
        if let Ok(Ok(opened)) = opened {
            talk.streams += 1;
            *stream = Some(opened);
        } else {
            tokio::time::sleep(PAUSE).await;
        }
        return;
    };
    match timeout(SILENCE, open.next()).await {
        Ok(Ok(Some(event))) => {
            talk.heard.push(event);
            talk.heard_on.push(talk.streams);
            if lots.random_bool(WANDERS) {
                *stream = None;
            }
        }
        Ok(Err(error)) => {
            talk.surprises.push(format!("its stream: {error:#}"));
            *stream = None;
        }
        Ok(Ok(None)) | Err(_) => *stream = None,
    }
}
